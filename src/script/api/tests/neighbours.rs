//! A host call of one run does not keep the thread from the others, and ends with its run.

use super::{ALLOW_ALL, Host, JobId, queue};

fn script(timeout: &str, body: &str) -> String {
    format!(
        "const JOB = #{{ timeout: \"{timeout}\", memory: \"1GiB\", allow: {ALLOW_ALL} }};\nfn run(job) {{ {body} }}"
    )
}

/// Calls that work for a long time on a large value.
const LONG: &[&str] = &[
    "json::parse(text)",
    "json::format(rows)",
    "csv::format(rows)",
    "csv::parse(lines)",
    r#"sql::query("sales", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000) SELECT i FROM n")"#,
    r#"template::render("hello.html", #{ name: "x", items: rows })"#,
    "for i in 0..40 { crypto::sha512(text) }",
    "for i in 0..10 { crypto::hex_decode(crypto::hex_encode(text)) }",
    r#"regex::find_all("[a-z]", text)"#,
    r#"regex::replace("a", text, "$0$0")"#,
    r#"regex::split(",", text)"#,
    "url::decode(url::encode(text))",
    "url::parse_query(url::query(#{ a: rows.map(|row| row[1]) }))",
    "xlsx::format(#{ a: rows })",
    "random::shuffle(rows)",
];

#[test]
fn a_long_call_gives_up_the_thread() {
    let host = Host::new();
    let prepare =
        r#"let rows = []; rows.pad(150000, ["a", 1]); let text = json::format(rows); let lines = csv::format(rows);"#;
    let ticking = host.start(JobId::new(&queue()), &script("10m", r#"loop { sleep("1ms"); progress(0, "tick"); }"#));
    let ticks = || ticking.ports.seen().progress.len();
    for call in LONG {
        let body = format!(r#"{prepare} progress(0, "begun"); {call}; progress(0, "done"); 1"#);
        let long = host.start(JobId::new(&queue()), &script("5m", &body));
        let reached = |point: usize| {
            loop {
                let ended = long.report.try_recv().is_ok();
                if long.ports.seen().progress.len() >= point {
                    return ticks();
                }
                assert!(!ended, "{call}: ended too early");
                std::thread::yield_now();
            }
        };
        let (before, after) = (reached(1), reached(2));
        // A call that kept the thread would leave none, or the few of the time that it takes to look.
        assert!(after - before >= 8, "{call}: {} ticks", after - before);
    }
}

#[test]
fn a_call_ends_with_its_run() {
    let host = Host::new();
    for call in [
        r#"sql::query("sales", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n")"#,
        r#"sleep("1h")"#,
        // Each match searches to the end of the text: hours.
        r#"let t = ""; t.pad(8000000, "a"); regex::find_all(".*[^a]|a", t)"#,
        r#"let t = ""; t.pad(8000000, "a"); regex::replace(".*[^a]|a", t, "$0")"#,
    ] {
        let body = format!(r#"try {{ {call}; }} catch {{ log::info("caught") }} log::info("after")"#);
        let ran = host.run_script(JobId::new(&queue()), &script("100ms", &body));
        assert_eq!(ran.failure().0, "timeout", "{call}");
        assert!(ran.ports.seen().logs.is_empty(), "{call}: it went on");
    }
    // The four connections are free again.
    for _ in 0..8 {
        host.run(r#"sql::query("sales", "SELECT 1 AS one")"#).value();
    }
}
