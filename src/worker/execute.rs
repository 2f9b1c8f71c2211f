//! One job: from the claim to the pool, and from the pool's report to what the broker is told. Knows the rules (is the
//! payload still valid, is there another attempt), not the batches, which are `claim.rs` and `finish.rs`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::finish::{Ended, RunInfo};
use super::lease::Member;
use super::logs::Shipping;
use super::output::Output;
use super::ports::Ports;
use super::publish::Types;
use super::retry::while_held;
use super::{Shared, mask};
use crate::broker::{BrokerError, ClaimedJob};
use crate::job::spec::Keep;
use crate::job::{ErrorKind, JobError, JobSpec, PayloadFault, RunEnd, Version};
use crate::script::context::{JobInfo, StopSignal};
use crate::script::fiber::RunReport;
use crate::script::library::{Script, Snapshot};
use crate::script::pool::{Pool, RunRequest};
pub use crate::script::verdict::SHUTTING_DOWN;
use crate::script::verdict::{AWAY, Attempts, verdict};

pub const ALL_BUSY: &str = "every thread of the worker is busy";

/// Starts jobs and ends runs.
pub struct Starter {
    pub shared: Arc<Shared>,
    pub types: Arc<Types>,
    pub pool: Arc<Pool>,
    pub shipping: Arc<Shipping>,
}

impl Starter {
    /// Hands a claimed job to the pool; one that cannot run here is ended instead. `permit` is given back when the run is
    /// over.
    pub fn start(
        self: &Arc<Self>,
        member: &Member,
        snapshot: &Snapshot,
        job: ClaimedJob,
        permit: OwnedSemaphorePermit,
    ) {
        let script = snapshot.scripts.get(&job.name);
        let version = script.map(|script| script.job_type.version.clone());
        let output = Output::new(Arc::new(info(member, &job, version)), Arc::clone(&self.shipping));
        let Some(script) = script else {
            // Taken away since the claim was made, or brought by another worker just now.
            self.types.stale();
            let reason = format!("the worker has no script `{}`", job.name);
            output.end(ended(&output, RunEnd::Released { reason, delay: AWAY }, None));
            return;
        };
        let stop = StopSignal::new();
        if !self.shared.runs.insert(member.epoch, &output, &stop, job.suspect) {
            return; // The lease was lost since: the job is somebody else's.
        }
        if let Some(why) = faults(&job, script) {
            let (this, script) = (Arc::clone(self), Arc::clone(script));
            tokio::spawn(async move { this.end_unfit(&job, &script, &why, &output).await });
            return;
        }
        let longer = script.job_type.spec.timeout > job.timeout;
        let request = self.request(job, Arc::clone(script), Arc::clone(&output), stop, permit);
        if longer {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.extend_and_run(request, output).await });
        } else {
            self.pool.run(request);
        }
    }

    /// Gives a claimed job back without trying.
    pub fn refuse(&self, member: &Member, job: &ClaimedJob, reason: &str) {
        let output = Output::new(Arc::new(info(member, job, None)), Arc::clone(&self.shipping));
        output.end(ended(&output, RunEnd::Released { reason: reason.to_owned(), delay: Duration::ZERO }, None));
    }

    /// Takes back what no thread has started for `age`, and gives it to whoever has room.
    pub fn hand_back(&self, age: Duration, reason: &str) -> usize {
        let requests = self.pool.take_back(age);
        let count = requests.len();
        for request in requests {
            let end = RunEnd::Released { reason: reason.to_owned(), delay: Duration::ZERO };
            self.end_unstarted(request, end);
        }
        count
    }

    /// The broker must know that the run may take longer than was thought when the job was submitted.
    async fn extend_and_run(&self, request: RunRequest, output: Arc<Output>) {
        let (run, timeout) = (&output.info.run, request.timeout);
        let Shared { broker, lease, .. } = &*self.shared;
        match while_held(lease, "a run is not extended", |_| broker.extend(run, timeout)).await {
            Ok(()) => self.pool.run(request),
            Err(BrokerError::LeaseLost) => self.shared.runs.remove(run.token),
            Err(problem) => {
                let end = RunEnd::Released { reason: format!("the run was not extended: {problem}"), delay: AWAY };
                self.end_unstarted(request, end);
            }
        }
    }

    fn end_unstarted(&self, request: RunRequest, end: RunEnd) {
        let token = request.job.token;
        if let Some(output) = self.shared.runs.output(token) {
            output.end(ended(&output, end, Some(&request.script.job_type.spec.keep)));
        }
        drop(request);
        self.shared.runs.remove(token);
    }

    /// Ends a job whose payload does not fit the script that is to run.
    async fn end_unfit(&self, job: &ClaimedJob, script: &Script, why: &str, output: &Arc<Output>) {
        // A version that was just replaced must not fail for good what the new one takes: the picture must be of now.
        let known = while_held(&self.shared.lease, "the live version is not known", |_| self.types.refresh()).await;
        let known = known.ok().map(|()| self.types.known());
        let live = known.as_ref().and_then(|known| known.types.get(&job.name)).map(|info| &info.job_type.version);
        let end = unfit(why, &script.job_type.version, job.checked_with.as_ref(), live);
        output.end(ended(output, end, Some(&script.job_type.spec.keep)));
        self.shared.runs.remove(job.run.token);
    }

    fn request(
        self: &Arc<Self>,
        job: ClaimedJob,
        script: Arc<Script>,
        output: Arc<Output>,
        stop: StopSignal,
        permit: OwnedSemaphorePermit,
    ) -> RunRequest {
        let attempts = Attempts { attempt: job.attempt, max: job.max_attempts };
        let timeout = script.job_type.spec.timeout;
        let ports = Arc::new(Ports::new(Arc::clone(&self.types), Arc::clone(&output)));
        let (this, ran) = (Arc::clone(self), Arc::clone(&script));
        RunRequest {
            script,
            job: JobInfo {
                id: job.run.job,
                name: job.name,
                queue: job.run.queue,
                token: job.run.token,
                attempt: job.attempt,
                max_attempts: job.max_attempts,
                request_id: job.request_id,
                created_at: job.created_at,
                tags: job.tags,
                priority: job.priority,
                depth: job.depth,
            },
            payload: job.payload,
            timeout,
            ports,
            stop,
            done: Box::new(move |report| {
                this.ended(&output, &ran.job_type.spec, attempts, report);
                drop(permit);
            }),
        }
    }

    /// The pool's report, on the executor thread.
    fn ended(&self, output: &Arc<Output>, spec: &JobSpec, attempts: Attempts, report: RunReport) {
        let info = &output.info;
        let run_time = report.started_at.map(|_| report.usage.run_time);
        let end = verdict(report.end, spec, attempts, rand::random()).map(|end| mask::end(&self.shared.services, end));
        if let Some(time) = run_time {
            let outcome = end.as_ref().map_or("lost", |end| end.outcome().as_str());
            self.shared.metrics.run_finished(info.name.as_str(), outcome, time);
        }
        if let Some(end) = end {
            output.end(Ended { run_time, ..ended(output, end, Some(&spec.keep)) });
        } else {
            self.shared.metrics.lease_lost();
            warn!(
                request_id = %info.request_id, job_id = %info.run.job, job_name = %info.name, queue = %info.run.queue,
                attempt = info.attempt, worker_id = %info.worker,
                "the run was stopped: its lease is lost, it starts again elsewhere",
            );
        }
        // After its end is on the way: when no run is left, every end is.
        self.shared.runs.remove(info.run.token);
    }
}

