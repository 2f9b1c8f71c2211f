//! `claim`: who gets which job, in which order.

use std::collections::HashSet;
use std::time::Duration;

use super::harness::*;
use ryemill::broker::{BrokerError, Claim, ClaimedJob, NewJob};
use ryemill::job::{ClaimTicket, Outcome, Priority, State, Version, WorkerId};

const SOON: Duration = Duration::from_millis(300);

fn with_priority(priority: i64) -> NewJob {
    NewJob { priority: Priority::new(priority).unwrap(), ..job("email") }
}

pub async fn a_claimed_job_says_all_that_a_run_needs(h: Harness) {
    let given = NewJob {
        priority: Priority::new(2).unwrap(),
        timeout: Duration::from_millis(1_234),
        max_attempts: 4,
        tags: vec!["x".into()],
        checked_with: Some(Version::new("v7").unwrap()),
        depth: 2,
        ..job("email")
    };
    h.enqueue(given.clone()).await;
    let worker = h.worker().await;
    h.advance(SOON).await;
    let claimed = h.claim_one(&worker).await;
    assert_eq!((claimed.run.job, &claimed.run.queue, &claimed.name), (given.id, &given.queue, &given.name));
    assert_eq!(claimed.payload.get(), given.payload.get());
    assert_eq!((claimed.attempt, claimed.max_attempts, claimed.timeout), (1, 4, given.timeout));
    assert_eq!((&claimed.tags, &claimed.request_id), (&given.tags, &given.request_id));
    assert_eq!((&claimed.checked_with, claimed.priority, claimed.depth), (&given.checked_with, given.priority, 2));
    assert!(!claimed.suspect);
    let stored = h.get(given.id).await;
    assert_eq!((stored.state, stored.attempt), (State::Running, 1));
    assert_eq!((claimed.created_at, claimed.ready_at), (stored.created_at, stored.created_at));
    assert!(stored.started_at.unwrap() >= stored.created_at.plus(SOON));
    let run = &stored.attempts[0];
    assert_eq!((run.number, &run.worker_id, run.outcome, run.finished_at), (1, &worker, None::<Outcome>, None));
}

pub async fn a_burst_goes_by_priority_and_then_in_order(h: Harness) {
    let jobs: Vec<NewJob> = [5, 0, 9, 5, 9, 0, 3].into_iter().map(with_priority).collect();
    let given: Vec<_> = jobs.iter().map(|job| job.id).collect();
    h.broker.enqueue(jobs).await.unwrap();
    let worker = h.worker().await;
    let order = ids(&h.claim(&worker, 10).await);
    assert_eq!(order, [2, 4, 0, 3, 6, 1, 5].map(|n: usize| given[n]));
}

pub async fn within_a_priority_the_first_in_is_the_first_out(h: Harness) {
    let mut given = Vec::new();
    for _ in 0..5 {
        let jobs: Vec<NewJob> = (0..60).map(|_| job("email")).collect();
        given.extend(jobs.iter().map(|job| job.id));
        h.broker.enqueue(jobs).await.unwrap();
    }
    let worker = h.worker().await;
    let mut order = Vec::new();
    for limit in [1, 7, 64, 0, 200, 100] {
        let claimed = h.claim(&worker, limit).await;
        assert!(claimed.len() <= limit);
        order.extend(ids(&claimed));
    }
    assert_eq!(order, given);
    h.counts_are_right().await;
}

