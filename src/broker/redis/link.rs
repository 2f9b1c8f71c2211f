//! The connection that carries commands: one, multiplexed, made again with jittered pauses whenever it breaks. Commands that
//! may have been lost are sent again for a while; every one of them may run twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::target::Target;
use crate::broker::{BrokerError, Result};

/// How long a connection may take.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How long Redis may take to answer a command before the connection counts as dead.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a command is sent again before the caller hears that Redis is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to connect: from, to. Jittered, so that a thousand clients do not come at once.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Why Redis did not do it.
#[derive(Debug)]
pub(super) enum Refusal {
    NoScript,
    /// No room (`maxmemory`).
    Full(String),
    Other(String),
}

impl Refusal {
    /// As the error of a verb.
    pub fn of(self, what: &str) -> BrokerError {
        match self {
            Self::NoScript => BrokerError::Unavailable(format!("Redis forgot the script {what}")),
            Self::Full(why) => BrokerError::Full(why),
            Self::Other(why) => BrokerError::Unavailable(format!("Redis: {why}")),
        }
    }
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn send(&mut self, command: &Cmd) -> std::result::Result<Value, RedisError> {
        match self {
            Self::One(one) => one.req_packed_command(command).await,
            Self::Cluster(cluster) => cluster.req_packed_command(command).await,
        }
    }

    /// To one node of a cluster, by its address.
    async fn send_to(&mut self, node: &str, command: &Cmd) -> std::result::Result<Value, RedisError> {
        let Self::Cluster(cluster) = self else { return self.send(command).await };
        let (host, port) =
            node.rsplit_once(':')
                .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)))
                .ok_or_else(|| RedisError::from((ErrorKind::ClusterConnectionNotFound, "no address of a node")))?;
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port });
        cluster.route_command(command.clone(), route).await
    }
}

struct Live {
    connection: Connection,
    epoch: u64,
}

struct Making {
    /// When the next try may be.
    at: Instant,
    /// How long the pause after it.
    pause: Duration,
    /// Why the last one failed.
    why: String,
}

/// The connection, for as long as the broker lives.
pub(super) struct Link {
    target: Arc<Target>,
    /// Connections live on the runtime that made the broker, whoever asks: a script's thread would stop them for a while.
    runtime: Handle,
    live: ArcSwapOption<Live>,
    /// Held by who makes a new connection.
    making: Mutex<Making>,
    epoch: AtomicU64,
}

