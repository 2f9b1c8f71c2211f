//! kill -9 of a Redis that keeps an append-only file.

use std::time::Duration;

use super::load::{Load, NOTED_LATE, extent, now};
use crate::faults::heavy;
use crate::redis::RedisServer;

/// Workers are to be at work again so long after Redis, in milliseconds.
const RESUMED: i64 = 5000;

/// Kills Redis under load and starts it again. Answers the lost ids with when they were accepted, and the kills.
async fn killed(fsync: &str) -> (Vec<i64>, Vec<i64>) {
    let _alone = heavy().await;
    let (rate, times) = extent(500, 3);
    let mut redis = RedisServer::start(&[("appendonly", "yes"), ("appendfsync", fsync)]).await;
    let mut load = Load::on(&redis.url()).await;
    let (mut kills, mut restarts) = (Vec::new(), Vec::new());
    let faults = async {
        for _ in 0..times {
            load.goes_on().await;
            // Long enough under load that there is something to lose.
            tokio::time::sleep(Duration::from_millis(800)).await;
            redis.kill();
            kills.push(now());
            tokio::time::sleep(Duration::from_millis(300)).await;
            redis.restart().await;
            restarts.push(now());
        }
        load.goes_on().await;
    };
    load.during(rate, faults).await;
    let (accepted, refused) = (load.accepted().len(), load.refused());
    let lost: Vec<i64> = load.settle().await.into_values().collect();
    let jobs = load.ended().await;
    let resumed: Vec<Vec<i64>> = restarts.iter().map(|restart| Load::resumed(&jobs, *restart)).collect();
    eprintln!(
        "appendfsync {fsync}: {times} kills, {accepted} accepted, {refused} refused, {} lost; workers at work again after \
         (ms): {resumed:?}",
        lost.len()
    );
    for workers in resumed {
        assert!(workers.len() >= 2 && workers.iter().all(|after| *after <= RESUMED), "{workers:?}");
    }
    (lost, kills)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_syncs_always_loses_nothing_at_kill_9() {
    let (lost, _) = killed("always").await;
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_syncs_every_second_loses_two_seconds_at_most() {
    let (lost, kills) = killed("everysec").await;
    for at in lost {
        assert!(
            kills.iter().any(|kill| (-NOTED_LATE..=2000).contains(&(kill - at))),
            "accepted at {at}, kills at {kills:?}"
        );
    }
}
