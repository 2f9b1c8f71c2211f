//! The broker on Redis 7.0 or newer: one server, the master behind sentinels, or a cluster.
//!
//! Every change is one Lua script in one slot ([`script`], `lua/`), sent over one multiplexed connection ([`link`]) and
//! sent again when its answer is lost: each may run twice. The names of all keys are in [`keys`], the layout of records in
//! [`codec`]. Wake-ups come over a connection of their own ([`wakeups`]).
//!
//! The clock is the server's. When it is set forward, leases and delays end early: runs may be lost and start again, as after
//! a dead worker. When it is set back, what was due or leased before lasts longer by as much. The order of jobs does not
//! depend on it. No promise but the times themselves does.

mod by_hand;
mod check;
mod claim;
mod codec;
mod examine;
mod fsck;
mod fsck_counts;
mod fsck_keys;
mod keys;
mod link;
mod look;
mod reload;
mod reply;
mod runs;
mod script;
mod submit;
mod target;
mod types;
mod upkeep;
mod wakeups;
mod workers;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;
use tokio::sync::watch;

use self::claim::Leases;
use self::link::Link;
use self::wakeups::Wakeups;
use super::{
    Broker, Checked, Claim, Claimed, Enqueued, Filter, Finish, LogBatch, Logs, NewJob, Note, Page, Publication,
    QueueInfo, Reloads, Renewed, Reservation, Reserved, Result, Run, Sweep, Swept, Topic, TypeInfo, WorkerBeat,
    WorkerInfo,
};
use crate::job::{
    Clock, FileInfo, Job, JobId, JobName, JobType, Progress, QueueName, State, Timestamp, Version, WorkerId,
};

pub use self::keys::Namespace;
pub use self::target::Target;

/// The broker on Redis.
pub struct RedisBroker {
    inner: Arc<Inner>,
    listening: Once,
}

/// What the broker and its wake-ups share.
pub(super) struct Inner {
    link: Link,
    names: Namespace,
    wakeups: Arc<Wakeups>,
    leases: Leases,
    known: Mutex<Known>,
    allow_eviction: bool,
    /// None: the server's.
    clock: Option<Arc<dyn Clock>>,
}

/// Queues that the registry has, as far as this process knows.
#[derive(Default)]
struct Known {
    queues: HashSet<QueueName>,
    /// The connection under which they were read or written.
    epoch: u64,
}

impl RedisBroker {
    /// Connects, and checks that this Redis keeps what it is given. Must be called within the runtime that then carries the
    /// connections.
    ///
    /// # Errors
    /// `Unavailable` when Redis cannot be reached, is too old, or may throw jobs away (`maxmemory-policy`) and `allow_eviction`
    /// is not set.
    pub async fn open(target: Target, names: Namespace, allow_eviction: bool) -> Result<Self> {
        let broker = Self::unchecked(target, names, allow_eviction);
        check::server(&broker.inner.link, allow_eviction).await?;
        Ok(broker)
    }

    /// The same without the checks and without a connection yet: for who wants to know what is wrong with this Redis.
    #[must_use]
    pub fn unchecked(target: Target, names: Namespace, allow_eviction: bool) -> Self {
        Self::new(target, names, allow_eviction, None)
    }

    /// The same with another clock than the server's, and without the checks.
    #[must_use]
    pub fn with_clock(target: Target, names: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self::new(target, names, false, Some(clock))
    }

    fn new(target: Target, names: Namespace, allow_eviction: bool, clock: Option<Arc<dyn Clock>>) -> Self {
        let inner = Inner {
            link: Link::new(target),
            names,
            wakeups: Arc::new(Wakeups::new()),
            leases: Leases::default(),
            known: Mutex::default(),
            allow_eviction,
            clock,
        };
        Self { inner: Arc::new(inner), listening: Once::new() }
    }
}

impl std::fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBroker").finish_non_exhaustive()
    }
}

impl Inner {
    /// The first argument of every script.
    fn now(&self) -> String {
        self.clock.as_ref().map_or_else(String::new, |clock| clock.now().0.to_string())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a queue known to everybody, before anything is put into it.
    async fn register(&self, queue: &QueueName) -> Result<()> {
        let epoch = self.link.epoch();
        {
            let known = self.known();
            // After a new connection the server may be another one.
            if known.epoch == epoch && known.queues.contains(queue) {
                return Ok(());
            }
        }
        let mut add = Cmd::new();
        add.arg("SADD").arg(self.names.queues()).arg(queue.as_str());
        self.link.command(&add, "SADD").await?;
        let mut known = self.known();
        if known.epoch != epoch {
            *known = Known { queues: HashSet::new(), epoch };
        }
        known.queues.insert(queue.clone());
        Ok(())
    }

    /// The set of queues is not what was thought.
    fn forget_known(&self) {
        *self.known() = Known::default();
    }

    async fn all_queues(&self) -> Result<Vec<QueueName>> {
        let mut members = Cmd::new();
        members.arg("SMEMBERS").arg(self.names.queues());
        let epoch = self.link.epoch();
        let queues: Vec<QueueName> = match self.link.command(&members, "SMEMBERS").await? {
            redis::Value::Array(names) | redis::Value::Set(names) => {
                names.iter().filter_map(|name| named_queue(reply::text(name).ok()?)).collect()
            }
            _ => Vec::new(),
        };
        let mut known = self.known();
        if known.epoch == epoch {
            known.queues.extend(queues.iter().cloned());
        }
        Ok(queues)
    }

    /// The queues that a job with this id can be in: nearly always one.
    async fn queues_of(&self, id: JobId) -> Result<Vec<QueueName>> {
        let fits = |queue: &QueueName| crate::job::id::crc16(queue.as_str().as_bytes()) == id.queue_code();
        let known: Vec<QueueName> = self.known().queues.iter().filter(|queue| fits(queue)).cloned().collect();
        if !known.is_empty() {
            return Ok(known);
        }
        Ok(self.all_queues().await?.into_iter().filter(|queue| fits(queue)).collect())
    }
}

fn named_queue(name: &str) -> Option<QueueName> {
    QueueName::new(name).ok()
}

/// Places of the items of each queue, in order.
fn by_queue<'a>(queues: impl Iterator<Item = &'a QueueName>) -> BTreeMap<&'a QueueName, Vec<usize>> {
    let mut groups: BTreeMap<&QueueName, Vec<usize>> = BTreeMap::new();
    for (place, queue) in queues.enumerate() {
        groups.entry(queue).or_default().push(place);
    }
    groups
}

