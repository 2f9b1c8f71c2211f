//! Workers, their leases, and what becomes of the runs of dead ones: `renew`, `retire`, `workers`, `sweep`.

use std::time::Duration;

use super::harness::*;
use ryemill::broker::{BrokerError, Claim, ClaimedJob, NewJob, Run, Sweep, Swept};
use ryemill::job::{ClaimTicket, ErrorKind, JobId, Outcome, RunEnd, RunToken, State, WorkerId};

const SOON: Duration = Duration::from_millis(300);

/// A job that runs on a worker whose lease is over in [`LEASE`].
async fn on_a_short_lease(h: &Harness) -> (WorkerId, JobId, Run) {
    let id = h.enqueue(job("email")).await;
    let worker = h.worker_with(LEASE).await;
    (worker.clone(), id, h.claim_one(&worker).await.run)
}

async fn sweep(h: &Harness) -> Swept {
    h.broker.sweep(&sweep_with(LONG)).await.unwrap()
}

/// Claims the one job that is there, kills the worker and sweeps.
async fn lose_once(h: &Harness, blame: bool, suspect: bool) -> (ClaimedJob, Swept) {
    let worker = h.worker_with(LEASE).await;
    let wanted = Claim { suspect, ..claim(&worker, 1) };
    let claimed = h.broker.claim(&wanted).await.unwrap().jobs.remove(0);
    h.advance(LEASE).await;
    let blamed = if blame { vec![claimed.run.clone()] } else { Vec::new() };
    let swept = h.broker.sweep(&Sweep { blamed, ..sweep_with(LONG) }).await.unwrap();
    assert_eq!(swept.lost, std::slice::from_ref(&claimed.run));
    (claimed, swept)
}

pub async fn renew_registers_a_worker_and_keeps_it(h: Harness) {
    let worker = h.worker_with(LEASE).await;
    let first = h.broker.workers().await.unwrap().remove(0);
    assert_eq!((&first.id, first.host.as_str(), first.pid, first.concurrency), (&worker, "here", 7, 10));
    h.advance(LEASE / 2).await;
    h.broker.renew(&beat(&worker, LONG)).await.unwrap();
    h.advance(LEASE).await;
    sweep(&h).await;
    let kept = h.broker.workers().await.unwrap().remove(0);
    assert_eq!((kept.id, kept.started_at, kept.running), (worker.clone(), first.started_at, 0));
    assert!(kept.lease_until > first.lease_until);
    h.enqueue(job("email")).await;
    h.claim_one(&worker).await;
    assert_eq!(h.broker.workers().await.unwrap()[0].running, 1);
}

pub async fn renew_answers_the_runs_that_are_to_be_cancelled(h: Harness) {
    let jobs: Vec<NewJob> = (0..3).map(|_| job("email")).collect();
    h.broker.enqueue(jobs).await.unwrap();
    let (mine, other) = (h.worker().await, h.worker().await);
    let runs: Vec<Run> = h.claim(&mine, 2).await.into_iter().map(|job| job.run).collect();
    let foreign = h.claim_one(&other).await.run;
    assert!(h.broker.renew(&beat(&mine, LONG)).await.unwrap().cancelled.is_empty());
    for run in [&runs[1], &foreign] {
        h.broker.cancel(run.job).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(h.broker.renew(&beat(&mine, LONG)).await.unwrap().cancelled, [runs[1].clone()]);
    }
    h.finish(&runs[1], RunEnd::Cancelled).await;
    assert!(h.broker.renew(&beat(&mine, LONG)).await.unwrap().cancelled.is_empty());
}

pub async fn a_worker_that_was_swept_never_comes_back(h: Harness) {
    let (worker, id, run) = on_a_short_lease(&h).await;
    h.advance(LEASE).await;
    let swept = sweep(&h).await;
    assert_eq!((swept.lost, swept.failed, swept.more), (vec![run.clone()], vec![], false));
    assert!(h.broker.workers().await.unwrap().is_empty());
    for _ in 0..2 {
        let answer = h.broker.renew(&beat(&worker, LONG)).await;
        assert!(matches!(answer, Err(BrokerError::LeaseLost)), "{answer:?}");
        h.advance(SOON).await;
    }
    assert!(matches!(h.broker.claim(&claim(&worker, 1)).await, Err(BrokerError::LeaseLost)));
    let late = h.broker.finish(vec![finish(&run, succeeded())]).await.unwrap().remove(0);
    assert!(matches!(late, Err(BrokerError::LeaseLost)), "{late:?}");
    assert_eq!(h.state(id).await, State::Queued);
}

