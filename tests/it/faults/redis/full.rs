//! A Redis that has no memory left and evicts nothing.

use serde_json::json;

use crate::faults::{Ledger, Site, eventually};
use crate::http::reply;
use crate::redis::RedisServer;

/// The first one waits at the ledger's gate, the others only take room.
const LARGE: &str = r#"
const JOB = #{ timeout: "60s", allow: #{ hosts: ["127.0.0.1"] } };
fn run(job) {
    if job.payload.gate != () {
        log::info("it runs");
        http::request(#{ method: "POST", url: job.payload.gate, timeout: "60s" });
    }
    "done"
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_submits_ends_runs_and_recovers_by_itself() {
    let redis = RedisServer::start(&[("maxmemory", "32mb"), ("maxmemory-policy", "noeviction")]).await;
    let site = Site::new(&[("large", LARGE)])
        .set("BROKER_URL", &redis.url())
        .set("LEASE", "3s")
        .set("WORKER_CONCURRENCY", "1")
        .set("RETAIN_BYTES", "4000000");
    let (ledger, server, _worker) = (Ledger::open().await, site.server().await, site.worker());
    let held = server.api.submit("large", &json!({ "gate": format!("{}/gate/held", ledger.url) })).await;
    server.api.said(&held, "it runs").await;

    let filling = json!({ "filling": "x".repeat(200_000) });
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = reply(server.api.submission("large", &filling)).await;
        if answer.status != 202 {
            break answer;
        }
        accepted.push(answer.id());
        assert!(accepted.len() < 1000, "a Redis of 32 MB has taken 200 MB");
    };
    assert_eq!(refused.problem(503).0, "broker_full");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    // What is there can be looked at, and what runs ends.
    assert_eq!(server.api.job(&accepted[0]).await["state"], "queued");
    ledger.open_gate("held");
    assert_eq!(server.api.ended(&held).await["result"], "done");
    for id in &accepted {
        // The last ones may have ended and gone by now.
        let job = reply(server.api.request(reqwest::Method::GET, &format!("/v1/jobs/{id}?wait=30s"))).await;
        assert!(job.status == 404 || job.json()["state"] == "succeeded", "{}", job.text);
    }
    eventually("there is room again", async || {
        let answer = reply(server.api.submission("large", &filling)).await;
        (answer.status == 202).then_some(())
    })
    .await;
    eprintln!("{} jobs of 200 kB fitted", accepted.len());
}