pub async fn priority_holds_across_types(h: Harness) {
    let jobs: Vec<NewJob> = (0..90)
        .map(|n| NewJob { name: job_name(["a", "b", "c"][n % 3]), ..with_priority([9, 5, 1][n / 3 % 3]) })
        .collect();
    let mut expected: Vec<_> = jobs.iter().map(|job| (9 - job.priority.get(), job.id)).collect();
    expected.sort_by_key(|(rank, _)| *rank);
    h.broker.enqueue(jobs).await.unwrap();
    let worker = h.worker().await;
    let order = ids(&h.claim(&worker, 100).await);
    assert_eq!(order, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

pub async fn queues_are_served_in_the_order_given(h: Harness) {
    for queue in ["low", "high", "low", "high", "other"] {
        h.enqueue(job_of("email", queue)).await;
    }
    let worker = h.worker().await;
    let wanted = Claim { queues: vec![queue_name("high"), queue_name("none"), queue_name("low")], ..claim(&worker, 3) };
    let claimed = h.broker.claim(&wanted).await.unwrap().jobs;
    let queues: Vec<&str> = claimed.iter().map(|job| job.run.queue.as_str()).collect();
    assert_eq!(queues, ["high", "high", "low"]);
}

pub async fn a_type_that_the_worker_lacks_is_passed_over_and_blocks_nothing(h: Harness) {
    let blocked: Vec<NewJob> =
        (0..500).map(|n| NewJob { name: job_name(["x", "y"][n % 2]), ..with_priority(9) }).collect();
    h.broker.enqueue(blocked).await.unwrap();
    let mine = h.enqueue(with_priority(0)).await;
    let worker = h.worker().await;
    let wanted = Claim { lacking: ["x", "never_seen", "y"].map(job_name).into(), ..claim(&worker, 10) };
    assert_eq!(ids(&h.broker.claim(&wanted).await.unwrap().jobs), [mine]);
    let wanted = Claim { ticket: ClaimTicket::random(), ..wanted };
    assert!(h.broker.claim(&wanted).await.unwrap().jobs.is_empty());
    assert_eq!(h.claim(&worker, 1000).await.len(), 500, "they waited for a worker that has them");
}

pub async fn a_paused_queue_gives_nothing_until_it_is_resumed(h: Harness) {
    let running = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    let run = h.claim_one(&worker).await.run;
    let waiting = h.enqueue(job("email")).await;
    let other = h.enqueue(job_of("email", "other")).await;
    h.broker.set_paused(&queue_name("default"), true).await.unwrap();
    h.broker.set_paused(&queue_name("default"), true).await.unwrap();
    let wanted = Claim { queues: vec![queue_name("default"), queue_name("other")], ..claim(&worker, 10) };
    assert_eq!(ids(&h.broker.claim(&wanted).await.unwrap().jobs), [other]);
    h.finish(&run, succeeded()).await;
    assert_eq!(h.state(running).await, State::Succeeded, "runs go on");
    h.broker.set_paused(&queue_name("default"), false).await.unwrap();
    let wanted = Claim { ticket: ClaimTicket::random(), ..wanted };
    assert_eq!(ids(&h.broker.claim(&wanted).await.unwrap().jobs), [waiting]);
}

pub async fn a_queue_without_jobs_can_be_paused_beforehand(h: Harness) {
    h.broker.set_paused(&queue_name("default"), true).await.unwrap();
    h.enqueue(job("email")).await;
    let worker = h.worker().await;
    assert!(h.claim(&worker, 1).await.is_empty());
    assert!(h.broker.queues().await.unwrap()[0].paused);
}

pub async fn a_scheduled_job_is_claimed_when_its_time_has_come(h: Harness) {
    let later = h.enqueue(NewJob { delay: SOON * 2, ..job("email") }).await;
    let soon = h.enqueue(NewJob { delay: SOON, ..job("report") }).await;
    let worker = h.worker().await;
    let early = h.broker.claim(&claim(&worker, 10)).await.unwrap();
    assert!(early.jobs.is_empty());
    let wait = early.next_due.expect("one is due");
    assert!(wait <= SOON && wait > Duration::ZERO, "{wait:?}");
    h.advance(wait).await;
    let first = h.broker.claim(&claim(&worker, 10)).await.unwrap();
    assert_eq!(ids(&first.jobs), [soon]);
    assert_eq!(first.jobs[0].ready_at, h.get(soon).await.run_at);
    let wait = first.next_due.expect("another is due");
    assert!(wait <= SOON, "{wait:?}");
    h.advance(wait).await;
    let second = h.broker.claim(&claim(&worker, 10)).await.unwrap();
    assert_eq!(ids(&second.jobs), [later]);
    assert_eq!(second.next_due, None);
    h.counts_are_right().await;
}

pub async fn next_due_is_of_the_queues_that_were_asked_for(h: Harness) {
    h.enqueue(NewJob { delay: SOON, ..job_of("email", "other") }).await;
    h.enqueue(NewJob { delay: LONG, ..job("email") }).await;
    let worker = h.worker().await;
    let wait = h.broker.claim(&claim(&worker, 1)).await.unwrap().next_due.unwrap();
    assert!(wait > SOON && wait <= LONG, "{wait:?}");
}

pub async fn only_queued_jobs_are_claimed(h: Harness) {
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        let before = h.snapshot(id).await;
        let worker = h.worker().await;
        let wanted = Claim { queues: vec![queue_name(state.as_str())], suspect: true, ..claim(&worker, 5) };
        let claimed = ids(&h.broker.claim(&wanted).await.unwrap().jobs);
        if state == State::Queued {
            assert_eq!(claimed, [id]);
        } else {
            assert_eq!(claimed, [], "{state}");
            assert_eq!(h.snapshot(id).await, before);
        }
    }
}

pub async fn a_claim_needs_a_live_lease(h: Harness) {
    h.enqueue(job("email")).await;
    let unknown = h.broker.claim(&claim(&WorkerId::random(), 1)).await;
    assert!(matches!(unknown, Err(BrokerError::LeaseLost)), "{unknown:?}");
    let worker = h.worker_with(LEASE).await;
    h.advance(LEASE).await;
    let late = h.broker.claim(&claim(&worker, 1)).await;
    assert!(matches!(late, Err(BrokerError::LeaseLost)), "{late:?}");
    // Nobody has swept yet: the worker may still renew.
    h.broker.renew(&beat(&worker, LONG)).await.unwrap();
    h.claim_one(&worker).await;
}

pub async fn two_claims_never_get_the_same_run(h: Harness) {
    let jobs: Vec<NewJob> = (0..300).map(|_| job("email")).collect();
    h.broker.enqueue(jobs).await.unwrap();
    let mut workers = Vec::new();
    for _ in 0..10 {
        workers.push(h.worker().await);
    }
    let claims: Vec<Claim> = workers.iter().map(|worker| claim(worker, 40)).collect();
    let answers = futures_util::future::join_all(claims.iter().map(|claim| h.broker.claim(claim))).await;
    let claimed: Vec<_> = answers.into_iter().flat_map(|answer| answer.unwrap().jobs).collect();
    assert_eq!(claimed.len(), 300);
    assert_eq!(ids(&claimed).into_iter().collect::<HashSet<_>>().len(), 300);
    assert_eq!(claimed.iter().map(|job| job.run.token).collect::<HashSet<_>>().len(), 300, "tokens are fresh");
    h.counts_are_right().await;
}

pub async fn a_claim_made_again_gives_the_same_runs_as_far_as_they_go_on(h: Harness) {
    for queue in ["default", "other"] {
        for _ in 0..2 {
            h.enqueue(job_of("email", queue)).await;
        }
    }
    let worker = h.worker().await;
    let wanted = Claim { queues: vec![queue_name("default"), queue_name("other")], ..claim(&worker, 10) };
    let first = h.broker.claim(&wanted).await.unwrap().jobs;
    assert_eq!(first.len(), 4);
    h.enqueue(job("email")).await;
    let again = h.broker.claim(&wanted).await.unwrap().jobs;
    let seen = |jobs: &[ClaimedJob]| -> Vec<_> {
        jobs.iter().map(|job| (job.run.clone(), job.attempt, job.payload.get().to_owned())).collect()
    };
    assert_eq!(seen(&again), seen(&first));
    assert_eq!(h.get(first[0].run.job).await.attempt, 1, "it was claimed once");
    h.finish(&first[0].run, succeeded()).await;
    let rest = h.broker.claim(&wanted).await.unwrap().jobs;
    assert_eq!(seen(&rest), seen(&first[1..]));
    let next = Claim { ticket: ClaimTicket::random(), ..wanted };
    assert_eq!(h.broker.claim(&next).await.unwrap().jobs.len(), 1, "another claim gets what came since");
    h.counts_are_right().await;
}
