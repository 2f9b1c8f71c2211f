//! The HTTP API: checks what comes in, hands it to the broker, shows what the broker has. Never runs a script and
//! knows no worker.
//!
//! [`run`] serves until a stop is asked for. One file per resource (`jobs`, `batch`, `logs`, `events`, `files`,
//! `job_types`, `queues`, `workers`, `health`); below them what they share: `accept` and `pace` (connections),
//! `request_id` (the outermost layer), `auth`, `problem` (every error), `body`, `params`, `submission`, `view`.

mod accept;
mod auth;
mod backlog;
mod batch;
mod body;
mod catalog;
mod events;
mod files;
mod health;
mod idempotency;
mod job_types;
mod jobs;
mod logs;
mod pace;
mod params;
mod payload;
mod problem;
mod queues;
mod request_id;
mod submission;
mod view;
mod wait;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use accept::ConnectionLimits;
pub use auth::new_key;
pub use body::BodyPace;
pub use pace::Pace;

use crate::broker::{FileStore, NewJob, SharedBroker};
use crate::config::ApiKey;
use crate::job::{Job, Limits};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;
use problem::{Answer, Problem};

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Empty: everybody who reaches the listener may do everything, so it must be on loopback.
    pub keys: Vec<ApiKey>,
    /// `MAX_BODY`, bytes.
    pub max_body: usize,
    /// `MAX_BATCH`, bytes.
    pub max_batch: usize,
    /// `MAX_PENDING`, scheduled and queued jobs.
    pub max_pending: u64,
    /// Of payloads.
    pub limits: Limits,
    pub connections: ConnectionLimits,
    pub body_pace: BodyPace,
    /// For all request bodies that are held at once, bytes.
    pub body_memory: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            keys: Vec::new(),
            max_body: 1 << 20,
            max_batch: 16 << 20,
            max_pending: 1_000_000,
            limits: Limits::default(),
            connections: ConnectionLimits {
                connections: 10_000,
                pace: Pace { head: seconds(10), idle: seconds(75), stall: seconds(30) },
                grace: seconds(10),
            },
            body_pace: BodyPace { idle: seconds(30), whole: seconds(300) },
            body_memory: 512 << 20,
        }
    }
}

/// What a server works with.
#[derive(Clone)]
pub struct ServerState {
    pub options: ServerOptions,
    pub broker: SharedBroker,
    pub files: FileStore,
    pub metrics: Arc<Metrics>,
}

/// What the handlers share.
struct App {
    options: ServerOptions,
    broker: SharedBroker,
    files: FileStore,
    metrics: Arc<Metrics>,
    catalog: catalog::Catalog,
    backlog: backlog::Backlog,
    waiting: wait::Waiting,
    body_memory: Arc<Semaphore>,
    shutdown: Shutdown,
}

type Shared = State<Arc<App>>;

/// Serves on `listener` until `shutdown`; then answers those who wait for jobs with what there is, lets requests end
/// within the grace period, and returns.
pub async fn run(listener: TcpListener, state: ServerState, shutdown: Shutdown) {
    let ServerState { options, broker, files, metrics } = state;
    let connections = options.connections;
    let app = Arc::new(App {
        catalog: catalog::Catalog::new(broker.clone()),
        backlog: backlog::Backlog::new(broker.clone(), options.max_pending),
        waiting: wait::Waiting::new(broker.clone()),
        body_memory: Arc::new(Semaphore::new((options.body_memory >> 10).min(Semaphore::MAX_PERMITS))),
        shutdown: shutdown.clone(),
        options,
        broker,
        files,
        metrics,
    });
    // Tasks of their own, so that none of them holds up the accept loop; they end with it, or are dropped with it.
    let mut upkeep = JoinSet::new();
    let shared = app.clone();
    upkeep.spawn(async move { shared.catalog.keep_fresh(&shared.shutdown).await });
    let shared = app.clone();
    upkeep.spawn(async move { shared.backlog.keep_fresh(&shared.shutdown).await });
    let shared = app.clone();
    upkeep.spawn(async move { shared.waiting.run(&shared.shutdown).await });
    accept::serve(listener, router(app), connections, shutdown).await;
    while let Some(ended) = upkeep.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a loop of the server ended by a fault");
        }
    }
}

fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/v1/jobs", get(jobs::list).post(jobs::submit))
        .route("/v1/jobs/batch", post(batch::submit))
        .route("/v1/jobs/{id}", get(jobs::show).delete(jobs::delete))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/v1/jobs/{id}/logs", get(logs::page))
        .route("/v1/jobs/{id}/events", get(events::stream))
        .route("/v1/jobs/{id}/files/{name}", get(files::download))
        .route("/v1/job-types", get(job_types::list))
        .route("/v1/job-types/reload", post(job_types::reload))
        .route("/v1/job-types/{name}", get(job_types::show))
        .route("/v1/queues", get(queues::list))
        .route("/v1/queues/{name}/pause", post(queues::pause))
        .route("/v1/queues/{name}/resume", post(queues::resume))
        .route("/v1/workers", get(workers::list))
        .route("/metrics", get(health::metrics))
        .route_layer(from_fn_with_state(app.clone(), auth::guard));
    Router::new()
        .merge(guarded)
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .with_state(app)
        .layer(from_fn(request_id::observe))
}

impl App {
    /// Stores new jobs, when there is room for them, and answers them as they stand; with each whether it was stored
    /// just now or was there already.
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<Vec<(Job, bool)>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let let_in = self.backlog.admit(jobs.len()).await?;
        let enqueued = self.broker.enqueue(jobs.clone()).await?;
        drop(let_in);
        if enqueued.len() != jobs.len() {
            return Err(Problem::internal("the broker answered another number of jobs than it got"));
        }
        for (job, _) in jobs.iter().zip(&enqueued).filter(|(_, is)| is.created) {
            self.metrics.job_accepted(job.name.as_str());
        }
        Ok(jobs.into_iter().zip(&enqueued).map(|(job, is)| (submission::as_stored(job, is), is.created)).collect())
    }
}

/// Work on more than this goes to the blocking pool, so that one large body does not hold up other requests. Bytes.
const LARGE: usize = 64 << 10;

/// Does work that takes about as long as its input is large.
async fn compute<T: Send + 'static>(size: usize, work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    if size <= LARGE {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Problem::internal(error.to_string())))
}
