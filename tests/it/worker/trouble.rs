//! A real broker behind a bad line: calls that never arrive, and answers that get lost after the work was done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ryemill::broker::{
    Broker, BrokerError, Checked, Claim, Claimed, Enqueued, Filter, Finish, LogBatch, Logs, NewJob, Note, Page,
    Publication, QueueInfo, Reloads, Renewed, Reservation, Reserved, Result, Run, SharedBroker, Sweep, Swept, Topic,
    TypeInfo, WorkerBeat, WorkerInfo,
};
use ryemill::job::{FileInfo, Job, JobId, JobName, JobType, Progress, QueueName, State, Timestamp, Version, WorkerId};
use tokio::sync::watch;

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It does not arrive.
    Refused,
    /// It is done, the answer is lost.
    AnswerLost,
    /// The broker says that the lease is gone.
    LeaseLost,
}

/// The broker behind the line.
pub struct Line {
    broker: SharedBroker,
    /// By verb: what happens to the next calls.
    faults: Mutex<HashMap<&'static str, Vec<Fault>>>,
}

impl Line {
    pub fn new(broker: SharedBroker) -> Arc<Self> {
        Arc::new(Self { broker, faults: Mutex::default() })
    }

    /// The next `count` calls of `verb` fail so.
    pub fn break_next(&self, verb: &'static str, fault: Fault, count: usize) {
        self.faults.lock().unwrap().entry(verb).or_default().extend(vec![fault; count]);
    }

    /// Whether all that was to fail has failed.
    pub fn is_used_up(&self) -> bool {
        self.faults.lock().unwrap().values().all(Vec::is_empty)
    }

    async fn call<T>(&self, verb: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.faults.lock().unwrap().get_mut(verb).and_then(Vec::pop);
        match fault {
            None => call.await,
            Some(Fault::Refused) => Err(BrokerError::Unavailable("cut".into())),
            Some(Fault::LeaseLost) => Err(BrokerError::LeaseLost),
            Some(Fault::AnswerLost) => {
                call.await?;
                Err(BrokerError::Unavailable("cut".into()))
            }
        }
    }
}

#[async_trait]
impl Broker for Line {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        self.call("enqueue", self.broker.enqueue(jobs)).await
    }
    async fn reserve_key(&self, key: &str, reservation: Reservation, ttl: Duration) -> Result<Reserved> {
        self.broker.reserve_key(key, reservation, ttl).await
    }
    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.call("claim", self.broker.claim(claim)).await
    }
    async fn extend(&self, run: &Run, timeout: Duration) -> Result<()> {
        self.call("extend", self.broker.extend(run, timeout)).await
    }
    async fn renew(&self, beat: &WorkerBeat) -> Result<Renewed> {
        self.call("renew", self.broker.renew(beat)).await
    }
    async fn retire(&self, worker: &WorkerId) -> Result<()> {
        self.call("retire", self.broker.retire(worker)).await
    }
    async fn progress(&self, run: &Run, progress: &Progress) -> Result<()> {
        self.call("progress", self.broker.progress(run, progress)).await
    }
    async fn log(&self, batches: Vec<LogBatch>, max_bytes: u64) -> Result<Vec<Result<()>>> {
        self.call("log", self.broker.log(batches, max_bytes)).await
    }
    async fn record_file(&self, run: &Run, file: &FileInfo) -> Result<()> {
        self.call("record_file", self.broker.record_file(run, file)).await
    }
    async fn finish(&self, runs: Vec<Finish>) -> Result<Vec<Result<()>>> {
        self.call("finish", self.broker.finish(runs)).await
    }
    async fn cancel(&self, id: JobId) -> Result<State> {
        self.broker.cancel(id).await
    }
    async fn retry(&self, id: JobId) -> Result<()> {
        self.broker.retry(id).await
    }
    async fn delete(&self, id: JobId) -> Result<()> {
        self.broker.delete(id).await
    }
    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<()> {
        self.broker.set_paused(queue, paused).await
    }
    async fn sweep(&self, sweep: &Sweep) -> Result<Swept> {
        self.call("sweep", self.broker.sweep(sweep)).await
    }
    async fn prune(&self, retain_bytes: u64, limit: usize) -> Result<Vec<JobId>> {
        self.call("prune", self.broker.prune(retain_bytes, limit)).await
    }
    async fn get(&self, id: JobId) -> Result<Option<Job>> {
        self.broker.get(id).await
    }
    async fn list(&self, filter: &Filter) -> Result<Page> {
        self.broker.list(filter).await
    }
    async fn logs(&self, id: JobId, after: u64, limit: usize) -> Result<Option<Logs>> {
        self.broker.logs(id, after, limit).await
    }
    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.broker.queues().await
    }
    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        self.broker.workers().await
    }
    async fn publish(&self, publication: &Publication) -> Result<()> {
        self.call("publish", self.broker.publish(publication)).await
    }
    async fn job_types(&self) -> Result<Vec<TypeInfo>> {
        self.broker.job_types().await
    }
    async fn request_reload(&self) -> Result<u64> {
        self.broker.request_reload().await
    }
    async fn reloaded(&self, worker: &WorkerId, number: u64) -> Result<()> {
        self.call("reloaded", self.broker.reloaded(worker, number)).await
    }
    async fn reloads(&self) -> Result<Reloads> {
        self.broker.reloads().await
    }
    async fn job_type_version(&self, name: &JobName, version: &Version) -> Result<Option<JobType>> {
        self.broker.job_type_version(name, version).await
    }
    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.broker.changes(topic)
    }
    async fn ping(&self) -> Result<Timestamp> {
        self.broker.ping().await
    }
    async fn examine(&self) -> Result<Vec<Note>> {
        self.broker.examine().await
    }
    async fn check_records(&self, repair: bool) -> Result<Checked> {
        self.broker.check_records(repair).await
    }
}
