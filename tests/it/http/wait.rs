//! `GET /v1/jobs/{id}?wait=`.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::{Api, succeeded};

#[tokio::test]
async fn a_wait_ends_when_the_job_does() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let path = format!("/v1/jobs/{id}?wait=60s");
    let wait = api.get(&path);
    let work = async {
        let job = api.claim_one().await;
        api.finish(&[job], succeeded()).await;
    };
    let (answer, ()) = tokio::join!(wait, work);
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("succeeded")));
    assert_eq!(answer.json()["result"], json!({ "done": true }));
}

#[tokio::test]
async fn a_wait_for_an_ended_job_is_no_wait() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let job = api.claim_one().await;
    api.finish(&[job], succeeded()).await;
    assert_eq!(api.get(&format!("/v1/jobs/{id}?wait=60s")).await.json()["state"], "succeeded");
}

#[tokio::test]
async fn a_wait_that_is_over_answers_the_job_as_it_is() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    api.claim_one().await;
    let answer = api.get(&format!("/v1/jobs/{id}?wait=50ms")).await;
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("running")));
    assert_eq!(api.get(&format!("/v1/jobs/{id}?wait=0s")).await.json()["state"], "running");
}

#[tokio::test]
async fn many_may_wait_for_many_jobs() {
    let api = Api::start().await;
    let ids = join_all((0..40).map(|_| api.submit_any())).await;
    let paths: Vec<String> = ids.iter().flat_map(|id| vec![format!("/v1/jobs/{id}?wait=60s"); 5]).collect();
    let waits = join_all(paths.iter().map(|path| api.get(path)));
    let work = async {
        let mut ended = 0;
        while ended < 40 {
            let jobs = api.claim(7).await;
            ended += jobs.len();
            api.finish(&jobs, succeeded()).await;
        }
    };
    let (answers, ()) = tokio::join!(waits, work);
    assert_eq!(answers.len(), 200);
    assert!(answers.iter().all(|answer| answer.json()["state"] == "succeeded"));
}

#[tokio::test]
async fn a_job_deleted_while_somebody_waits_is_404_for_them() {
    let api = Api::start().await;
    let id = api.post("/v1/jobs", json!({ "name": "any", "delay": "1h" })).await.id();
    let path = format!("/v1/jobs/{id}?wait=60s");
    let delete = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(api.delete(&format!("/v1/jobs/{id}")).await.status, 204);
    };
    let (answer, ()) = tokio::join!(api.get(&path), delete);
    answer.problem(404);
}

#[tokio::test]
async fn a_server_that_stops_answers_those_who_wait() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    // On one HTTP/2 connection requests arrive in their order: when the second is answered, the first is being served.
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let get = |path: String| super::reply(client.get(api.url(&path)));
    get("/healthz".into()).await;
    let stop = async {
        assert_eq!(get("/healthz".into()).await.status, 200);
        api.shutdown.request();
    };
    let (answer, ()) = tokio::join!(get(format!("/v1/jobs/{id}?wait=60s")), stop);
    assert_eq!(answer.json()["state"], "queued");
    api.stop().await;
}
