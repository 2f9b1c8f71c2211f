//! Keys and scopes, web pages, request ids; and that every error is a problem.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use ryemill::config::Scope;
use ryemill::server::new_key;
use serde_json::{Value, json};

use super::{Api, Raw, reply};

const JOB: &str = r#"{"name":"any"}"#;

#[tokio::test]
async fn with_keys_configured_a_request_without_a_known_key_is_401() {
    let (key, entry) = new_key("ops", BTreeSet::from([Scope::Admin])).unwrap();
    let api = Api::with(|options| options.keys = vec![entry]).await;
    for (authorization, expected) in [
        (None, "send `Authorization: Bearer"),
        (Some(key.clone()), "not of the form"),
        (Some(format!("Basic {key}")), "not of the form"),
        (Some(format!("Bearer {key}x")), "does not know"),
        (Some("Bearer rm_nobody_00".to_owned()), "does not know"),
    ] {
        let mut request = api.request(Method::GET, "/v1/jobs");
        if let Some(authorization) = &authorization {
            request = request.header("authorization", authorization);
        }
        let answer = reply(request).await;
        assert!(answer.problem(401).1.contains(expected), "{authorization:?}: {}", answer.text);
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
        assert!(!answer.text.contains(&key));
    }
    let good = api.request(Method::GET, "/v1/jobs").bearer_auth(&key);
    assert_eq!(reply(good).await.status, 200);
}

#[tokio::test]
async fn a_scope_allows_what_it_says_and_a_refusal_names_the_one_needed() {
    let make = |id, scopes: &[Scope]| new_key(id, scopes.iter().copied().collect()).unwrap();
    let (submit, submit_entry) = make("s", &[Scope::Submit]);
    let (read, read_entry) = make("r", &[Scope::Read]);
    let (admin, admin_entry) = make("a", &[Scope::Admin]);
    let api = Api::with(|options| options.keys = vec![submit_entry, read_entry, admin_entry]).await;
    let call = async |key: &str, method: Method, path: &str| {
        let request = api.request(method, path).header("content-type", "application/json").body(JOB);
        reply(request.bearer_auth(key)).await
    };
    let id = call(&submit, Method::POST, "/v1/jobs").await.id();
    let one = format!("/v1/jobs/{id}");
    for path in ["/v1/jobs", &one, "/v1/job-types", "/v1/queues", "/v1/workers", "/metrics"] {
        assert_eq!(call(&read, Method::GET, path).await.status, 200, "{path}");
        assert_eq!(call(&admin, Method::GET, path).await.status, 200, "{path}");
        let (code, detail) = call(&submit, Method::GET, path).await.problem(403);
        assert!(code == "forbidden" && detail.contains("`read`"), "{path}: {detail}");
    }
    assert!(call(&read, Method::POST, "/v1/jobs").await.problem(403).1.contains("`submit`"));
    for (method, path) in [
        (Method::POST, "/v1/queues/default/pause".to_owned()),
        (Method::POST, format!("{one}/retry")),
        (Method::DELETE, one.clone()),
    ] {
        assert!(call(&submit, method.clone(), &path).await.problem(403).1.contains("`admin`"));
        assert!(call(&read, method, &path).await.problem(403).1.contains("`admin`"));
    }
    assert_eq!(call(&submit, Method::POST, &format!("{one}/cancel")).await.status, 200);
    assert_eq!(call(&admin, Method::DELETE, &one).await.status, 204);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(api.get(path).await.status, 200, "a probe has no key");
    }
}

