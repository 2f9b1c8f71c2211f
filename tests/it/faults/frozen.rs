//! A worker process that stands still for longer than its lease and then goes on as if nothing had been.

use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{list, outcomes, reply, text, time};
use super::{Ledger, Site, eventually};

const LEASE: Duration = Duration::from_secs(2);

/// A run is called by how many times its job was entered by then, and so is what it says and saves after its gate.
const STEADY: &str = r#"
const JOB = #{ timeout: "60s", max_attempts: 1, allow: #{ hosts: ["127.0.0.1"] } };
fn run(job) {
    let ledger = job.payload.ledger;
    let run = http::post(`${ledger}/enter/${job.id}`, "").body;
    log::info(`run ${run} begins`);
    if run == "1" || job.payload.held {
        http::request(#{ method: "POST", url: `${ledger}/gate/run-${run}`, timeout: "60s" });
    }
    log::info(`run ${run} ends`);
    progress(50, `run ${run}`);
    file::save(`run-${run}.txt`, run);
    run
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_for_three_leases_writes_nothing_late_and_works_on_under_a_new_id() {
    let site = Site::new(&[("steady", STEADY)]).set("LEASE", "2s");
    let (ledger, server) = (Ledger::open().await, site.server().await);
    let frozen = site.worker();
    let payload = |held| json!({ "ledger": ledger.url, "held": held });
    // Of some the second run has ended when the worker goes on, of some it goes on as well.
    let held = server.api.submit_many("steady", (0..4).map(|_| payload(true))).await;
    let free = server.api.submit_many("steady", (0..4).map(|_| payload(false))).await;
    for id in held.iter().chain(&free) {
        server.api.said(id, "run 1 begins").await;
    }
    frozen.freeze(false).await;
    // The answer waits for it: the first thing that it does when it goes on is to go on with its runs.
    ledger.open_gate("run-1");
    let (old, stopped) = (frozen.worker_ids(), Instant::now());
    let mut other = site.worker();
    for id in &held {
        server.api.said(id, "run 2 begins").await;
    }
    for id in &free {
        assert_eq!(server.api.ended(id).await["result"], "2");
    }
    tokio::time::sleep_until((stopped + 3 * LEASE).into()).await;

    frozen.signal("CONT");
    let lost = frozen.logged("the lease is lost").await;
    assert_eq!(lost["worker_id"], old[0]);
    let new = eventually("it comes back", async || {
        let workers = server.api.get("/v1/workers").await;
        let again = list(&workers, "workers").iter().find(|worker| worker["pid"] == frozen.pid())?;
        (text(again, "id") != old[0]).then(|| text(again, "id").to_owned())
    })
    .await;
    assert_eq!(frozen.worker_ids().last(), Some(&new));
    ledger.open_gate("run-2");

    for id in held.iter().chain(&free) {
        let job = server.api.ended(id).await;
        assert_eq!((&job["state"], &job["result"]), (&json!("succeeded"), &json!("2")), "{job:#}");
        assert_eq!(outcomes(&job), ["lost", "succeeded"], "{job:#}");
        let runs = list(&job, "attempts");
        assert_eq!(runs[0]["worker_id"], old[0]);
        assert_ne!(runs[1]["worker_id"], old[0]);
        assert!(time(&runs[0], "finished_at") <= time(&runs[1], "started_at"), "{job:#}");
        assert_eq!((&job["lost"], &job["attempt"]), (&json!(1), &json!(1)), "{job:#}");
        assert_eq!(job["progress"]["message"], "run 2", "{job:#}");
        let files: Vec<&str> = list(&job, "files").iter().map(|file| text(file, "name")).collect();
        assert_eq!(files, ["run-2.txt"]);
        assert_eq!(server.api.messages(id).await, ["run 1 begins", "run 2 begins", "run 2 ends"]);
        assert_eq!(ledger.count(id), 2);
    }
    // Alone again, it has to do the work.
    other.signal("TERM");
    assert_eq!(other.exit().await.code(), Some(0));
    let id = server.api.submit("steady", &payload(false)).await;
    let job = server.api.ended(&id).await;
    assert_eq!((&job["result"], &list(&job, "attempts")[0]["worker_id"]), (&json!("1"), &json!(new)));
}

const SHORT: &str =
    "const JOB = #{ timeout: \"60s\" };\nfn run(job) { log::info(\"here\"); sleep(\"100ms\"); job.payload }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_in_a_commit_holds_the_others_up_and_costs_no_job() {
    let site = Site::new(&[("short", SHORT)]).set("LEASE", "2s");
    let (server, workers) = (site.server().await, [site.worker(), site.worker()]);
    let api = &server.api;
    let mut ids = vec![api.submit("short", &json!(0)).await];
    for worker in &workers {
        worker.logged("the worker is registered").await;
    }
    // There are commits all the time.
    let submit = async { ids.extend(api.submit_many("short", (1..150).map(|n| json!(n))).await) };
    let freeze = async {
        workers[0].freeze(true).await;
        let stopped = Instant::now();
        // The server says that it takes no jobs now; it lives, and who only looks is served.
        let ready = reply(api.request(reqwest::Method::GET, "/readyz")).await;
        assert_eq!(ready.problem(503).0, "unavailable");
        for path in ["/healthz", "/v1/jobs", "/v1/workers"] {
            api.get(path).await;
        }
        tokio::time::sleep_until((stopped + 2 * LEASE).into()).await;
        workers[0].signal("CONT");
    };
    tokio::join!(submit, freeze);
    for (n, id) in ids.iter().enumerate() {
        let job = api.ended(id).await;
        assert_eq!((&job["state"], &job["result"]), (&json!("succeeded"), &json!(n)), "{job:#}");
        let outcomes = outcomes(&job);
        let (last, earlier) = outcomes.split_last().unwrap();
        assert_eq!(*last, "succeeded", "{job:#}");
        assert!(earlier.iter().all(|outcome| *outcome == "lost"), "{job:#}");
    }
    let states = api.states().await;
    assert!(states.len() == ids.len() && states.values().all(|states| *states == ["succeeded"]), "{states:?}");
}
