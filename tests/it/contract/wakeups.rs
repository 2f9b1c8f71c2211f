//! `changes`: whoever waits for a topic wakes up after every cause of it.

use std::time::Duration;

use super::harness::*;
use ryemill::broker::{LogBatch, NewJob, Publication, Topic};
use ryemill::job::time::SystemClock;
use ryemill::job::{Clock, Progress, RunEnd};
use tokio::sync::watch;

async fn woken(receiver: &mut watch::Receiver<u64>, cause: &str) {
    let changed = tokio::time::timeout(Duration::from_secs(5), receiver.changed()).await;
    changed.unwrap_or_else(|_| panic!("no wake-up after {cause}")).unwrap();
    receiver.mark_unchanged();
}

pub async fn work_wakes_when_jobs_may_be_claimable(h: Harness) {
    let mut work = h.broker.changes(Topic::Work);
    let worker = h.worker().await;
    work.mark_unchanged();

    h.enqueue(job("email")).await;
    woken(&mut work, "enqueue").await;
    let run = h.claim_one(&worker).await.run;
    work.mark_unchanged();
    h.finish(&run, RunEnd::Released { reason: "x".into(), delay: Duration::ZERO }).await;
    woken(&mut work, "release").await;
    let run = h.claim_one(&worker).await.run;
    work.mark_unchanged();
    h.finish(&run, RunEnd::Retry { error: error("x"), delay: LONG }).await;
    woken(&mut work, "retry with a delay: the next due time is another").await;
    h.enqueue(NewJob { delay: LONG / 2, ..job("email") }).await;
    woken(&mut work, "a scheduled job").await;

    h.broker.set_paused(&queue_name("default"), true).await.unwrap();
    work.mark_unchanged();
    h.broker.set_paused(&queue_name("default"), false).await.unwrap();
    woken(&mut work, "resume").await;

    let id = h.enqueue(job("email")).await;
    let run = h.claim_one(&worker).await.run;
    h.finish(&run, failed()).await;
    work.mark_unchanged();
    h.broker.retry(id).await.unwrap();
    woken(&mut work, "retry by hand").await;

    h.claim_one(&worker).await;
    work.mark_unchanged();
    h.broker.retire(&worker).await.unwrap();
    woken(&mut work, "retire").await;
}

pub async fn a_sweep_that_gives_runs_back_wakes_work(h: Harness) {
    let mut work = h.broker.changes(Topic::Work);
    h.enqueue(job("email")).await;
    let worker = h.worker_with(LEASE).await;
    h.claim_one(&worker).await;
    h.advance(LEASE).await;
    work.mark_unchanged();
    h.broker.sweep(&sweep_with(LONG)).await.unwrap();
    woken(&mut work, "sweep").await;
}

pub async fn jobs_wakes_at_every_change_of_a_job(h: Harness) {
    let mut jobs = h.broker.changes(Topic::Jobs);
    let worker = h.worker().await;
    jobs.mark_unchanged();
    let id = h.enqueue(job("email")).await;
    woken(&mut jobs, "enqueue").await;
    let run = h.claim_one(&worker).await.run;
    woken(&mut jobs, "claim").await;
    h.broker.progress(&run, &Progress { percent: 1.0, message: String::new() }).await.unwrap();
    woken(&mut jobs, "progress").await;
    let batch = LogBatch { run: run.clone(), attempt: 1, first: 0, lines: vec![line("x")], dropped: 0 };
    h.broker.log(vec![batch], 1 << 20).await.unwrap();
    woken(&mut jobs, "log").await;
    h.finish(&run, failed()).await;
    woken(&mut jobs, "finish").await;
    h.broker.retry(id).await.unwrap();
    woken(&mut jobs, "retry").await;
    h.broker.cancel(id).await.unwrap();
    woken(&mut jobs, "cancel").await;
    h.broker.delete(id).await.unwrap();
    woken(&mut jobs, "delete").await;
}

pub async fn cancel_and_types_have_wake_ups_of_their_own(h: Harness) {
    let mut cancel = h.broker.changes(Topic::Cancel);
    let mut types = h.broker.changes(Topic::JobTypes);
    let id = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    h.claim_one(&worker).await;
    cancel.mark_unchanged();
    types.mark_unchanged();
    h.broker.cancel(id).await.unwrap();
    woken(&mut cancel, "a cancel mark").await;
    let publication = Publication { worker: worker.clone(), types: vec![loaded("email", "v1")], refused: Vec::new() };
    h.broker.publish(&publication).await.unwrap();
    woken(&mut types, "publish").await;
    h.broker.retire(&worker).await.unwrap();
    woken(&mut types, "the last worker of a type").await;
}

pub async fn who_comes_to_wait_later_is_woken_too(h: Harness) {
    let mut jobs = h.broker.changes(Topic::Jobs);
    h.enqueue(job("email")).await;
    woken(&mut jobs, "enqueue").await;
    drop(jobs);
    // Nobody waits, and things go on.
    for _ in 0..3 {
        h.enqueue(job("email")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..3 {
        let mut jobs = h.broker.changes(Topic::Jobs);
        tokio::time::sleep(Duration::from_millis(50)).await;
        jobs.mark_unchanged();
        h.enqueue(job("email")).await;
        woken(&mut jobs, "enqueue, for somebody who came later").await;
    }
}

pub async fn a_ping_is_answered(h: Harness) {
    let now = h.clock.as_ref().map_or_else(|| SystemClock.now(), Clock::now);
    let shown = h.broker.ping().await.unwrap();
    assert!(shown.since(now).max(now.since(shown)) < Duration::from_secs(5), "{shown} is not {now}");
}