#[tokio::test]
async fn without_keys_a_web_page_cannot_drive_the_server() {
    let api = Api::start().await;
    let with_origin = api.post_request("/v1/jobs", JOB).header("origin", "https://evil.example");
    assert!(reply(with_origin).await.problem(403).1.contains("Origin"));
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1"] {
        let rebound = api.post_request("/v1/jobs", JOB).header("host", host);
        assert!(reply(rebound).await.problem(403).1.contains("API_KEYS"), "{host}");
    }
    assert_eq!(reply(api.post_request("/v1/jobs", JOB).header("host", "localhost:1")).await.status, 202);
    assert_eq!(api.get("/v1/jobs").await.json()["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_request_id_is_taken_or_made_and_is_on_every_answer_and_on_the_job() {
    let api = Api::start().await;
    let with_id = |id: &str| api.post_request("/v1/jobs", JOB).header("x-request-id", id);
    let taken = reply(with_id("A.b_c-9")).await;
    assert_eq!((taken.header("x-request-id"), &taken.json()["request_id"]), ("A.b_c-9", &json!("A.b_c-9")));
    for bad in ["", "a b", "a\"b", "<x>", &"x".repeat(65)] {
        let made = reply(with_id(bad)).await;
        let id = made.header("x-request-id").to_owned();
        assert!(id != bad && !id.is_empty(), "{bad}");
        assert_eq!(made.json()["request_id"], id);
    }
    let not_text = reply(api.post_request("/v1/jobs", JOB).header("x-request-id", &b"a\xffb"[..])).await;
    assert_eq!(not_text.status, 202);
    for (method, path) in [(Method::GET, "/nope"), (Method::PUT, "/v1/jobs"), (Method::GET, "/healthz")] {
        assert_eq!(
            reply(api.request(method, path).header("x-request-id", "same")).await.header("x-request-id"),
            "same"
        );
    }
}

#[tokio::test]
async fn a_forged_request_id_cannot_put_a_header_into_the_answer() {
    let api = Api::start().await;
    for forged in ["x\r\nSet-Cookie: a=b", "x\nSet-Cookie: a=b", "x\rSet-Cookie: a=b", "x\u{0}y"] {
        let mut raw = Raw::connect(&api).await;
        raw.send(format!(
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {forged}\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let answer = raw.rest().await.to_lowercase();
        assert!(answer.starts_with("http/1.1 "), "{answer}");
        assert!(!answer.contains("set-cookie"), "{answer}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let api = Api::start().await;
    for path in ["/", "/v1", "/v1/job", "/v2/jobs", "/v1/jobs/"] {
        let (code, _) = api.get(path).await.problem(404);
        assert!(code == "not_found" || code == "job_not_found", "{path}: {code}");
    }
    for (method, path, allowed) in [
        (Method::PUT, "/v1/jobs", "POST"),
        (Method::DELETE, "/v1/jobs/batch", "POST"),
        (Method::POST, "/healthz", "GET"),
    ] {
        let answer = reply(api.request(method, path)).await;
        assert_eq!(answer.problem(405).0, "method_not_allowed");
        assert!(answer.header("allow").contains(allowed), "{path}: {}", answer.header("allow"));
    }
    assert_eq!(reply(api.request(Method::HEAD, "/v1/jobs")).await.status, 200);
}

#[tokio::test]
async fn no_answer_is_kept_by_caches() {
    let api = Api::start().await;
    assert_eq!(api.get("/v1/jobs").await.header("cache-control"), "no-store");
    assert_eq!(api.get("/nope").await.header("cache-control"), "no-store");
}

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_request_is_one_log_line_without_payload_or_key() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO).with_writer(move || writer.clone());
    // While there is only one subscriber, `tracing` decides by the thread that comes first whether a line is wanted at
    // all; other tests' threads have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // For this thread, which is the server's as well.
    let logging = tracing::subscriber::set_default(subscriber.finish());
    let (key, entry) = new_key("ops", BTreeSet::from([Scope::Admin])).unwrap();
    let api = Api::with(|options| options.keys = vec![entry]).await;
    let job = json!({ "name": "any", "payload": { "card": "4111-1111" } });
    let submit = api.post_request("/v1/jobs", job).header("x-request-id", "log-1").bearer_auth(&key);
    let id = reply(submit).await.id();
    let show = api.request(Method::GET, &format!("/v1/jobs/{id}")).header("x-request-id", "log-2");
    assert_eq!(reply(show).await.status, 401);
    drop(logging);
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("4111") && !text.contains(&key), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fields = |request_id: &str| {
        let of_request: Vec<_> = lines.iter().filter(|line| line["fields"]["request_id"] == request_id).collect();
        assert_eq!(of_request.len(), 1, "{text}");
        of_request[0]["fields"].clone()
    };
    let submitted = fields("log-1");
    assert_eq!(
        (&submitted["method"], &submitted["path"], &submitted["status"]),
        (&json!("POST"), &json!("/v1/jobs"), &json!(202))
    );
    assert_eq!(submitted["job_id"], id);
    assert!(submitted["duration_ms"].is_number());
    let shown = fields("log-2");
    assert_eq!(
        (&shown["path"], &shown["status"]),
        (&json!("/v1/jobs/{id}"), &json!(401)),
        "the template, not the path"
    );
}
