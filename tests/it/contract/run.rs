//! What a run tells on its way, how it ends, and that a stale one is refused.

use std::time::Duration;

use super::harness::*;
use ryemill::broker::{BrokerError, Finish, LogBatch, NewJob, Run};
use ryemill::job::{FileInfo, JobId, Outcome, Progress, RunEnd, RunToken, State, Version};

const SOON: Duration = Duration::from_millis(300);

fn file(name: &str, size: u64) -> FileInfo {
    FileInfo { name: name.into(), size, content_type: "text/csv".into(), sha256: "00".repeat(32) }
}

fn progress(percent: f64, message: &str) -> Progress {
    Progress { percent, message: message.into() }
}

fn retry(delay: Duration) -> RunEnd {
    RunEnd::Retry { error: error("not yet"), delay }
}

fn released(delay: Duration) -> RunEnd {
    RunEnd::Released { reason: "the worker stops".into(), delay }
}

/// A running job and its run.
async fn running(h: &Harness) -> (JobId, Run) {
    let id = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    (id, h.claim_one(&worker).await.run)
}

pub async fn a_result_ends_the_job(h: Harness) {
    let (id, run) = running(&h).await;
    h.advance(SOON).await;
    let version = Version::new("v3").unwrap();
    let end = Finish { script_version: Some(version.clone()), ..finish(&run, succeeded()) };
    assert!(h.broker.finish(vec![end]).await.unwrap()[0].is_ok());
    let ended = h.get(id).await;
    assert_eq!(ended.state, State::Succeeded);
    assert_eq!(ended.result.unwrap().get(), "{\"ok\":true}");
    assert_eq!((ended.attempt, ended.error, ended.script_version.as_ref()), (1, None, Some(&version)));
    let last = ended.attempts.last().unwrap();
    assert_eq!((ended.attempts.len(), last.number, last.outcome), (1, 1, Some(Outcome::Succeeded)));
    assert_eq!((last.script_version.as_ref(), last.finished_at), (Some(&version), ended.finished_at));
    assert!(ended.finished_at.unwrap() >= ended.started_at.unwrap().plus(SOON));
    h.counts_are_right().await;
}

pub async fn an_error_ends_the_job(h: Harness) {
    let (id, run) = running(&h).await;
    h.finish(&run, failed()).await;
    let ended = h.get(id).await;
    assert_eq!((ended.state, ended.error.as_ref()), (State::Failed, Some(&error("no luck"))));
    let last = &ended.attempts[0];
    assert_eq!((last.outcome, last.error.as_ref()), (Some(Outcome::Failed), Some(&error("no luck"))));
    h.counts_are_right().await;
}

pub async fn a_cancelled_run_ends_the_job(h: Harness) {
    let (id, run) = running(&h).await;
    h.finish(&run, RunEnd::Cancelled).await;
    let ended = h.get(id).await;
    assert_eq!((ended.state, ended.attempts[0].outcome), (State::Cancelled, Some(Outcome::Cancelled)));
    assert!(ended.finished_at.is_some());
    h.counts_are_right().await;
}

pub async fn a_retry_waits_its_delay_and_burns_the_attempt(h: Harness) {
    let (id, run) = running(&h).await;
    h.finish(&run, retry(SOON)).await;
    let waiting = h.get(id).await;
    assert_eq!((waiting.state, waiting.attempt, waiting.finished_at), (State::Scheduled, 1, None));
    assert_eq!(waiting.error, Some(error("not yet")));
    assert!(waiting.reason.is_some_and(|reason| reason.contains("not yet")));
    let first = &waiting.attempts[0];
    assert_eq!((waiting.attempts.len(), first.number, first.outcome), (1, 1, Some(Outcome::Retried)));
    assert_eq!(first.error, Some(error("not yet")));
    assert_eq!(waiting.run_at, first.finished_at.unwrap().plus(SOON));
    h.counts_are_right().await;

    let worker = h.worker().await;
    assert!(h.claim(&worker, 1).await.is_empty());
    h.advance(SOON).await;
    let again = h.claim_one(&worker).await;
    assert_eq!((again.attempt, again.ready_at), (2, waiting.run_at));
    assert_ne!(again.run.token, run.token);
    h.finish(&again.run, succeeded()).await;
    let ended = h.get(id).await;
    assert_eq!((ended.state, ended.error), (State::Succeeded, None));
    let outcomes: Vec<_> = ended.attempts.iter().map(|attempt| (attempt.number, attempt.outcome.unwrap())).collect();
    assert_eq!(outcomes, [(1, Outcome::Retried), (2, Outcome::Succeeded)]);
    h.counts_are_right().await;
}

