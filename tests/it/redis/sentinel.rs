//! A master, its replica, and three sentinels that watch them under the name `main`.

use futures_util::future::join_all;

use super::server::RedisServer;
use crate::eventually::eventually;

pub struct Sentinels {
    pub master: RedisServer,
    pub replica: RedisServer,
    watching: Vec<RedisServer>,
}

impl Sentinels {
    pub async fn start() -> Self {
        let master = RedisServer::start(&[("repl-diskless-sync-delay", "0")]).await;
        let followed = format!("127.0.0.1 {}", master.port());
        let replica = RedisServer::start(&[("replicaof", &followed)]).await;
        eventually("the replica is in sync", async || {
            let link: Option<String> = replica.info("replication").await.get("master_link_status");
            (link.as_deref() == Some("up")).then_some(())
        })
        .await;
        let (watched, down) = (format!("monitor main {followed} 2"), "down-after-milliseconds main 1000");
        let settings = [("sentinel", watched.as_str()), ("sentinel", down), ("sentinel", "failover-timeout main 5000")];
        let watching = join_all((0..3).map(|_| RedisServer::start_as(&settings, None, &["--sentinel"]))).await;
        for sentinel in &watching {
            eventually("the sentinels know each other and the replica", async || {
                let found: Option<String> = sentinel.info("sentinel").await.get("master0");
                let found = found.unwrap();
                (found.contains("status=ok") && found.contains("slaves=1,sentinels=3")).then_some(())
            })
            .await;
        }
        Self { master, replica, watching }
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.watching.iter().map(RedisServer::address).collect();
        format!("redis-sentinel://{}/main", addresses.join(","))
    }

    /// Makes the replica the master while the old one lives, and waits until all sentinels say so.
    pub async fn switch(&self) {
        self.watching[0].ask::<()>("SENTINEL FAILOVER main").await;
        self.switched().await;
    }

    /// Kills the master, and waits until the replica has taken over.
    pub async fn fail_over(&mut self) {
        self.master.kill();
        self.switched().await;
    }

    async fn switched(&self) {
        for sentinel in &self.watching {
            eventually("the sentinels name the replica", async || {
                let named: Vec<String> = sentinel.ask("SENTINEL GET-MASTER-ADDR-BY-NAME main").await;
                (named[1] == self.replica.port().to_string()).then_some(())
            })
            .await;
        }
        eventually("the replica is a master", async || {
            let role: Option<String> = self.replica.info("replication").await.get("role");
            (role.as_deref() == Some("master")).then_some(())
        })
        .await;
    }
}
