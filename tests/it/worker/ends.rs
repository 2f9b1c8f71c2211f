//! Runs that are ended from outside: by a caller, by their time, by the worker's stop; and jobs that cannot start.

use std::time::Duration;

use ryemill::broker::Topic;
use ryemill::job::{ErrorKind, Outcome, State};
use serde_json::json;

use super::{Site, new_job};

const BUSY: (&str, &str) = ("busy", "const JOB = #{};\nfn run(job) {\n    print(\"busy\");\n    loop {}\n}");
const QUICK: (&str, &str) = ("quick", "const JOB = #{}; fn run(job) { job.payload }");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_stops() {
    let site = Site::new(&[BUSY]);
    let hand = site.work();
    let id = site.submit("busy", &json!({})).await;
    site.said(id, "busy").await;
    assert_eq!(site.broker.cancel(id).await.unwrap(), State::Running);
    let job = site.ended(id).await;
    assert_eq!(job.state, State::Cancelled, "{job:#?}");
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_over_its_time_fails_with_its_place() {
    let script = "const JOB = #{ timeout: \"200ms\" };\nfn run(job) {\n    loop {}\n}";
    let site = Site::new(&[("late", script)]);
    let hand = site.work();
    let mut job = new_job("late", &json!({}));
    job.max_attempts = 1;
    let id = site.submit_all(vec![job]).await[0];
    let job = site.ended(id).await;
    let error = job.error.as_ref().unwrap();
    assert_eq!((job.state, error.kind, error.line), (State::Failed, ErrorKind::Timeout, Some(3)), "{job:#?}");
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_with_a_longer_time_than_the_job_was_submitted_with_gets_it() {
    let script = "const JOB = #{ timeout: \"1m\" };\nfn run(job) { print(\"busy\"); loop {} }";
    let mut site = Site::new(&[("longer", script)]);
    site.options.lease = Duration::from_secs(1);
    let hand = site.work();
    let mut job = new_job("longer", &json!({}));
    job.timeout = Duration::from_millis(1);
    let id = site.submit_all(vec![job]).await[0];
    site.said(id, "busy").await;
    // Over by the time it was submitted with, and by the lease: a sweep would take it away.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let job = site.get(id).await;
    assert_eq!((job.state, job.lost), (State::Running, 0), "{job:#?}");
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_hands_back_what_does_not_end_and_burns_no_attempt() {
    let site = Site::new(&[BUSY]);
    let hand = site.work();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(site.submit("busy", &json!({})).await);
    }
    for id in &ids {
        site.said(*id, "busy").await;
    }
    hand.stop().await.unwrap();
    for id in ids {
        let job = site.get(id).await;
        assert_eq!((job.state, job.attempt, job.lost), (State::Queued, 0, 0), "{job:#?}");
        let outcomes: Vec<_> = job.attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Some(Outcome::Released)]);
    }
    assert!(site.broker.workers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_short_runs_end_and_starts_no_other() {
    let script = "const JOB = #{};\nfn run(job) { print(\"asleep\"); sleep(job.payload); \"done\" }";
    let mut site = Site::new(&[("nap", script)]);
    site.options.concurrency = 2;
    site.options.shutdown_grace = Duration::from_secs(20);
    let hand = site.work();
    let ids = site.submit_all((0..4).map(|_| new_job("nap", &json!("500ms"))).collect()).await;
    site.said(ids[0], "asleep").await;
    site.said(ids[1], "asleep").await;
    hand.stop().await.unwrap();
    for (n, id) in ids.into_iter().enumerate() {
        let job = site.get(id).await;
        let (state, runs) = if n < 2 { (State::Succeeded, 1) } else { (State::Queued, 0) };
        assert_eq!((job.state, job.attempts.len()), (state, runs), "{job:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_scripts_hold_no_other_job_hostage() {
    let mut site = Site::new(&[BUSY, QUICK]);
    site.options.threads = 1;
    let full = site.work();
    // More than a thread starts: whatever the worker took beyond that must come back.
    let mut jobs: Vec<_> = (0..6).map(|_| new_job("busy", &json!({}))).collect();
    jobs.extend((0..20).map(|n| new_job("quick", &json!(n))));
    let ids = site.submit_all(jobs).await;
    let mut changes = site.broker.changes(Topic::Jobs);
    let full_thread = async {
        loop {
            let mut busy = 0;
            for id in &ids[..6] {
                busy += usize::from(!site.lines(*id).await.is_empty());
            }
            if busy >= 4 {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, full_thread).await.unwrap();
    site.options.threads = 2;
    let other = site.work();
    for id in &ids[6..] {
        let job = site.ended(*id).await;
        assert_eq!((job.state, job.attempt), (State::Succeeded, 1), "{job:#?}");
    }
    full.stop().await.unwrap();
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_runs_at_once_than_allowed() {
    let mut site = Site::new(&[BUSY]);
    site.options.concurrency = 2;
    let hand = site.work();
    let ids = site.submit_all((0..5).map(|_| new_job("busy", &json!({}))).collect()).await;
    site.said(ids[0], "busy").await;
    site.said(ids[1], "busy").await;
    let queue = &site.broker.queues().await.unwrap()[0];
    assert_eq!((queue.running, queue.queued), (2, 3));
    site.broker.cancel(ids[0]).await.unwrap();
    site.said(ids[2], "busy").await;
    assert_eq!(site.broker.queues().await.unwrap()[0].running, 2);
    hand.stop().await.unwrap();
}
