//! `http` against a real server on loopback.

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use serde_json::{Value, json};

use super::{ALLOW_ALL, Host, JobId, queue, runtime};

/// Tells each request as JSON; `/blob` is bytes that are no text, `/404` is not there.
pub fn server() -> u16 {
    async fn echo(request: Request) -> String {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let headers: serde_json::Map<String, Value> =
            head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into())).collect();
        json!({
            "method": head.method.as_str(), "uri": head.uri.to_string(), "headers": headers,
            "body": String::from_utf8_lossy(&body),
        })
        .to_string()
    }
    let router = Router::new()
        .route("/blob", any(|| async { vec![255_u8, 0] }))
        .route("/404", any(|| async { (axum::http::StatusCode::NOT_FOUND, "gone") }))
        .fallback(echo);
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    })
}

/// The body, with `BASE` for the server's address.
fn at(port: u16, body: &str) -> String {
    body.replace("BASE", &format!("http://127.0.0.1:{port}"))
}

#[test]
fn bodies_go_by_their_type() {
    let (host, port) = (Host::new(), server());
    for (call, method, content_type, body) in [
        (r#"http::post("BASE/x", #{ b: 1, a: [true] })"#, "POST", json!("application/json"), r#"{"a":[true],"b":1}"#),
        (r#"http::put("BASE/x", [1])"#, "PUT", json!("application/json"), "[1]"),
        (r#"http::post("BASE/x", "text")"#, "POST", json!("text/plain; charset=utf-8"), "text"),
        (r#"http::post("BASE/x", blob(2, 65))"#, "POST", json!("application/octet-stream"), "AA"),
        (r#"http::post("BASE/x", ())"#, "POST", Value::Null, ""),
        (r#"http::delete("BASE/x")"#, "DELETE", Value::Null, ""),
        (r#"http::get("BASE/x")"#, "GET", Value::Null, ""),
        (
            r#"http::request(#{ method: "patch", url: "BASE/x", form: #{ a: "1 2", b: [3, 4] } })"#,
            "PATCH",
            json!("application/x-www-form-urlencoded"),
            "a=1+2&b=3&b=4",
        ),
        (
            r#"http::request(#{ method: "POST", url: "BASE/x", body: #{}, headers: #{ "content-type": "text/odd" } })"#,
            "POST",
            json!("text/odd"),
            "{}",
        ),
    ] {
        let seen = host.run(&at(port, &format!("{call}.json()"))).value();
        let got = (&seen["method"], &seen["headers"]["content-type"], &seen["body"]);
        assert_eq!(got, (&json!(method), &content_type, &json!(body)), "{call}");
        assert_eq!(seen["headers"]["x-request-id"], "request-7", "{call}");
        assert_eq!(seen["headers"].get("idempotency-key").is_some(), method != "GET", "{call}");
    }
}

#[test]
fn queries_and_headers_are_added() {
    let (host, port) = (Host::new(), server());
    let call = r#"http::request(#{ url: "BASE/x?a=1", query: #{ b: "ü&", c: [1, 2], d: () },
        headers: #{ "X-Key": secret("api_key").len(), "Idempotency-Key": "mine" }, timeout: "5s" }).json()"#;
    let seen = host.run(&at(port, call)).value();
    assert_eq!(seen["uri"], "/x?a=1&b=%C3%BC%26&c=1&c=2");
    assert_eq!(seen["headers"]["x-key"], "16");
    let login = r#"http::get("BASE/x").json().headers.authorization"#;
    let with_user = at(port, login).replace("127.0.0.1", "me:pass%20word@127.0.0.1");
    assert_eq!(host.run(&with_user).value(), "Basic bWU6cGFzcyB3b3Jk");
    let evil = r#"http::request(#{ url: "BASE/x", headers: #{ "X-Key": "1\r\nX-Evil: 2" } })"#;
    let (kind, message) = host.run(&at(port, evil)).failure();
    assert_eq!(kind, "host.http");
    assert!(message.contains("`x-key` has a line break"), "{message}");
}

#[test]
fn an_answer_is_a_map_whatever_its_status() {
    let (host, port) = (Host::new(), server());
    let body = r#"
        let gone = http::get("BASE/404");
        let raw = http::get("BASE/blob");
        [gone.status, gone.body, gone.headers["content-length"], type_of(raw.body), raw.body.len()]"#;
    assert_eq!(host.run(&at(port, body)).value(), json!([404, "gone", "4", "blob", 2]));
    let (_, message) = host.run(&at(port, r#"http::get("BASE/404").json()"#)).failure();
    assert!(message.starts_with("json(): the text is not valid JSON"), "{message}");
    let (_, message) = host.run(&at(port, r#"http::get("BASE/blob").json()"#)).failure();
    assert!(message.contains("`body` must be a string"), "{message}");
}

#[test]
fn an_idempotency_key_belongs_to_the_job_and_the_call() {
    let (host, port) = (Host::new(), server());
    let id = JobId::new(&queue());
    let call = at(port, r#"http::post("BASE/x", #{ n: 1 }).json().headers["idempotency-key"]"#);
    let twice = format!("[{call}, {call}]");
    let first = host.run_as(id, ALLOW_ALL, &twice).value();
    assert_ne!(first[0], first[1], "asking twice is two requests");
    let after_another = format!("{}; {twice}", at(port, r#"http::post("BASE/other", 'x'.to_string())"#));
    assert_eq!(host.run_as(id, ALLOW_ALL, &after_another).value(), first, "the next attempt repeats them");
    assert_ne!(host.run(&twice).value()[0], first[0], "another job makes others");
}

#[test]
fn private_addresses_are_closed_but_for_the_operators() {
    let (host, port) = (Host::new(), server());
    let allow = r#"#{ hosts: ["127.0.0.2", "::1", "169.254.169.254"] }"#;
    for url in
        [format!("http://127.0.0.2:{port}/"), format!("http://[::1]:{port}/"), "http://169.254.169.254/".to_owned()]
    {
        let (kind, message) = host.run_as(JobId::new(&queue()), allow, &format!("http::get(\"{url}\")")).failure();
        assert_eq!(kind, "denied", "{message}");
        assert!(message.contains("is not a public address"), "{message}");
    }
}

#[test]
fn no_disguise_opens_a_private_address() {
    let (host, port) = (Host::new(), server());
    // Each is on the script's list as it is written; what counts is where it leads.
    let allow = r#"#{ hosts: ["127.0.0.2", "[::1]", "[::ffff:7f00:2]", "[::ffff:a9fe:a9fe]", "0.0.0.0", "127.0.0.1", "10.0.0.1"] }"#;
    let refused = |url: &str| {
        let (kind, message) = host.run_as(JobId::new(&queue()), allow, &format!("http::get(\"{url}\")")).failure();
        assert_eq!(kind, "denied", "{url}: {message}");
        message
    };
    for name in [
        "2130706434",
        "0x7f000002",
        "0177.0.0.2",
        "127.2",
        "[::1]",
        "[::ffff:127.0.0.2]",
        "[::ffff:169.254.169.254]",
        "0",
        "012.0.0.1",
    ] {
        let message = refused(&format!("http://{name}:{port}/"));
        assert!(message.contains("is not a public address"), "{name}: {message}");
    }
    for url in ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/"] {
        assert!(refused(url).contains("is not a scheme that scripts may use"), "{url}");
    }
}
