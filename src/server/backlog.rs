//! How many jobs wait, and whether there is room for more (`MAX_PENDING`). Counts what this server lets in, and takes
//! the broker's own count each second, or at once before it turns a client away.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::problem::{Answer, Code, Problem};
use crate::broker::{self, SharedBroker};
use crate::shutdown::Shutdown;

pub struct Backlog {
    broker: SharedBroker,
    /// Jobs.
    max: u64,
    tally: Mutex<Tally>,
    /// When the broker was last asked; held while it is asked.
    counted_at: tokio::sync::Mutex<Option<Instant>>,
}

/// Scheduled and queued jobs are `counted + let_in - let_in_before`.
#[derive(Default)]
struct Tally {
    /// By the broker.
    counted: u64,
    /// Since the start.
    let_in: u64,
    /// Of these, the ones whose store was over when the broker was asked: they are in its count. One that was stored
    /// while it counted is counted twice until the next time, never not at all.
    let_in_before: u64,
    /// Of `let_in`, the ones whose store is over now.
    stored: u64,
}

/// Jobs that were let in and are being stored; dropped when that is over, however it ended.
pub struct LetIn<'a> {
    backlog: &'a Backlog,
    jobs: u64,
}

const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Clients that are turned away do not make the broker count more often than this.
const COUNT_AT_MOST_EVERY: Duration = Duration::from_millis(50);

impl Backlog {
    pub fn new(broker: SharedBroker, max: u64) -> Self {
        Self { broker, max, tally: Mutex::default(), counted_at: tokio::sync::Mutex::default() }
    }

    /// Lets `jobs` in, all or none: 429 when that would be more than there is room for.
    pub async fn admit(&self, jobs: usize) -> Answer<LetIn<'_>> {
        let jobs = jobs as u64;
        if let Some(let_in) = self.try_admit(jobs) {
            return Ok(let_in);
        }
        // Workers may have been quicker than the last count knows.
        self.count(COUNT_AT_MOST_EVERY).await?;
        self.try_admit(jobs).ok_or_else(|| {
            let detail = format!("as many jobs wait as may (MAX_PENDING is {}); try again later", self.max);
            Problem::new(Code::TooManyPending, detail)
        })
    }

    fn try_admit(&self, jobs: u64) -> Option<LetIn<'_>> {
        let mut tally = self.tally();
        let pending = tally.counted + tally.let_in - tally.let_in_before;
        if pending.saturating_add(jobs) > self.max {
            return None;
        }
        tally.let_in += jobs;
        Some(LetIn { backlog: self, jobs })
    }

    /// Asks the broker, unless it was asked within `fresh`.
    async fn count(&self, fresh: Duration) -> broker::Result<()> {
        let mut counted_at = self.counted_at.lock().await;
        if counted_at.is_some_and(|at| at.elapsed() < fresh) {
            return Ok(());
        }
        let stored = self.tally().stored;
        let queues = self.broker.queues().await?;
        let mut tally = self.tally();
        tally.counted = queues.iter().map(|queue| queue.scheduled + queue.queued).sum();
        tally.let_in_before = stored;
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

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LetIn<'_> {
    fn drop(&mut self) {
        self.backlog.tally().stored += self.jobs;
    }
}
