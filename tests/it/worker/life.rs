//! A job's way through a worker.

use std::time::Duration;

use ryemill::job::{ErrorKind, Outcome, State};
use serde_json::json;

use super::{Site, new_job};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_to_its_result_with_all_its_lines() {
    let site =
        Site::new(&[("add", r#"const JOB = #{}; fn run(job) { print("adding"); job.payload.a + job.payload.b }"#)]);
    let hand = site.work();
    let id = site.submit("add", &json!({ "a": 1, "b": 2 })).await;
    let job = site.ended(id).await;
    assert_eq!(job.state, State::Succeeded, "{job:#?}");
    assert_eq!(job.result.as_ref().map(|result| result.get()), Some("3"));
    assert_eq!(job.attempt, 1);
    let version = site.library.snapshot().scripts.values().next().unwrap().job_type.version.clone();
    assert_eq!(job.script_version, Some(version));
    // Stored before the end was.
    let lines = site.lines(id).await;
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].message.as_str(), lines[0].attempt), ("adding", 1));
    hand.stop().await.unwrap();
    assert!(site.broker.workers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_job_is_retried_and_then_failed() {
    let script = r#"
const JOB = #{ backoff: #{ kind: "fixed", first: "10ms", jitter: 0.0 } };
fn run(job) { print(`attempt ${job.attempt}`); throw "broken"; }
"#;
    let site = Site::new(&[("bad", script)]);
    let hand = site.work();
    let id = site.submit("bad", &json!({})).await;
    let job = site.ended(id).await;
    assert_eq!(job.state, State::Failed, "{job:#?}");
    let error = job.error.as_ref().unwrap();
    assert_eq!((error.kind, error.line), (ErrorKind::Thrown, Some(3)), "{error:?}");
    let outcomes: Vec<_> = job.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Retried), Some(Outcome::Retried), Some(Outcome::Failed)]);
    let lines: Vec<String> = site.lines(id).await.into_iter().map(|line| line.message).collect();
    assert_eq!(lines, ["attempt 1", "attempt 2", "attempt 3"]);
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_of_two_workers_run_once_each() {
    let site = Site::new(&[("echo", "const JOB = #{}; fn run(job) { job.payload }")]);
    let hands = [site.work(), site.work()];
    let jobs = (0..2000).map(|n| new_job("echo", &json!(n))).collect();
    let ids = site.submit_all(jobs).await;
    for (n, id) in ids.into_iter().enumerate() {
        let job = site.ended(id).await;
        assert_eq!(job.state, State::Succeeded, "{job:#?}");
        assert_eq!(job.result.as_ref().unwrap().get(), n.to_string());
        assert_eq!(job.attempts.len(), 1);
    }
    for hand in hands {
        hand.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_job_starts_when_it_is_due() {
    let site = Site::new(&[("noop", "const JOB = #{}; fn run(job) { }")]);
    let hand = site.work();
    let mut job = new_job("noop", &json!({}));
    job.delay = Duration::from_millis(300);
    let id = site.submit_all(vec![job]).await[0];
    let job = site.ended(id).await;
    assert_eq!(job.state, State::Succeeded);
    assert!(job.started_at.unwrap() >= job.run_at, "{job:#?}");
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_leaves_a_run() {
    let script = r#"
const JOB = #{};
fn run(job) {
    print("the key is swordfish-1234");
    if job.payload.fail { throw "swordfish-1234 did not work" }
    #{ key: "swordfish-1234" }
}
"#;
    let site = Site::new(&[("leak", script)]);
    let hand = site.work();
    for fail in [true, false] {
        let mut job = new_job("leak", &json!({ "fail": fail }));
        job.max_attempts = 1;
        let id = site.submit_all(vec![job]).await[0];
        let job = site.ended(id).await;
        let whole = format!("{} {:?}", serde_json::to_string(&job).unwrap(), site.lines(id).await);
        assert!(!whole.contains("swordfish"), "{whole}");
        assert!(whole.contains("***"), "{whole}");
    }
    hand.stop().await.unwrap();
}
