//! From configuration to the parts of a process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::broker::redis::{Namespace, RedisBroker, Target};
use crate::broker::sqlite::{SqliteBroker, SyncMode};
use crate::broker::{BrokerError, FileStore, SharedBroker};
use crate::config::{BrokerUrl, Config, CredentialUrl};
use crate::script::fiber::size_for;
use crate::script::library::Library;
use crate::script::services::{Services, ServicesOptions};
use crate::script::testing::TestOptions;
use crate::server::{ServerOptions, ServerState};
use crate::shutdown::Shutdown;
use crate::telemetry::logs::{self, LogGuard, LogOptions};
use crate::telemetry::metrics::Metrics;
use crate::worker::{Queues, ReloadGate, Worker, WorkerOptions};

/// For each test that a new version has to pass before it goes live.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The runtime of a process. Threads that may drop or convert scripts' values get the stack that this can need.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(size_for(64 << 20))
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime cannot be started: {error}")))
}

/// Starts logging; the guard must live until the end of the process.
pub fn logging(config: &Config, role: &'static str) -> Result<LogGuard, Failure> {
    let guard = logs::init(&LogOptions {
        level: config.log_level.clone(),
        pretty: config.log_format.is_pretty(std::io::IsTerminal::is_terminal(&std::io::stderr())),
        dir: config.log_dir.clone(),
        keep_files: config.log_keep_files,
        role,
    })
    .map_err(|error| Failure::Usage(format!("{:#}", anyhow::Error::from(error))))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(guard)
}

/// Must be called within the runtime.
pub async fn broker(config: &Config) -> Result<SharedBroker, Failure> {
    if let BrokerUrl::Sqlite { path, sync_normal } = &config.broker {
        let sync = if *sync_normal { SyncMode::Normal } else { SyncMode::Full };
        let broker = SqliteBroker::open(path, sync)
            .map_err(|error| Failure::Failed(format!("the broker {} cannot be opened: {error}", path.display())))?;
        return Ok(Arc::new(broker));
    }
    let open = async { RedisBroker::open(redis(config)?, Namespace::default(), config.allow_eviction).await };
    let broker = open.await.map_err(|error| {
        let why = match error {
            BrokerError::Unavailable(why) => why,
            other => other.to_string(),
        };
        Failure::Failed(format!("the broker {} cannot be used: {why}", shown(&config.broker)))
    })?;
    Ok(Arc::new(broker))
}

/// The Redis of `BROKER_URL`.
pub fn redis(config: &Config) -> Result<Target, BrokerError> {
    match &config.broker {
        BrokerUrl::Sqlite { .. } => Err(BrokerError::Unavailable("BROKER_URL names no Redis".into())),
        BrokerUrl::Redis { url } => Target::one(url.expose()),
        BrokerUrl::RedisCluster { nodes } => {
            Target::cluster(&nodes.iter().map(CredentialUrl::expose).collect::<Vec<_>>())
        }
        BrokerUrl::RedisSentinel { sentinels, master, credentials } => {
            let sentinels: Vec<&str> = sentinels.iter().map(String::as_str).collect();
            let user = credentials.as_ref().and_then(|credentials| credentials.username.as_deref());
            let password = credentials.as_ref().map(|credentials| credentials.password.expose());
            Target::sentinel(&sentinels, master, user, password)
        }
    }
}

/// A broker's URL, its credentials masked.
pub fn shown(broker: &BrokerUrl) -> String {
    let list = |nodes: &[CredentialUrl]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match broker {
        BrokerUrl::Sqlite { path, .. } => path.display().to_string(),
        BrokerUrl::Redis { url } => url.to_string(),
        BrokerUrl::RedisCluster { nodes } => format!("cluster of {}", list(nodes)),
        BrokerUrl::RedisSentinel { sentinels, master, .. } => {
            format!("{master} of the sentinels {}", sentinels.join(","))
        }
    }
}

pub fn files(config: &Config) -> Result<FileStore, Failure> {
    FileStore::open(&config.files_dir).map_err(|error| {
        Failure::Failed(format!("the folder of the jobs' files {} cannot be used: {error}", config.files_dir.display()))
    })
}

pub fn library(config: &Config) -> Result<Arc<Library>, Failure> {
    Library::load(&config.jobs_dir)
        .map_err(|error| Failure::Usage(format!("JOBS_DIR {} cannot be read: {error}", config.jobs_dir.display())))
}

