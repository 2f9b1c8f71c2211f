//! A cluster of three masters, each with as many replicas as asked for.

use futures_util::future::join_all;

use super::server::{RedisServer, command};
use crate::eventually::eventually;

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

pub struct RedisCluster {
    /// The masters first, as they were at the start.
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    pub async fn start(replicas: usize) -> Self {
        let settings = [
            ("cluster-enabled", "yes"),
            // A failover begins when most have missed a node for that long, in milliseconds.
            ("cluster-node-timeout", "1000"),
            ("cluster-replica-validity-factor", "0"),
            // A replica that was found in sync takes over at once.
            ("repl-diskless-sync-delay", "0"),
        ];
        let count = MASTERS * (1 + replicas);
        let nodes = join_all((0..count).map(|_| RedisServer::start(&settings))).await;
        let cluster = Self { nodes };
        for (n, node) in cluster.nodes.iter().enumerate() {
            // Each epoch is its own from the start, so that no two masters have to settle it later.
            node.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1)).await;
            if n < MASTERS {
                let (first, last) = (SLOTS * n / MASTERS, SLOTS * (n + 1) / MASTERS - 1);
                node.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
            }
            let bus: Vec<String> = node.ask("CONFIG GET cluster-port").await;
            cluster.nodes[0].ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {} {}", node.port(), bus[1])).await;
        }
        cluster.is_whole(count).await;
        for (n, replica) in cluster.nodes[MASTERS..].iter().enumerate() {
            let master: String = cluster.nodes[n % MASTERS].ask("CLUSTER MYID").await;
            eventually("the master can be followed", async || {
                let mut connection = replica.connect().await;
                command(&format!("CLUSTER REPLICATE {master}")).exec_async(&mut connection).await.ok()
            })
            .await;
        }
        for replica in &cluster.nodes[MASTERS..] {
            eventually("the replica is in sync", async || {
                let link: Option<String> = replica.info("replication").await.get("master_link_status");
                (link.as_deref() == Some("up")).then_some(())
            })
            .await;
        }
        cluster.is_whole(count).await;
        cluster
    }

    /// Every node knows all others and who has which slots.
    async fn is_whole(&self, count: usize) {
        for node in &self.nodes {
            eventually("the cluster is whole", async || {
                let info: String = node.ask("CLUSTER INFO").await;
                let known = format!("cluster_known_nodes:{count}\r\n");
                (info.contains("cluster_state:ok") && info.contains(&known)).then_some(())
            })
            .await;
        }
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(RedisServer::address).collect();
        format!("redis-cluster://{}", addresses.join(","))
    }

    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The master, by its number, that has the slot of this key.
    pub async fn master_of(&self, key: &str) -> usize {
        let slot: usize = self.nodes[0].ask(&format!("CLUSTER KEYSLOT {key}")).await;
        (0..MASTERS).find(|n| slot < SLOTS * (n + 1) / MASTERS).unwrap()
    }

    /// Kills a master, and waits until its replica has taken over.
    pub async fn fail_over(&mut self, master: usize) {
        self.nodes[master].kill();
        let heir = &self.nodes[MASTERS + master];
        eventually("the replica takes over", async || {
            let role: Option<String> = heir.info("replication").await.get("role");
            let info: String = heir.ask("CLUSTER INFO").await;
            (role.as_deref() == Some("master") && info.contains("cluster_state:ok")).then_some(())
        })
        .await;
    }
}