pub async fn a_retry_without_delay_is_due_at_once(h: Harness) {
    let (id, run) = running(&h).await;
    h.finish(&run, retry(Duration::ZERO)).await;
    assert_eq!(h.state(id).await, State::Scheduled);
    let worker = h.worker().await;
    assert_eq!(h.claim_one(&worker).await.attempt, 2);
}

pub async fn a_release_gives_the_attempt_back(h: Harness) {
    let (id, run) = running(&h).await;
    h.finish(&run, released(Duration::ZERO)).await;
    let waiting = h.get(id).await;
    assert_eq!((waiting.state, waiting.attempt, waiting.error.as_ref()), (State::Queued, 0, None));
    assert_eq!(waiting.attempts[0].outcome, Some(Outcome::Released));
    h.counts_are_right().await;

    let worker = h.worker().await;
    let again = h.claim_one(&worker).await;
    assert_eq!(again.attempt, 1);
    h.finish(&again.run, released(SOON)).await;
    let waiting = h.get(id).await;
    assert_eq!((waiting.state, waiting.attempt), (State::Scheduled, 0));
    assert_eq!(waiting.reason.as_deref(), Some("the worker stops"));
    assert_eq!(waiting.attempts.len(), 2);
    h.advance(SOON).await;
    assert_eq!(h.claim_one(&worker).await.attempt, 1);
    h.counts_are_right().await;
}

pub async fn a_job_whose_cancel_mark_is_set_ends_instead_of_going_on(h: Harness) {
    let expected = [
        (retry(SOON), State::Cancelled),
        (released(Duration::ZERO), State::Cancelled),
        (released(SOON), State::Cancelled),
        (RunEnd::Cancelled, State::Cancelled),
        (succeeded(), State::Succeeded),
        (failed(), State::Failed),
    ];
    for (end, state) in expected {
        let (id, run) = running(&h).await;
        assert_eq!(h.broker.cancel(id).await.unwrap(), State::Running);
        h.finish(&run, end.clone()).await;
        let ended = h.get(id).await;
        assert_eq!(ended.state, state, "{end:?}");
        assert_eq!(ended.attempts.len(), 1);
        assert!(ended.finished_at.is_some());
    }
    h.counts_are_right().await;
}

pub async fn a_batch_of_ends_is_answered_one_by_one(h: Harness) {
    let jobs: Vec<NewJob> = (0..6).map(|_| job("email")).collect();
    h.broker.enqueue(jobs).await.unwrap();
    let worker = h.worker().await;
    let runs: Vec<Run> = h.claim(&worker, 6).await.into_iter().map(|job| job.run).collect();
    let stale = Run { token: RunToken::random(), ..runs[1].clone() };
    let unknown = Run { job: JobId::new(&queue_name("default")), ..runs[0].clone() };
    let ends = vec![
        finish(&runs[0], succeeded()),
        finish(&stale, succeeded()),
        finish(&runs[2], failed()),
        finish(&unknown, succeeded()),
        finish(&runs[3], retry(SOON)),
        finish(&runs[0], failed()),
        finish(&runs[4], released(Duration::ZERO)),
        finish(&runs[5], RunEnd::Cancelled),
    ];
    let answers = h.broker.finish(ends).await.unwrap();
    let fine: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, false, true, false, true, false, true, true]);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(()) | Err(BrokerError::LeaseLost))), "{answers:?}");
    let mut states = Vec::new();
    for run in &runs {
        states.push(h.state(run.job).await);
    }
    assert_eq!(
        states,
        [State::Succeeded, State::Running, State::Failed, State::Scheduled, State::Queued, State::Cancelled]
    );
    assert!(h.broker.finish(Vec::new()).await.unwrap().is_empty());
    h.counts_are_right().await;
}

