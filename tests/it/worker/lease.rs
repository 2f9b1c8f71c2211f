//! Lost leases and a broker that cannot be reached.

use std::sync::Arc;
use std::time::Duration;

use ryemill::broker::{SharedBroker, Sweep};
use ryemill::job::time::{ManualClock, SystemClock};
use ryemill::job::{Clock, State};
use serde_json::json;

use super::trouble::{Fault, Line};
use super::{Site, new_job};

const BUSY: (&str, &str) = ("busy", "const JOB = #{};\nfn run(job) { print(\"busy\"); loop {} }");
const ECHO: (&str, &str) = ("echo", "const JOB = #{}; fn run(job) { print(\"here\"); job.payload }");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lost_its_lease_stops_its_runs_and_comes_back_as_another() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let site = Site::with_clock(&[BUSY], Arc::clone(&clock));
    let hand = site.work();
    let id = site.submit("busy", &json!({})).await;
    site.said(id, "busy").await;
    let first = site.broker.workers().await.unwrap()[0].id.clone();
    // To the broker, the worker has been silent for longer than its lease.
    clock.advance(Duration::from_secs(10));
    let swept = site.broker.sweep(&Sweep::default()).await.unwrap();
    assert_eq!(swept.lost.len(), 1);
    let job = site.until(id, |job| job.state == State::Running && job.lost == 1).await;
    let second = job.attempts.last().unwrap().worker_id.clone();
    assert_ne!(first, second);
    assert_eq!(job.attempt, 1, "{job:#?}");
    let workers = site.broker.workers().await.unwrap();
    assert_eq!(workers.iter().map(|worker| &worker.id).collect::<Vec<_>>(), [&second]);
    assert_eq!(site.broker.cancel(id).await.unwrap(), State::Running);
    assert_eq!(site.ended(id).await.state, State::Cancelled);
    // The types are published under the new id too.
    assert_eq!(site.broker.job_types().await.unwrap()[0].workers[0].id, second);
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_cannot_be_renewed_in_time_is_given_up() {
    let mut site = Site::new(&[BUSY]);
    site.options.lease = Duration::from_secs(1);
    let line = Line::new(Arc::clone(&site.broker));
    let hand = site.work_with(Arc::clone(&line) as SharedBroker, Arc::clone(&site.library));
    let id = site.submit("busy", &json!({})).await;
    site.said(id, "busy").await;
    let first = site.broker.workers().await.unwrap()[0].id.clone();
    line.break_next("renew", Fault::Refused, 20);
    // Its own sweep, under its new id, gives the run back.
    let job = site.until(id, |job| job.state == State::Running && job.lost == 1).await;
    assert_ne!(job.attempts.last().unwrap().worker_id, first);
    assert!(line.is_used_up());
    assert!(hand.metrics.render().contains("lease_losses_total 1"), "{}", hand.metrics.render());
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_for_a_while_costs_no_run() {
    let site = Site::new(&[ECHO]);
    let line = Line::new(Arc::clone(&site.broker));
    for (verb, fault) in [
        ("renew", Fault::Refused),
        ("publish", Fault::Refused),
        ("claim", Fault::Refused),
        ("claim", Fault::LeaseLost),
        ("log", Fault::Refused),
        ("log", Fault::AnswerLost),
        ("finish", Fault::Refused),
        ("finish", Fault::AnswerLost),
        ("sweep", Fault::Refused),
        ("prune", Fault::Refused),
    ] {
        line.break_next(verb, fault, 2);
    }
    let hand = site.work_with(Arc::clone(&line) as SharedBroker, Arc::clone(&site.library));
    let ids = site.submit_all((0..50).map(|n| new_job("echo", &json!(n))).collect()).await;
    for id in ids {
        let job = site.ended(id).await;
        assert_eq!((job.state, job.attempts.len(), job.lost), (State::Succeeded, 1, 0), "{job:#?}");
        assert_eq!(site.lines(id).await.len(), 1);
    }
    line.break_next("retire", Fault::Refused, 1);
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_answer_was_lost_is_made_again_and_its_runs_start_once() {
    let site = Site::new(&[ECHO]);
    let line = Line::new(Arc::clone(&site.broker));
    line.break_next("claim", Fault::AnswerLost, 2);
    let id = site.submit("echo", &json!(1)).await;
    let hand = site.work_with(Arc::clone(&line) as SharedBroker, Arc::clone(&site.library));
    let job = site.ended(id).await;
    assert_eq!((job.state, job.lost, job.attempt), (State::Succeeded, 0, 1), "{job:#?}");
    assert!(line.is_used_up());
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_nobody_knows_of_is_found_by_its_time() {
    let mut site = Site::new(&[ECHO]);
    site.options.lease = Duration::from_secs(1);
    let line = Line::new(Arc::clone(&site.broker));
    // The last one is the first to happen: the claim is not made again, as when its worker loses the lease.
    line.break_next("claim", Fault::LeaseLost, 1);
    line.break_next("claim", Fault::AnswerLost, 1);
    let mut job = new_job("echo", &json!(1));
    job.timeout = Duration::from_millis(100);
    let id = site.submit_all(vec![job]).await[0];
    let hand = site.work_with(Arc::clone(&line) as SharedBroker, Arc::clone(&site.library));
    let job = site.ended(id).await;
    assert_eq!((job.state, job.lost, job.attempt), (State::Succeeded, 1, 1), "{job:#?}");
    hand.stop().await.unwrap();
}
