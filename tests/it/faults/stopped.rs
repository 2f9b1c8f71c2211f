//! SIGTERM: what can end in time ends, the rest is handed back, and nobody pays for it.

use std::time::{Duration, Instant};

use ryemill::worker::EXTRA;
use serde_json::json;

use super::api::{outcomes, text};
use super::{Ledger, Site};

const GRACE: Duration = Duration::from_secs(2);

/// Its first run takes as long as it is told to; another one ends at once.
const LONG: &str = r#"
const JOB = #{ timeout: "5m", max_attempts: 1, allow: #{ hosts: ["127.0.0.1"] } };
fn run(job) {
    let payload = job.payload;
    let run = http::post(`${payload.ledger}/enter/${job.id}`, "").body;
    if run == "1" {
        if payload.spin { loop {} }
        try { sleep(payload.takes) } catch { }
    }
    http::post(`${payload.ledger}/enter/end-of-${job.id}`, "");
    run
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_runs_end_and_long_ones_are_handed_back_with_no_attempt_burned() {
    // Room for the eight that run, and none for the one that waits.
    let site = Site::new(&[("long", LONG)]).set("SHUTDOWN_GRACE", "2s").set("WORKER_CONCURRENCY", "8");
    let (ledger, server, mut worker) = (Ledger::open().await, site.server().await, site.worker());
    let api = &server.api;
    let payload = |takes: &str, spin: bool| json!({ "ledger": ledger.url, "takes": takes, "spin": spin });
    let mut long = api.submit_many("long", (0..3).map(|_| payload("1h", false))).await;
    long.push(api.submit("long", &payload("1h", true)).await);
    for id in &long {
        ledger.entered(id, 1).await;
    }
    let short = api.submit_many("long", (0..4).map(|_| payload("1s", false))).await;
    for id in &short {
        ledger.entered(id, 1).await;
    }
    let waiting = api.submit("long", &payload("1h", false)).await;

    let asked = Instant::now();
    worker.signal("TERM");
    let exit = worker.exit().await;
    let took = asked.elapsed();
    eprintln!("the worker ended {took:.1?} after SIGTERM with a grace of {GRACE:?}");
    assert_eq!(exit.code(), Some(0));
    assert!(took <= GRACE + EXTRA, "{took:?}");

    for id in &short {
        let job = api.job(id).await;
        assert_eq!((&job["state"], outcomes(&job)), (&json!("succeeded"), vec!["succeeded"]), "{job:#}");
    }
    for id in &long {
        let job = api.job(id).await;
        assert_eq!((&job["state"], outcomes(&job)), (&json!("queued"), vec!["released"]), "{job:#}");
        assert_eq!((&job["attempt"], &job["lost"], &job["error"]), (&json!(0), &json!(0), &json!(null)), "{job:#}");
        // That nobody could run it now is said before that it was handed back, which is in the log.
        assert_eq!(text(&job, "reason"), "no worker has the job type long");
        let ended =
            worker.lines().into_iter().find(|line| line["message"] == "the run ended" && line["job_id"] == **id);
        let ended = ended.unwrap_or_else(|| panic!("nothing is said of {id}"));
        assert_eq!((text(&ended, "outcome"), text(&ended, "why")), ("released", "the worker is shutting down"));
        assert_eq!(ledger.count(&format!("end-of-{id}")), 0, "a stopped run does nothing more");
    }
    let job = api.job(&waiting).await;
    assert_eq!((&job["state"], outcomes(&job)), (&json!("queued"), vec![]), "{job:#}");
    assert_eq!(api.get("/v1/workers").await["workers"], json!([]));

    let _other = site.worker();
    for id in &long {
        let job = api.ended(id).await;
        assert_eq!(
            (&job["state"], &job["result"], &job["attempt"]),
            (&json!("succeeded"), &json!("2"), &json!(1)),
            "{job:#}"
        );
        assert_eq!(outcomes(&job), ["released", "succeeded"]);
    }
    ledger.entered(&waiting, 1).await;
}
