//! `get`, `list`, `queues`.

use std::collections::HashSet;
use std::time::Duration;

use super::harness::*;
use ryemill::broker::{BrokerError, Claim, Filter, NewJob, Publication};
use ryemill::job::{JobId, RequestId, State};

fn filter(limit: usize) -> Filter {
    Filter { limit, ..Filter::default() }
}

pub async fn a_job_that_is_not_there_is_none(h: Harness) {
    assert!(h.broker.get(JobId::new(&queue_name("default"))).await.unwrap().is_none());
}

pub async fn a_list_is_newest_first_and_filtered(h: Harness) {
    let mut given = Vec::new();
    for n in 0..12 {
        let mut one = job_of(["email", "report"][n % 2], ["default", "mail", "slow"][n % 3]);
        one.tags = vec!["all".into(), format!("n{n}")];
        one.delay = if n % 4 == 0 { LONG } else { Duration::ZERO };
        given.push(one.clone());
        h.enqueue(one).await;
        // Which is newer of two queues' jobs of one microsecond, nobody can tell.
        h.advance(Duration::from_millis(1)).await;
    }
    given.reverse();
    let shared = RequestId::new("shared").unwrap();
    let tagged = NewJob { request_id: shared.clone(), ..job("email") };
    h.enqueue(tagged.clone()).await;
    given.insert(0, tagged);

    let state = |state| Filter { state: Some(state), ..filter(100) };
    let name = |name| Filter { name: Some(job_name(name)), ..filter(100) };
    let queue = |queue| Filter { queue: Some(queue_name(queue)), ..filter(100) };
    let filters = [
        filter(100),
        state(State::Queued),
        state(State::Scheduled),
        state(State::Failed),
        name("email"),
        name("report"),
        name("unknown"),
        queue("mail"),
        queue("unknown"),
        Filter { state: Some(State::Queued), ..name("email") },
        Filter { queue: Some(queue_name("default")), state: Some(State::Scheduled), ..name("email") },
        Filter { queue: Some(queue_name("slow")), ..name("report") },
        Filter { tag: Some("all".into()), ..filter(100) },
        Filter { tag: Some("n3".into()), ..filter(100) },
        Filter { tag: Some("n".into()), ..filter(100) },
        Filter { tag: Some("all".into()), ..state(State::Scheduled) },
        Filter { request_id: Some(shared), ..filter(100) },
        Filter { request_id: Some(RequestId::new("none").unwrap()), ..filter(100) },
    ];
    for filter in filters {
        let expected: Vec<JobId> = given
            .iter()
            .filter(|job| {
                let state = if job.delay.is_zero() { State::Queued } else { State::Scheduled };
                filter.state.is_none_or(|wanted| wanted == state)
                    && filter.name.as_ref().is_none_or(|wanted| *wanted == job.name)
                    && filter.queue.as_ref().is_none_or(|wanted| *wanted == job.queue)
                    && filter.tag.as_ref().is_none_or(|wanted| job.tags.contains(wanted))
                    && filter.request_id.as_ref().is_none_or(|wanted| *wanted == job.request_id)
            })
            .map(|job| job.id)
            .collect();
        for limit in [100, 2] {
            let found = h.all(Filter { limit, ..filter.clone() }).await;
            let found: Vec<JobId> = found.iter().map(|job| job.id).collect();
            assert_eq!(found, expected, "{filter:?}");
        }
    }
}

pub async fn a_page_is_limited_and_the_last_one_has_no_cursor(h: Harness) {
    let jobs: Vec<NewJob> = (0..300).map(|_| job("email")).collect();
    h.broker.enqueue(jobs).await.unwrap();
    let mut sizes = Vec::new();
    let mut wanted = filter(100);
    loop {
        let page = h.broker.list(&wanted).await.unwrap();
        sizes.push(page.jobs.len());
        wanted.cursor = page.next;
        if wanted.cursor.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [100, 100, 100]);
    assert!(h.broker.list(&filter(10)).await.unwrap().next.is_some());
}

pub async fn a_walk_gives_every_job_once_while_others_come_and_move(h: Harness) {
    let jobs: Vec<NewJob> = (0..50).map(|n| job(["email", "report"][n % 2])).collect();
    let there: Vec<JobId> = jobs.iter().map(|job| job.id).rev().collect();
    h.broker.enqueue(jobs).await.unwrap();
    let worker = h.worker().await;
    let mut seen = Vec::new();
    let mut wanted = Filter { queue: Some(queue_name("default")), ..filter(7) };
    loop {
        let page = h.broker.list(&wanted).await.unwrap();
        seen.extend(page.jobs.iter().map(|job| job.id));
        h.enqueue(job("email")).await;
        for claimed in h.claim(&worker, 3).await {
            h.finish(&claimed.run, succeeded()).await;
        }
        wanted.cursor = page.next;
        if wanted.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, there);
}