pub async fn a_lost_run_starts_again_without_a_burned_attempt(h: Harness) {
    let (worker, id, run) = on_a_short_lease(&h).await;
    h.advance(LEASE).await;
    sweep(&h).await;
    let waiting = h.get(id).await;
    assert_eq!((waiting.state, waiting.attempt, waiting.lost), (State::Queued, 0, 1));
    let lost = &waiting.attempts[0];
    assert_eq!((lost.number, &lost.worker_id, lost.outcome), (1, &worker, Some(Outcome::Lost)));
    h.counts_are_right().await;
    let rescuer = h.worker().await;
    let again = h.claim_one(&rescuer).await;
    assert_eq!(again.attempt, 1);
    assert_ne!(again.run.token, run.token);
    h.finish(&again.run, succeeded()).await;
    assert_eq!(h.get(id).await.lost, 1);
    h.counts_are_right().await;
}

pub async fn a_sweep_leaves_live_runs_and_ended_jobs_alone(h: Harness) {
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        let before = h.snapshot(id).await;
        assert_eq!(sweep(&h).await, Swept::default(), "{state}");
        assert_eq!(h.snapshot(id).await, before, "{state}");
    }
    let (_, id, run) = on_a_short_lease(&h).await;
    h.finish(&run, succeeded()).await;
    h.advance(LEASE).await;
    assert!(sweep(&h).await.lost.is_empty(), "it ended before its worker died");
    assert_eq!(h.get(id).await.lost, 0);
}

pub async fn a_run_over_its_time_is_lost_even_if_its_worker_renews(h: Harness) {
    let id = h.enqueue(NewJob { timeout: SOON, ..job("email") }).await;
    let worker = h.worker().await;
    let run = h.claim_one(&worker).await.run;
    h.advance(SOON).await;
    h.broker.renew(&beat(&worker, LONG)).await.unwrap();
    assert!(h.broker.sweep(&sweep_with(SOON)).await.unwrap().lost.is_empty(), "not over by so much");
    h.advance(SOON).await;
    h.broker.renew(&beat(&worker, LONG)).await.unwrap();
    assert_eq!(h.broker.sweep(&sweep_with(SOON)).await.unwrap().lost, [run]);
    let waiting = h.get(id).await;
    assert_eq!((waiting.state, waiting.lost), (State::Queued, 1));
    assert_eq!(h.broker.workers().await.unwrap().len(), 1, "the worker stays");
}

pub async fn three_charged_losses_fail_the_job(h: Harness) {
    let id = h.enqueue(job("email")).await;
    for n in 1..=3 {
        let (claimed, swept) = lose_once(&h, true, false).await;
        assert_eq!(claimed.attempt, 1);
        assert_eq!(swept.failed.len(), usize::from(n == 3));
        assert_eq!(h.get(id).await.lost, n);
    }
    let ended = h.get(id).await;
    assert_eq!(ended.state, State::Failed);
    assert_eq!(ended.error.unwrap().kind, ErrorKind::WorkerLost);
    assert_eq!(ended.attempts.len(), 3);
    assert!(ended.attempts.iter().all(|attempt| attempt.outcome == Some(Outcome::Lost)));
    assert!(ended.finished_at.is_some());
    h.counts_are_right().await;
}

pub async fn a_blamed_run_is_lost_at_once(h: Harness) {
    let id = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    let run = h.claim_one(&worker).await.run;
    let stale = Run { token: RunToken::random(), ..run.clone() };
    let wrong = h.broker.sweep(&Sweep { blamed: vec![stale], ..sweep_with(LONG) }).await.unwrap();
    assert_eq!(wrong, Swept::default(), "that was another run");
    let swept = h.broker.sweep(&Sweep { blamed: vec![run.clone()], ..sweep_with(LONG) }).await.unwrap();
    assert_eq!(swept.lost, [run], "its worker has crashed, though the lease is not over");
    assert_eq!(h.state(id).await, State::Queued);
}

pub async fn five_uncharged_losses_make_a_suspect(h: Harness) {
    let id = h.enqueue(job("email")).await;
    for n in 1..=5 {
        let (claimed, swept) = lose_once(&h, false, false).await;
        assert!(!claimed.suspect && swept.failed.is_empty(), "loss {n}");
    }
    let worker = h.worker().await;
    assert!(h.claim(&worker, 10).await.is_empty(), "only a claim for suspects gets it");
    let innocent = h.enqueue(job("email")).await;
    // From here every loss is charged, whoever is blamed.
    for n in 6..=8 {
        let worker = h.worker_with(LEASE).await;
        let wanted = Claim { suspect: true, ..claim(&worker, 1) };
        let claimed = h.broker.claim(&wanted).await.unwrap().jobs.remove(0);
        assert_eq!((claimed.run.job, claimed.suspect), (id, true), "the older one is first in line");
        h.advance(LEASE).await;
        sweep(&h).await;
        assert_eq!(h.get(id).await.lost, n);
    }
    let ended = h.get(id).await;
    assert_eq!((ended.state, ended.error.unwrap().kind), (State::Failed, ErrorKind::WorkerLost));
    assert_eq!(ids(&h.claim(&worker, 10).await), [innocent]);
    h.counts_are_right().await;
}

