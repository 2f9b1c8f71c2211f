//! Which job types this worker has, and which the broker knows: publishes the first, reads the second. What a worker lacks
//! it does not claim; what it may submit is what the broker knows. Knows scripts by their metadata only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::{debug, error, warn};

use super::{Queues, Shared};
use crate::broker::{BrokerError, LoadedType, PROBE_QUEUE, Publication, RefusedType, Result, Topic, TypeInfo};
use crate::job::{JobName, PayloadSchema, QueueName, Version, WorkerId};
use crate::script::library::{Script, Snapshot};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;

/// How old the picture may get when nothing is heard.
const REFRESH: Duration = Duration::from_secs(1);
/// Others' changes are looked at no more often than this: a busy broker wakes all the time.
const SPACING: Duration = Duration::from_millis(250);
/// After the broker has forgotten a publication.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// After a publication that came before the worker was registered again.
const AGAIN: Duration = Duration::from_millis(100);

/// What is known of job types now.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// By the broker; the live versions.
    pub types: BTreeMap<JobName, TypeInfo>,
    /// Of these, the ones that this worker has no script for.
    pub lacking: Vec<JobName>,
    /// The queues of the loaded scripts, and all that the broker has if this worker serves all.
    pub queues: Vec<QueueName>,
}

/// The job types, shared.
pub struct Types {
    shared: Arc<Shared>,
    known: watch::Sender<Arc<Known>>,
    /// Compiled schemas of live versions that this worker has no script for.
    schemas: Mutex<BTreeMap<Version, Arc<PayloadSchema>>>,
    stale: Notify,
    /// The last request to reload that the library has done.
    looked: watch::Sender<u64>,
    /// The broker knows what this worker has.
    pub published: Notify,
}

/// What this worker has told the broker.
#[derive(Default)]
struct Told {
    /// Under which id, and of which state of the library.
    epoch: Option<(u64, u64)>,
    scripts: Arc<Snapshot>,
    /// The request to reload that it was told is done, and under which id.
    reloaded: (u64, u64),
    /// The scripts that the metrics know of.
    counted: Arc<Snapshot>,
}

