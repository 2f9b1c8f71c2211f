//! `POST /v1/jobs/batch`.

use serde_json::{Value, json};

use super::{Api, reply};

#[tokio::test]
async fn each_job_of_a_batch_is_accepted_or_refused_on_its_own_and_in_order() {
    let api = Api::start().await;
    let jobs = json!({ "jobs": [
        { "name": "any", "payload": 1 },
        { "name": "nope" },
        { "name": "email", "payload": { "to": 7 } },
        { "name": "any", "prio": 1 },
        7,
        { "name": "any", "payload": 2, "delay": "1h" },
    ]});
    let answer = reply(api.post_request("/v1/jobs/batch", jobs).header("x-request-id", "b-1")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    let results = body["results"].as_array().unwrap();
    let statuses: Vec<u64> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 404, 422, 400, 400, 202]);
    assert_eq!((&results[0]["job"]["payload"], &results[5]["job"]["payload"]), (&json!(1), &json!(2)));
    assert_eq!(results[5]["job"]["state"], "scheduled");
    assert_eq!(results[1]["error"]["code"], "unknown_job_type");
    assert_eq!(results[2]["error"]["errors"][0]["pointer"], "/to");
    assert_eq!(results[3]["error"]["request_id"], "b-1");
    assert!(results[1].get("job").is_none() && results[0].get("error").is_none());
    let stored = api.get("/v1/jobs?request_id=b-1").await.json();
    assert_eq!(stored["jobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_thousand_jobs_fit_and_one_more_does_not() {
    let api = Api::start().await;
    let batch = |jobs: usize| json!({ "jobs": vec![json!({ "name": "any" }); jobs] });
    let answer = api.post("/v1/jobs/batch", batch(1000)).await.json();
    let results = answer["results"].as_array().unwrap();
    assert!(results.len() == 1000 && results.iter().all(|result| result["status"] == 202));
    let (code, detail) = api.post("/v1/jobs/batch", batch(1001)).await.problem(400);
    assert!(code == "malformed" && detail.contains("at most 1000 jobs"), "{detail}");
    assert_eq!(api.post("/v1/jobs/batch", batch(0)).await.json(), json!({ "results": [] }));
}

#[tokio::test]
async fn a_batch_that_is_none_is_400() {
    let api = Api::start().await;
    for body in ["", "[]", "{}", "{\"jobs\":{}}", "{\"jobs\":[],\"more\":1}", "{\"jobs\":[{]}"] {
        assert_eq!(api.post("/v1/jobs/batch", body).await.problem(400).0, "malformed", "{body}");
    }
    let with_key = api.post_request("/v1/jobs/batch", "{\"jobs\":[]}").header("idempotency-key", "k");
    assert!(reply(with_key).await.problem(400).1.contains("Idempotency-Key"));
}

#[tokio::test]
async fn a_batch_may_be_larger_than_a_single_body() {
    let api = Api::with(|options| (options.max_body, options.max_batch) = (1_000, 300_000)).await;
    let jobs = |count: usize| json!({ "jobs": vec![json!({ "name": "any", "payload": "x".repeat(1_000) }); count] });
    let answer: Value = api.post("/v1/jobs/batch", jobs(200)).await.json();
    assert!(answer["results"].as_array().unwrap().iter().all(|result| result["status"] == 202));
    assert!(api.post("/v1/jobs/batch", jobs(400)).await.problem(413).1.contains("MAX_BATCH"));
}