impl Link {
    pub fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
            runtime: Handle::current(),
            live: ArcSwapOption::empty(),
            making: Mutex::new(Making { at: Instant::now(), pause: PAUSE.0, why: String::new() }),
            epoch: AtomicU64::new(0),
        }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Counts the connections made so far: what was remembered of Redis under another number may be gone.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// One command on its own, without a script.
    pub async fn command(&self, command: &Cmd, what: &str) -> Result<Value> {
        self.send(command).await.map(|(value, _)| value).map_err(|refusal| refusal.of(what))
    }

    /// The same to one node of a cluster; none: wherever the command's key is.
    pub async fn command_on(&self, node: Option<&str>, command: &Cmd, what: &str) -> Result<Value> {
        self.send_on(node, command).await.map(|(value, _)| value).map_err(|refusal| refusal.of(what))
    }

    /// Sends a command until it is answered, or [`PATIENCE`] is over.
    /// Says whether it was sent more than once.
    pub async fn send(&self, command: &Cmd) -> std::result::Result<(Value, bool), Refusal> {
        self.send_on(None, command).await
    }

    async fn send_on(&self, node: Option<&str>, command: &Cmd) -> std::result::Result<(Value, bool), Refusal> {
        let until = Instant::now() + PATIENCE;
        let mut sent = 0;
        loop {
            let problem = match self.connection(until).await {
                Err(problem) => problem,
                Ok(live) => {
                    let mut connection = live.connection.clone();
                    sent += 1;
                    let answer = async {
                        match node {
                            Some(node) => connection.send_to(node, command).await,
                            None => connection.send(command).await,
                        }
                    };
                    let problem = match timeout(ANSWER, answer).await {
                        Ok(Ok(Value::ServerError(error))) => RedisError::from(error),
                        Ok(Ok(value)) => return Ok((value, sent > 1)),
                        Ok(Err(problem)) => problem,
                        Err(_) => RedisError::from((ErrorKind::Io, "no answer in time")),
                    };
                    if breaks(&problem) {
                        self.drop_connection(live.epoch);
                    }
                    problem
                }
            };
            match judge(&problem) {
                Verdict::Final(refusal) => return Err(refusal),
                Verdict::Again if Instant::now() >= until => return Err(Refusal::Other(told(&problem))),
                Verdict::Again => tokio::time::sleep(jittered(PAUSE.0)).await,
            }
        }
    }

    async fn connection(&self, until: Instant) -> std::result::Result<Arc<Live>, RedisError> {
        if let Some(live) = self.live.load_full() {
            return Ok(live);
        }
        let left = until.saturating_duration_since(Instant::now()).max(CONNECT / 10);
        let late = || RedisError::from((ErrorKind::Io, "no connection in time"));
        let mut making = timeout(left, self.making.lock()).await.map_err(|_| late())?;
        if let Some(live) = self.live.load_full() {
            return Ok(live);
        }
        if making.at > until {
            tokio::time::sleep_until(until.into()).await;
            // With what is the matter, not only that time is over.
            return Err(RedisError::from((ErrorKind::Io, "no connection", making.why.clone())));
        }
        tokio::time::sleep_until(making.at.into()).await;
        match self.connect().await {
            Ok(connection) => {
                *making = Making { at: Instant::now(), pause: PAUSE.0, why: String::new() };
                let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
                let live = Arc::new(Live { connection, epoch });
                self.live.store(Some(Arc::clone(&live)));
                Ok(live)
            }
            Err(problem) => {
                let pause = making.pause;
                let at = Instant::now() + jittered(pause);
                *making = Making { at, pause: (pause * 2).min(PAUSE.1), why: told(&problem) };
                Err(problem)
            }
        }
    }

    /// Runs something on the runtime of the connections.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    async fn connect(&self) -> std::result::Result<Connection, RedisError> {
        let late = || RedisError::from((ErrorKind::Io, "the connection takes too long"));
        let target = Arc::clone(&self.target);
        let making = self.runtime.spawn(async move {
            match &*target {
                Target::Cluster { client, .. } => client.get_async_connection().await.map(Connection::Cluster),
                one => {
                    // Time limits are ours: theirs would end in the middle of a slow command.
                    let config =
                        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(None);
                    let client = one.master().await?;
                    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
                    Ok(Connection::One(connection))
                }
            }
        });
        timeout(CONNECT * 2, making).await.map_err(|_| late())?.map_err(|_| late())?
    }

    fn drop_connection(&self, epoch: u64) {
        let current = self.live.load();
        if current.as_ref().is_some_and(|live| live.epoch == epoch) {
            self.live.store(None);
        }
    }
}

/// Half to one and a half of `pause`.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.5))
}

/// Whether the connection is of no more use.
fn breaks(problem: &RedisError) -> bool {
    problem.is_io_error()
        || problem.is_connection_dropped()
        || problem.is_unrecoverable_error()
        || matches!(
            problem.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
                | ErrorKind::ClusterConnectionNotFound
        )
}

/// What people read of a problem: with the cause, without the client library's words for its kind.
fn told(problem: &RedisError) -> String {
    match problem.kind() {
        ErrorKind::AuthenticationFailed => "the user or the password in its URL is wrong".into(),
        _ if problem.code() == Some("NOAUTH") => "it wants a password, and there is none in its URL".into(),
        ErrorKind::Io => problem.detail().map_or_else(|| problem.to_string(), str::to_owned),
        _ => problem.to_string(),
    }
}

enum Verdict {
    Again,
    Final(Refusal),
}

fn judge(problem: &RedisError) -> Verdict {
    use ServerErrorKind as S;
    match problem.kind() {
        // No other password comes by waiting.
        ErrorKind::AuthenticationFailed => Verdict::Final(Refusal::Other(told(problem))),
        ErrorKind::Server(S::NoScript) => Verdict::Final(Refusal::NoScript),
        _ if problem.code() == Some("OOM") => {
            Verdict::Final(Refusal::Full("Redis has no memory left (maxmemory)".into()))
        }
        ErrorKind::Server(
            S::BusyLoading | S::ReadOnly | S::MasterDown | S::ClusterDown | S::TryAgain | S::Moved | S::Ask,
        )
        | ErrorKind::Io
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel => Verdict::Again,
        _ if matches!(problem.code(), Some("BUSY" | "NOREPLICAS" | "UNBLOCKED")) => Verdict::Again,
        _ if breaks(problem) => Verdict::Again,
        _ => Verdict::Final(Refusal::Other(told(problem))),
    }
}