pub async fn a_rare_tag_is_found_page_by_page(h: Harness) {
    let rare = h.enqueue(NewJob { tags: vec!["rare".into()], ..job("email") }).await;
    for _ in 0..21 {
        let jobs: Vec<NewJob> = (0..1000).map(|_| job("email")).collect();
        h.broker.enqueue(jobs).await.unwrap();
    }
    let wanted = Filter { tag: Some("rare".into()), ..filter(10) };
    let first = h.broker.list(&wanted).await.unwrap();
    assert!(first.jobs.is_empty() && first.next.is_some(), "one call examines 10 000 records");
    let found = h.all(wanted).await;
    assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), [rare]);
}

pub async fn a_cursor_that_is_none_is_refused(h: Harness) {
    h.enqueue(job("email")).await;
    for cursor in ["", "x", "AAAA", "../../etc", "🦀", &"A".repeat(10_000)] {
        let answer = h.broker.list(&Filter { cursor: Some(cursor.into()), ..filter(10) }).await;
        assert!(matches!(answer, Err(BrokerError::Invalid(_))), "{cursor:?}: {answer:?}");
    }
}

pub async fn queues_show_their_counts_and_how_long_the_first_has_waited(h: Harness) {
    assert!(h.broker.queues().await.unwrap().is_empty());
    for state in State::ALL {
        h.job_in(state, "mixed").await;
        if state == State::Queued {
            // Out of the way of the claims of the next ones.
            let worker = h.worker().await;
            let wanted = Claim { queues: vec![queue_name("mixed")], ..claim(&worker, 1) };
            let run = h.broker.claim(&wanted).await.unwrap().jobs.remove(0).run;
            h.finish(&run, succeeded()).await;
        }
    }
    h.enqueue(job_of("email", "mixed")).await;
    h.broker.set_paused(&queue_name("paused"), true).await.unwrap();
    h.advance(Duration::from_millis(500)).await;
    h.enqueue(job_of("report", "mixed")).await;
    let queues = h.broker.queues().await.unwrap();
    assert_eq!(queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["mixed", "paused"]);
    let mixed = &queues[0];
    let counts = [mixed.scheduled, mixed.queued, mixed.running, mixed.succeeded, mixed.failed, mixed.cancelled];
    assert_eq!(counts, [1, 2, 1, 2, 1, 1]);
    assert!(mixed.oldest_queued_seconds.is_some_and(|seconds| (0.5..5.0).contains(&seconds)), "{mixed:?}");
    assert!(queues[1].paused && queues[1].oldest_queued_seconds.is_none());
    h.counts_are_right().await;
}

pub async fn a_queued_job_says_why_it_waits(h: Harness) {
    let id = h.enqueue(job("email")).await;
    let reason = h.get(id).await.reason.expect("nobody has the type");
    assert!(reason.contains("email"), "{reason}");
    let worker = h.worker().await;
    let publication = Publication { worker: worker.clone(), types: vec![loaded("email", "v1")], refused: Vec::new() };
    h.broker.publish(&publication).await.unwrap();
    assert_eq!(h.get(id).await.reason, None);
    h.broker.set_paused(&queue_name("default"), true).await.unwrap();
    assert!(h.get(id).await.reason.is_some_and(|reason| reason.contains("paused")));
    h.broker.set_paused(&queue_name("default"), false).await.unwrap();
    h.broker.retire(&worker).await.unwrap();
    let listed = h.broker.list(&filter(10)).await.unwrap().jobs.remove(0);
    assert!(listed.reason.is_some_and(|reason| reason.contains("email")));
}

pub async fn lists_do_not_repeat_ids_over_queues(h: Harness) {
    let mut given = HashSet::new();
    for n in 0..40 {
        given.insert(h.enqueue(job_of("email", &format!("q{}", n % 8))).await);
    }
    let found = h.all(Filter { name: Some(job_name("email")), ..filter(3) }).await;
    assert_eq!(found.len(), 40);
    assert_eq!(found.iter().map(|job| job.id).collect::<HashSet<_>>(), given);
}
