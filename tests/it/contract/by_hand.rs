//! `cancel`, `retry`, `delete`: on a job in every state, as the table of states says.

use super::harness::*;
use ryemill::broker::{BrokerError, Claim, LogBatch, NewJob};
use ryemill::job::{Event, JobId, Outcome, Progress, State};

fn illegal(answer: Result<(), BrokerError>, from: State) {
    match answer {
        Err(BrokerError::IllegalState(transition)) => assert_eq!(transition.from, from),
        other => panic!("on {from}: {other:?}"),
    }
}

pub async fn cancel_does_what_the_state_allows(h: Harness) {
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        let before = h.snapshot(id).await;
        let answer = h.broker.cancel(id).await;
        match state {
            State::Scheduled | State::Queued => {
                assert_eq!(answer.unwrap(), State::Cancelled);
                let ended = h.get(id).await;
                assert_eq!((ended.state, ended.attempts.len()), (State::Cancelled, 0));
                assert!(ended.finished_at.is_some());
                assert_eq!(h.broker.cancel(id).await.unwrap(), State::Cancelled, "once more");
            }
            State::Running => {
                assert_eq!(answer.unwrap(), State::Running);
                assert_eq!(h.broker.cancel(id).await.unwrap(), State::Running, "once more");
                assert_eq!(h.state(id).await, State::Running, "until its run has stopped");
            }
            State::Cancelled => {
                assert_eq!(answer.unwrap(), State::Cancelled);
                assert_eq!(h.snapshot(id).await, before);
            }
            State::Succeeded | State::Failed => {
                illegal(answer.map(drop), state);
                assert_eq!(h.snapshot(id).await, before);
            }
        }
    }
    h.counts_are_right().await;
}

pub async fn retry_does_what_the_table_allows(h: Harness) {
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        let before = h.snapshot(id).await;
        let answer = h.broker.retry(id).await;
        if let Ok(next) = state.on(Event::Requeue) {
            answer.unwrap();
            assert_eq!(h.state(id).await, next);
        } else {
            illegal(answer, state);
            assert_eq!(h.snapshot(id).await, before);
        }
    }
    h.counts_are_right().await;
}

pub async fn a_retried_job_has_all_its_attempts_again(h: Harness) {
    let id = h.enqueue(NewJob { max_attempts: 2, ..job("email") }).await;
    let worker = h.worker().await;
    let run = h.claim_one(&worker).await.run;
    h.broker.progress(&run, &Progress { percent: 1.0, message: "a".into() }).await.unwrap();
    h.finish(&run, failed()).await;
    let ended = h.get(id).await;
    h.broker.retry(id).await.unwrap();
    let waiting = h.get(id).await;
    assert_eq!((waiting.state, waiting.attempt), (State::Queued, 0));
    assert!(waiting.error.is_none() && waiting.result.is_none() && waiting.progress.is_none());
    assert!(waiting.finished_at.is_none() && waiting.started_at.is_none());
    assert_eq!(waiting.attempts, ended.attempts, "its history stays");
    let again = h.claim_one(&worker).await;
    assert_eq!((again.attempt, again.max_attempts), (1, 2));
    h.finish(&again.run, succeeded()).await;
    let outcomes: Vec<_> = h.get(id).await.attempts.iter().map(|attempt| attempt.outcome.unwrap()).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Succeeded]);
    h.counts_are_right().await;
}

pub async fn delete_does_what_the_state_allows(h: Harness) {
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        let answer = h.broker.delete(id).await;
        if state == State::Running {
            illegal(answer, state);
            assert_eq!(h.state(id).await, state);
        } else {
            answer.unwrap();
            assert!(h.broker.get(id).await.unwrap().is_none());
            assert!(h.broker.logs(id, 0, 1).await.unwrap().is_none());
            let again = h.broker.delete(id).await;
            assert!(matches!(again, Err(BrokerError::NotFound(missing)) if missing == id), "{again:?}");
        }
        let worker = h.worker().await;
        let wanted = Claim { queues: vec![queue_name(state.as_str())], ..claim(&worker, 5) };
        assert!(h.broker.claim(&wanted).await.unwrap().jobs.is_empty());
    }
    h.counts_are_right().await;
}

pub async fn a_deleted_jobs_log_does_not_come_back_with_its_id(h: Harness) {
    let given = job("email");
    let id = h.enqueue(given.clone()).await;
    let worker = h.worker().await;
    let run = h.claim_one(&worker).await.run;
    let batch = LogBatch { run: run.clone(), attempt: 1, first: 0, lines: vec![line("a")], dropped: 1 };
    h.broker.log(vec![batch], 1 << 20).await.unwrap();
    h.finish(&run, failed()).await;
    h.broker.delete(id).await.unwrap();
    h.enqueue(given).await;
    let logs = h.broker.logs(id, 0, 10).await.unwrap().unwrap();
    assert_eq!((logs.lines.len(), logs.dropped), (0, 0));
    assert!(h.get(id).await.attempts.is_empty());
}

pub async fn a_job_that_is_not_there_is_not_found(h: Harness) {
    let id = JobId::new(&queue_name("default"));
    for answer in [h.broker.cancel(id).await.map(drop), h.broker.retry(id).await, h.broker.delete(id).await] {
        assert!(matches!(answer, Err(BrokerError::NotFound(missing)) if missing == id), "{answer:?}");
    }
}
