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
];

#[test]
fn a_long_call_gives_up_the_thread() {
    let host = Host::new();
    let prepare = r#"let rows = []; rows.pad(100000, ["a", 1]); let text = json::format(rows); let lines = csv::format(rows);
        file::save("ready", "");"#;
    for call in LONG {
        let long = host.start(JobId::new(&queue()), &script("60s", &format!("{prepare} {call}; 1")));
        while !long.ports.seen().files.contains_key("ready") {
            std::thread::yield_now();
        }
        // It needs the thread a dozen times, which it gets between slices of the other, not after its call.
        let body = r#"for i in 0..12 { sleep("1ms"); } 1"#;
        host.run_script(JobId::new(&queue()), &script("60s", body)).value();
        assert!(long.report.try_recv().is_err(), "{call}: it had the thread to itself, or it is no long call");
        assert_eq!(long.wait().value(), 1, "{call}");
    }
}

#[test]
fn a_call_ends_with_its_run() {
    let host = Host::new();
    for call in [
        r#"sql::query("sales", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n")"#,
        r#"sleep("1h")"#,
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