fn info(member: &Member, job: &ClaimedJob, version: Option<Version>) -> RunInfo {
    RunInfo {
        run: job.run.clone(),
        name: job.name.clone(),
        attempt: job.attempt,
        request_id: job.request_id.clone(),
        depth: job.depth,
        ready_at: job.ready_at,
        worker: member.id.clone(),
        version,
    }
}

/// A run without a run time.
fn ended(output: &Output, end: RunEnd, keep: Option<&Keep>) -> Ended {
    let keep = keep.cloned().unwrap_or_default();
    let keep = if matches!(end, RunEnd::Succeeded { .. }) { keep.succeeded } else { keep.failed };
    Ended { info: Arc::clone(&output.info), end, keep, run_time: None }
}

/// Why the payload does not fit the script; none when it does.
fn faults(job: &ClaimedJob, script: &Script) -> Option<String> {
    let faults = match serde_json::from_str::<Value>(job.payload.get()) {
        Ok(payload) => script.schema().faults(&payload),
        Err(fault) => vec![PayloadFault { pointer: String::new(), message: fault.to_string() }],
    };
    (!faults.is_empty()).then(|| crate::job::schema::list(&faults))
}

/// What becomes of a job whose payload does not fit. The version it was checked with, or the live one, has the last word;
/// any other leaves it to a worker that has one of these.
fn unfit(why: &str, version: &Version, checked_with: Option<&Version>, live: Option<&Version>) -> RunEnd {
    if checked_with == Some(version) || live == Some(version) {
        let message = format!("the payload does not fit version {version} of the script: {why}");
        RunEnd::Failed { error: JobError::new(ErrorKind::InvalidPayload, message, false) }
    } else {
        let reason = format!("version {version} of the script, which is not the live one, refuses the payload: {why}");
        RunEnd::Released { reason, delay: AWAY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_checked_and_the_live_version_may_fail_a_payload() {
        let (mine, other) = (Version::of(&[b"1"]), Version::of(&[b"2"]));
        let outcome = |checked, live| unfit("/to: missing", &mine, checked, live).outcome().as_str();
        assert_eq!(outcome(Some(&mine), Some(&other)), "failed");
        assert_eq!(outcome(Some(&other), Some(&mine)), "failed");
        assert_eq!(outcome(Some(&other), Some(&other)), "released");
        assert_eq!(outcome(None, None), "released");
    }
}
