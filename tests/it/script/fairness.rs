//! Busy scripts share a thread in slices.

use std::time::Duration;

use ryemill::job::ErrorKind;
use ryemill::script::context::StopReason;

use super::harness::{Harness, failed, script};

#[test]
fn endless_loops_do_not_keep_short_jobs_out() {
    let harness = Harness::new(1);
    let endless = script("const JOB = #{ timeout: \"2s\" };\nfn run(job) {\n  loop {}\n}");
    let busy: Vec<_> = (0..3).map(|_| harness.start(&endless, "{}")).collect();
    let short = script("const JOB = #{};\nfn run(job) { 1 }");
    for _ in 0..50 {
        harness.start(&short, "{}").wait();
    }
    assert!(busy.iter().all(|run| !run.has_ended()), "fifty short jobs ran while the loops still went on");
    for run in busy {
        let report = run.wait();
        assert_eq!((failed(&report).kind, failed(&report).line), (ErrorKind::Timeout, Some(3)));
    }
}

#[test]
fn a_line_that_was_taken_back_has_room_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let harness = Harness::new(1);
    // While it is in one of these calls, the thread takes nothing from the line, and it never has too many busy fibers.
    let native = script(
        "const JOB = #{ timeout: \"20s\" };\n\
         fn run(job) { let s = \"\"; s.pad(8000000, \"a\"); loop { s.replace(\"a\", \"b\"); s.replace(\"b\", \"a\"); } }",
    );
    let busy = harness.start(&native, "{}");
    let short = script("const JOB = #{};\nfn run(job) { 1 }");
    let taken = (0..1000).find(|_| {
        harness.start(&short, "{}");
        let room = async { tokio::time::timeout(Duration::from_secs(10), harness.pool.room(0)).await };
        let take = async { harness.pool.take_back(Duration::ZERO).len() };
        let (room, taken) = runtime.block_on(async { tokio::join!(room, take) });
        assert_eq!(room, Ok(0), "{taken} requests were taken back");
        taken == 1
    });
    assert!(taken.is_some(), "the thread was always faster");
    busy.stop.stop(StopReason::Cancelled);
    busy.wait();
}