/// Every verb that carries a token, on a job in every state, with a token that is not the current one: refused, and
/// nothing has changed.
pub async fn a_stale_token_is_refused_by_every_verb_in_every_state(h: Harness) {
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        let run = stale_run(id, state.as_str());
        let before = h.snapshot(id).await;
        let lost = |answer: Result<(), BrokerError>, verb: &str| {
            assert!(matches!(answer, Err(BrokerError::LeaseLost)), "{verb} on {state}: {answer:?}");
        };
        lost(h.broker.extend(&run, LONG).await, "extend");
        lost(h.broker.progress(&run, &progress(50.0, "half")).await, "progress");
        lost(h.broker.record_file(&run, &file("a.csv", 1)).await, "record_file");
        let batch = LogBatch { run: run.clone(), attempt: 1, first: 0, lines: vec![line("late")], dropped: 5 };
        lost(h.broker.log(vec![batch], 1 << 20).await.unwrap().remove(0), "log");
        for end in [succeeded(), failed(), retry(SOON), released(SOON), RunEnd::Cancelled] {
            lost(h.broker.finish(vec![finish(&run, end)]).await.unwrap().remove(0), "finish");
        }
        assert_eq!(h.snapshot(id).await, before, "{state}");
        let logs = h.broker.logs(id, 0, 10).await.unwrap().unwrap();
        assert_eq!((logs.lines.len(), logs.dropped), (0, 0));
    }
    h.counts_are_right().await;
}

/// The token of a run that has ended, in each of the ways a run ends.
pub async fn the_token_of_an_ended_run_is_stale(h: Harness) {
    for end in [succeeded(), failed(), retry(SOON), released(Duration::ZERO), RunEnd::Cancelled] {
        let (id, run) = running(&h).await;
        h.finish(&run, end).await;
        let before = h.snapshot(id).await;
        for again in [succeeded(), failed(), retry(SOON), released(SOON), RunEnd::Cancelled] {
            let answer = h.broker.finish(vec![finish(&run, again)]).await.unwrap().remove(0);
            assert!(matches!(answer, Err(BrokerError::LeaseLost)), "{answer:?}");
        }
        assert!(matches!(h.broker.progress(&run, &progress(1.0, "")).await, Err(BrokerError::LeaseLost)));
        assert_eq!(h.snapshot(id).await, before);
        if !h.state(id).await.is_terminal() {
            h.broker.cancel(id).await.unwrap();
        }
    }
}

pub async fn the_last_progress_wins_and_goes_with_its_run(h: Harness) {
    let (id, run) = running(&h).await;
    for n in 1..=3 {
        h.broker.progress(&run, &progress(f64::from(n) * 12.5, "步")).await.unwrap();
    }
    assert_eq!(h.get(id).await.progress, Some(progress(37.5, "步")));
    h.finish(&run, retry(Duration::ZERO)).await;
    let worker = h.worker().await;
    let again = h.claim_one(&worker).await.run;
    assert_eq!(h.get(id).await.progress, None);
    h.broker.progress(&again, &progress(100.0, "done")).await.unwrap();
    h.finish(&again, succeeded()).await;
    assert_eq!(h.get(id).await.progress, Some(progress(100.0, "done")));
}

pub async fn files_are_listed_by_name_and_replaced(h: Harness) {
    let (id, run) = running(&h).await;
    for (name, size) in [("b.csv", 1), ("a.csv", 2), ("b.csv", 3)] {
        h.broker.record_file(&run, &file(name, size)).await.unwrap();
    }
    h.finish(&run, retry(Duration::ZERO)).await;
    assert_eq!(h.get(id).await.files, [file("a.csv", 2), file("b.csv", 3)], "they outlive the run");
}

pub async fn extend_gives_a_run_more_time(h: Harness) {
    let id = h.enqueue(NewJob { timeout: SOON, ..job("email") }).await;
    let other = h.enqueue(NewJob { timeout: SOON, ..job("email") }).await;
    let worker = h.worker().await;
    let runs = h.claim(&worker, 2).await;
    h.broker.extend(&runs[0].run, LONG).await.unwrap();
    h.advance(SOON * 2).await;
    let swept = h.broker.sweep(&sweep_with(Duration::ZERO)).await.unwrap();
    assert_eq!(swept.lost, [runs[1].run.clone()]);
    assert_eq!((h.state(id).await, h.state(other).await), (State::Running, State::Queued));
}
