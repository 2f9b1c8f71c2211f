//! What goes into the broker's verbs and what comes out, in domain terms.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Run;
use crate::job::{
    ClaimTicket, Job, JobId, JobName, JobSpec, JobType, Json, LogLevel, Priority, QueueName, RequestId, RunEnd, State,
    Timestamp, Version, WorkerId,
};

/// A job to store.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub id: JobId,
    pub name: JobName,
    pub queue: QueueName,
    pub payload: Json,
    pub priority: Priority,
    /// From now, by the broker's clock.
    pub delay: Duration,
    pub timeout: Duration,
    pub max_attempts: u32,
    pub tags: Vec<String>,
    pub request_id: RequestId,
    /// The version whose schema the payload was checked with.
    pub checked_with: Option<Version>,
    pub parent_id: Option<JobId>,
    /// 0 for a job that a client submitted, 1 for its children, and so on.
    pub depth: u32,
}

impl NewJob {
    /// A job that runs at once, under a request of its own, with what a script has that says nothing.
    #[must_use]
    pub fn new(name: JobName, queue: QueueName, payload: Json) -> Self {
        let JobSpec { priority, timeout, max_attempts, .. } = JobSpec::default();
        Self {
            id: JobId::new(&queue),
            name,
            queue,
            payload,
            priority,
            delay: Duration::ZERO,
            timeout,
            max_attempts,
            tags: Vec::new(),
            request_id: RequestId::random(),
            checked_with: None,
            parent_id: None,
            depth: 0,
        }
    }
}

/// What became of one [`NewJob`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    pub id: JobId,
    /// False when the id was there already.
    pub created: bool,
    pub state: State,
    pub created_at: Timestamp,
    pub run_at: Timestamp,
}

/// What an idempotency key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub job: JobId,
    /// SHA-256 of the request body.
    pub body_hash: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    pub first: bool,
    /// The first caller's.
    pub reservation: Reservation,
}

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct Claim {
    pub worker: WorkerId,
    /// New for each claim, and the same when a claim is made again.
    pub ticket: ClaimTicket,
    /// In the order of this turn.
    pub queues: Vec<QueueName>,
    /// Known types that this worker has not loaded.
    pub lacking: Vec<JobName>,
    pub limit: usize,
    /// Whether a suspect may be among them (the worker runs none now).
    pub suspect: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Claimed {
    pub jobs: Vec<ClaimedJob>,
    /// How long until the next scheduled job of these queues is due; none when none is scheduled. Not said when as many
    /// jobs were given as asked for.
    pub next_due: Option<Duration>,
}

/// A job to run.
#[derive(Clone, Debug)]
pub struct ClaimedJob {
    pub run: Run,
    pub name: JobName,
    pub payload: Json,
    /// This run's number, from 1.
    pub attempt: u32,
    pub max_attempts: u32,
    pub timeout: Duration,
    pub tags: Vec<String>,
    pub request_id: RequestId,
    pub checked_with: Option<Version>,
    pub priority: Priority,
    pub depth: u32,
    pub created_at: Timestamp,
    /// When it could first have been claimed for this attempt: its due time, or when it was queued.
    pub ready_at: Timestamp,
    pub suspect: bool,
}

/// A worker's sign of life.
#[derive(Clone, Debug)]
pub struct WorkerBeat {
    pub worker: WorkerId,
    pub lease: Duration,
    pub host: String,
    pub pid: u32,
    /// Runs it has room for.
    pub concurrency: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Renewed {
    /// Runs of this worker whose job was cancelled.
    pub cancelled: Vec<Run>,
}

/// Lines of one run.
#[derive(Clone, Debug)]
pub struct LogBatch {
    pub run: Run,
    pub attempt: u32,
    /// How many lines of this run, thrown away ones included, were handed over before this batch.
    pub first: u64,
    pub lines: Vec<NewLogLine>,
    /// Lines that the worker itself threw away (over the rate), to be counted.
    pub dropped: u64,
}

#[derive(Clone, Debug)]
pub struct NewLogLine {
    pub time: Timestamp,
    pub level: LogLevel,
    pub message: String,
    pub fields: Option<Json>,
}

/// The end of one run.
#[derive(Clone, Debug)]
pub struct Finish {
    pub run: Run,
    pub end: RunEnd,
    pub script_version: Option<Version>,
    /// How long the job is kept when this ends it.
    pub keep: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// How far over its time a run may be before it counts as lost.
    pub overdue: Duration,
    /// Runs that a worker was on when it crashed.
    pub blamed: Vec<Run>,
    /// How long a job that fails here is kept.
    pub keep: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Runs given back.
    pub lost: Vec<Run>,
    /// Of these, jobs that failed for good.
    pub failed: Vec<JobId>,
    /// Records that could not be read and were moved aside.
    pub quarantined: u64,
    /// Whether there was more to do than one sweep does.
    pub more: bool,
}

/// Which jobs to list; an absent field does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<State>,
    pub name: Option<JobName>,
    pub queue: Option<QueueName>,
    pub tag: Option<String>,
    pub request_id: Option<RequestId>,
    pub limit: usize,
    /// Of the page before.
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Page {
    pub jobs: Vec<Job>,
    pub next: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Logs {
    #[serde(rename = "logs")]
    pub lines: Vec<crate::job::LogLine>,
    /// Lines thrown away over the life of the job.
    pub dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueInfo {
    pub name: QueueName,
    pub paused: bool,
    pub scheduled: u64,
    pub queued: u64,
    pub running: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Seconds that the first job in line has waited; none when none waits.
    pub oldest_queued_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    pub id: WorkerId,
    pub host: String,
    pub pid: u32,
    pub concurrency: usize,
    pub running: u64,
    pub started_at: Timestamp,
    pub lease_until: Timestamp,
}

/// What a worker has loaded.
#[derive(Clone, Debug)]
pub struct Publication {
    pub worker: WorkerId,
    pub types: Vec<LoadedType>,
    pub refused: Vec<RefusedType>,
}

#[derive(Clone, Debug)]
pub struct LoadedType {
    pub job_type: JobType,
    /// The version that this worker ran before, when it is a reload.
    pub replaced: Option<Version>,
}

/// A version that a worker did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedType {
    pub name: JobName,
    pub version: Version,
    pub reason: String,
    pub at: Timestamp,
}

/// A known type.
#[derive(Clone, Debug)]
pub struct TypeInfo {
    /// The live version.
    pub job_type: JobType,
    pub workers: Vec<TypeWorker>,
    /// The last refused version, when a live worker has one.
    pub refused: Option<RefusedType>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeWorker {
    pub id: WorkerId,
    pub version: Version,
    pub loaded_at: Timestamp,
}

/// Requests to look at the scripts again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    pub asked: u64,
    pub done: BTreeMap<WorkerId, u64>,
}

/// What a wake-up is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    /// Jobs may have become claimable: enqueued, given back, resumed, retried by hand.
    Work,
    /// Jobs may have changed state, made progress or logged.
    Jobs,
    /// Cancel marks may have been set.
    Cancel,
    /// Job types may have changed.
    JobTypes,
}
