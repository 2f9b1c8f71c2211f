//! Tells the broker how runs ended: whatever has ended while the last call was under way goes in the next one, and a
//! single run goes at once. Knows nothing of scripts; what an end means is decided in `execute.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tracing::{error, info, warn};

use super::Shared;
use super::retry::while_held;
use crate::broker::{BrokerError, Finish, Run};
use crate::job::units::millis;
use crate::job::{JobName, RequestId, RunEnd, Timestamp, Version, WorkerId};
use crate::shutdown::Shutdown;

/// Most runs that one call ends.
const BATCH: usize = 512;

/// A run as every line about it names it.
#[derive(Clone, Debug)]
pub struct RunInfo {
    pub run: Run,
    pub name: JobName,
    pub attempt: u32,
    pub request_id: RequestId,
    /// 0 for a job of a client, 1 for its children, and so on.
    pub depth: u32,
    /// When it could first have been claimed.
    pub ready_at: Timestamp,
    pub worker: WorkerId,
    /// None when this worker has no script for it.
    pub version: Option<Version>,
}

/// A run that is over, and what is to be said of it.
#[derive(Debug)]
pub struct Ended {
    pub info: Arc<RunInfo>,
    pub end: RunEnd,
    /// How long the job is kept when this ends it.
    pub keep: Duration,
    /// From the first statement to the end; none when it never started.
    pub run_time: Option<Duration>,
}

/// Where ended runs go. Cloned freely.
#[derive(Clone, Debug)]
pub struct Finisher {
    queue: mpsc::UnboundedSender<Ended>,
    untold: Arc<Untold>,
}

/// Runs that have ended and of which the broker does not know yet.
#[derive(Debug, Default)]
pub struct Untold {
    count: AtomicUsize,
    fewer: Notify,
}

impl Finisher {
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Ended>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        (Self { queue, untold: Arc::default() }, receiver)
    }

    /// Never waits: a run ends on an executor thread. What waits here is bounded by whoever claims, with [`Self::room`].
    pub fn finish(&self, ended: Ended) {
        self.untold.count.fetch_add(1, Ordering::Relaxed);
        if let Err(mpsc::error::SendError(ended)) = self.queue.send(ended) {
            // Only after a shutdown that had to give up waiting; the sweep of another worker gives the job back.
            warn!(job_id = %ended.info.run.job, "a run ended after its worker had stopped");
        }
    }

    /// Waits until the broker knows of nearly all runs that have ended: a claim before that would only lengthen the line.
    pub async fn room(&self) {
        while self.untold.count.load(Ordering::Relaxed) > BATCH {
            self.untold.fewer.notified().await;
        }
    }

    fn told(&self, count: usize) {
        self.untold.count.fetch_sub(count, Ordering::Relaxed);
        self.untold.fewer.notify_one();
    }
}

/// The loop behind [`Finisher`].
pub struct FinishLoop {
    pub shared: Arc<Shared>,
    pub finisher: Finisher,
}

impl FinishLoop {
    /// Runs until `stop`, and then until all is said.
    pub async fn run(self, mut ended: mpsc::UnboundedReceiver<Ended>, stop: Shutdown) {
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            tokio::select! {
                biased;
                count = ended.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = stop.requested() => {
                    ended.close();
                    continue;
                }
            }
            let count = batch.len();
            self.run_once(batch).await;
            self.finisher.told(count);
        }
    }

    /// Ends a batch of runs.
    pub async fn run_once(&self, batch: Vec<Ended>) {
        let call: Vec<Finish> = batch
            .iter()
            .map(|ended| Finish {
                run: ended.info.run.clone(),
                end: ended.end.clone(),
                script_version: ended.info.version.clone(),
                keep: ended.keep,
            })
            .collect();
        let mut unsure = false;
        let answers = while_held(&self.shared.lease, "ended runs are not stored", |again| {
            unsure |= again;
            self.shared.broker.finish(call.clone())
        })
        .await;
        match answers {
            Ok(answers) => {
                for (ended, answer) in batch.iter().zip(answers) {
                    self.told(ended, answer, unsure);
                }
            }
            Err(problem) if batch.len() > 1 && !matches!(problem, BrokerError::Unavailable(_)) => {
                // One that the broker cannot take must not hold back the others.
                for ended in batch {
                    Box::pin(self.run_once(vec![ended])).await;
                }
            }
            Err(problem) => {
                for ended in &batch {
                    self.told(ended, Err(problem.clone()), unsure);
                }
            }
        }
    }

    fn told(&self, ended: &Ended, answer: Result<(), BrokerError>, unsure: bool) {
        let info = &ended.info;
        let outcome = ended.end.outcome();
        match answer {
            Ok(()) => {}
            // An earlier try may have gone through with its answer lost.
            Err(BrokerError::LeaseLost) if unsure => {}
            Err(problem) => {
                if matches!(problem, BrokerError::LeaseLost) {
                    self.shared.metrics.lease_lost();
                }
                error!(
                    request_id = %info.request_id, job_id = %info.run.job, job_name = %info.name, queue = %info.run.queue,
                    attempt = info.attempt, worker_id = %info.worker, outcome = outcome.as_str(),
                    "the end of a run was not taken, it may run again: {problem}",
                );
                return;
            }
        }
        let version = info.version.as_ref().map_or("", Version::as_str);
        let run_time_ms = ended.run_time.map(millis);
        let (kind, why) = match &ended.end {
            RunEnd::Failed { error } | RunEnd::Retry { error, .. } => (Some(error.kind.as_str()), Some(&error.message)),
            RunEnd::Released { reason, .. } => (None, Some(reason)),
            RunEnd::Succeeded { .. } | RunEnd::Cancelled => (None, None),
        };
        info!(
            request_id = %info.request_id, job_id = %info.run.job, job_name = %info.name, queue = %info.run.queue,
            attempt = info.attempt, worker_id = %info.worker, script_version = version, outcome = outcome.as_str(),
            run_time_ms, error_kind = kind, why, "the run ended",
        );
    }
}
