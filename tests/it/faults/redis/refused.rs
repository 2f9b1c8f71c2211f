//! A Redis that must not or cannot be used is refused at the start, with what to do.

use crate::faults::Site;
use crate::redis::RedisServer;

/// Starts both roles, which fail; what they said.
async fn refused(site: &Site) -> Vec<String> {
    let mut said = Vec::new();
    for role in ["server", "worker"] {
        let mut process = site.start(&[role]);
        assert_eq!(process.exit().await.code(), Some(1), "{role}: {}", process.console());
        said.push(process.console());
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_evicts_is_refused_unless_it_is_allowed() {
    let redis = RedisServer::start(&[("maxmemory", "64mb"), ("maxmemory-policy", "allkeys-lru")]).await;
    let site = Site::new(&[]).set("BROKER_URL", &redis.url());
    for said in refused(&site).await {
        for word in ["maxmemory-policy", "allkeys-lru", "noeviction", "ALLOW_EVICTION=yes"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    let site = site.set("ALLOW_EVICTION", "yes");
    let server = site.server().await;
    server.process.logged("Redis throws keys away when its memory is full").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_and_not_shown() {
    let redis = RedisServer::start(&[("requirepass", "right-one-1234")]).await;
    for password in [":wrong-one-5678", ""] {
        let site = Site::new(&[]).set("BROKER_URL", &redis.url_as(password));
        for said in refused(&site).await {
            assert!(said.contains("password"), "{said}");
            assert!(!said.contains("wrong-one-5678"), "{said}");
        }
    }
    let site = Site::new(&[]).set("BROKER_URL", &redis.url());
    site.server().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_not_there_is_told_by_its_address() {
    let mut redis = RedisServer::start(&[]).await;
    redis.kill();
    let site = Site::new(&[]).set("BROKER_URL", &redis.url());
    for said in refused(&site).await {
        assert!(said.contains(&redis.address()) && said.to_lowercase().contains("connection refused"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_users_work_as_configured() {
    let redis = RedisServer::start_with_tls(&[(
        "user",
        "app on >app-pass-1234 ~ryemill:* &ryemill:* +@all -@admin -@dangerous +info",
    )])
    .await;
    let url = redis.url_as("app:app-pass-1234");
    let site = Site::new(&[("echo", "const JOB = #{}; fn run(job) { job.payload }")]).set("BROKER_URL", &url);
    for said in refused(&site).await {
        assert!(said.to_lowercase().contains("certificate"), "{said}");
        assert!(!said.contains("app-pass-1234"), "{said}");
    }
    let authority = redis.authority().unwrap().file();
    let site = site.set("SSL_CERT_FILE", authority.to_str().unwrap());
    let (server, _worker) = (site.server().await, site.worker());
    let id = server.api.submit("echo", &serde_json::json!("over TLS")).await;
    assert_eq!(server.api.ended(&id).await["result"], "over TLS");
}
