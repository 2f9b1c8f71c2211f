//! What can be looked at: jobs, lists, logs, files, types, queues, workers, health.

use std::collections::BTreeSet;

use ryemill::broker::FileName;
use serde_json::{Value, json};

use super::{Api, Raw, failed, succeeded};

fn ids(list: &Value) -> Vec<String> {
    list["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_names_no_job_is_404() {
    let api = Api::start().await;
    for id in ["01938800-0000-7000-8000-000000000000", "nope", "%ff", "..%2f..%2fetc"] {
        for path in [format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/logs"), format!("/v1/jobs/{id}/events")] {
            api.get(&path).await.problem(404);
        }
    }
    assert_eq!(api.get("/v1/jobs/01938800-0000-7000-8000-000000000000").await.problem(404).0, "job_not_found");
}

#[tokio::test]
async fn an_ended_job_shows_its_result_and_its_history() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let job = api.claim_one().await;
    let running = api.get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!((&running["state"], &running["attempts"][0]["outcome"]), (&json!("running"), &Value::Null));
    api.finish(&[job], succeeded()).await;
    let mut job = api.get(&format!("/v1/jobs/{id}")).await.json();
    job["attempts"][0]["worker_id"] = "[worker]".into();
    insta::assert_json_snapshot!(job, {
        ".id" => "[id]", ".request_id" => "[request]", ".created_at" => "[time]", ".run_at" => "[time]",
        ".started_at" => "[time]", ".finished_at" => "[time]",
        ".attempts[].started_at" => "[time]", ".attempts[].finished_at" => "[time]",
    });
}

#[tokio::test]
async fn the_pages_of_a_list_give_every_job_once_newest_first() {
    let api = Api::start().await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        let jobs = vec![json!({ "name": "any" }); 45];
        let answer = api.post("/v1/jobs/batch", json!({ "jobs": jobs })).await.json();
        expected
            .extend(answer["results"].as_array().unwrap().iter().map(|r| r["job"]["id"].as_str().unwrap().to_owned()));
    }
    for limit in [1000, 135, 134, 60, 7] {
        let (mut found, mut path) = (Vec::new(), format!("/v1/jobs?limit={limit}"));
        loop {
            let page = api.get(&path).await.json();
            assert!(ids(&page).len() <= limit);
            found.extend(ids(&page));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/v1/jobs?limit={limit}&cursor={cursor}");
        }
        assert_eq!(found.len(), 135);
        assert_eq!(BTreeSet::from_iter(&found), BTreeSet::from_iter(&expected), "limit {limit}");
    }
    let page = api.get("/v1/jobs").await.json();
    assert_eq!(ids(&page).len(), 50);
    let newest: BTreeSet<_> = expected[90..].iter().cloned().collect();
    assert!(ids(&page)[..45].iter().all(|id| newest.contains(id)), "the newest come first");
}

#[tokio::test]
async fn filters_restrict_a_list_and_may_be_combined() {
    let api = Api::start().await;
    let tagged = api.post("/v1/jobs", json!({ "name": "any", "tags": ["red", "a b"] })).await.id();
    let mail = api.post("/v1/jobs", json!({ "name": "email", "payload": { "to": "a@b.example" } })).await;
    let later = api.post("/v1/jobs", json!({ "name": "any", "delay": "1h" })).await.id();
    let request_id = mail.header("x-request-id").to_owned();
    for (query, expected) in [
        ("state=scheduled", vec![&later]),
        ("queue=mail", vec![&mail.id()]),
        ("name=email", vec![&mail.id()]),
        ("tag=a%20b", vec![&tagged]),
        ("tag=red&state=queued&name=any", vec![&tagged]),
        ("tag=red&state=scheduled", vec![]),
        (&format!("request_id={request_id}"), vec![&mail.id()]),
        ("name=any", vec![&later, &tagged]),
    ] {
        let page = api.get(&format!("/v1/jobs?{query}")).await.json();
        assert_eq!(ids(&page).iter().collect::<Vec<_>>(), expected, "{query}");
        assert_eq!(page["next_cursor"], Value::Null);
    }
}

