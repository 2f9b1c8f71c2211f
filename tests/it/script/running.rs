//! What a script gets, what its value becomes, and how its faults are told.

use ryemill::job::ErrorKind;
use ryemill::script::context::StopReason;
use ryemill::script::fiber::ScriptEnd;
use serde_json::json;

use super::harness::{Harness, failed, returned, script};

#[test]
fn a_script_gets_its_job_and_its_value_is_the_result() {
    let harness = Harness::new(1);
    let script = script(
        "const JOB = #{};\nconst RATE = 3;\nfn twice(x) { x * 2 }\n\
         fn run(job) { #{ n: twice(job.payload.n) * global::RATE, big: job.payload.big, name: job.name, attempt: job.attempt } }",
    );
    let report = harness.start(&script, r#"{"n": 7, "big": 9223372036854775807}"#).wait();
    assert_eq!(returned(&report), json!({ "n": 42, "big": i64::MAX, "name": "probe", "attempt": 1 }));
    assert!(report.usage.operations > 0 && report.started_at.is_some());
}

#[test]
fn a_fault_is_told_with_file_line_caret_and_calls() {
    let harness = Harness::new(1);
    let report = harness.body("let a = 1;\ninner(a)\n}\nfn inner(x) {\n  x.nothing_like_this()");
    let error = failed(&report);
    assert_eq!(error.kind, ErrorKind::Script);
    assert_eq!((error.file.as_deref(), error.line), (Some("probe.rhai"), Some(7)));
    assert!(error.snippet.as_deref().unwrap().contains("x.nothing_like_this()\n"), "{error:#?}");
    assert!(error.message.contains("nothing_like_this"), "{error:#?}");
    assert_eq!(error.stack[0].function, "inner");
    assert_eq!(error.stack[0].line, Some(4));
}

#[test]
fn a_thrown_value_is_the_message() {
    let harness = Harness::new(1);
    let error = failed(&harness.body("throw \"out of paper\"")).clone();
    assert_eq!((error.kind, error.message.as_str(), error.line), (ErrorKind::Thrown, "out of paper", Some(3)));
    let report = harness.body("throw #{ code: 7 }");
    assert_eq!(failed(&report).message, r#"{"code":7}"#);
}

#[test]
fn what_is_no_json_is_no_result() {
    let harness = Harness::new(1);
    for body in
        ["|x| x", "0.0 / 0.0", "#{ a: [timestamp()] }", "let s = \"0123456789\"; while s.len < 2000000 { s += s; } s"]
    {
        let report = harness.body(body);
        assert_eq!(failed(&report).kind, ErrorKind::InvalidResult, "{body}: {:?}", report.end);
    }
}

#[test]
fn a_stop_ends_a_busy_run() {
    let harness = Harness::new(1);
    let running = harness.start(&script("const JOB = #{};\nfn run(job) { print(\"on\"); loop {} }"), "{}");
    while running.ports.seen().logs.is_empty() {
        std::thread::yield_now();
    }
    running.stop.stop(StopReason::Cancelled);
    assert!(matches!(running.wait().end, ScriptEnd::Stopped(StopReason::Cancelled)));
}

#[test]
fn a_run_stopped_before_it_starts_runs_nothing() {
    let harness = Harness::new(1);
    let busy: Vec<_> = (0..4)
        .map(|_| harness.start(&script("const JOB = #{ timeout: \"1s\" };\nfn run(job) { loop {} }"), "{}"))
        .collect();
    let late = harness.start(&script("const JOB = #{};\nfn run(job) { print(\"no\") }"), "{}");
    late.stop.stop(StopReason::Shutdown);
    assert!(matches!(late.wait().end, ScriptEnd::Stopped(StopReason::Shutdown)));
    assert!(late.ports.seen().logs.is_empty());
    for run in busy {
        assert_eq!(failed(&run.wait()).kind, ErrorKind::Timeout);
    }
}

#[test]
fn the_pool_waits_for_its_runs_when_it_is_shut_down() {
    let harness = Harness::new(2);
    let runs: Vec<_> = (0..20).map(|_| harness.start(&script("const JOB = #{};\nfn run(job) { 1 }"), "{}")).collect();
    harness.pool.shut_down();
    assert!(runs.iter().all(super::harness::Running::has_ended));
}

#[test]
fn modules_are_found_in_the_folder_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lib")).unwrap();
    std::fs::write(dir.path().join("lib/money.rhai"), "const RATE = 2;\nfn twice(x) { x * global::RATE }").unwrap();
    std::fs::write(
        dir.path().join("probe.rhai"),
        "import \"lib/money\" as money;\nconst JOB = #{};\nfn run(job) { money::twice(21) }",
    )
    .unwrap();
    let snapshot = ryemill::script::library::Library::load(dir.path()).unwrap().snapshot();
    let script = snapshot.scripts.values().next().unwrap_or_else(|| panic!("{:?}", snapshot.faults));
    let harness = Harness::new(1);
    for _ in 0..2 {
        assert_eq!(returned(&harness.start(script, "{}").wait()), json!(42));
    }
}
