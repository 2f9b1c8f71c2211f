//! Records that disagree: each kind of damage is planted by hand behind a broker's back, found with its place and job,
//! mended, and the jobs then run to their end.

mod redis;
mod sqlite;

use std::time::Duration;

use crate::contract::harness::*;
use ryemill::broker::{LogBatch, NewJob};
use ryemill::job::{JobId, Progress, RunEnd, State, WorkerId};

/// A queue with a job in every situation. All are of the type `email` in `default`.
pub struct Scene {
    pub worker: WorkerId,
    pub running: JobId,
    pub scheduled: JobId,
    pub ended: JobId,
    /// Queued, after it had run once.
    pub back: JobId,
    /// Queued, never claimed.
    pub fresh: JobId,
}

impl Scene {
    pub async fn set(h: &Harness) -> Self {
        let worker = h.worker().await;
        let first = h.enqueue(job("email")).await;
        for _ in 0..3 {
            h.enqueue(job("email")).await;
        }
        let runs = h.claim(&worker, 4).await;
        assert_eq!(runs[0].run.job, first);
        for run in &runs {
            let batch = LogBatch { run: run.run.clone(), attempt: 1, first: 0, lines: vec![line("x")], dropped: 0 };
            h.broker.log(vec![batch], 1 << 20).await.unwrap();
        }
        h.broker.progress(&runs[0].run, &Progress { percent: 1.0, message: "one".into() }).await.unwrap();
        let back = RunEnd::Released { reason: "not now".into(), delay: Duration::ZERO };
        h.finish(&runs[1].run, RunEnd::Retry { error: error("again"), delay: Duration::from_millis(1) }).await;
        h.finish(&runs[2].run, succeeded()).await;
        h.finish(&runs[3].run, back).await;
        let fresh = h.enqueue(NewJob { tags: vec!["fresh".into()], ..job("email") }).await;
        let [running, scheduled, ended, back] = [0, 1, 2, 3].map(|n: usize| runs[n].run.job);
        Self { worker, running, scheduled, ended, back, fresh }
    }

    pub fn all(&self) -> [JobId; 5] {
        [self.running, self.scheduled, self.ended, self.back, self.fresh]
    }
}

/// What is expected of one check: a part of the place, the job, a part of what is said.
pub type Expected<'a> = (&'a str, Option<JobId>, &'a str);

/// Finds the damage, mends it, finds nothing more; then every job that is left runs to its end, `aside` are gone.
pub async fn is_found_and_mended(h: &Harness, name: &str, scene: &Scene, expected: &[Expected<'_>], aside: &[JobId]) {
    for repair in [false, true] {
        let checked = h.broker.check_records(repair).await.unwrap();
        for (place, id, what) in expected {
            let found = checked
                .faults
                .iter()
                .any(|fault| fault.place.contains(place) && fault.job == *id && fault.what.contains(what));
            assert!(found, "{name}, repair {repair}: no {place} {id:?} {what:?} in {:#?}", checked.faults);
        }
        assert!(checked.faults.iter().all(|fault| fault.repaired == repair), "{name}: {:#?}", checked.faults);
        assert_eq!(checked.uncounted, [], "{name}");
    }
    let checked = h.broker.check_records(false).await.unwrap();
    assert_eq!(checked.faults, [], "{name}: all is mended");
    h.counts_are_right().await;
    h.advance(Duration::from_millis(5)).await;
    for id in scene.all() {
        let job = h.broker.get(id).await.unwrap();
        assert_eq!(job.is_none(), aside.contains(&id), "{name}: {id}");
    }
    // The run that goes on is lost with its worker; all that can run does.
    h.broker.retire(&scene.worker).await.unwrap();
    let worker = h.worker().await;
    let claimed = h.claim(&worker, 10).await;
    for claimed in &claimed {
        h.finish(&claimed.run, succeeded()).await;
    }
    for id in scene.all().into_iter().filter(|id| !aside.contains(id)) {
        assert_eq!(h.state(id).await, State::Succeeded, "{name}: {id}");
    }
    h.counts_are_right().await;
    let checked = h.broker.check_records(false).await.unwrap();
    assert_eq!(checked.faults, [], "{name}: nothing was left behind");
}
