//! What runs say and make: log lines, progress, files, children.

use std::collections::HashSet;
use std::time::Duration;

use ryemill::job::{ErrorKind, Job, LogLevel, RequestId, State};
use serde_json::{Value, json};

use super::{Site, new_job};

fn result(job: &Job) -> Value {
    let result = job.result.as_ref().unwrap_or_else(|| panic!("{job:#?}"));
    serde_json::from_str(result.get()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_interleaved_jobs_keep_their_lines_apart() {
    let script = r#"
const JOB = #{};
fn run(job) {
    for step in 0..5 {
        print(`${job.id} ${step}`);
        sleep("5ms");
        log::warn(`${job.request_id} ${step}`, #{ step: step, id: job.id });
    }
}
"#;
    let site = Site::new(&[("talk", script)]);
    let hand = site.work();
    let ids = site.submit_all((0..50).map(|_| new_job("talk", &json!({}))).collect()).await;
    for id in ids {
        let job = site.ended(id).await;
        assert_eq!(job.state, State::Succeeded, "{job:#?}");
        let lines = site.lines(id).await;
        let said: Vec<&str> = lines.iter().map(|line| line.message.as_str()).collect();
        let expected: Vec<String> =
            (0..5).flat_map(|step| [format!("{id} {step}"), format!("{} {step}", job.request_id)]).collect();
        assert_eq!(said, expected);
        assert!(lines.iter().zip(1..).all(|(line, seq)| line.seq == seq && line.attempt == 1));
        assert_eq!(lines[1].level, LogLevel::Warn);
        let fields: Value = serde_json::from_str(lines[3].fields.as_ref().unwrap().get()).unwrap();
        assert_eq!(fields, json!({ "step": 1, "id": id.to_string() }));
    }
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_cut_to_the_rate_and_counted() {
    let script = r#"
const JOB = #{};
fn run(job) {
    let long = "";
    long.pad(20000, 'é');
    print(long);
    for n in 0..5000 { print(`line ${n}`); }
}
"#;
    let mut site = Site::new(&[("flood", script)]);
    site.options.limits.log_rate = 100;
    let hand = site.work();
    let id = site.submit("flood", &json!({})).await;
    assert_eq!(site.ended(id).await.state, State::Succeeded);
    let logs = site.broker.logs(id, 0, 10_000).await.unwrap().unwrap();
    let kept = u64::try_from(logs.lines.len()).unwrap();
    assert!((100..1000).contains(&kept), "{kept} lines");
    assert_eq!(kept + logs.dropped, 5001);
    let long = &logs.lines[0].message;
    assert!(long.len() <= site.options.limits.log_line && long.ends_with("(cut, the line had 40000 bytes)"), "{long}");
    assert!(hand.metrics.render().contains(&format!("log_lines_dropped_total{{log=\"job\"}} {}", logs.dropped)));
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_progress_is_stored_before_the_end_and_not_every_one_before() {
    let script = r#"
const JOB = #{};
fn run(job) {
    for n in 0..1000 { progress(n / 10.0, `step ${n}`); }
    progress(99, "nearly");
    sleep("300ms");
    progress(100, "done");
}
"#;
    let site = Site::new(&[("steps", script)]);
    let hand = site.work();
    let id = site.submit("steps", &json!({})).await;
    // What was reported too soon after the one before is stored while the script sleeps.
    let at = |job: &Job| job.progress.as_ref().map(|progress| progress.message.clone());
    let job = site.until(id, |job| at(job).as_deref() == Some("nearly") || job.state.is_terminal()).await;
    assert_eq!(job.state, State::Running, "{job:#?}");
    let job = site.ended(id).await;
    assert_eq!((job.state, at(&job).as_deref()), (State::Succeeded, Some("done")), "{job:#?}");
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_runs_again_finds_its_children() {
    let parent = r#"
const JOB = #{ backoff: #{ kind: "fixed", first: "1ms", jitter: 0.0 } };
fn run(job) {
    let a = submit("child", #{ n: 1 }, #{ tags: ["a"] });
    let b = submit("child", #{ n: 1 });
    if job.attempt == 1 { throw "again" }
    [a, b]
}
"#;
    let child = r#"const JOB = #{ queue: "small", payload: #{ type: "object", required: ["n"] } }; fn run(job) { job.payload.n }"#;
    let site = Site::new(&[("parent", parent), ("child", child)]);
    let hand = site.work();
    let mut job = new_job("parent", &json!({}));
    job.request_id = RequestId::new("the-callers-own").unwrap();
    let id = site.submit_all(vec![job]).await[0];
    let job = site.ended(id).await;
    let children: Vec<String> = serde_json::from_value(result(&job)).unwrap();
    assert_eq!(children.iter().collect::<HashSet<_>>().len(), 2);
    for child in &children {
        let child = site.ended(child.parse().unwrap()).await;
        assert_eq!((child.state, child.parent_id), (State::Succeeded, Some(id)), "{child:#?}");
        assert_eq!(child.request_id.as_str(), "the-callers-own");
        assert_eq!(child.queue.as_str(), "small");
    }
    let small = site.broker.queues().await.unwrap().into_iter().find(|queue| queue.name.as_str() == "small").unwrap();
    assert_eq!(small.succeeded, 2);
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_cannot_be_is_an_error_the_script_can_read() {
    let script = r#"
const JOB = #{};
fn told(name, payload) {
    try { submit(name, payload); } catch (error) { return `${error.kind}: ${error.message}`; }
}
fn run(job) { [told("chlid", #{}), told("child", #{ m: 1 })] }
"#;
    let child = r#"const JOB = #{ payload: #{ type: "object", required: ["n"] } }; fn run(job) { }"#;
    let site = Site::new(&[("asks", script), ("child", child)]);
    let hand = site.work();
    let id = site.submit("asks", &json!({})).await;
    let job = site.ended(id).await;
    assert_eq!(
        result(&job),
        json!([
            "denied: there is no job type `chlid`, did you mean `child`?",
            "invalid_payload: the payload does not fit `child`: the payload: \"n\" is a required property",
        ])
    );
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_submits_itself_ends_at_the_tree_depth() {
    let script = "const JOB = #{ max_attempts: 1 }; fn run(job) { submit(\"tree\", #{ n: job.payload.n + 1 }); }";
    let mut site = Site::new(&[("tree", script)]);
    site.options.limits.max_tree_depth = 3;
    let hand = site.work();
    let id = site.submit("tree", &json!({ "n": 0 })).await;
    site.ended(id).await;
    let mut changes = site.broker.changes(ryemill::broker::Topic::Jobs);
    let failed = loop {
        changes.borrow_and_update();
        let filter = ryemill::broker::Filter { limit: 100, ..Default::default() };
        let jobs = site.broker.list(&filter).await.unwrap().jobs;
        if let Some(job) = jobs.iter().find(|job| job.state == State::Failed) {
            assert_eq!(jobs.len(), 4);
            break job.clone();
        }
        tokio::time::timeout(super::PATIENCE, changes.changed()).await.unwrap().unwrap();
    };
    assert_eq!(failed.error.unwrap().kind, ErrorKind::Denied);
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_saved_listed_and_read_and_go_with_their_job() {
    let script = r#"
const JOB = #{ keep: #{ succeeded: "1s", failed: "1s" } };
fn run(job) {
    file::save("a.txt", "one");
    file::save("a.txt", "two");
    file::save("b.csv", "1,2");
    [file::read("a.txt"), file::list().len()]
}
"#;
    let mut site = Site::new(&[("files", script)]);
    site.options.lease = Duration::from_secs(1);
    let hand = site.work();
    let id = site.submit("files", &json!({})).await;
    let job = site.ended(id).await;
    assert_eq!(result(&job), json!(["two", 2]));
    let names: Vec<&str> = job.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "b.csv"]);
    assert_eq!((job.files[0].size, job.files[1].content_type.as_str()), (3, "text/csv; charset=utf-8"));
    let folder = site.dir.path().join("files").join(id.to_string());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    // Retention takes both.
    let mut changes = site.broker.changes(ryemill::broker::Topic::Jobs);
    let gone = async {
        while site.broker.get(id).await.unwrap().is_some() || folder.exists() {
            let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, gone).await.unwrap();
    hand.stop().await.unwrap();
}
