//! `docs/http.md` against the server.

use serde_json::{Value, json};

use super::{Api, reply};

const DOCS: &str = include_str!("../../../docs/http.md");

/// What stands between the first quotes after each `before`.
fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    text.match_indices(before).filter_map(|(at, _)| text[at + before.len()..].split('"').nth(1)).collect()
}

#[test]
fn the_docs_have_every_route() {
    let routes = quoted(include_str!("../../../src/server/mod.rs"), ".route(");
    assert!(routes.len() > 10, "the routes were not found");
    for route in routes {
        assert!(DOCS.contains(&format!(" {route}`")), "{route} is missing");
    }
}

#[test]
fn the_docs_have_every_code() {
    let source = include_str!("../../../src/server/problem.rs");
    let codes = [quoted(source, " => row("), quoted(source, " => again(")].concat();
    assert!(codes.len() > 15, "the codes were not found");
    for code in codes {
        assert!(DOCS.contains(&format!("`{code}`")), "{code} is missing");
    }
}

#[tokio::test]
async fn the_error_in_the_docs_is_what_the_server_says() {
    let (_, after) = DOCS.split_once("RFC 9457").unwrap();
    let shown = after.split("```json").nth(1).and_then(|block| block.split("```").next()).unwrap();
    let shown: Value = serde_json::from_str(shown).unwrap();
    let api = Api::start().await;
    let request = api.post_request("/v1/jobs", json!({ "name": "email", "payload": { "to": "nobody" } }));
    assert_eq!(reply(request.header("x-request-id", "order-17")).await.json(), shown);
}

#[tokio::test]
async fn the_job_in_the_docs_has_the_fields_of_a_job() {
    let (_, after) = DOCS.split_once("## The job").unwrap();
    let shown = after.split("```json").nth(1).and_then(|block| block.split("```").next()).unwrap();
    let shown: Value = serde_json::from_str(shown).unwrap();
    let api = Api::start().await;
    let job = api.post("/v1/jobs", json!({ "name": "any" })).await.json();
    let fields = |job: &Value| job.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&shown), fields(&job));
}
