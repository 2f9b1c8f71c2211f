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
use crate::script::context::{JobInfo, StopReason, StopSignal};
use crate::script::fiber::{RunReport, ScriptEnd};
use crate::script::library::{Script, Snapshot};
use crate::script::pool::{Pool, RunRequest};

/// How long a job that this worker cannot run stays away, so that another worker gets it.
const AWAY: Duration = Duration::from_secs(1);

pub const SHUTTING_DOWN: &str = "the worker is shutting down";
pub const ALL_BUSY: &str = "every thread of the worker is busy";

/// Starts jobs and ends runs.
pub struct Starter {
    pub shared: Arc<Shared>,
    pub types: Arc<Types>,
    pub pool: Arc<Pool>,
    pub shipping: Arc<Shipping>,
}

/// What the end of a run is decided by.
#[derive(Clone, Copy)]
struct Attempts {
    attempt: u32,
    max: u32,
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
        let end = end_of(report.end, spec, attempts, rand::random()).map(|end| mask::end(&self.shared.services, end));
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

/// What the broker is told; none when there is nothing to say, since the run is somebody else's by now.
fn end_of(end: ScriptEnd, spec: &JobSpec, attempts: Attempts, random: f64) -> Option<RunEnd> {
    let again = attempts.attempt < attempts.max;
    Some(match end {
        ScriptEnd::Returned(result) => RunEnd::Succeeded { result },
        ScriptEnd::Failed(error) if error.retryable && again => {
            RunEnd::Retry { error, delay: spec.backoff.delay(attempts.attempt, random) }
        }
        ScriptEnd::RetryIn { error, delay } if again => RunEnd::Retry { error, delay },
        ScriptEnd::Failed(error) | ScriptEnd::RetryIn { error, .. } => RunEnd::Failed { error },
        ScriptEnd::Stopped(StopReason::Cancelled) => RunEnd::Cancelled,
        ScriptEnd::Stopped(StopReason::Shutdown) => {
            RunEnd::Released { reason: SHUTTING_DOWN.to_owned(), delay: Duration::ZERO }
        }
        ScriptEnd::Stopped(StopReason::LeaseLost) => return None,
        ScriptEnd::NotStarted(why) => RunEnd::Released { reason: why, delay: AWAY },
    })
}

/// Why the payload does not fit the script; none when it does.
fn faults(job: &ClaimedJob, script: &Script) -> Option<String> {
    let faults = match serde_json::from_str::<Value>(job.payload.get()) {
        Ok(payload) => script.schema().faults(&payload),
        Err(fault) => vec![PayloadFault { pointer: String::new(), message: fault.to_string() }],
    };
    (!faults.is_empty()).then(|| list(&faults))
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

/// Faults in one line.
pub fn list(faults: &[PayloadFault]) -> String {
    let fault = |fault: &PayloadFault| {
        let place = if fault.pointer.is_empty() { "the payload" } else { fault.pointer.as_str() };
        format!("{place}: {}", fault.message)
    };
    faults.iter().map(fault).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(retryable: bool) -> JobError {
        JobError::new(ErrorKind::Thrown, "no", retryable)
    }

    fn outcome(end: ScriptEnd, attempt: u32) -> Option<&'static str> {
        end_of(end, &JobSpec::default(), Attempts { attempt, max: 3 }, 0.5).map(|end| end.outcome().as_str())
    }

    #[test]
    fn a_failed_attempt_is_retried_while_attempts_are_left_and_it_can_help() {
        assert_eq!(outcome(ScriptEnd::Failed(error(true)), 2), Some("retried"));
        assert_eq!(outcome(ScriptEnd::Failed(error(true)), 3), Some("failed"));
        assert_eq!(outcome(ScriptEnd::Failed(error(false)), 1), Some("failed"));
        let delay = Duration::from_secs(7);
        assert_eq!(outcome(ScriptEnd::RetryIn { error: error(true), delay }, 3), Some("failed"));
        let end = end_of(
            ScriptEnd::RetryIn { error: error(true), delay },
            &JobSpec::default(),
            Attempts { attempt: 1, max: 3 },
            1.0,
        );
        assert!(matches!(end, Some(RunEnd::Retry { delay: asked, .. }) if asked == delay), "{end:?}");
    }

    #[test]
    fn a_stopped_run_burns_no_attempt() {
        assert_eq!(outcome(ScriptEnd::Stopped(StopReason::Shutdown), 3), Some("released"));
        assert_eq!(outcome(ScriptEnd::Stopped(StopReason::Cancelled), 3), Some("cancelled"));
        assert_eq!(outcome(ScriptEnd::Stopped(StopReason::LeaseLost), 3), None);
        assert_eq!(outcome(ScriptEnd::NotStarted("no stack".into()), 3), Some("released"));
    }

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
