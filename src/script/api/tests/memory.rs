//! What comes and goes through host calls is the run's memory while the script has it, and no longer.

use super::Host;
use crate::script::fiber::ScriptEnd;

/// Calls, each made many times by one run with little memory. What they leave charged, or credit too much, adds up.
const CALLS: &[&str] = &[
    r#"sql::query("sales", "SELECT id, item, price, ? AS long FROM sale", [long])"#,
    r#"sql::execute("sales", "UPDATE sale SET item = ? WHERE id = 1", [long])"#,
    r#"file::save("a.txt", long)"#,
    r#"file::read("a.txt")"#,
    "file::list()",
    r#"template::render("hello.html", #{ name: long, items: [] })"#,
    "csv::parse(csv::format([#{ a: long }]))",
    "json::parse(json::format(#{ a: long }))",
    "log::info(long, #{ a: 1 })",
    "progress(1, long)",
    r#"try { http::get("http://127.0.0.2/") } catch {}"#,
    r#"try { sql::query("sales", "SELEC") } catch {}"#,
];

#[test]
fn calls_leave_the_account_as_it_was() {
    let host = Host::new();
    for call in CALLS {
        // 200 times 100 KB against 64 MiB would not do; the account's peak tells.
        let body = format!(
            r#"let long = ""; long.pad(100000, 'x'); file::save("a.txt", long);
               {call}; for i in 0..300 {{ {call}; }} 1"#
        );
        let ran = host.run(&body);
        assert!(matches!(ran.end, ScriptEnd::Returned(_)), "{call}: {:?}", ran.end);
    }
}
