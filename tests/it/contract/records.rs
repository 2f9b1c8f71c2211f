//! `check_records`: a healthy broker has no faults, whatever goes on meanwhile. What it finds and mends is in `records`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::harness::*;
use ryemill::broker::{Checked, Claim, LogBatch, NewJob, Publication};
use ryemill::job::{ClaimTicket, FileInfo, JobId, Progress, RunEnd, State};

/// A job in every state, with all that a job can have beside it.
pub async fn furnish(h: &Harness) -> Vec<JobId> {
    let mut ids = Vec::new();
    for state in State::ALL {
        ids.push(h.job_in(state, &format!("q-{state}")).await);
    }
    let worker = h.worker().await;
    for n in 0..5 {
        ids.push(h.enqueue(NewJob { tags: vec![n.to_string()], ..job("email") }).await);
    }
    for claimed in h.claim(&worker, 3).await {
        let run = claimed.run;
        let lines = vec![line("one"), line("two")];
        h.broker
            .log(vec![LogBatch { run: run.clone(), attempt: 1, first: 0, lines, dropped: 1 }], 1 << 20)
            .await
            .unwrap();
        let file =
            FileInfo { name: "a.txt".into(), size: 1, content_type: "text/plain".into(), sha256: "0".repeat(64) };
        h.broker.record_file(&run, &file).await.unwrap();
        h.broker.progress(&run, &Progress { percent: 50.0, message: "half".into() }).await.unwrap();
        let delay = if run.job == ids[6] { Duration::ZERO } else { LONG };
        h.finish(&run, RunEnd::Released { reason: "not now".into(), delay }).await;
    }
    h.broker.cancel(ids[10]).await.unwrap();
    h.broker.set_paused(&queue_name("q-queued"), true).await.unwrap();
    let publication = Publication { worker, types: vec![loaded("email", "v1")], refused: Vec::new() };
    h.broker.publish(&publication).await.unwrap();
    ids
}

pub async fn a_healthy_broker_has_no_faults(h: Harness) {
    assert_eq!(h.broker.check_records(true).await.unwrap(), Checked::default());
    let ids = furnish(&h).await;
    for repair in [false, true, false] {
        let checked = h.broker.check_records(repair).await.unwrap();
        assert_eq!(checked, Checked { examined: ids.len() as u64, ..Checked::default() }, "repair {repair}");
    }
    h.counts_are_right().await;
}

pub async fn work_that_goes_on_is_no_fault(h: Harness) {
    let h = Arc::new(h);
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for n in 0..3_usize {
        let (h, stop) = (Arc::clone(&h), Arc::clone(&stop));
        workers.push(tokio::spawn(async move {
            let worker = h.worker().await;
            let (mut round, mut ended) = (n, 0);
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let mut jobs: Vec<NewJob> = (0..6).map(|_| job("email")).collect();
                jobs[0].delay = Duration::from_millis(5);
                let (cancelled, deleted) = (jobs[1].id, jobs[2].id);
                h.broker.enqueue(jobs).await.unwrap();
                drop(h.broker.cancel(cancelled).await);
                drop(h.broker.delete(deleted).await);
                drop(h.broker.retry(cancelled).await);
                let wanted = Claim { ticket: ClaimTicket::random(), suspect: true, ..claim(&worker, 5) };
                for (n, claimed) in h.broker.claim(&wanted).await.unwrap().jobs.into_iter().enumerate() {
                    let lines = vec![line("x")];
                    let batch = LogBatch { run: claimed.run.clone(), attempt: 1, first: 0, lines, dropped: 0 };
                    h.broker.log(vec![batch], 1 << 20).await.unwrap();
                    let end = match (round + n) % 4 {
                        0 => RunEnd::Retry { error: error("again"), delay: Duration::from_millis(2) },
                        1 => RunEnd::Released { reason: "not now".into(), delay: Duration::ZERO },
                        2 => failed(),
                        _ => succeeded(),
                    };
                    h.finish(&claimed.run, end).await;
                    ended += 1;
                }
                h.broker.prune(4000, 20).await.unwrap();
            }
            ended
        }));
    }
    for round in 0..12 {
        h.advance(Duration::from_millis(3)).await;
        let checked = h.broker.check_records(round % 2 == 0).await.unwrap();
        assert_eq!(checked.faults, [], "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut ended = 0;
    for worker in workers {
        ended += worker.await.unwrap();
    }
    assert!(ended > 0, "there was work");
    let checked = h.broker.check_records(false).await.unwrap();
    assert_eq!((checked.faults, checked.uncounted), (Vec::new(), Vec::new()));
    h.counts_are_right().await;
}
