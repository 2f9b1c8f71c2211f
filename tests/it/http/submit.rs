//! `POST /v1/jobs`.

use reqwest::Method;
use serde_json::json;

use super::{Api, Reply, eventually, reply};

/// The answers' pointers into the payload.
fn pointers(reply: &Reply) -> Vec<String> {
    let body = reply.json();
    body["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_submit_is_answered_202_with_its_location_and_the_whole_job() {
    let api = Api::start().await;
    let request = api
        .post_request("/v1/jobs", json!({ "name": "email", "payload": { "to": "ada@example.com" }, "tags": ["a"] }))
        .header("x-request-id", "req-1");
    let answer = reply(request).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.header("location"), format!("/v1/jobs/{}", answer.id()));
    assert_eq!(answer.header("x-request-id"), "req-1");
    insta::assert_json_snapshot!(answer.json(), {
        ".id" => "[id]", ".created_at" => "[time]", ".run_at" => "[time]",
    });
    let shown = api.get(answer.header("location")).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json(), answer.json(), "the answer to the submit is what is stored");
}

#[tokio::test]
async fn a_job_takes_its_types_settings_unless_the_client_gives_its_own() {
    let api = Api::start().await;
    let plain = api.post("/v1/jobs", json!({ "name": "any" })).await.json();
    assert_eq!(
        (&plain["priority"], &plain["max_attempts"], &plain["queue"]),
        (&json!(5), &json!(3), &json!("default"))
    );
    let own = json!({ "name": "any", "priority": 9, "max_attempts": 1, "delay": "1h" });
    let own = api.post("/v1/jobs", own).await.json();
    assert_eq!((&own["priority"], &own["max_attempts"], &own["state"]), (&json!(9), &json!(1), &json!("scheduled")));
}

#[tokio::test]
async fn the_payload_is_stored_as_the_client_wrote_it() {
    let api = Api::start().await;
    let text = r#"{ "b" : 1.50, "a":[ ], "u":"\u00e9" }"#;
    let answer = api.post("/v1/jobs", format!("{{\"name\":\"any\",\"payload\":{text}}}")).await;
    assert!(answer.text.contains(text), "{}", answer.text);
    assert!(api.get(answer.header("location")).await.text.contains(text));
    let job = api.claim_one().await;
    assert_eq!(job.payload.get(), text);
}

#[tokio::test]
async fn a_time_to_run_is_taken_as_a_delay_or_a_date() {
    let api = Api::start().await;
    let later = api.post("/v1/jobs", json!({ "name": "any", "run_at": "2030-01-01T00:00:00+01:00" })).await.json();
    assert_eq!(later["state"], "scheduled");
    // By the broker's clock, which read the time a moment later than the server.
    assert!(later["run_at"].as_str().unwrap().starts_with("2029-12-31T23:00:"), "{later}");
    let past = api.post("/v1/jobs", json!({ "name": "any", "run_at": "2001-01-01T00:00:00Z" })).await.json();
    assert_eq!(past["state"], "queued");
}

#[tokio::test]
async fn a_malformed_body_is_400_and_says_what_is_wrong() {
    let api = Api::start().await;
    for (body, expected) in [
        ("", "is empty"),
        ("[]", "a job is a JSON object"),
        ("{\"name\":\"any\"", "EOF while parsing"),
        ("{\"name\":\"any\",\n\"payloat\":1}", "unknown field `payloat`"),
        ("{\"name\":\"any\",\n\"payloat\":1}", "line 2"),
        ("{\"name\":\"any\",\"priority\":10}", "0 to 9"),
        ("{\"name\":\"any\",\"delay\":\"5 minutes\"}", "250ms, 2s, 5m, 1h, 1d"),
        ("{\"name\":\"any\",\"name\":\"any\"}", "duplicate field `name`"),
    ] {
        let (code, detail) = api.post("/v1/jobs", body).await.problem(400);
        assert_eq!(code, "malformed");
        assert!(detail.contains(expected), "{body}: {detail}");
    }
    assert!(api.post("/v1/jobs?wait=1s", "{\"name\":\"any\"}").await.problem(400).1.contains("`wait`"));
    let request = api.request(Method::POST, "/v1/jobs").header("content-type", "application/json");
    let (_, detail) = reply(request.body(b"{\"name\":\"\xff\"}".to_vec())).await.problem(400);
    assert!(detail.contains("not UTF-8 from byte 9"), "{detail}");
}

#[tokio::test]
async fn an_invalid_payload_is_422_and_points_to_every_fault() {
    let api = Api::start().await;
    let answer = api.post("/v1/jobs", json!({ "name": "email", "payload": { "to": "nobody", "n": "1" } })).await;
    assert_eq!(answer.problem(422).0, "invalid_payload");
    let mut found = pointers(&answer);
    found.sort();
    assert_eq!(found, ["/n", "/to"]);
    let missing = api.post("/v1/jobs", json!({ "name": "email" })).await;
    assert!(missing.problem(422).1.contains("\"to\" is a required property"), "{}", missing.text);
}

