//! What comes and goes through host calls is the run's memory while the script has it, and no longer.

use super::{ALLOW_ALL, Host, JobId, queue};
use crate::script::fiber::ScriptEnd;

/// Calls that bring something or give something away. What they leave charged, or credit too much, adds up.
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
    r#"time::add(time::parse("2026-03-01", "Europe/Berlin"), #{ days: 1 })"#,
    r#"try { time::parse("soon") } catch {}"#,
    r#"time::format(time::now("Asia/Tokyo"), "%A")"#,
    "crypto::sha256(long)",
    "crypto::hex_decode(crypto::hex_encode(long))",
    "crypto::base64_encode(huge)",
    r#"try { crypto::base64_decode(long + "!") } catch {}"#,
    "random::shuffle([1, 2, long])",
    r#"regex::find_all("x{100}", long)"#,
    r#"regex::replace("x{100}", huge, "$0")"#,
    r#"try { regex::find("x(", long) } catch {}"#,
    r#"regex::captures("(?<all>x*)", huge)"#,
    "xlsx::format(#{ a: [#{ b: long, c: 1 }] })",
    "try { xlsx::format(#{ a: [[1, long, []]] }) } catch {}",
    "url::parse_query(url::query(#{ a: long }))",
    "url::decode(url::encode(huge))",
    r#"try { http::get("http://" + "127.0.0.2/") } catch {}"#,
    r#"try { sql::query("sales", "SELEC") } catch {}"#,
];

/// How many strings of 500 characters a run can hold after it has made `call` so many times.
fn room_after(host: &Host, call: &str, times: usize) -> usize {
    let text = format!(
        r#"const JOB = #{{ timeout: "60s", memory: "1MiB", allow: {ALLOW_ALL} }};
        fn run(job) {{
            let long = ""; long.pad(3000, 'x');
            let huge = ""; huge.pad(70000, 'x');
            file::save("a.txt", long);
            // The first call may leave something behind for good.
            {call};
            for i in 0..{times} {{ {call}; }}
            let held = [];
            loop {{ let s = ""; s.pad(500, 'y'); held.push(s); progress(0, `${{held.len()}}`); }}
        }}"#
    );
    let ran = host.run_script(JobId::new(&queue()), &text);
    assert_eq!(ran.failure().0, "memory", "{call}: {:?}", ran.end);
    let last = ran.ports.seen().progress.last().map(|(_, held)| held.clone());
    last.unwrap().parse().unwrap()
}

#[test]
fn a_call_leaves_the_account_as_it_was() {
    let host = Host::new();
    for call in CALLS {
        let (before, after) = (room_after(&host, call, 0), room_after(&host, call, 500));
        // 100 bytes a call would be 90 strings.
        assert!(before.abs_diff(after) < 40, "{call}: {before} strings, then {after}");
    }
}

#[test]
fn what_a_call_brings_is_the_runs_memory() {
    let host = Host::new();
    let bring = |call: &str| {
        let text = format!(
            "const JOB = #{{ timeout: \"60s\", memory: \"4MiB\", allow: {ALLOW_ALL} }};
             fn run(job) {{ let t = \"\"; t.pad(1000000, 'x'); file::save(\"a.txt\", t);
             let held = []; loop {{ held.push({call}); progress(0, `${{held.len()}}`); }} }}"
        );
        let ran = host.run_script(JobId::new(&queue()), &text);
        assert!(matches!(ran.end, ScriptEnd::Failed(_)), "{call}: {:?}", ran.end);
        let last = ran.ports.seen().progress.last().map_or(0, |(_, held)| held.parse::<usize>().unwrap());
        assert!(last <= 3, "{call}: {last} megabytes fit into 4 MiB beside the first");
    };
    bring("file::read(\"a.txt\")");
    bring(r#"sql::query("sales", "SELECT zeroblob(1000000) AS b")"#);
    bring(r#"template::render("hello.html", #{ name: t, items: [] })"#);
    bring("json::parse(json::format([t]))");
    bring("csv::parse(\"a\\n\" + t)");
    bring("crypto::base64_encode(t)");
    bring("regex::replace(\"y\", t, \"\")");
    bring("regex::find_all(\"x{1000}\", t)");
    bring("url::decode(t)");
    bring("random::bytes(1000000)");
}

#[test]
fn probe() {
    let host = Host::new();
    for call in CALLS {
        println!("{:?} {call}", [0, 1, 100, 300, 600, 3000].map(|n| room_after(&host, call, n)));
    }
}
