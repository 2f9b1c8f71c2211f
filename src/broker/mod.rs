//! The broker: every state change of a job is one atomic, durable step here. Knows the domain, never scripts or HTTP.
//!
//! [`Broker`] is the contract; the docs of a verb are the list of its contract tests, which run on every backend.
//! Times are the broker's own (`now` below is its clock), so workers and servers with other clocks agree.

mod examination;
mod files;
pub mod redis;
pub mod sqlite;
mod types;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::job::{FileInfo, Job, JobId, JobName, Progress, QueueName, RunToken, Timestamp, Version, WorkerId};

pub use examination::{Checked, Level, Note, RecordFault};
pub use files::{FileError, FileName, FileStore, StagedFile};
pub use types::*;

/// The queue of the probe jobs of `ryemill doctor`. Workers leave it to the doctor.
pub const PROBE_QUEUE: &str = "ryemill-doctor";

/// A shared broker.
pub type SharedBroker = Arc<dyn Broker>;
pub type Result<T> = std::result::Result<T, BrokerError>;

/// Why the broker did not do as asked. Nothing has changed then, but for [`BrokerError::Unavailable`], where a change
/// may or may not have happened: every verb may be called again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    #[error("there is no job {0}")]
    NotFound(JobId),
    #[error("{0}")]
    IllegalState(#[from] crate::job::state::IllegalTransition),
    /// The token is not the one of the job's current run, or the worker's lease is gone.
    #[error("the lease of this run is lost")]
    LeaseLost,
    /// No room for new jobs; work that is under way goes on.
    #[error("the broker is full: {0}")]
    Full(String),
    /// A client's mistake that only the broker can see, such as a cursor that it did not make.
    #[error("{0}")]
    Invalid(String),
    #[error("the broker is not available: {0}")]
    Unavailable(String),
    /// A stored record cannot be read.
    #[error("a stored record is damaged: {0}")]
    Damaged(String),
}

