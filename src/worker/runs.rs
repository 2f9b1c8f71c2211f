//! The live runs of this process: what to stop, what to hand back, and whether any are left.
//! Knows neither broker nor pool; a run is here from just before it is handed to the pool until its report.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::finish::RunInfo;
use super::output::Output;
use crate::broker::Run;
use crate::job::{JobId, RunToken};
use crate::script::context::{StopReason, StopSignal};

#[derive(Default)]
pub struct Runs {
    inner: Mutex<Inner>,
    empty: Notify,
    suspect_ended: Notify,
}

#[derive(Default)]
struct Inner {
    /// The epoch of the lease; runs of an older one are not taken in.
    epoch: u64,
    live: HashMap<RunToken, Live>,
    suspect: Option<RunToken>,
}

struct Live {
    output: Arc<Output>,
    stop: StopSignal,
}

impl Runs {
    /// Takes a run in. False when the lease that it was claimed under is lost: it must not start.
    #[must_use]
    pub fn insert(&self, epoch: u64, output: &Arc<Output>, stop: &StopSignal, suspect: bool) -> bool {
        let token = output.info.run.token;
        let mut inner = self.lock();
        if epoch != inner.epoch {
            return false;
        }
        if suspect {
            inner.suspect = Some(token);
        }
        inner.live.insert(token, Live { output: Arc::clone(output), stop: stop.clone() });
        true
    }

    /// A run has ended.
    pub fn remove(&self, token: RunToken) {
        let mut inner = self.lock();
        inner.live.remove(&token);
        if inner.suspect == Some(token) {
            inner.suspect = None;
            self.suspect_ended.notify_one();
        }
        if inner.live.is_empty() {
            self.empty.notify_waiters();
        }
    }

    /// Stops one run; nothing happens when it has ended.
    pub fn stop(&self, token: RunToken, reason: StopReason) {
        let stop = self.lock().live.get(&token).map(|live| live.stop.clone());
        if let Some(stop) = stop {
            stop.stop(reason);
        }
    }

    /// Stops every run. Answers how many there were.
    pub fn stop_all(&self, reason: StopReason) -> usize {
        let stops: Vec<StopSignal> = self.lock().live.values().map(|live| live.stop.clone()).collect();
        for stop in &stops {
            stop.stop(reason);
        }
        stops.len()
    }

    /// The lease is lost: stops every run and takes in only those of the new epoch. Answers how many were stopped.
    pub fn lose_all(&self, epoch: u64) -> usize {
        self.lock().epoch = epoch;
        self.stop_all(StopReason::LeaseLost)
    }

    /// Whether a suspect runs now.
    #[must_use]
    pub fn has_suspect(&self) -> bool {
        self.lock().suspect.is_some()
    }

    /// Done when a suspect has ended since this was last waited for: the next one can be claimed.
    pub async fn suspect_ended(&self) {
        self.suspect_ended.notified().await;
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().live.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs that have not ended.
    #[must_use]
    pub fn left(&self) -> Vec<Run> {
        self.lock().live.values().map(|live| live.output.info.run.clone()).collect()
    }

    /// What is known of the run of a job that has not ended.
    #[must_use]
    pub fn info(&self, job: JobId) -> Option<Arc<RunInfo>> {
        let inner = self.lock();
        inner.live.values().map(|live| &live.output.info).find(|info| info.run.job == job).cloned()
    }

    /// The output of a run that has not ended.
    #[must_use]
    pub fn output(&self, token: RunToken) -> Option<Arc<Output>> {
        self.lock().live.get(&token).map(|live| Arc::clone(&live.output))
    }

    /// Waits until no run is left, at most for `patience`. Answers whether none is.
    pub async fn ended_within(&self, patience: Duration) -> bool {
        let wait = async {
            loop {
                let notified = self.empty.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.is_empty() {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of the map is one call that either happens or not, so a panic elsewhere leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
