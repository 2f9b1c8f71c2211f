//! `prune`: ended jobs go by age and by bytes, others never.

use std::time::Duration;

use super::harness::*;
use ryemill::broker::{Claim, Finish, LogBatch, NewJob, Reservation};
use ryemill::job::{JobId, RunEnd, State};

const SOON: Duration = Duration::from_millis(300);
const PLENTY: u64 = 1 << 40;

/// Ends a new job of `queue` with `payload`, kept for `keep`.
async fn ended(h: &Harness, queue: &str, payload: &str, keep: Duration) -> JobId {
    let id = h.enqueue(NewJob { payload: json(payload), ..job_of("email", queue) }).await;
    let worker = h.worker().await;
    let wanted = Claim { queues: vec![queue_name(queue)], ..claim(&worker, 1) };
    let run = h.broker.claim(&wanted).await.unwrap().jobs.remove(0).run;
    h.broker
        .log(vec![LogBatch { run: run.clone(), attempt: 1, first: 0, lines: vec![line("x")], dropped: 0 }], 999)
        .await
        .unwrap();
    let end = Finish { keep, ..finish(&run, succeeded()) };
    assert!(h.broker.finish(vec![end]).await.unwrap()[0].is_ok());
    id
}

pub async fn an_ended_job_goes_when_its_time_is_over(h: Harness) {
    let short = ended(&h, "default", "1", SOON).await;
    let long = ended(&h, "default", "2", LONG).await;
    assert!(h.broker.prune(PLENTY, 10).await.unwrap().is_empty());
    h.advance(SOON).await;
    assert_eq!(h.broker.prune(PLENTY, 10).await.unwrap(), [short]);
    assert!(h.broker.get(short).await.unwrap().is_none());
    assert!(h.broker.logs(short, 0, 1).await.unwrap().is_none());
    assert_eq!(h.state(long).await, State::Succeeded);
    h.counts_are_right().await;
}

pub async fn the_oldest_ended_jobs_of_a_queue_go_when_they_need_too_much(h: Harness) {
    let big = format!("\"{}\"", "x".repeat(100_000));
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(ended(&h, "big", &big, KEEP).await);
        h.advance(Duration::from_millis(2)).await;
    }
    let other = ended(&h, "small", "1", KEEP).await;
    let removed = h.broker.prune(250_000, 10).await.unwrap();
    assert_eq!(removed, jobs[..3], "the oldest, until the rest fits");
    assert!(h.broker.prune(250_000, 10).await.unwrap().is_empty());
    assert_eq!(h.state(other).await, State::Succeeded, "another queue has its own bytes");
    assert_eq!(h.broker.prune(0, 10).await.unwrap().len(), 3);
    h.counts_are_right().await;
}

pub async fn a_log_counts_too(h: Harness) {
    let id = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    let run = h.claim_one(&worker).await.run;
    let lines = vec![line(&"x".repeat(100_000))];
    h.broker.log(vec![LogBatch { run: run.clone(), attempt: 1, first: 0, lines, dropped: 0 }], 1 << 20).await.unwrap();
    h.finish(&run, succeeded()).await;
    assert_eq!(h.broker.prune(50_000, 10).await.unwrap(), [id]);
}

pub async fn results_and_errors_count_too(h: Harness) {
    let worker = h.worker().await;
    let big = "x".repeat(100_000);
    let ends = [RunEnd::Succeeded { result: json(&format!("\"{big}\"")) }, RunEnd::Failed { error: error(&big) }];
    for end in ends {
        let id = h.enqueue(job("email")).await;
        let run = h.claim_one(&worker).await.run;
        h.finish(&run, end).await;
        assert_eq!(h.broker.prune(50_000, 10).await.unwrap(), [id]);
    }
}

pub async fn a_job_that_has_not_ended_is_never_pruned(h: Harness) {
    let mut kept = Vec::new();
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        if !state.is_terminal() {
            kept.push(id);
        }
    }
    assert_eq!(h.broker.prune(0, 100).await.unwrap().len(), 3);
    for id in kept {
        assert!(!h.state(id).await.is_terminal());
    }
    h.counts_are_right().await;
}

pub async fn a_job_retried_by_hand_is_kept_and_its_bytes_are_not_counted(h: Harness) {
    let payload = json(&format!("\"{}\"", "x".repeat(100_000)));
    let retried = h.enqueue(NewJob { payload, ..job("email") }).await;
    let worker = h.worker().await;
    let run = h.claim_one(&worker).await.run;
    let end = Finish { keep: SOON, ..finish(&run, failed()) };
    assert!(h.broker.finish(vec![end]).await.unwrap()[0].is_ok());
    h.broker.retry(retried).await.unwrap();
    let run = h.claim_one(&worker).await.run;
    let small = ended(&h, "default", "1", LONG).await;
    h.advance(SOON).await;
    assert!(h.broker.prune(50_000, 10).await.unwrap().is_empty());
    assert_eq!((h.state(retried).await, h.state(small).await), (State::Running, State::Succeeded));
    h.finish(&run, failed()).await;
    assert_eq!(h.broker.prune(50_000, 10).await.unwrap(), [small, retried], "the oldest first");
    h.counts_are_right().await;
}

pub async fn a_prune_is_bounded(h: Harness) {
    for _ in 0..5 {
        ended(&h, "default", "1", SOON).await;
    }
    h.advance(SOON).await;
    assert_eq!(h.broker.prune(PLENTY, 2).await.unwrap().len(), 2);
    assert_eq!(h.broker.prune(0, 2).await.unwrap().len(), 2);
    assert_eq!(h.broker.prune(0, 2).await.unwrap().len(), 1);
    assert!(h.broker.prune(0, 0).await.unwrap().is_empty());
}

pub async fn a_reservation_that_is_not_over_survives(h: Harness) {
    let mine = Reservation { job: JobId::new(&queue_name("default")), body_hash: [1; 32] };
    let other = Reservation { job: JobId::new(&queue_name("default")), body_hash: [2; 32] };
    h.broker.reserve_key("k", mine.clone(), LONG).await.unwrap();
    h.broker.prune(0, 100).await.unwrap();
    assert_eq!(h.broker.reserve_key("k", other, LONG).await.unwrap().reservation, mine);
}
