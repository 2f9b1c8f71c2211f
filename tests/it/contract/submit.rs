//! `enqueue` and `reserve_key`.

use std::collections::HashSet;
use std::time::Duration;

use super::harness::*;
use ryemill::broker::{Enqueued, Filter, NewJob, Reservation};
use ryemill::job::{JobId, Priority, State, Version};

pub async fn a_job_is_stored_as_given(h: Harness) {
    let parent = h.enqueue(job("report")).await;
    let given = NewJob {
        payload: json(r#"{ "text": "Grüße \u0000 🦀", "n": [1.50, -0] }"#),
        priority: Priority::new(9).unwrap(),
        max_attempts: 7,
        tags: vec!["a".into(), "ü \" '".into()],
        checked_with: Some(Version::new("v1").unwrap()),
        parent_id: Some(parent),
        depth: 3,
        ..job("email")
    };
    let answer = h.broker.enqueue(vec![given.clone()]).await.unwrap().remove(0);
    let stored = h.get(given.id).await;
    assert_eq!(
        answer,
        Enqueued {
            id: given.id,
            created: true,
            state: State::Queued,
            created_at: stored.created_at,
            run_at: stored.created_at
        }
    );
    assert_eq!(stored.payload.get(), given.payload.get(), "the payload is not to be touched");
    assert_eq!((stored.id, &stored.name, &stored.queue), (given.id, &given.name, &given.queue));
    assert_eq!((stored.state, stored.priority, stored.attempt, stored.lost), (State::Queued, given.priority, 0, 0));
    assert_eq!((stored.max_attempts, &stored.tags, &stored.request_id), (7, &given.tags, &given.request_id));
    assert_eq!(stored.parent_id, Some(parent));
    assert!(stored.progress.is_none() && stored.result.is_none() && stored.error.is_none());
    assert!(stored.attempts.is_empty() && stored.files.is_empty());
    assert!(stored.started_at.is_none() && stored.finished_at.is_none() && stored.script_version.is_none());
}

pub async fn a_delayed_job_is_scheduled(h: Harness) {
    let given = NewJob { delay: LONG, ..job("email") };
    let answer = h.broker.enqueue(vec![given.clone()]).await.unwrap().remove(0);
    assert_eq!(answer.state, State::Scheduled);
    assert_eq!(answer.run_at, answer.created_at.plus(LONG));
    let stored = h.get(given.id).await;
    assert_eq!((stored.state, stored.run_at), (State::Scheduled, answer.run_at));
}

pub async fn a_large_payload_comes_back_whole(h: Harness) {
    let text = format!("\"{}\"", "ab\\u0041".repeat(150_000));
    let id = h.enqueue(NewJob { payload: json(&text), ..job("email") }).await;
    assert_eq!(h.get(id).await.payload.get(), text);
    let worker = h.worker().await;
    assert_eq!(h.claim_one(&worker).await.payload.get(), text);
}

pub async fn many_jobs_are_answered_in_order(h: Harness) {
    assert!(h.broker.enqueue(Vec::new()).await.unwrap().is_empty());
    let jobs: Vec<NewJob> = (0..1000).map(|n| job_of("email", ["a", "b"][n % 2])).collect();
    let given: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let answers = h.broker.enqueue(jobs).await.unwrap();
    assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), given);
    assert!(answers.iter().all(|answer| answer.created));
    h.counts_are_right().await;
}

pub async fn an_id_that_exists_is_left_as_it_is_in_every_state(h: Harness) {
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        let before = h.snapshot(id).await;
        let stored = h.get(id).await;
        let again = NewJob { id, payload: json("\"other\""), delay: LONG, ..job_of("report", state.as_str()) };
        let answer = h.broker.enqueue(vec![again]).await.unwrap().remove(0);
        let expected = Enqueued { id, created: false, state, created_at: stored.created_at, run_at: stored.run_at };
        assert_eq!(answer, expected);
        assert_eq!(h.snapshot(id).await, before, "{state}");
    }
    h.counts_are_right().await;
}

pub async fn an_id_twice_in_one_call_is_stored_once(h: Harness) {
    let first = job("email");
    let second = NewJob { payload: json("2"), ..first.clone() };
    let answers = h.broker.enqueue(vec![first.clone(), second, job("email")]).await.unwrap();
    assert_eq!(answers.iter().map(|answer| answer.created).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(h.get(first.id).await.payload.get(), first.payload.get());
    assert_eq!(h.all(Filter { limit: 10, ..Filter::default() }).await.len(), 2);
}

pub async fn of_concurrent_enqueues_of_one_id_one_creates(h: Harness) {
    let given = job("email");
    let calls = (0..20).map(|_| h.broker.enqueue(vec![given.clone()]));
    let answers = futures_util::future::join_all(calls).await;
    let created = answers.into_iter().filter(|answer| answer.as_ref().unwrap()[0].created).count();
    assert_eq!(created, 1);
    h.counts_are_right().await;
}

fn reservation(byte: u8) -> Reservation {
    Reservation { job: JobId::new(&queue_name("default")), body_hash: [byte; 32] }
}

pub async fn the_first_reservation_of_a_key_stands_until_its_time_is_over(h: Harness) {
    let ttl = Duration::from_millis(400);
    let (mine, other) = (reservation(1), reservation(2));
    let first = h.broker.reserve_key("k/ü 1", mine.clone(), ttl).await.unwrap();
    assert!(first.first);
    assert_eq!(first.reservation, mine);
    let second = h.broker.reserve_key("k/ü 1", other.clone(), ttl).await.unwrap();
    assert!(!second.first);
    assert_eq!(second.reservation, mine);
    assert!(h.broker.reserve_key("k/ü 2", other.clone(), ttl).await.unwrap().first, "another key");
    h.advance(ttl).await;
    let later = h.broker.reserve_key("k/ü 1", other.clone(), ttl).await.unwrap();
    assert!(later.first);
    assert_eq!(later.reservation, other);
}

pub async fn of_concurrent_reservations_one_is_first_and_all_get_it(h: Harness) {
    let calls = (0..20).map(|n| h.broker.reserve_key("k", reservation(n), LONG));
    let answers: Vec<_> = futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| answer.first).count(), 1);
    let jobs: HashSet<JobId> = answers.iter().map(|answer| answer.reservation.job).collect();
    assert_eq!(jobs.len(), 1);
}