#[async_trait]
impl Broker for RedisBroker {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        self.inner.do_enqueue(&jobs).await
    }

    async fn reserve_key(&self, key: &str, reservation: Reservation, ttl: Duration) -> Result<Reserved> {
        self.inner.do_reserve_key(key, reservation, ttl).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.inner.do_claim(claim).await
    }

    async fn extend(&self, run: &Run, timeout: Duration) -> Result<()> {
        self.inner.do_extend(run, timeout).await
    }

    async fn renew(&self, beat: &WorkerBeat) -> Result<Renewed> {
        self.inner.do_renew(beat).await
    }

    async fn retire(&self, worker: &WorkerId) -> Result<()> {
        self.inner.do_retire(worker).await
    }

    async fn progress(&self, run: &Run, progress: &Progress) -> Result<()> {
        self.inner.do_progress(run, progress).await
    }

    async fn log(&self, batches: Vec<LogBatch>, max_bytes: u64) -> Result<Vec<Result<()>>> {
        self.inner.do_log(&batches, max_bytes).await
    }

    async fn record_file(&self, run: &Run, file: &FileInfo) -> Result<()> {
        self.inner.do_record_file(run, file).await
    }

    async fn finish(&self, runs: Vec<Finish>) -> Result<Vec<Result<()>>> {
        self.inner.do_finish(&runs).await
    }

    async fn cancel(&self, id: JobId) -> Result<State> {
        self.inner.do_cancel(id).await
    }

    async fn retry(&self, id: JobId) -> Result<()> {
        self.inner.do_retry(id).await
    }

    async fn delete(&self, id: JobId) -> Result<()> {
        self.inner.do_delete(id).await
    }

    async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<()> {
        self.inner.do_set_paused(queue, paused).await
    }

    async fn sweep(&self, sweep: &Sweep) -> Result<Swept> {
        self.inner.do_sweep(sweep).await
    }

    async fn prune(&self, retain_bytes: u64, limit: usize) -> Result<Vec<JobId>> {
        self.inner.do_prune(retain_bytes, limit).await
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>> {
        self.inner.do_get(id).await
    }

    async fn list(&self, filter: &Filter) -> Result<Page> {
        self.inner.do_list(filter).await
    }

    async fn logs(&self, id: JobId, after: u64, limit: usize) -> Result<Option<Logs>> {
        self.inner.do_logs(id, after, limit).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.inner.do_queues().await
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        self.inner.do_workers().await
    }

    async fn publish(&self, publication: &Publication) -> Result<()> {
        self.inner.do_publish(publication).await
    }

    async fn job_types(&self) -> Result<Vec<TypeInfo>> {
        self.inner.do_job_types().await
    }

    async fn job_type_version(&self, name: &JobName, version: &Version) -> Result<Option<JobType>> {
        self.inner.do_job_type_version(name, version).await
    }

    async fn request_reload(&self) -> Result<u64> {
        self.inner.do_request_reload().await
    }

    async fn reloaded(&self, worker: &WorkerId, number: u64) -> Result<()> {
        self.inner.do_reloaded(worker, number).await
    }

    async fn reloads(&self) -> Result<Reloads> {
        self.inner.do_reloads().await
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        // The connection is made when the first one listens; a command-line call needs none.
        self.listening.call_once(|| {
            let wakeups = Arc::clone(&self.inner.wakeups);
            self.inner.link.spawn(wakeups::listen(Arc::downgrade(&self.inner), wakeups));
        });
        self.inner.wakeups.changes(topic)
    }

    async fn ping(&self) -> Result<Timestamp> {
        let mut call = script::SCRIPTS.ping.on(&self.inner.names.registry());
        Ok(Timestamp(reply::number(&call.arg(self.inner.now()).run(&self.inner.link).await?)?))
    }

    async fn examine(&self) -> Result<Vec<Note>> {
        self.inner.do_examine().await
    }

    async fn check_records(&self, repair: bool) -> Result<Checked> {
        self.inner.do_check_records(repair).await
    }
}
