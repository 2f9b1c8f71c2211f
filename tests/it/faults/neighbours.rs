//! What endless loops cost the jobs next to them, measured in a script.

use serde_json::{Value, json};

use super::api::{Api, text, time};
use super::{Site, heavy};

/// What the loops may add at p95, in milliseconds.
const MOST: f64 = 10.0;

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

/// Others on the machine only add to what a round shows: a good round ends the measurement.
const ROUNDS: usize = 4;

/// The p95 of a neighbour's sleeps, and the job.
async fn sleeps(api: &Api) -> (f64, Value) {
    let id = api.submit("neighbour", &json!({})).await;
    let job = api.ended(&id).await;
    let took = serde_json::from_value::<Vec<f64>>(job["result"].clone());
    let mut took = took.unwrap_or_else(|_| panic!("{job:#}"));
    took.sort_by(f64::total_cmp);
    assert_eq!(took.len(), 200);
    (took[190], job)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_endless_loops_add_at_most_ten_milliseconds_to_a_neighbours_sleeps() {
    let _alone = heavy().await;
    let site = Site::new(&[("endless", LOOP), ("neighbour", NEIGHBOUR)]).set("WORKER_THREADS", "1");
    let (server, _worker) = (site.server().await, site.worker());
    let (mut alone, mut beside) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        alone = alone.min(sleeps(&server.api).await.0);
        let loops = server.api.submit_many("endless", (0..3).map(|_| json!({}))).await;
        for id in &loops {
            server.api.said(id, "spinning").await;
        }
        let (p95, neighbour) = sleeps(&server.api).await;
        for id in &loops {
            let job = server.api.ended(id).await;
            assert!(time(&job, "finished_at") > time(&neighbour, "finished_at"), "it ended too soon: {job:#}");
            let error = &job["error"];
            assert_eq!((&job["state"], text(error, "kind")), (&json!("failed"), "timeout"), "{job:#}");
            assert_eq!((text(error, "file"), &error["line"]), ("endless.rhai", &json!(4)), "{job:#}");
        }
        beside = beside.min(p95);
        eprintln!("p95 of a sleep of 10 ms: {alone:.1} ms alone, {p95:.1} ms next to three endless loops");
        if beside - alone <= MOST {
            return;
        }
    }
    panic!("{:.1} ms more at p95", beside - alone);
}
