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

#[test]
fn a_pending_timer_does_not_outlive_its_run() {
    let harness = Harness::new(1);
    let text = "const JOB = #{ timeout: \"300ms\" };\nfn run(job) {\n  try { sleep(\"1h\"); } catch { print(\"caught\"); }\n  print(\"after\");\n}";
    let running = harness.start(&script(text), "{}");
    let report = running.wait();
    let error = failed(&report);
    assert_eq!((error.kind, error.line), (ErrorKind::Timeout, Some(3)));
    assert!(running.ports.seen().logs.is_empty(), "a stopped run says nothing more: {:?}", running.ports.seen().logs);
}

#[test]
fn a_stop_within_a_callback_has_no_further_effect() {
    let harness = Harness::new(1);
    for callback in [
        "[3, 1, 2].map(|x| { print(\"in\"); sleep(\"1h\"); print(\"late\"); x })",
        "[3, 1, 2].filter(|x| { print(\"in\"); sleep(\"1h\"); print(\"late\"); true })",
        "[3, 1, 2].reduce(|sum, x| { print(\"in\"); sleep(\"1h\"); print(\"late\"); x })",
        "let a = [3, 1, 2]; a.sort(|x, y| { print(\"in\"); sleep(\"1h\"); print(\"late\"); x - y })",
        "let a = [3, 1, 2]; a.for_each(|x| { print(\"in\"); sleep(\"1h\"); print(\"late\"); })",
        "let a = [3, 1, 2]; a.retain(|x| { print(\"in\"); sleep(\"1h\"); print(\"late\"); true })",
        "[3, 1, 2].some(|x| { print(\"in\"); sleep(\"1h\"); print(\"late\"); true })",
        "[3, 1, 2].index_of(|x| { print(\"in\"); sleep(\"1h\"); print(\"late\"); true })",
    ] {
        let text = format!(
            "const JOB = #{{}};\nfn run(job) {{\n try {{ {callback}; print(\"next\"); }} catch {{ print(\"caught\"); }}\n print(\"after\");\n file::save(\"late.txt\", \"x\");\n}}"
        );
        let running = harness.start(&script(&text), "{}");
        while running.ports.seen().logs.is_empty() {
            std::thread::yield_now();
        }
        running.stop.stop(StopReason::Cancelled);
        let end = running.wait().end;
        assert!(matches!(end, ScriptEnd::Stopped(StopReason::Cancelled)), "{callback}: {end:?}");
        let seen = running.ports.seen();
        assert_eq!(seen.logs.len(), 1, "{callback}: {:?}", seen.logs);
        assert!(seen.files.is_empty(), "{callback}");
    }
}

#[test]
fn many_runs_sleep_at_once_on_one_thread() {
    let harness = Harness::new(1);
    let sleeper = script("const JOB = #{};\nfn run(job) { sleep(\"300ms\"); job.attempt }");
    let began = std::time::Instant::now();
    let runs: Vec<_> = (0..2000).map(|_| harness.start(&sleeper, "{}")).collect();
    for run in &runs {
        assert_eq!(returned(&run.wait()), json!(1));
    }
    // One after the other they would need ten minutes.
    assert!(began.elapsed() < std::time::Duration::from_mins(2));
}
