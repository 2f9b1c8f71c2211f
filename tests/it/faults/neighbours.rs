//! What endless loops cost the jobs next to them, measured in a script.

use std::time::Duration;

use serde_json::{Value, json};

use super::Site;
use super::api::{Api, text};

const LOOP: &str = r#"const JOB = #{ timeout: "5s", max_attempts: 1 };
fn run(job) {
    print("spinning");
    loop {}
}
"#;

/// Answers how long each of 200 sleeps of 10 ms took, in milliseconds.
const NEIGHBOUR: &str = r#"
const JOB = #{ timeout: "30s", max_attempts: 1 };
fn run(job) {
    let took = [];
    for n in 0..200 {
        let began = timestamp();
        sleep("10ms");
        took.push(began.elapsed * 1000.0);
    }
    took
}
"#;

async fn sleeps(api: &Api) -> (f64, f64, Value) {
    let id = api.submit("neighbour", &json!({})).await;
    let job = api.ended(&id).await;
    let took = serde_json::from_value::<Vec<f64>>(job["result"].clone());
    let mut took = took.unwrap_or_else(|_| panic!("{job:#}"));
    took.sort_by(f64::total_cmp);
    assert_eq!(took.len(), 200);
    (took[100], took[190], job)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_endless_loops_add_at_most_ten_milliseconds_to_a_neighbours_sleeps() {
    let site = Site::new(&[("endless", LOOP), ("neighbour", NEIGHBOUR)]).set("WORKER_THREADS", "1");
    let (server, _worker) = (site.server().await, site.worker());
    let (median, alone, _) = sleeps(&server.api).await;
    let loops = server.api.submit_many("endless", (0..3).map(|_| json!({}))).await;
    for id in &loops {
        server.api.said(id, "spinning").await;
    }
    let (beside_median, beside, job) = sleeps(&server.api).await;
    eprintln!(
        "p50 {median:.1} ms, p95 {alone:.1} ms alone; p50 {beside_median:.1} ms, p95 {beside:.1} ms next to three loops"
    );
    let ended = super::api::time(&job, "finished_at");
    for id in &loops {
        let job = server.api.ended(id).await;
        assert!(super::api::time(&job, "finished_at") > ended, "the loops ended before the measurement did: {job:#}");
        let error = &job["error"];
        assert_eq!((&job["state"], text(error, "kind")), (&json!("failed"), "timeout"), "{job:#}");
        assert_eq!((text(error, "file"), &error["line"]), ("endless.rhai", &json!(4)), "{job:#}");
    }
    let added = Duration::from_secs_f64((beside - alone).max(0.0) / 1e3);
    assert!(added <= Duration::from_millis(10), "{added:?} more at p95");
}