/// The verbs of a job's life.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    // ---- submit -------------------------------------------------------------------------------------------------

    /// Stores new jobs: `scheduled` when their delay is not zero, else `queued`. Durable before it answers. One answer per
    /// job, in order. After an error some may be stored: the call may be made again.
    /// Idempotent by id: an id that exists is left as it is, and answered with `created: false`. An id twice in one call
    /// is stored once.
    /// Errors: `Full`.
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>>;

    /// Reserves an idempotency key for a job id that the caller then enqueues. The first caller gets its own
    /// reservation back (`first: true`); later ones get the first one's (`first: false`), whatever they bring, until `ttl`
    /// is over. Atomic. The job may not exist yet: whoever comes with the same body enqueues it under the reserved id.
    async fn reserve_key(&self, key: &str, reservation: Reservation, ttl: Duration) -> Result<Reserved>;

    // ---- run ----------------------------------------------------------------------------------------------------

    /// Takes up to `limit` queued jobs: → `running`, each under a fresh token, `attempt` raised by one, its run to be
    /// over by `now + timeout`. Scheduled jobs whose time has come count as queued (→ `queued` first, in bounded batches).
    /// In a queue the smallest `created − 60 s × priority` goes first, then the older one; queues are served in the order
    /// given, each with what the ones before left. Paused queues and types in `lacking` are passed over and never block
    /// others. Suspects (see `sweep`) are given only to a claim with `suspect`, at most one.
    /// A worker claims only under a live lease. Two claims never get the same run.
    /// Idempotent by ticket: the same claim made again, because its answer was lost, gets the same runs, as far as they
    /// still go on. The last claim of a worker is remembered, so one whose answer is unknown is made again until it is.
    /// Errors: `LeaseLost` when the worker is not registered or its lease is over.
    async fn claim(&self, claim: &Claim) -> Result<Claimed>;

    /// Gives a run longer than the `timeout` its job was submitted with (its script has a longer one by now): it is over
    /// by `now + timeout`. Errors: `LeaseLost`.
    async fn extend(&self, run: &Run, timeout: Duration) -> Result<()>;

    /// Registers a worker, or renews its lease to `now + lease`, and answers which of its runs are to be cancelled.
    /// A worker whose lease is over and that a sweep removed is not brought back: `LeaseLost`, for ever; it must stop
    /// its runs and come back under a new id.
    async fn renew(&self, beat: &WorkerBeat) -> Result<Renewed>;

    /// Takes a worker off the list when it stops by itself. Its running jobs, if there are any, are given back as
    /// a release would. Its id never comes back, as after a sweep. Idempotent.
    async fn retire(&self, worker: &WorkerId) -> Result<()>;

    /// Notes how far a run is. The last one wins. Errors: `LeaseLost`.
    async fn progress(&self, run: &Run, progress: &Progress) -> Result<()>;

    /// Appends to the logs of runs, each in order, with `seq` going on where the job's log stands. Over `max_bytes` a
    /// job the oldest lines go and are counted. One answer per batch, in order: `LeaseLost` when the run is stale (its
    /// lines are then not stored). `dropped` of a batch is added to the job's count.
    /// Idempotent by the run and `first`: what was stored of a run, or counted, is passed over when it comes again, so a batch whose
    /// answer was lost is sent again as it was. A `first` beyond what was stored is no fault: what lies between is missing.
    async fn log(&self, batches: Vec<LogBatch>, max_bytes: u64) -> Result<Vec<Result<()>>>;

    /// Adds a file to the job's list, or replaces the one with its name. Errors: `LeaseLost`.
    async fn record_file(&self, run: &Run, file: &FileInfo) -> Result<()>;

    /// Ends runs, each on its own: one answer per run, in order. From `running` only, by its token:
    /// succeeded → `succeeded`; failed → `failed`; retry → `scheduled`, due `now + delay`; released → `queued` (`scheduled` with
    /// a delay), the attempt given back, the reason shown; cancelled → `cancelled`.
    /// A job whose cancel mark is set ends `cancelled` instead of retried or released.
    /// The ended run joins `attempts`. A repeated finish of the same token is `LeaseLost` (the caller may take it as done).
    /// Errors per run: `LeaseLost`.
    async fn finish(&self, runs: Vec<Finish>) -> Result<Vec<Result<()>>>;

    // ---- by hand ------------------------------------------------------------------------------------------------

    /// `scheduled` or `queued` → `cancelled` at once. `running`: sets the cancel mark, which its worker is told of; the
    /// answer is then `running`. Idempotent on a job that is marked or cancelled already.
    /// Errors: `NotFound`, `IllegalState` (succeeded, failed).
    async fn cancel(&self, id: JobId) -> Result<crate::job::State>;

    /// `failed` or `cancelled` → `queued`, with all its attempts again (`attempt` 0; result, error and progress cleared;
    /// `lost` and history kept; charges cleared). Errors: `NotFound`, `IllegalState`.
    async fn retry(&self, id: JobId) -> Result<()>;

    /// Removes a job that is not running, with its log. Errors: `NotFound`, `IllegalState` (running).
    async fn delete(&self, id: JobId) -> Result<()>;

    /// Pauses or resumes a queue: no claim takes from a paused one; runs go on. Idempotent; works on a queue that has no
    /// jobs yet.
    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<()>;

    // ---- upkeep -------------------------------------------------------------------------------------------------

    /// Gives back the runs of dead workers: every running job whose worker is not registered or has no live lease, every
    /// one whose run is over its time by at least `overdue`, and every run in `blamed` that is still current is lost: `lost` raised by one, the attempt
    /// given back, → `queued`. A loss is charged when the run is in `blamed`, or was a suspect's; the third
    /// charge → `failed`, kind `worker_lost`. Five uncharged losses make the job a suspect. A job with a cancel
    /// mark → `cancelled`.
    /// Compares and sets by token: a run that ended meanwhile is left alone. Bounded; a record that cannot
    /// be read is moved aside, counted, and never stops the rest.
    async fn sweep(&self, sweep: &Sweep) -> Result<Swept>;

    /// Removes ended jobs whose `keep` is over, then the oldest ended ones of a queue whose ended records need more than
    /// `retain_bytes`, with their logs, at most `limit` in all. Never touches a job that has not ended. Old
    /// reservations of idempotency keys go too. Answers the removed ids, so that their files can go.
    async fn prune(&self, retain_bytes: u64, limit: usize) -> Result<Vec<JobId>>;

    // ---- look ---------------------------------------------------------------------------------------------------

    /// One job, whole; none when there is none. Its `reason`, while it is queued: that its queue is paused, or else that no
    /// live worker has its type, or else why its last run gave it back.
    async fn get(&self, id: JobId) -> Result<Option<Job>>;

    /// Jobs that match, newest first, at most `limit`; examines at most 10 000 records, so a page may be short and still
    /// have a cursor. `next` is none at the end. Walking the pages gives every job that was there all along once.
    /// Errors: `Invalid` for a cursor that is none.
    async fn list(&self, filter: &Filter) -> Result<Page>;

    /// The log of a job after `after` (0: from the start), at most `limit` lines. None when there is no such job.
    async fn logs(&self, id: JobId, after: u64, limit: usize) -> Result<Option<Logs>>;

    /// Every queue that has or had jobs or is paused, by name, with its counts.
    async fn queues(&self) -> Result<Vec<QueueInfo>>;

    /// The registered workers.
    async fn workers(&self) -> Result<Vec<WorkerInfo>>;

    // ---- job types ----------------------------------------------------------------------------------------------

    /// Says which types a worker has loaded now: the whole list replaces the one before. A version
    /// becomes the live one when it is first published, or when this worker replaced the live one by it (an edit taken
    /// back); publishing again what is known changes nothing. `refused` is shown until that worker publishes again
    /// without it. A type stays known when nobody has it.
    /// Errors: `LeaseLost` when the worker is not registered.
    async fn publish(&self, publication: &Publication) -> Result<()>;

    /// Every known type with its live version and who has which version, by name.
    async fn job_types(&self) -> Result<Vec<TypeInfo>>;

    /// The script version `version` of `name`, when it was ever published.
    async fn job_type_version(&self, name: &JobName, version: &Version) -> Result<Option<crate::job::JobType>>;

    /// Asks every worker to look at its scripts again: gives the request the next number, and answers it. Wakes `JobTypes`.
    async fn request_reload(&self) -> Result<u64>;

    /// Notes that a worker has done request `number`: it has looked, and published what it found. A lower number than the
    /// noted one changes nothing. Wakes `JobTypes`. Errors: `LeaseLost` when the worker is not registered.
    async fn reloaded(&self, worker: &WorkerId, number: u64) -> Result<()>;

    /// The number of the last request, 0 before the first, and for each registered worker the one it has done, 0 for none.
    async fn reloads(&self) -> Result<Reloads>;

    // ---- wake-ups -----------------------------------------------------------------------------------------------

    /// Counts changes of a topic, by this and by other processes. A wake-up may come without cause, and after a cut
    /// connection one may be missed: look first, wait second, and look again after a while.
    fn changes(&self, topic: Topic) -> watch::Receiver<u64>;

    // ---- doctor -------------------------------------------------------------------------------------------------

    /// Makes a round trip that a write would make. Answers what the broker's clock shows. Errors: `Unavailable`.
    async fn ping(&self) -> Result<Timestamp>;

    /// What an operator should know of this broker: what it is, how much room it has, what an accepted job survives,
    /// whether records were moved aside. Changes nothing. Errors: `Unavailable`.
    async fn examine(&self) -> Result<Vec<Note>>;

    /// Holds every record, index and count against the others and says which disagree. With `repair` each is mended: what can be
    /// read is put back where it belongs, what cannot is moved aside, what belongs to no job goes, counts are made anew.
    /// Works beside live workers, and takes nothing that they do meanwhile for damage. Steps are bounded; all of it takes as
    /// long as reading every job. Errors: `Unavailable`.
    async fn check_records(&self, repair: bool) -> Result<Checked>;
}

/// The run that a change belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    pub job: JobId,
    pub queue: QueueName,
    pub token: RunToken,
}
