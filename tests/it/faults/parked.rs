//! Jobs that nobody can run yet.

use serde_json::json;

use super::api::{outcomes, text};
use super::{Site, eventually};

const ECHO: &str = "const JOB = #{};\nfn run(job) { job.payload }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_script_is_gone_waits_with_a_reason_and_runs_when_it_is_back() {
    let site = Site::new(&[("echo", ECHO), ("other", ECHO)]).set("WATCH", "yes");
    let (server, mut worker) = (site.server().await, site.worker());
    let api = &server.api;
    let first = api.submit("echo", &json!(1)).await;
    assert_eq!(api.ended(&first).await["result"], 1);
    std::fs::remove_file(site.script("echo")).unwrap();
    eventually("nobody has the type", async || {
        (api.get("/v1/job-types/echo").await["workers"] == json!([])).then_some(())
    })
    .await;

    let parked = api.submit("echo", &json!(2)).await;
    let job = api.until(&parked, "it says why it waits", |job| job["reason"].is_string()).await;
    assert_eq!((&job["state"], outcomes(&job)), (&json!("queued"), vec![]), "{job:#}");
    assert!(text(&job, "reason").contains("echo"), "{job:#}");
    // It is not in the way of what can run.
    let other = api.submit("other", &json!(3)).await;
    assert_eq!(api.ended(&other).await["result"], 3);
    assert_eq!(api.job(&parked).await["state"], "queued");

    // Nor is it lost with the process.
    worker.kill();
    let worker = site.worker();
    worker.logged("the worker is registered").await;
    std::fs::write(site.script("echo"), ECHO).unwrap();
    let job = api.ended(&parked).await;
    assert_eq!(
        (&job["result"], &job["reason"], outcomes(&job)),
        (&json!(2), &json!(null), vec!["succeeded"]),
        "{job:#}"
    );
}
