//! The embedded broker: one SQLite file that any number of processes on one machine share, no server at all.
//!
//! Writes go through one thread per process ([`writer`]), which makes one durable commit of all that waits; reads
//! have connections of their own ([`readers`]). Each verb's statements are in the file of its group.
//!
//! The clock is the machine's. When it is set forward, leases and delays end early: runs may be lost and start again, as
//! after a dead worker. When it is set back, what was due or leased before lasts longer by as much, and new jobs go
//! before older ones of their priority. No promise but the times themselves depends on it.

mod by_hand;
mod claim;
mod db;
mod ends;
mod examine;
mod fsck;
mod logs;
mod look;
mod quarantine;
mod readers;
mod reload;
mod row;
mod runs;
mod schema;
mod submit;
mod types;
mod upkeep;
mod wakeups;
mod workers;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use self::db::Db;
use self::readers::Readers;
use self::wakeups::Wakeups;
use self::writer::Writer;
use super::{
    Broker, BrokerError, Checked, Claim, Claimed, Enqueued, Filter, Finish, LogBatch, Logs, NewJob, Note, Page,
    Publication, QueueInfo, Reloads, Renewed, Reservation, Reserved, Result, Run, Sweep, Swept, Topic, TypeInfo,
    WorkerBeat, WorkerInfo,
};
use crate::job::time::SystemClock;
use crate::job::{
    Clock, FileInfo, Job, JobId, JobName, JobType, Progress, QueueName, State, Timestamp, Version, WorkerId,
};

pub use self::db::SyncMode;

/// The broker on one SQLite file.
pub struct SqliteBroker {
    /// Works as long as it lives.
    _watcher: Option<notify::RecommendedWatcher>,
    writer: Writer,
    readers: Readers,
    wakeups: Arc<Wakeups>,
    clock: Arc<dyn Clock>,
    last_claims: Arc<claim::Last>,
    path: PathBuf,
    sync: SyncMode,
}

impl SqliteBroker {
    /// Opens the file, or makes it with its folder. Blocks for the time of a few disk accesses.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be opened, is another program's, or was written by a newer Ryemill.
    pub fn open(path: &Path, sync: SyncMode) -> Result<Self> {
        Self::open_with_clock(path, sync, Arc::new(SystemClock))
    }

    /// The same with another clock than the machine's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(path: &Path, sync: SyncMode, clock: Arc<dyn Clock>) -> Result<Self> {
        // A later change of the working directory must not move the file.
        let path = std::path::absolute(path)
            .map_err(|error| BrokerError::Unavailable(format!("{}: {error}", path.display())))?;
        let db = Db::open_writer(&path, sync)?;
        let wakeups = Arc::new(Wakeups::new(&path));
        let reopen = {
            let path = path.clone();
            move || Db::open_writer(&path, sync)
        };
        let writer = Writer::start(db, Box::new(reopen), Arc::clone(&clock), Arc::clone(&wakeups))?;
        let watcher = wakeups::watch(&path, writer.nudge());
        Ok(Self {
            _watcher: watcher,
            writer,
            readers: Readers::new(path.clone()),
            wakeups,
            clock,
            last_claims: Arc::default(),
            path,
            sync,
        })
    }
}