#[tokio::test]
async fn a_bad_parameter_is_400_and_is_named_with_what_is_accepted() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    for (path, name, accepted) in [
        ("/v1/jobs?state=done".to_owned(), "`state`", "scheduled, queued"),
        ("/v1/jobs?limit=0".into(), "`limit`", "1 to 1000"),
        ("/v1/jobs?limit=1001".into(), "`limit`", "1 to 1000"),
        ("/v1/jobs?name=A".into(), "`name`", "[a-z]"),
        ("/v1/jobs?queue=A%00".into(), "`queue`", "[a-z]"),
        ("/v1/jobs?request_id=%0a".into(), "`request_id`", "[A-Za-z0-9._-]"),
        ("/v1/jobs?stat=queued".into(), "`stat`", "state, name, queue"),
        ("/v1/jobs?state=queued&state=failed".into(), "`state`", "twice"),
        ("/v1/jobs?cursor=nonsense".into(), "cursor", ""),
        (format!("/v1/jobs/{id}?wait=30"), "`wait`", "250ms, 2s"),
        (format!("/v1/jobs/{id}?wait=-1s"), "`wait`", "250ms, 2s"),
        (format!("/v1/jobs/{id}/logs?after=x"), "`after`", "whole number"),
        ("/v1/queues?x=1".into(), "`x`", "none"),
        (format!("/v1/jobs/{id}/events?wait=1s"), "`wait`", "none"),
    ] {
        let (code, detail) = api.get(&path).await.problem(400);
        assert!(code == "malformed" && detail.contains(name) && detail.contains(accepted), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_log_is_read_on_from_any_line() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    assert_eq!(api.get(&format!("/v1/jobs/{id}/logs")).await.json(), json!({ "logs": [], "dropped": 0 }));
    let job = api.claim_one().await;
    api.log(&job, (0..25).map(|n| format!("line {n}"))).await;
    let page = api.get(&format!("/v1/jobs/{id}/logs?limit=10")).await.json();
    let lines = page["logs"].as_array().unwrap();
    assert_eq!(lines.len(), 10);
    assert_eq!(
        (&lines[0]["message"], &lines[0]["level"], &lines[0]["attempt"]),
        (&json!("line 0"), &json!("info"), &json!(1))
    );
    assert_eq!(lines[0]["time"], "1970-01-01T00:00:00.000Z");
    let last = lines[9]["seq"].as_u64().unwrap();
    let rest = api.get(&format!("/v1/jobs/{id}/logs?after={last}")).await.json();
    let rest = rest["logs"].as_array().unwrap();
    assert_eq!((rest.len(), &rest[0]["message"]), (15, &json!("line 10")));
}

#[tokio::test]
async fn a_file_of_a_job_is_a_download_and_nothing_else_is_served() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let job = api.claim_one().await;
    let save = async |name: &str, content: Vec<u8>| {
        let staged = api.files.stage(id, &FileName::new(name).unwrap(), content).await.unwrap();
        staged.commit().await.unwrap()
    };
    let content: Vec<u8> = (0..300_000_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let info = save("my report.html", content.clone()).await;
    api.broker.record_file(&job.run, &info).await.unwrap();
    save("unlisted.txt", b"x".to_vec()).await;
    let shown = api.get(&format!("/v1/jobs/{id}")).await.json();
    let url = format!("/v1/jobs/{id}/files/my%20report.html");
    assert_eq!(
        shown["files"][0],
        json!({
            "name": "my report.html", "size": 300_000, "content_type": "text/html; charset=utf-8",
            "sha256": info.sha256, "url": url,
        })
    );
    let file = api.get(&url).await;
    assert_eq!((file.status, file.text.as_bytes() == content), (200, true));
    assert_eq!(file.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(file.header("content-length"), "300000");
    assert_eq!(file.header("content-disposition"), "attachment; filename=\"my report.html\"");
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    for name in ["unlisted.txt", "nope", "..%2f..%2fryemill.db", "my%20report.html%00", ".tmp-1"] {
        assert_eq!(api.get(&format!("/v1/jobs/{id}/files/{name}")).await.problem(404).0, "file_not_found", "{name}");
    }
    // A client library would resolve this one by itself.
    let mut raw = Raw::connect(&api).await;
    raw.send(format!("GET /v1/jobs/{id}/files/%2e%2e HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
    assert!(raw.rest().await.contains("\"file_not_found\""));
}

#[tokio::test]
async fn a_job_type_shows_its_schema_and_who_runs_it() {
    let api = Api::start().await;
    let mut email = api.get("/v1/job-types/email").await.json();
    let listed = api.get("/v1/job-types").await.json();
    assert_eq!(listed["job_types"].as_array().unwrap().len(), 2);
    assert_eq!(listed["job_types"][1], email);
    assert_eq!(email["workers"][0]["version"], email["version"]);
    email["workers"][0]["id"] = "[worker]".into();
    insta::assert_json_snapshot!(email, { ".workers[].loaded_at" => "[time]" });
    let (code, detail) = api.get("/v1/job-types/emali").await.problem(404);
    assert!(code == "unknown_job_type" && detail.contains("`email`"), "{detail}");
}

#[tokio::test]
async fn workers_are_listed() {
    let api = Api::start().await;
    let workers = api.get("/v1/workers").await.json();
    assert_eq!((&workers["workers"][0]["host"], &workers["workers"][0]["concurrency"]), (&json!("test"), &json!(10)));
}

#[tokio::test]
async fn a_live_server_is_alive_and_ready() {
    let api = Api::start().await;
    assert_eq!(api.get("/healthz").await.json(), json!({ "status": "ok" }));
    assert_eq!(api.get("/readyz").await.json(), json!({ "status": "ready" }));
}

#[tokio::test]
async fn metrics_count_accepted_jobs_and_show_the_queues() {
    let api = Api::start().await;
    api.submit_any().await;
    api.submit_any().await;
    api.post("/v1/jobs", json!({ "name": "nope" })).await;
    api.claim(1).await;
    let metrics = api.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let value = |labels: &[&str]| {
        let line =
            metrics.text.lines().find(|line| labels.iter().all(|label| line.contains(label)) && !line.starts_with('#'));
        line.unwrap_or_else(|| panic!("no {labels:?} in {}", metrics.text)).rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(value(&["accepted", "any"]), "2");
    assert_eq!(value(&["queue=\"default\"", "state=\"queued\""]), "1");
    assert_eq!(value(&["queue=\"default\"", "state=\"running\""]), "1");
}

#[tokio::test]
async fn a_failed_job_shows_its_error() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let job = api.claim_one().await;
    api.finish(&[job], failed()).await;
    let job = api.get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!(job["state"], "failed");
    assert_eq!(
        (&job["error"]["kind"], &job["error"]["message"], &job["error"]["retryable"]),
        (&json!("thrown"), &json!("no"), &json!(false))
    );
    assert_eq!(job["attempts"][0]["outcome"], "failed");
}
