//! `Idempotency-Key`.

use std::collections::BTreeSet;
use std::time::Duration;

use ryemill::broker::Reservation;
use ryemill::config::Scope;
use ryemill::job::{JobId, QueueName};
use ryemill::server::new_key;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Api, Reply, reply, succeeded};

async fn submit(api: &Api, key: &str, body: &str) -> Reply {
    reply(api.post_request("/v1/jobs", body).header("idempotency-key", key)).await
}

const BODY: &str = r#"{"name":"any","payload":{"n":1}}"#;

#[tokio::test]
async fn the_same_key_and_body_give_the_first_job_again_as_it_is_now() {
    let api = Api::start().await;
    let first = submit(&api, "k-1", BODY).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, ""));
    let job = api.claim_one().await;
    api.finish(&[job], succeeded()).await;
    let again = submit(&api, "k-1", BODY).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(again.id(), first.id());
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.json()["state"], "succeeded");
    assert_ne!(submit(&api, "k-2", BODY).await.id(), first.id());
}

#[tokio::test]
async fn the_same_key_with_another_body_is_422() {
    let api = Api::start().await;
    submit(&api, "k", BODY).await.id();
    let (code, _) = submit(&api, "k", r#"{"name":"any","payload":{"n":2}}"#).await.problem(422);
    assert_eq!(code, "idempotency_key_reused");
}

#[tokio::test]
async fn a_body_that_is_refused_does_not_use_up_the_key() {
    let api = Api::start().await;
    submit(&api, "k", r#"{"name":"email"}"#).await.problem(422);
    assert_eq!(submit(&api, "k", BODY).await.status, 202);
}

#[tokio::test]
async fn many_at_once_with_one_key_make_one_job() {
    let api = Api::start().await;
    let answers = futures_util::future::join_all((0..32).map(|_| submit(&api, "k", BODY))).await;
    let ids: BTreeSet<String> = answers.iter().map(Reply::id).collect();
    assert_eq!(ids.len(), 1);
    let fresh = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
    assert_eq!(fresh, 1, "exactly one of them made the job");
    assert_eq!(api.claim(100).await.len(), 1);
}

#[tokio::test]
async fn whoever_comes_after_a_crash_between_reserving_and_storing_completes_the_job() {
    let api = Api::start().await;
    let job = JobId::new(&QueueName::new("default").unwrap());
    let reservation = Reservation { job, body_hash: Sha256::digest(BODY).into() };
    // As the first caller left it: a server without keys has the empty caller.
    api.broker.reserve_key(":k", reservation, Duration::from_mins(1)).await.unwrap();
    let answer = submit(&api, "k", BODY).await;
    assert_eq!((answer.id(), answer.header("idempotency-replayed")), (job.to_string(), ""));
    assert_eq!(submit(&api, "k", BODY).await.header("idempotency-replayed"), "true");
    assert_eq!(api.claim(10).await.len(), 1);
}

#[tokio::test]
async fn two_api_keys_do_not_share_their_idempotency_keys() {
    let (one, one_entry) = new_key("one", BTreeSet::from([Scope::Submit])).unwrap();
    let (two, two_entry) = new_key("two", BTreeSet::from([Scope::Submit])).unwrap();
    let api = Api::with(|options| options.keys = vec![one_entry, two_entry]).await;
    let submit = async |key: &str| {
        reply(api.post_request("/v1/jobs", BODY).header("idempotency-key", "k").bearer_auth(key)).await.id()
    };
    let (a, b, again) = (submit(&one).await, submit(&two).await, submit(&one).await);
    assert_ne!(a, b);
    assert_eq!(a, again);
}

#[tokio::test]
async fn a_key_that_is_none_is_400() {
    let api = Api::start().await;
    for key in ["", "with space", &"x".repeat(256)] {
        assert!(submit(&api, key, BODY).await.problem(400).1.contains("1 to 255 visible ASCII"), "{key}");
    }
    assert_eq!(submit(&api, &"x".repeat(255), BODY).await.status, 202);
    assert_eq!(api.get("/v1/jobs").await.json()["jobs"].as_array().unwrap().len(), 1);
    let twice = api.post_request("/v1/jobs", json!({ "name": "any" }));
    reply(twice.header("idempotency-key", "a").header("idempotency-key", "b")).await.problem(400);
}