impl std::fmt::Debug for SqliteBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteBroker").finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for SqliteBroker {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        self.writer.call(move |tx| submit::enqueue(tx, &jobs)).await
    }

    async fn reserve_key(&self, key: &str, reservation: Reservation, ttl: Duration) -> Result<Reserved> {
        let key = key.to_owned();
        self.writer.call(move |tx| submit::reserve_key(tx, &key, &reservation, ttl)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let (claim, last) = (claim.clone(), Arc::clone(&self.last_claims));
        self.writer.call(move |tx| claim::claim(tx, &claim, &last)).await
    }

    async fn extend(&self, run: &Run, timeout: Duration) -> Result<()> {
        let run = run.clone();
        self.writer.call(move |tx| runs::extend(tx, &run, timeout)).await
    }

    async fn renew(&self, beat: &WorkerBeat) -> Result<Renewed> {
        let beat = beat.clone();
        self.writer.call(move |tx| workers::renew(tx, &beat)).await
    }

    async fn retire(&self, worker: &WorkerId) -> Result<()> {
        let worker = worker.clone();
        self.writer.call(move |tx| workers::retire(tx, &worker)).await
    }

    async fn progress(&self, run: &Run, progress: &Progress) -> Result<()> {
        let (run, progress) = (run.clone(), progress.clone());
        self.writer.call(move |tx| runs::progress(tx, &run, &progress)).await
    }

    async fn log(&self, batches: Vec<LogBatch>, max_bytes: u64) -> Result<Vec<Result<()>>> {
        self.writer.call(move |tx| logs::log(tx, &batches, max_bytes)).await
    }

    async fn record_file(&self, run: &Run, file: &FileInfo) -> Result<()> {
        let (run, file) = (run.clone(), file.clone());
        self.writer.call(move |tx| runs::record_file(tx, &run, &file)).await
    }

    async fn finish(&self, runs: Vec<Finish>) -> Result<Vec<Result<()>>> {
        self.writer.call(move |tx| runs::finish(tx, &runs)).await
    }

    async fn cancel(&self, id: JobId) -> Result<State> {
        self.writer.call(move |tx| by_hand::cancel(tx, id)).await
    }

    async fn retry(&self, id: JobId) -> Result<()> {
        self.writer.call(move |tx| by_hand::retry(tx, id)).await
    }

    async fn delete(&self, id: JobId) -> Result<()> {
        self.writer.call(move |tx| by_hand::delete(tx, id)).await
    }

    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<()> {
        let queue = queue.clone();
        self.writer.call(move |tx| by_hand::set_paused(tx, &queue, paused)).await
    }

    async fn sweep(&self, sweep: &Sweep) -> Result<Swept> {
        let sweep = sweep.clone();
        self.writer.call(move |tx| upkeep::sweep(tx, &sweep)).await
    }

    async fn prune(&self, retain_bytes: u64, limit: usize) -> Result<Vec<JobId>> {
        self.writer.call(move |tx| upkeep::prune(tx, retain_bytes, limit)).await
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>> {
        let now = self.clock.now();
        self.readers.call(move |db| look::get(db, now, id)).await
    }

    async fn list(&self, filter: &Filter) -> Result<Page> {
        let (filter, now) = (filter.clone(), self.clock.now());
        self.readers.call(move |db| look::list(db, now, &filter)).await
    }

    async fn logs(&self, id: JobId, after: u64, limit: usize) -> Result<Option<Logs>> {
        self.readers.call(move |db| logs::logs(db, id, after, limit)).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        let now = self.clock.now();
        self.readers.call(move |db| look::queues(db, now)).await
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        self.readers.call(workers::workers).await
    }

    async fn publish(&self, publication: &Publication) -> Result<()> {
        let publication = publication.clone();
        self.writer.call(move |tx| types::publish(tx, &publication)).await
    }

    async fn job_types(&self) -> Result<Vec<TypeInfo>> {
        let now = self.clock.now();
        self.readers.call(move |db| types::job_types(db, now)).await
    }

    async fn job_type_version(&self, name: &JobName, version: &Version) -> Result<Option<JobType>> {
        let (name, version) = (name.clone(), version.clone());
        self.readers.call(move |db| types::job_type_version(db, &name, &version)).await
    }

    async fn request_reload(&self) -> Result<u64> {
        self.writer.call(reload::request).await
    }

    async fn reloaded(&self, worker: &WorkerId, number: u64) -> Result<()> {
        let worker = worker.clone();
        self.writer.call(move |tx| reload::done(tx, &worker, number)).await
    }

    async fn reloads(&self) -> Result<Reloads> {
        self.readers.call(reload::reloads).await
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.wakeups.changes(topic)
    }

    async fn ping(&self) -> Result<Timestamp> {
        self.writer
            .call(|tx| {
                tx.db.execute("UPDATE pinged SET at = ?1", [tx.now.0])?;
                Ok(tx.now)
            })
            .await
    }

    async fn examine(&self) -> Result<Vec<Note>> {
        let (path, sync) = (self.path.clone(), self.sync);
        self.readers.call(move |db| examine::notes(db, &path, sync)).await
    }

    async fn check_records(&self, repair: bool) -> Result<Checked> {
        self.fsck(repair).await
    }
}