impl Types {
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        let (known, schemas) = (watch::Sender::default(), Mutex::default());
        Arc::new(Self {
            shared,
            known,
            schemas,
            stale: Notify::new(),
            looked: watch::Sender::default(),
            published: Notify::new(),
        })
    }

    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    #[must_use]
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    /// Changes when there may be more to claim.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// The picture has proved wrong: have it made anew soon.
    pub fn stale(&self) {
        self.stale.notify_one();
    }

    /// The library has done this request to reload: once that is published, the broker is told.
    pub fn has_looked(&self, request: u64) {
        self.looked.send_replace(request);
    }

    /// The live version of a type; asks the broker when it is not in the picture.
    ///
    /// # Errors
    /// What the broker says; [`Known`] without that type when there is none.
    pub async fn find(&self, name: &JobName) -> Result<Arc<Known>> {
        let known = self.known();
        if known.types.contains_key(name) {
            return Ok(known);
        }
        self.refresh().await?;
        Ok(self.known())
    }

    /// The schema of a live version, compiled once.
    ///
    /// # Errors
    /// When the published schema is none; only a broker's damaged record can make it so.
    pub fn schema_of(&self, live: &TypeInfo) -> std::result::Result<Arc<PayloadSchema>, String> {
        let version = &live.job_type.version;
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = schemas.get(version) {
            return Ok(Arc::clone(schema));
        }
        let schema = Arc::new(PayloadSchema::compile(&live.job_type.spec.schema).map_err(|fault| fault.to_string())?);
        let known = self.known();
        schemas.retain(|version, _| known.types.values().any(|info| info.job_type.version == *version));
        schemas.insert(version.clone(), Arc::clone(&schema));
        Ok(schema)
    }

    /// Reads what the broker knows.
    ///
    /// # Errors
    /// What the broker says; the picture stays then.
    pub async fn refresh(&self) -> Result<()> {
        let Shared { broker, library, options, .. } = &*self.shared;
        let types: BTreeMap<JobName, TypeInfo> =
            broker.job_types().await?.into_iter().map(|info| (info.job_type.name.clone(), info)).collect();
        let snapshot = library.snapshot();
        let lacking = types.keys().filter(|name| !snapshot.scripts.contains_key(*name)).cloned().collect();
        let mut queues = BTreeSet::new();
        if options.queues == Queues::All {
            let all = broker.queues().await?.into_iter().map(|queue| queue.name);
            queues.extend(all.filter(|queue| queue.as_str() != PROBE_QUEUE));
        }
        queues.extend(snapshot.scripts.values().map(|script| script.job_type.spec.queue.clone()));
        let new = Known { types, lacking, queues: queues.into_iter().collect() };
        self.known.send_if_modified(|known| {
            let claims = known.lacking != new.lacking || known.queues != new.queues;
            *known = Arc::new(new);
            claims
        });
        Ok(())
    }

    /// No claim asks for what is gone, from before anybody hears that it is: a job that comes then waits, instead of being
    /// claimed and given back.
    fn leave_out(&self, snapshot: &Snapshot) {
        self.known.send_if_modified(|known| {
            let is_lacking = |name: &JobName| known.lacking.contains(name) || !snapshot.scripts.contains_key(name);
            let lacking: Vec<JobName> = known.types.keys().filter(|name| is_lacking(name)).cloned().collect();
            let more = lacking != known.lacking;
            if more {
                Arc::make_mut(known).lacking = lacking;
            }
            more
        });
    }

    /// Keeps both sides told until `stop`.
    pub async fn run(self: Arc<Self>, stop: Shutdown) {
        tokio::select! {
            () = stop.requested() => return,
            () = self.judge_start() => {}
        }
        let mut told = Told::default();
        let mut swaps = self.shared.library.changes();
        let mut members = self.shared.lease.members();
        let mut looked = self.looked.subscribe();
        let mut theirs = self.shared.broker.changes(Topic::JobTypes);
        let mut last = Instant::now();
        let mut next = last;
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep_until(next.into()) => {}
                // What this worker itself has changed is told at once.
                Ok(()) = swaps.changed() => {}
                Ok(()) = members.changed() => {}
                Ok(()) = looked.changed() => {}
                () = self.stale.notified() => {
                    next = next.min(last + SPACING);
                    continue;
                }
                Ok(()) = theirs.changed() => {
                    next = next.min(last + SPACING);
                    continue;
                }
            }
            last = Instant::now();
            next = last + self.run_once(&mut told).await;
        }
    }

    /// Before anything is published: a version that the broker has not seen live must pass the gate, at a worker's start
    /// as at a reload. The others went live before, and a restart changes nothing for them.
    async fn judge_start(&self) {
        loop {
            match self.shared.broker.job_types().await {
                Ok(types) => {
                    let known = types.into_iter().map(|info| (info.job_type.name, info.job_type.version)).collect();
                    let library = Arc::clone(&self.shared.library);
                    match tokio::task::spawn_blocking(move || library.judge_start(&known)).await {
                        Ok(true) => return,
                        Ok(false) => warn!("not all scripts could be judged, they are judged again"),
                        Err(fault) => error!("the scripts could not be judged: {fault}"),
                    }
                }
                Err(problem) => warn!("the known job types could not be read: {problem}"),
            }
            tokio::time::sleep(REFRESH).await;
        }
    }

    /// Publishes if there is something to publish, and looks. Answers when to do so again.
    async fn run_once(&self, told: &mut Told) -> Duration {
        let mut again = REFRESH;
        match self.publish(told).await {
            Ok(()) => {}
            Err(BrokerError::LeaseLost) => {
                self.shared.lease.doubt();
                again = AGAIN;
            }
            Err(problem) => warn!("the job types of this worker are not published: {problem}"),
        }
        match self.refresh().await {
            Ok(()) if !self.listed(told) => {
                // A Redis that came back without its data knows neither the types nor who has them.
                told.epoch = None;
                again = again.min(FORGOTTEN);
            }
            Ok(()) => {}
            Err(problem) => debug!("the known job types could not be read: {problem}"),
        }
        // Not before the look, so that the first claim knows the queues.
        if told.epoch.is_some() {
            self.published.notify_one();
        }
        again
    }

    /// Whether the broker still knows what it was told.
    fn listed(&self, told: &Told) -> bool {
        let (known, member) = (self.known(), self.shared.lease.member());
        told.epoch.is_none_or(|(epoch, _)| epoch != member.epoch)
            || told.scripts.scripts.keys().all(|name| {
                known.types.get(name).is_some_and(|info| info.workers.iter().any(|worker| worker.id == member.id))
            })
    }

    async fn publish(&self, told: &mut Told) -> Result<()> {
        let Shared { broker, library, lease, .. } = &*self.shared;
        let member = lease.member();
        let looked = *self.looked.borrow();
        // Read before the snapshot: a swap in between is published again.
        let swap = *library.changes().borrow();
        let reloaded = (member.epoch, looked);
        if told.epoch == Some((member.epoch, swap)) {
            return self.tell_reloaded(told, &member.id, reloaded).await;
        }
        let snapshot = library.snapshot();
        let counted = std::mem::replace(&mut told.counted, Arc::clone(&snapshot));
        count(&self.shared.metrics, &counted, &snapshot);
        // Under a new id nothing was replaced: the broker has not heard of this worker.
        let known = told.epoch.is_some_and(|(epoch, _)| epoch == member.epoch);
        let before = if known { Arc::clone(&told.scripts) } else { Arc::default() };
        self.leave_out(&snapshot);
        broker.publish(&publication(member.id.clone(), &snapshot, &before)).await?;
        told.epoch = Some((member.epoch, swap));
        told.scripts = snapshot;
        self.tell_reloaded(told, &member.id, reloaded).await
    }

    /// Only after the publication of what the look has found.
    async fn tell_reloaded(&self, told: &mut Told, worker: &WorkerId, reloaded: (u64, u64)) -> Result<()> {
        if reloaded.1 > 0 && told.reloaded != reloaded {
            self.shared.broker.reloaded(worker, reloaded.1).await?;
            told.reloaded = reloaded;
        }
        Ok(())
    }
}

/// In the metrics, what is new.
fn count(metrics: &Metrics, before: &Snapshot, now: &Snapshot) {
    for (name, _) in now.scripts.iter().filter(|(name, script)| version_of(before, name) != Some(version(script))) {
        metrics.script_loaded(name.as_str());
    }
    for refused in now.refused.iter().filter(|refused| !before.refused.contains(refused)) {
        metrics.script_refused(refused.name.as_str());
    }
}

fn publication(worker: WorkerId, now: &Snapshot, before: &Snapshot) -> Publication {
    let types = now.scripts.iter().map(|(name, script)| LoadedType {
        job_type: script.job_type.clone(),
        replaced: version_of(before, name).filter(|replaced| *replaced != version(script)).cloned(),
    });
    let refused = now.refused.iter().map(|refused| RefusedType {
        name: refused.name.clone(),
        version: refused.version.clone(),
        reason: refused.reason.clone(),
        at: refused.at,
    });
    Publication { worker, types: types.collect(), refused: refused.collect() }
}

fn version(script: &Script) -> &Version {
    &script.job_type.version
}

fn version_of<'a>(snapshot: &'a Snapshot, name: &JobName) -> Option<&'a Version> {
    snapshot.scripts.get(name).map(|script| version(script))
}
