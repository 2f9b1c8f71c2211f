//! A Redis that forgets its scripts, and one that drops its clients, again and again.

use std::time::Duration;

use super::load::{Load, extent};
use crate::faults::heavy;
use crate::redis::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_fail_no_request_and_dropped_clients_lose_no_job() {
    let _alone = heavy().await;
    let (rate, times) = extent(500, 3);
    let redis = RedisServer::start(&[]).await;
    let mut load = Load::on(&redis.url()).await;
    let again_and_again = async |what: &str, every: Duration, times: usize| {
        let mut ticks = tokio::time::interval(every);
        for _ in 0..times {
            ticks.tick().await;
            redis.ask::<redis::Value>(what).await;
        }
    };
    let flushes = again_and_again("SCRIPT FLUSH", Duration::from_millis(200), times * 5);
    load.during(rate, flushes).await;
    let (accepted, refused) = (load.accepted().len(), load.refused());
    eprintln!("{} flushes: {accepted} accepted, {refused} refused", times * 5);
    assert!(accepted > 50 && refused == 0);

    load.during(rate, async {
        again_and_again("CLIENT KILL TYPE normal", Duration::from_secs(1), times).await;
        load.goes_on().await;
    })
    .await;
    let lost = load.settle().await;
    eprintln!("{times} times all clients: {} accepted, {} refused", load.accepted().len() - accepted, load.refused());
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_told_the_types_again() {
    let _alone = heavy().await;
    let mut redis = RedisServer::start(&[]).await;
    let load = Load::on(&redis.url()).await;
    // Without persistence it forgets jobs, workers and types.
    redis.kill();
    redis.restart().await;
    load.known_again().await;
    load.during(20, load.goes_on()).await;
}