#[tokio::test]
async fn what_a_script_could_not_hold_is_422_with_its_place() {
    let api = Api::start().await;
    let submit = async |payload: &str| {
        let answer = api.post("/v1/jobs", format!("{{\"name\":\"any\",\"payload\":{payload}}}")).await;
        assert_eq!(answer.problem(422).0, "invalid_payload", "{}", &payload[..20]);
        pointers(&answer).remove(0)
    };
    assert_eq!(submit("{\"a\":[0,9223372036854775808]}").await, "/a/1");
    assert_eq!(submit("{\"a\":-9223372036854775809000000}").await, "/a");
    assert_eq!(submit("[1e999,                   1]").await, "/0");
    assert_eq!(submit("[\"half of a pair: \\ud800\"]").await, "");
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(submit(&deep(65)).await, "/0".repeat(64));
    assert!(submit(&deep(300_000)).await.len() < 1_000);
    assert_eq!(api.post("/v1/jobs", format!("{{\"name\":\"any\",\"payload\":{}}}", deep(64))).await.status, 202);
}

#[tokio::test]
async fn an_unknown_type_is_404_with_near_names() {
    let api = Api::start().await;
    let (code, detail) = api.post("/v1/jobs", json!({ "name": "emial" })).await.problem(404);
    assert_eq!(
        (code.as_str(), detail.as_str()),
        ("unknown_job_type", "there is no job type `emial`; did you mean `email`?")
    );
    api.post("/v1/jobs", json!({ "name": "Not A Name" })).await.problem(404);
}

#[tokio::test]
async fn a_type_published_a_moment_ago_can_be_submitted_at_once() {
    let api = Api::start().await;
    api.post("/v1/jobs", json!({ "name": "fresh" })).await.problem(404);
    api.publish(&[("fresh", "default", json!(true))]).await;
    assert_eq!(api.post("/v1/jobs", json!({ "name": "fresh" })).await.status, 202);
    assert_eq!(api.post("/v1/jobs", json!({ "name": "any" })).await.status, 202, "a type stays known");
}

#[tokio::test]
async fn an_edited_schema_goes_live_and_the_job_records_it() {
    let api = Api::start().await;
    assert_eq!(api.post("/v1/jobs", json!({ "name": "any" })).await.status, 202);
    let first = api.claim_one().await.checked_with;
    let versions = api.publish(&[("any", "default", json!({ "required": ["x"] }))]).await;
    eventually("the new schema is used", async || {
        (api.post("/v1/jobs", json!({ "name": "any" })).await.status == 422).then_some(())
    })
    .await;
    api.claim(100).await;
    api.post("/v1/jobs", json!({ "name": "any", "payload": { "x": 1 } })).await;
    let second = api.claim_one().await.checked_with;
    assert_eq!(second.as_ref(), Some(&versions[0]));
    assert_ne!(first, second);
}

#[tokio::test]
async fn over_max_pending_the_answer_is_429_until_jobs_are_taken() {
    let api = Api::with(|options| options.max_pending = 3).await;
    for _ in 0..2 {
        api.submit_any().await;
    }
    assert_eq!(api.post("/v1/jobs", json!({ "name": "any", "delay": "1h" })).await.status, 202);
    let refused = api.post("/v1/jobs", json!({ "name": "any" })).await;
    assert_eq!(refused.problem(429).0, "too_many_pending");
    assert_eq!(refused.header("retry-after"), "1");
    let jobs = (0..2).map(|_| json!({ "name": "any" })).collect::<Vec<_>>();
    api.claim(1).await;
    eventually("there is room for one", async || {
        (api.post("/v1/jobs", json!({ "name": "any" })).await.status == 202).then_some(())
    })
    .await;
    api.post("/v1/jobs/batch", json!({ "jobs": jobs })).await.problem(429);
}

#[tokio::test]
async fn a_body_over_its_limit_is_413_whether_it_was_announced_or_not() {
    let api = Api::with(|options| options.max_body = 1000).await;
    let body = json!({ "name": "any", "payload": "x".repeat(2_000) });
    let (code, detail) = api.post("/v1/jobs", &body).await.problem(413);
    assert_eq!((code.as_str(), detail.as_str()), ("too_large", "the body is over 1000 bytes (MAX_BODY is 1000)"));
    let pieces = body
        .to_string()
        .into_bytes()
        .chunks(100)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect::<Vec<_>>();
    let chunked = api
        .request(Method::POST, "/v1/jobs")
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(tokio_stream::iter(pieces)));
    assert_eq!(reply(chunked).await.problem(413).0, "too_large");
}

#[tokio::test]
async fn a_payload_over_its_limit_is_413_though_the_body_may_be_larger() {
    let api = Api::with(|options| options.limits.max_payload = 100).await;
    let (_, detail) = api.post("/v1/jobs", json!({ "name": "any", "payload": "x".repeat(100) })).await.problem(413);
    assert!(detail.contains("payload is over 100"), "{detail}");
}

#[tokio::test]
async fn another_content_type_is_415() {
    let api = Api::start().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let request =
            api.request(Method::POST, "/v1/jobs").header("content-type", content_type).body("{\"name\":\"any\"}");
        assert_eq!(reply(request).await.problem(415).0, "unsupported_media_type");
    }
    reply(api.request(Method::POST, "/v1/jobs").body("{\"name\":\"any\"}")).await.problem(415);
    let gzip = api.post_request("/v1/jobs", "{\"name\":\"any\"}").header("content-encoding", "gzip");
    reply(gzip).await.problem(415);
    let charset = api.request(Method::POST, "/v1/jobs").header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(reply(charset.body("{\"name\":\"any\"}")).await.status, 202);
}
