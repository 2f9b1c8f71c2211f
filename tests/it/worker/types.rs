//! Which scripts a worker has, and whose word counts about a payload.

use std::sync::Arc;
use std::time::Duration;

use ryemill::broker::{LoadedType, Publication, WorkerBeat};
use ryemill::job::{ErrorKind, State, Version, WorkerId};
use ryemill::shutdown::Shutdown;
use serde_json::json;

use super::{Site, new_job, write_script};

const STRICT: &str = r#"const JOB = #{ payload: #{ type: "object", required: ["to"] } }; fn run(job) { "strict" }"#;
const LOOSE: &str = r#"const JOB = #{}; fn run(job) { "loose" }"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_type_nobody_has_waits_untouched() {
    let site = Site::new(&[("kept", LOOSE), ("gone", LOOSE)]);
    let hand = site.work();
    let first = site.submit("gone", &json!({})).await;
    assert_eq!(site.ended(first).await.state, State::Succeeded);
    hand.stop().await.unwrap();
    let partial = site.library_of(&[("kept", LOOSE)]);
    let hand = site.work_with(Arc::clone(&site.broker), partial);
    let gone = site.submit("gone", &json!({})).await;
    let kept = site.submit("kept", &json!({})).await;
    assert_eq!(site.ended(kept).await.state, State::Succeeded);
    let job = site.get(gone).await;
    assert_eq!((job.state, job.attempts.len()), (State::Queued, 0), "{job:#?}");
    // It runs as soon as somebody has it.
    let other = site.work();
    assert_eq!(site.ended(gone).await.state, State::Succeeded);
    hand.stop().await.unwrap();
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_does_not_fit_fails_without_a_retry() {
    let site = Site::new(&[("mail", STRICT)]);
    let hand = site.work();
    let id = site.submit("mail", &json!({ "too": 1 })).await;
    let job = site.ended(id).await;
    let error = job.error.as_ref().unwrap();
    assert_eq!((job.state, error.kind, job.attempts.len()), (State::Failed, ErrorKind::InvalidPayload, 1), "{job:#?}");
    assert!(error.message.contains("\"to\" is a required property"), "{error:?}");
    hand.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_version_leaves_a_payload_that_it_refuses_to_the_live_one() {
    let site = Site::new(&[("mail", STRICT)]);
    let old = site.work();
    site.ended(site.submit("mail", &json!({ "to": 1 })).await).await;
    // Another worker brings a newer version, which takes what the old one refuses.
    let newer = site.library_of(&[("mail", LOOSE)]);
    let script = newer.snapshot().scripts.values().next().unwrap().job_type.clone();
    let ghost = WorkerId::random();
    let beat = WorkerBeat {
        worker: ghost.clone(),
        lease: Duration::from_mins(1),
        host: "elsewhere".into(),
        pid: 1,
        concurrency: 1,
    };
    site.broker.renew(&beat).await.unwrap();
    let types = vec![LoadedType { job_type: script.clone(), replaced: None }];
    site.broker.publish(&Publication { worker: ghost, types, refused: Vec::new() }).await.unwrap();
    let mut job = new_job("mail", &json!({}));
    job.checked_with = Some(script.version.clone());
    let id = site.submit_all(vec![job]).await[0];
    let job = site.until(id, |job| job.reason.is_some()).await;
    assert!(!job.state.is_terminal() && job.attempt == 0, "{job:#?}");
    assert!(job.reason.as_ref().unwrap().contains("refuses the payload"), "{job:#?}");
    let new = site.work_with(Arc::clone(&site.broker), newer);
    let job = site.ended(id).await;
    assert_eq!((job.state, job.script_version), (State::Succeeded, Some(script.version)));
    old.stop().await.unwrap();
    new.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_goes_live_and_a_broken_one_is_shown_and_changes_nothing() {
    let site = Site::new(&[("mail", LOOSE)]);
    let watching = Shutdown::new();
    let watch = tokio::spawn(Arc::clone(&site.library).watch(watching.clone()));
    let hand = site.work();
    let first = version_of(&site, site.submit("mail", &json!({ "to": 1 })).await).await;
    let mut swaps = site.library.changes();
    write_script(&site.jobs(), "mail", STRICT);
    swaps.changed().await.unwrap();
    let second = version_of(&site, site.submit("mail", &json!({ "to": 1 })).await).await;
    assert_ne!(first, second);
    write_script(&site.jobs(), "mail", "const JOB = #{}; fn run(job) {");
    swaps.changed().await.unwrap();
    assert_eq!(version_of(&site, site.submit("mail", &json!({ "to": 1 })).await).await, second);
    // The broker hears of it.
    let mut changes = site.broker.changes(ryemill::broker::Topic::JobTypes);
    let info = loop {
        let info = site.broker.job_types().await.unwrap().remove(0);
        if info.refused.is_some() {
            break info;
        }
        tokio::time::timeout(super::PATIENCE, changes.changed()).await.unwrap().unwrap();
    };
    assert_eq!(Some(&info.job_type.version), second.as_ref());
    assert!(info.refused.unwrap().reason.contains("mail.rhai"));
    let metrics = hand.metrics.render();
    assert!(metrics.contains("script_loads_total{name=\"mail\"} 2"), "{metrics}");
    assert!(metrics.contains("script_refusals_total{name=\"mail\"} 1"), "{metrics}");
    hand.stop().await.unwrap();
    watching.request();
    watch.await.unwrap();
}

async fn version_of(site: &Site, id: ryemill::job::JobId) -> Option<Version> {
    let job = site.ended(id).await;
    assert_eq!(job.state, State::Succeeded, "{job:#?}");
    job.script_version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_end_on_the_version_they_began_with() {
    let script =
        |word: &str| format!("const JOB = #{{}};\nfn run(job) {{ print(\"on\"); sleep(\"600ms\"); \"{word}\" }}");
    let site = Site::new(&[("edit", &script("old"))]);
    let watching = Shutdown::new();
    let watch = tokio::spawn(Arc::clone(&site.library).watch(watching.clone()));
    let hand = site.work();
    let active = site.submit_all((0..8).map(|_| new_job("edit", &json!({}))).collect()).await;
    for id in &active {
        site.said(*id, "on").await;
    }
    let mut swaps = site.library.changes();
    write_script(&site.jobs(), "edit", &script("new"));
    swaps.changed().await.unwrap();
    let next = site.submit("edit", &json!({})).await;
    let word = async |id| site.ended(id).await.result.unwrap().get().to_owned();
    for id in active {
        assert_eq!(word(id).await, "\"old\"");
    }
    assert_eq!(word(next).await, "\"new\"");
    hand.stop().await.unwrap();
    watching.request();
    watch.await.unwrap();
}
