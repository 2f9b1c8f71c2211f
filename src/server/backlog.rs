//! How many jobs wait, and whether there is room for more (`MAX_PENDING`). Counts what this server lets in, and takes
//! the broker's own count each second, or at once before it turns a client away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::problem::{Answer, Code, Problem};
use crate::broker::{self, SharedBroker};
use crate::shutdown::Shutdown;

pub struct Backlog {
    broker: SharedBroker,
    /// Jobs.
    max: u64,
    /// Scheduled and queued jobs: the broker's count, and what was let in since.
    pending: AtomicU64,
    counted_at: Mutex<Option<Instant>>,
}

const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Clients that are turned away do not make the broker count more often than this.
const COUNT_AT_MOST_EVERY: Duration = Duration::from_millis(50);

impl Backlog {
    pub fn new(broker: SharedBroker, max: u64) -> Self {
        Self { broker, max, pending: AtomicU64::new(0), counted_at: Mutex::new(None) }
    }

    /// Lets `jobs` in, all or none: 429 when that would be more than there is room for.
    pub async fn admit(&self, jobs: usize) -> Answer<()> {
        let jobs = jobs as u64;
        if self.fits(jobs) {
            return Ok(());
        }
        // Workers may have been quicker than the last count knows.
        self.count(COUNT_AT_MOST_EVERY).await?;
        if self.fits(jobs) {
            return Ok(());
        }
        let pending = self.pending.load(Ordering::Relaxed);
        let detail = format!("{pending} jobs wait already and at most {} may (MAX_PENDING); try again later", self.max);
        Err(Problem::new(Code::TooManyPending, detail))
    }

    fn fits(&self, jobs: u64) -> bool {
        let add = |pending: u64| pending.checked_add(jobs).filter(|sum| *sum <= self.max);
        self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Takes the broker's count, unless it was taken within `fresh`.
    async fn count(&self, fresh: Duration) -> broker::Result<()> {
        let mut counted_at = self.counted_at.lock().await;
        if counted_at.is_some_and(|at| at.elapsed() < fresh) {
            return Ok(());
        }
        let queues = self.broker.queues().await?;
        let pending = queues.iter().map(|queue| queue.scheduled + queue.queued).sum();
        self.pending.store(pending, Ordering::Relaxed);
        *counted_at = Some(Instant::now());
        Ok(())
    }

    /// Counts again and again until `shutdown`.
    pub async fn keep_fresh(&self, shutdown: &Shutdown) {
        loop {
            if let Err(error) = self.count(COUNT_EVERY / 2).await {
                tracing::debug!(%error, "cannot count the waiting jobs");
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(COUNT_EVERY) => {}
            }
        }
    }
}
