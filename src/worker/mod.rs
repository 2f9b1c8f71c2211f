//! The worker process: claims jobs, has their scripts run, tells the broker how they ended, and keeps the store tidy.
//!
//! One loop per file, wired here and nowhere else: `claim` → `execute` → the pool → `output`, `logs` → `finish`, next to
//! `lease` and `watchdog` (on the thread of `pulse`), `publish`, `sweep` and `health`. `runs` are the live runs, `blame` says
//! which of them a crash is charged to.
//!
//! # The order of a shutdown
//! 1. Claiming and upkeep stop. A claim under way is waited for and its jobs are given back, as is what waits in the pool's line.
//! 2. Runs that have started have the grace period to end.
//! 3. The rest is stopped and handed back; no attempt is burned.
//! 4. What runs have said is stored, then how they ended.
//! 5. The worker retires, which hands back whatever still did not end. The lease was renewed all the while.
//! 6. The threads are joined. The notes of who is on a CPU go: nobody is to blame for a clean end.
//!
//! Every step is bounded: all but the grace period together take [`EXTRA`] at most.

mod blame;
mod claim;
mod execute;
mod finish;
mod gate;
mod health;
mod lease;
mod logs;
mod mask;
mod output;
mod ports;
mod publish;
mod pulse;
mod queues;
mod reload;
mod retry;
mod runs;
mod stage;
mod sweep;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::{error, info, warn};

use self::blame::Blame;
use self::claim::ClaimLoop;
use self::execute::{SHUTTING_DOWN, Starter};
use self::finish::{FinishLoop, Finisher};
pub use self::gate::ReloadGate;
use self::health::Health;
use self::lease::{Lease, Renewal, register};
use self::logs::{ShipLoop, Shipping};
use self::publish::Types;
use self::pulse::Pulse;
pub use self::queues::Queues;
use self::reload::ReloadLoop;
use self::runs::Runs;
use self::stage::Stage;
use self::sweep::Upkeep;
use self::watchdog::Watchdog;
use crate::broker::{FileStore, SharedBroker};
use crate::job::Limits;
use crate::script::context::StopReason;
use crate::script::library::Library;
use crate::script::pool::{Pool, PoolOptions};
use crate::script::services::Services;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;

/// What a shutdown takes beside the grace period, at most.
pub const EXTRA: Duration = Duration::from_secs(12);
/// Of that, each step that waits for something.
const STEP: Duration = Duration::from_secs(2);

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Runs that go on at once, waiting ones included.
    pub concurrency: usize,
    /// Executor threads.
    pub threads: usize,
    pub queues: Queues,
    pub lease: Duration,
    /// How long runs have to end by themselves when the worker stops.
    pub shutdown_grace: Duration,
    /// Bytes of ended jobs that a queue keeps.
    pub retain_bytes: u64,
    pub limits: Limits,
}

/// A worker and what it works with.
pub struct Worker {
    pub broker: SharedBroker,
    /// Kept live by whoever loaded it.
    pub library: Arc<Library>,
    pub files: FileStore,
    /// What is kept on this machine: where a worker finds what one before it left at a crash.
    pub data_dir: PathBuf,
    pub services: Arc<Services>,
    pub metrics: Arc<Metrics>,
    pub options: WorkerOptions,
    /// Where health and metrics are served.
    pub health: Option<TcpListener>,
}

/// What every loop has at hand.
struct Shared {
    broker: SharedBroker,
    library: Arc<Library>,
    files: FileStore,
    services: Arc<Services>,
    metrics: Arc<Metrics>,
    options: WorkerOptions,
    lease: Lease,
    runs: Runs,
    blame: Blame,
    /// Where a step that must not be dropped half-way runs.
    runtime: Handle,
    consuming: claim::Consuming,
}

/// The parts of a worker that its shutdown deals with.
struct Running {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    starter: Arc<Starter>,
    taking: Stage,
    shipping: Stage,
    finishing: Stage,
    presence: Stage,
    pulse: Pulse,
    wedged: Shutdown,
}

impl Worker {
    /// Works until `shutdown`, then stops in the order above. Waits for the broker when it is not there yet.
    ///
    /// # Errors
    /// When a thread cannot be started, or when a loop ended that must not: the worker then stops as at a shutdown.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let shared = Arc::new(Shared {
            lease: Lease::new(self.options.lease),
            runs: Runs::default(),
            blame: Blame::new(&self.data_dir),
            runtime: Handle::current(),
            broker: self.broker,
            library: self.library,
            files: self.files,
            services: self.services,
            metrics: self.metrics,
            options: self.options,
            consuming: claim::Consuming::default(),
        });
        let mut presence = Stage::new("presence");
        if let Some(listener) = self.health {
            let health = Health { shared: Arc::clone(&shared), stopping: shutdown.clone() };
            presence.spawn(|stop| health.serve(listener, stop));
        }
        let renewal = Renewal { shared: Arc::clone(&shared), host: host_name() };
        if !register(&renewal, &shutdown).await {
            presence.end().await;
            return Ok(());
        }
        let mut running = Running::start(shared, renewal, presence)?;
        let wedged = running.wedged.clone();
        let broken = tokio::select! {
            () = shutdown.requested() => None,
            which = running.broken() => Some(which),
            // What could be handed back has been; the rest must be found lost.
            () = wedged.requested() => bail!("an executor thread is wedged, the process has to end"),
        };
        running.stop().await;
        match broken {
            None => Ok(()),
            Some(which) => bail!("the worker's {which} ended by itself; this is a fault of Ryemill, its log says more"),
        }
    }
}

