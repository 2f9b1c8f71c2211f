//! Real Redis servers for tests: single ones, a cluster, a Sentinel set. Each has free ports and a folder of its own,
//! and ends with its owner; whatever is left ends with the test process, even when that is killed.
//!
//! [`shared`] is one server, and [`shared_cluster`] one cluster, for all tests that only need a key prefix of their own.

mod cluster;
mod fixtures;
mod keeper;
mod sentinel;
mod server;
mod tls;

use tokio::sync::OnceCell;

pub use cluster::RedisCluster;
pub use sentinel::Sentinels;
pub use server::RedisServer;

/// A server that is there until the test process ends. Others use it too: no flush, no change of its settings.
pub async fn shared() -> &'static RedisServer {
    static SHARED: OnceCell<RedisServer> = OnceCell::const_new();
    SHARED.get_or_init(|| RedisServer::start(&[])).await
}

/// A cluster of three masters in the same way.
pub async fn shared_cluster() -> &'static RedisCluster {
    static SHARED: OnceCell<RedisCluster> = OnceCell::const_new();
    SHARED.get_or_init(|| RedisCluster::start(0)).await
}
