//! What to connect to: one server, the master that sentinels name, or a cluster. Makes clients, holds no connection.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::io::tcp::{TcpSettings, socket2};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisResult};
use tokio::sync::Mutex;

use super::link::CONNECT;
use crate::broker::{BrokerError, Result};

/// How long a cluster's node may take to answer.
const NODE_ANSWER: Duration = Duration::from_secs(1);

/// Where Redis is.
pub enum Target {
    One(Client),
    Sentinel(Mutex<SentinelClient>),
    Cluster {
        client: ClusterClient,
        /// The nodes that were given, for the connection of the wake-ups.
        nodes: Vec<Client>,
    },
}

/// Small requests go out at once, and a peer that is gone is noticed even while nothing is asked.
fn tcp() -> TcpSettings {
    let keepalive =
        socket2::TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5));
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(Duration::from_secs(20))
}

fn info(url: &str) -> RedisResult<ConnectionInfo> {
    Ok(url.into_connection_info()?.set_tcp_settings(tcp()))
}

/// The text may hold a password, so an error never repeats it.
fn unusable(what: &str, error: &redis::RedisError) -> BrokerError {
    BrokerError::Unavailable(format!("the Redis URL of {what} cannot be used ({})", error.category()))
}

impl Target {
    /// One server, by a `redis://` or `rediss://` URL.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn one(url: &str) -> Result<Self> {
        info(url).and_then(Client::open).map(Self::One).map_err(|error| unusable("the server", &error))
    }

    /// A cluster, by the `redis://` URLs of some of its nodes.
    ///
    /// # Errors
    /// When a URL cannot be used.
    pub fn cluster(nodes: &[&str]) -> Result<Self> {
        let make = || {
            let infos = nodes.iter().map(|url| info(url)).collect::<RedisResult<Vec<_>>>()?;
            let client = ClusterClientBuilder::new(infos.clone())
                .tcp_settings(tcp())
                .connection_timeout(CONNECT)
                .response_timeout(NODE_ANSWER)
                .retries(2)
                .min_retry_wait(10)
                .max_retry_wait(100)
                .build()?;
            let nodes = infos.into_iter().map(Client::open).collect::<RedisResult<_>>()?;
            Ok(Self::Cluster { client, nodes })
        };
        make().map_err(|error| unusable("a node", &error))
    }

    /// The master `name` that sentinels (`redis://` URLs) know, with the master's own user and password.
    ///
    /// # Errors
    /// When a URL cannot be used.
    pub fn sentinel(sentinels: &[&str], name: &str, user: Option<&str>, password: Option<&str>) -> Result<Self> {
        let make = || {
            let addresses =
                sentinels.iter().map(|url| Ok(info(url)?.addr().clone())).collect::<RedisResult<Vec<_>>>()?;
            let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp());
            if let Some(user) = user {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = password {
                builder = builder.set_client_to_redis_password(password);
            }
            builder.build()
        };
        make().map(|client| Self::Sentinel(Mutex::new(client))).map_err(|error| unusable("a sentinel", &error))
    }

    /// The server to write to. Asks the sentinels each time; not for a cluster.
    pub(super) async fn master(&self) -> RedisResult<Client> {
        match self {
            Self::One(client) => Ok(client.clone()),
            Self::Sentinel(sentinel) => sentinel.lock().await.async_get_client().await,
            Self::Cluster { nodes, .. } => Ok(nodes[rand::random_range(0..nodes.len())].clone()),
        }
    }
}
