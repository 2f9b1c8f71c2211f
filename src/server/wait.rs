//! Waiting for jobs: one loop reads every job that anybody waits for, however many do, and hands each reader what it
//! found. Knows nothing of requests; a reader that is dropped is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{Notify, watch};

use crate::broker::{SharedBroker, Topic};
use crate::job::{Job, JobId};
use crate::shutdown::Shutdown;

/// What the loop last found of a job.
#[derive(Clone, Debug)]
pub enum Seen {
    NotYet,
    Job(Arc<Job>),
    /// There is no such job any more.
    Gone,
}

/// The jobs that are waited for.
pub struct Waiting {
    broker: SharedBroker,
    jobs: Mutex<HashMap<JobId, watch::Sender<Seen>>>,
    joined: Notify,
}

/// Between two rounds, or as long as a round takes, when that is longer: waiting costs at most half of one task.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// A change that nobody was woken for is seen after this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Reads at once.
const READS: usize = 8;

impl Waiting {
    pub fn new(broker: SharedBroker) -> Self {
        Self { broker, jobs: Mutex::default(), joined: Notify::new() }
    }

    /// What the loop finds of a job from now on. Look at the job after this, then wait: no change falls between.
    pub fn follow(&self, id: JobId) -> watch::Receiver<Seen> {
        let seen = self.lock().entry(id).or_insert_with(|| watch::Sender::new(Seen::NotYet)).subscribe();
        self.joined.notify_one();
        seen
    }

    /// Reads until `shutdown`, in rounds: when jobs changed, when somebody joined, and now and then.
    pub async fn run(&self, shutdown: &Shutdown) {
        let mut changes = self.broker.changes(Topic::Jobs);
        loop {
            changes.borrow_and_update();
            let began = Instant::now();
            let awaited = self.round().await;
            let pause = if awaited { began.elapsed().max(ROUND_PAUSE) } else { Duration::ZERO };
            let again = async {
                tokio::time::sleep(pause).await;
                tokio::select! {
                    () = self.joined.notified() => {}
                    Ok(()) = changes.changed(), if awaited => {}
                    () = tokio::time::sleep(LOOK_EVERY), if awaited => {}
                }
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = again => {}
            }
        }
    }

    /// Reads every job with a reader once; whether there was any.
    async fn round(&self) -> bool {
        let ids: Vec<JobId> = {
            let mut jobs = self.lock();
            jobs.retain(|_, seen| seen.receiver_count() > 0);
            jobs.keys().copied().collect()
        };
        let any = !ids.is_empty();
        let reads = ids.into_iter().map(|id| {
            let broker = self.broker.clone();
            async move { (id, broker.get(id).await) }
        });
        let mut found = futures_util::stream::iter(reads).buffer_unordered(READS);
        while let Some((id, read)) = found.next().await {
            let now = match read {
                Ok(Some(job)) => Seen::Job(Arc::new(job)),
                Ok(None) => Seen::Gone,
                Err(error) => {
                    tracing::debug!(job_id = %id, %error, "cannot read a job that is waited for");
                    continue;
                }
            };
            if let Some(seen) = self.lock().get(&id) {
                seen.send_if_modified(|before| {
                    let changed = differs(before, &now);
                    if changed {
                        *before = now;
                    }
                    changed
                });
            }
        }
        any
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<Seen>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn differs(before: &Seen, now: &Seen) -> bool {
    match (before, now) {
        (Seen::Job(before), Seen::Job(now)) => {
            let key = |job: &Job| (job.state, job.attempt, job.lost, job.attempts.len(), job.files.len());
            key(before) != key(now) || before.progress != now.progress || before.reason != now.reason
        }
        (Seen::Gone, Seen::Gone) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::sqlite::{SqliteBroker, SyncMode};
    use crate::job::QueueName;

    #[tokio::test]
    async fn a_reader_that_is_dropped_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let broker = SqliteBroker::open(&dir.path().join("db"), SyncMode::Normal).unwrap();
        let waiting = Waiting::new(Arc::new(broker));
        let id = JobId::new(&QueueName::new("default").unwrap());
        let (one, two) = (waiting.follow(id), waiting.follow(id));
        assert!(waiting.round().await);
        assert!(matches!(*one.borrow(), Seen::Gone) && matches!(*two.borrow(), Seen::Gone));
        drop(one);
        assert!(waiting.round().await);
        drop(two);
        assert!(!waiting.round().await);
        assert!(waiting.lock().is_empty());
    }
}