impl Running {
    /// Starts everything, in an order in which each part finds what it needs.
    fn start(shared: Arc<Shared>, renewal: Renewal, mut presence: Stage) -> anyhow::Result<Self> {
        let threads = shared.options.threads.max(1);
        let options =
            PoolOptions { threads, limits: shared.options.limits.clone(), services: Arc::clone(&shared.services) };
        let pool = Arc::new(Pool::start_with_notes(options, &shared.blame.notes(threads))?);
        let mut taking = Stage::new("claim or upkeep loop");
        let wedged = Shutdown::new();
        let watchdog = Watchdog {
            shared: Arc::clone(&shared),
            pool: Arc::clone(&pool),
            claims: taking.stopper(),
            wedged: wedged.clone(),
        };
        let pulse = Pulse::start(renewal, watchdog)?;

        let mut finishing = Stage::new("finish loop");
        let (finisher, ended) = Finisher::channel();
        let finish = FinishLoop { shared: Arc::clone(&shared), finisher: finisher.clone() };
        finishing.spawn(|stop| finish.run(ended, stop));

        let mut shipping = Stage::new("log loop");
        let (outputs, said) = Shipping::channel(Arc::clone(&shared), finisher);
        let ship = ShipLoop(Arc::clone(&outputs));
        shipping.spawn(|stop| ship.run(said, stop));

        let types = Types::new(Arc::clone(&shared));
        presence.spawn(|stop| Arc::clone(&types).run(stop));
        let reload = ReloadLoop { shared: Arc::clone(&shared), types: Arc::clone(&types) };
        presence.spawn(|stop| reload.run(stop));

        let starter =
            Arc::new(Starter { shared: Arc::clone(&shared), types, pool: Arc::clone(&pool), shipping: outputs });
        let claim = ClaimLoop {
            shared: Arc::clone(&shared),
            starter: Arc::clone(&starter),
            permits: Arc::new(Semaphore::new(shared.options.concurrency)),
        };
        taking.spawn(|stop| claim.run(stop));
        taking.spawn(|stop| ClaimLoop::watch_line(Arc::clone(&starter), stop));
        taking.spawn(|stop| Upkeep(Arc::clone(&shared)).run(stop));
        Ok(Self { shared, pool, starter, taking, shipping, finishing, presence, pulse, wedged })
    }

    /// Waits until a part ends by itself, which none may. Answers which.
    async fn broken(&mut self) -> &'static str {
        tokio::select! {
            which = self.taking.broken() => which,
            which = self.shipping.broken() => which,
            which = self.finishing.broken() => which,
            which = self.presence.broken() => which,
            _ = &mut self.pulse.ended => "lease thread",
        }
    }

    /// The shutdown, in the order that this module's head tells.
    async fn stop(self) {
        let Self { shared, pool, starter, taking, shipping, finishing, presence, pulse, wedged: _ } = self;
        let grace = shared.options.shutdown_grace;
        taking.end().await;
        starter.hand_back(Duration::ZERO, SHUTTING_DOWN);
        info!(runs = shared.runs.len(), "stopping: runs have {grace:?} to end");
        if !shared.runs.ended_within(grace).await {
            let stopped = shared.runs.stop_all(StopReason::Shutdown);
            info!(runs = stopped, "the grace period is over: runs are handed back");
            if !shared.runs.ended_within(STEP).await {
                warn!(runs = shared.runs.len(), "runs that do not end are handed back as they are");
            }
        }
        shipping.end().await;
        finishing.end().await;
        let member = shared.lease.member();
        match tokio::time::timeout(STEP, shared.broker.retire(&member.id)).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => warn!("the worker could not retire, its lease will run out: {problem}"),
            Err(_) => warn!("the worker could not retire, its lease will run out: the broker does not answer"),
        }
        presence.end().await;
        pulse.stop.request();
        drop(starter);
        let joined = tokio::task::spawn_blocking(move || {
            pulse.join();
            // Somebody still has it only when a run has not ended.
            if let Ok(pool) = Arc::try_unwrap(pool) {
                pool.shut_down();
            }
        });
        match tokio::time::timeout(STEP, joined).await {
            Ok(Ok(())) => info!("the worker has stopped"),
            Ok(Err(fault)) => error!("the worker's threads could not be joined: {fault}"),
            Err(_) => warn!("the worker has stopped; a thread that did not end is left to the end of the process"),
        }
        shared.blame.end();
    }
}

/// The name of this machine, for people who look at the list of workers.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "unknown".to_owned())
}
