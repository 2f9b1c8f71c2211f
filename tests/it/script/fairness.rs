//! Busy scripts share a thread in slices.

use ryemill::job::ErrorKind;

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