pub async fn a_claim_gets_one_suspect_at_most(h: Harness) {
    let jobs: Vec<NewJob> = (0..3).map(|_| job("email")).collect();
    h.broker.enqueue(jobs).await.unwrap();
    for _ in 0..5 {
        let worker = h.worker_with(LEASE).await;
        assert_eq!(h.claim(&worker, 10).await.len(), 3);
        h.advance(LEASE).await;
        assert_eq!(sweep(&h).await.lost.len(), 3);
    }
    let fresh = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    let wanted = Claim { suspect: true, ..claim(&worker, 10) };
    let claimed = h.broker.claim(&wanted).await.unwrap().jobs;
    assert_eq!(claimed.iter().filter(|job| job.suspect).count(), 1);
    assert_eq!(claimed.len(), 2);
    assert!(ids(&claimed).contains(&fresh));
    assert!(h.claim(&worker, 10).await.is_empty());
    let wanted = Claim { ticket: ClaimTicket::random(), ..wanted };
    assert_eq!(h.broker.claim(&wanted).await.unwrap().jobs.len(), 1);
}

pub async fn a_retry_by_hand_clears_the_charges(h: Harness) {
    let id = h.enqueue(job("email")).await;
    for _ in 0..3 {
        lose_once(&h, true, false).await;
    }
    assert_eq!(h.state(id).await, State::Failed);
    h.broker.retry(id).await.unwrap();
    let (_, swept) = lose_once(&h, true, false).await;
    assert!(swept.failed.is_empty());
    let waiting = h.get(id).await;
    assert_eq!((waiting.state, waiting.lost, waiting.attempts.len()), (State::Queued, 4, 4));
}

pub async fn a_lost_run_whose_cancel_mark_is_set_ends_cancelled(h: Harness) {
    let (_, id, _) = on_a_short_lease(&h).await;
    h.broker.cancel(id).await.unwrap();
    h.advance(LEASE).await;
    assert_eq!(sweep(&h).await.lost.len(), 1);
    let ended = h.get(id).await;
    assert_eq!((ended.state, ended.lost), (State::Cancelled, 1));
    h.counts_are_right().await;
}

pub async fn a_sweep_of_very_many_runs_says_that_there_is_more(h: Harness) {
    let count = 2500;
    let jobs: Vec<NewJob> = (0..count).map(|_| job("email")).collect();
    h.broker.enqueue(jobs).await.unwrap();
    let worker = h.worker_with(LEASE).await;
    assert_eq!(h.claim(&worker, count).await.len(), count);
    h.advance(LEASE).await;
    let mut lost = 0;
    let mut sweeps = 0;
    loop {
        let swept = sweep(&h).await;
        lost += swept.lost.len();
        sweeps += 1;
        if !swept.more {
            break;
        }
    }
    assert_eq!(lost, count);
    assert!(sweeps > 1, "a sweep is bounded");
    h.counts_are_right().await;
}

pub async fn concurrent_sweeps_lose_a_run_once(h: Harness) {
    let (_, id, _) = on_a_short_lease(&h).await;
    h.advance(LEASE).await;
    let one = sweep_with(LONG);
    let swept = futures_util::future::join_all((0..8).map(|_| h.broker.sweep(&one))).await;
    assert_eq!(swept.into_iter().map(|swept| swept.unwrap().lost.len()).sum::<usize>(), 1);
    assert_eq!(h.get(id).await.lost, 1);
}

pub async fn a_sweep_moves_due_jobs_on(h: Harness) {
    let id = h.enqueue(NewJob { delay: SOON, ..job("email") }).await;
    sweep(&h).await;
    assert_eq!(h.state(id).await, State::Scheduled);
    h.advance(SOON).await;
    sweep(&h).await;
    assert_eq!(h.state(id).await, State::Queued);
    h.counts_are_right().await;
}

pub async fn a_worker_that_retires_gives_its_runs_back(h: Harness) {
    let kept = h.enqueue(job("email")).await;
    let marked = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    let runs = h.claim(&worker, 2).await;
    h.broker.cancel(marked).await.unwrap();
    h.broker.retire(&worker).await.unwrap();
    h.broker.retire(&worker).await.unwrap();
    h.broker.retire(&WorkerId::random()).await.unwrap();
    let waiting = h.get(kept).await;
    assert_eq!((waiting.state, waiting.attempt, waiting.lost), (State::Queued, 0, 0));
    assert_eq!(waiting.attempts[0].outcome, Some(Outcome::Released));
    assert_eq!(h.state(marked).await, State::Cancelled);
    assert!(h.broker.workers().await.unwrap().is_empty());
    assert!(matches!(h.broker.renew(&beat(&worker, LONG)).await, Err(BrokerError::LeaseLost)));
    let late = h.broker.finish(vec![finish(&runs[0].run, succeeded())]).await.unwrap().remove(0);
    assert!(matches!(late, Err(BrokerError::LeaseLost)));
    h.counts_are_right().await;
}