/// What host functions stand on. Must be called within the runtime.
pub fn services(config: &Config) -> Result<Arc<Services>, Failure> {
    let options = ServicesOptions {
        mailer: config.mailer.clone(),
        mail_from: config.mail_from.clone(),
        databases: config.databases.clone(),
        secrets: config.secrets.clone(),
        http_allow_private: config.http_allow_private.clone(),
    };
    Services::new(options, &tokio::runtime::Handle::current()).map(Arc::new).map_err(Failure::Usage)
}

pub fn server_state(config: &Config, broker: SharedBroker, metrics: Arc<Metrics>) -> Result<ServerState, Failure> {
    Ok(ServerState {
        options: ServerOptions {
            keys: config.api_keys.clone(),
            max_body: config.max_body,
            max_batch: config.max_batch,
            max_pending: config.max_pending,
            limits: config.limits.clone(),
            ..ServerOptions::default()
        },
        files: files(config)?,
        broker,
        metrics,
    })
}

/// A worker, its library watched until `shutdown` when the configuration says so.
pub async fn worker(
    config: &Config,
    broker: SharedBroker,
    metrics: Arc<Metrics>,
    shutdown: &Shutdown,
) -> Result<Worker, Failure> {
    let library = library(config)?;
    let snapshot = library.snapshot();
    for refused in &snapshot.refused {
        tracing::error!(job_name = %refused.name, "script refused:\n{}", refused.reason);
    }
    let names: Vec<&str> = snapshot.scripts.keys().map(crate::job::JobName::as_str).collect();
    tracing::info!("{} scripts in {}: {}", names.len(), config.jobs_dir.display(), names.join(", "));
    library.judge_by(Box::new(ReloadGate {
        broker: Arc::clone(&broker),
        tests: TestOptions {
            timeout: TEST_TIMEOUT,
            limits: config.limits.clone(),
            mail_from: config.mail_from.clone(),
            runtime: tokio::runtime::Handle::current(),
        },
    }));
    reload_on_hangup(&library, shutdown)?;
    if config.watch {
        tokio::spawn(Arc::clone(&library).watch(shutdown.clone()));
    }
    let queues = if config.worker_queues.is_empty() {
        Queues::All
    } else {
        Queues::Weighted(config.worker_queues.iter().map(|queue| (queue.name.clone(), queue.weight)).collect())
    };
    let health = match config.worker_addr {
        Some(address) => Some(listen(address, "WORKER_ADDR").await?),
        None => None,
    };
    Ok(Worker {
        broker,
        library,
        files: files(config)?,
        data_dir: config.data_dir.clone(),
        services: services(config)?,
        metrics,
        options: WorkerOptions {
            concurrency: config.worker_concurrency,
            threads: config.worker_threads,
            queues,
            lease: config.lease,
            shutdown_grace: config.shutdown_grace,
            retain_bytes: config.retain_bytes,
            limits: config.limits.clone(),
        },
        health,
    })
}

/// Looks at the scripts again at SIGHUP.
fn reload_on_hangup(library: &Arc<Library>, shutdown: &Shutdown) -> Result<(), Failure> {
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|error| Failure::Failed(format!("signals cannot be listened to: {error}")))?;
    let (library, shutdown) = (Arc::clone(library), shutdown.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = hangup.recv() => {}
            }
            tracing::info!("SIGHUP: looking at the scripts");
            let library = Arc::clone(&library);
            match tokio::task::spawn_blocking(move || library.reload()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("the jobs folder cannot be read, what is live stays: {error}"),
                Err(fault) => tracing::error!("loading scripts failed, what is live stays: {fault}"),
            }
        }
    });
    Ok(())
}

/// The listener of the API.
pub async fn api_listener(config: &Config) -> Result<TcpListener, Failure> {
    let host = config.host.to_string();
    let address = tokio::net::lookup_host((host.as_str(), config.port))
        .await
        .map_err(|error| Failure::Usage(format!("HOST {host} cannot be resolved: {error}")))?
        .next()
        .ok_or_else(|| Failure::Usage(format!("HOST {host} has no address")))?;
    listen(address, "HOST and PORT").await
}

async fn listen(address: SocketAddr, variable: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("cannot listen on {address} ({variable}): {error}")))
}

/// A shutdown that SIGTERM and SIGINT ask for. Must be called within the runtime.
pub fn shutdown() -> Result<Shutdown, Failure> {
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(|error| Failure::Failed(format!("signals cannot be listened to: {error}")))?;
    Ok(shutdown)
}
