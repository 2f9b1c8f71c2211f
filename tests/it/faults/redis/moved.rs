//! The master dies, and a replica takes over. Replication is behind the answers, so what was accepted last may be lost.

use super::load::{Load, NOTED_LATE, extent, now};
use crate::faults::heavy;
use crate::redis::{RedisCluster, Sentinels};

/// How far behind a replica on the same machine may be, in milliseconds.
const LAG: i64 = 1000;

/// Nothing is lost but what was accepted just before the death.
async fn settled(what: &str, mut load: Load, death: i64, moved: i64) {
    let lost = load.settle().await;
    let jobs = load.ended().await;
    let resumed = Load::resumed(&jobs, moved);
    eprintln!(
        "{what}: {} accepted, {} refused, {} lost; it took {} ms; workers at work again after (ms): {resumed:?}",
        load.accepted().len(),
        load.refused(),
        lost.len(),
        moved - death
    );
    assert!(lost.values().all(|at| (-NOTED_LATE..=LAG).contains(&(death - at))), "died at {death}: {lost:?}");
    assert!(resumed.len() >= 2 && resumed.iter().all(|after| *after <= 5000), "{resumed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_go_on_at_the_master_that_the_sentinels_name() {
    let _alone = heavy().await;
    let mut sentinels = Sentinels::start().await;
    let load = Load::on(&sentinels.url()).await;
    let (mut death, mut moved) = (0, 0);
    load.during(extent(200, 1).0, async {
        load.goes_on().await;
        death = now();
        sentinels.fail_over().await;
        moved = now();
        load.goes_on().await;
    })
    .await;
    settled("sentinels", load, death, moved).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_go_on_when_a_master_of_the_cluster_dies() {
    let _alone = heavy().await;
    let mut cluster = RedisCluster::start(1).await;
    let load = Load::on(&cluster.url()).await;
    let (mut death, mut moved) = (0, 0);
    load.during(extent(200, 1).0, async {
        load.goes_on().await;
        let master = cluster.master_of("ryemill:{default}").await;
        death = now();
        cluster.fail_over(master).await;
        moved = now();
        load.goes_on().await;
    })
    .await;
    settled("cluster", load, death, moved).await;
}
