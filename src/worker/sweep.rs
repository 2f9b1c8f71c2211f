//! Upkeep that any worker does for all: gives back the runs of dead workers, and removes what retention says may go, with
//! its files. Knows nothing of this worker's own runs but how to stop one that the broker has given away.

use std::sync::Arc;
use std::time::Instant;

use tracing::{error, warn};

use super::Shared;
use super::blame::LeftFile;
use crate::broker::{Result, Run, Sweep};
use crate::job::spec::Keep;
use crate::script::context::StopReason;
use crate::shutdown::Shutdown;

/// Jobs that one call removes.
const PRUNE: usize = 500;
/// Most sweeps in one turn, so that a turn ends.
const STEPS: usize = 100;

pub struct Upkeep(pub Arc<Shared>);

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Runs given back.
    pub lost: usize,
    /// Jobs removed.
    pub removed: usize,
}

impl Upkeep {
    /// A turn at once, for what a crash of the process before this one left, and then each sixth of the lease, until `stop`.
    pub async fn run(self, stop: Shutdown) {
        let every = self.0.options.lease / 6;
        loop {
            tokio::select! {
                // Every step is whole in itself.
                () = stop.requested() => return,
                _ = self.run_once() => {}
            }
            // Up to a fifth earlier, so that workers which started together do not sweep together.
            let pause = every.mul_f64(1.0 - 0.2 * rand::random::<f64>());
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One turn: sweep, then prune.
    pub async fn run_once(&self) -> Report {
        let started = Instant::now();
        let lost = self.sweep().await.unwrap_or_else(|problem| {
            warn!("the sweep for dead workers failed, the next one tries again: {problem}");
            0
        });
        let removed = self.prune(started).await.unwrap_or_else(|problem| {
            warn!("ended jobs were not removed, the next turn tries again: {problem}");
            0
        });
        Report { lost, removed }
    }

    async fn sweep(&self) -> Result<usize> {
        let Shared { broker, options, runs, metrics, .. } = &*self.0;
        let mut lost = 0;
        let mut left = self.left().await;
        for _ in 0..STEPS {
            let blamed: Vec<Run> = left.iter().flat_map(|file| file.runs.iter().cloned()).collect();
            let sweep = Sweep { overdue: options.lease, blamed, keep: Keep::default().failed };
            let swept = broker.sweep(&sweep).await?;
            // Not before the broker has answered: whoever comes next can blame them as well.
            left.drain(..).for_each(LeftFile::remove);
            for run in &swept.lost {
                // One of ours when it was over its time: somebody else may start it now.
                runs.stop(run.token, StopReason::LeaseLost);
            }
            for run in &swept.lost {
                self.report(run, sweep.blamed.contains(run), swept.failed.contains(&run.job)).await;
            }
            if swept.quarantined > 0 {
                error!(records = swept.quarantined, "damaged records of running jobs were moved aside");
            }
            lost += swept.lost.len();
            if !swept.more {
                break;
            }
        }
        metrics.rescued(u64::try_from(lost).unwrap_or(u64::MAX));
        Ok(lost)
    }

    /// What processes that died on this machine left. Those that cannot be looked at now are there at the next turn.
    async fn left(&self) -> Vec<LeftFile> {
        let shared = Arc::clone(&self.0);
        let left = self.0.runtime.spawn_blocking(move || shared.blame.left()).await.unwrap_or_default();
        for file in &left {
            warn!("the worker process {} died with {} runs on a CPU: they are charged", file.pid, file.runs.len());
        }
        left
    }

    /// In the log, under the request that the job came with.
    async fn report(&self, run: &Run, blamed: bool, failed: bool) {
        let job = self.0.broker.get(run.job).await.ok().flatten();
        let request_id = job.as_ref().map(|job| job.request_id.as_str());
        let job_name = job.as_ref().map(|job| job.name.as_str());
        if failed {
            error!(request_id, job_id = %run.job, job_name, queue = %run.queue, "a job failed: its worker died too often");
        } else if blamed {
            warn!(request_id, job_id = %run.job, job_name, queue = %run.queue, "a run was lost with the process that it had a CPU of: the job is charged and given back");
        } else {
            warn!(request_id, job_id = %run.job, job_name, queue = %run.queue, "a run was lost and is given back");
        }
    }

    async fn prune(&self, started: Instant) -> Result<usize> {
        let Shared { broker, options, files, .. } = &*self.0;
        let mut removed = 0;
        loop {
            let jobs = broker.prune(options.retain_bytes, PRUNE).await?;
            for job in &jobs {
                if let Err(problem) = files.remove_job(*job).await {
                    warn!(job_id = %job, "the files of a removed job are still there: {problem}");
                }
            }
            removed += jobs.len();
            // The next sweep must not wait for a long clean-up.
            if jobs.len() < PRUNE || started.elapsed() > options.lease / 6 {
                return Ok(removed);
            }
        }
    }
}
