//! Cancel, retry, delete; pause and resume.

use ryemill::broker::FileName;
use serde_json::json;

use super::{Api, failed, succeeded};

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_a_running_one_is_told() {
    let api = Api::start().await;
    let waiting = api.submit_any().await;
    let cancelled = api.post(&format!("/v1/jobs/{waiting}/cancel"), "").await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    let again = api.post(&format!("/v1/jobs/{waiting}/cancel"), "").await;
    assert_eq!(again.status, 200, "cancelling twice is fine");
    let running = api.submit_any().await;
    let job = api.claim_one().await;
    let told = api.post(&format!("/v1/jobs/{running}/cancel"), "").await;
    assert_eq!((told.status, &told.json()["state"]), (202, &json!("running")));
    api.finish(&[job], ryemill::job::RunEnd::Cancelled).await;
    assert_eq!(api.get(&format!("/v1/jobs/{running}")).await.json()["state"], "cancelled");
}

#[tokio::test]
async fn what_a_state_does_not_allow_is_409() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let (code, detail) = api.post(&format!("/v1/jobs/{id}/retry"), "").await.problem(409);
    assert!(code == "illegal_state" && detail.contains("queued"), "{detail}");
    let job = api.claim_one().await;
    assert!(api.delete(&format!("/v1/jobs/{id}")).await.problem(409).1.contains("cancel it first"));
    api.finish(&[job], succeeded()).await;
    assert!(api.post(&format!("/v1/jobs/{id}/cancel"), "").await.problem(409).1.contains("succeeded"));
    api.post(&format!("/v1/jobs/{id}/retry"), "").await.problem(409);
}

#[tokio::test]
async fn a_failed_job_is_retried_from_its_first_attempt() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let job = api.claim_one().await;
    api.finish(&[job], failed()).await;
    let retried = api.post(&format!("/v1/jobs/{id}/retry"), "").await;
    assert_eq!(
        (retried.status, &retried.json()["state"], &retried.json()["attempt"]),
        (200, &json!("queued"), &json!(0))
    );
    assert_eq!(api.claim_one().await.run.job, id);
}

#[tokio::test]
async fn a_deleted_job_is_gone_with_its_files() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let job = api.claim_one().await;
    let name = FileName::new("a.txt").unwrap();
    let info = api.files.stage(id, &name, b"x".to_vec()).await.unwrap().commit().await.unwrap();
    api.broker.record_file(&job.run, &info).await.unwrap();
    api.finish(&[job], succeeded()).await;
    let deleted = api.delete(&format!("/v1/jobs/{id}")).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    api.get(&format!("/v1/jobs/{id}")).await.problem(404);
    api.delete(&format!("/v1/jobs/{id}")).await.problem(404);
    assert!(api.files.read(id, &name).await.is_err());
}

#[tokio::test]
async fn a_paused_queue_says_so_on_itself_and_on_its_jobs() {
    let api = Api::start().await;
    let paused = api.post("/v1/queues/default/pause", "").await;
    assert_eq!((paused.status, &paused.json()["paused"]), (200, &json!(true)));
    let id = api.submit_any().await;
    assert!(api.claim(1).await.is_empty());
    let reason = api.get(&format!("/v1/jobs/{id}")).await.json()["reason"].to_string();
    assert!(reason.contains("paused"), "{reason}");
    let queues = api.get("/v1/queues").await.json();
    assert_eq!((&queues["queues"][0]["name"], &queues["queues"][0]["queued"]), (&json!("default"), &json!(1)));
    assert_eq!(api.post("/v1/queues/default/resume", "").await.json()["paused"], false);
    assert_eq!(api.claim_one().await.run.job, id);
    assert_eq!(api.post("/v1/queues/never-used/resume", "").await.status, 200);
    assert!(api.post("/v1/queues/Bad%20Name/pause", "").await.problem(400).1.contains("[a-z]"));
}
