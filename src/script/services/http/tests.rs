//! The client against real servers on loopback.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::extract::Request as Incoming;
use axum::http::Response as Outgoing;
use axum::response::AppendHeaders;
use axum::routing::any;
use tokio::net::TcpListener;
use tower_http::compression::CompressionLayer;

use super::*;

/// A real server on loopback: `/echo` tells the request, `/to?…` redirects, `/zeros` is 20 MiB and gzipped.
async fn server() -> u16 {
    async fn echo(request: Incoming) -> String {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let mut lines = vec![format!("{} {}", head.method, head.uri)];
        lines.extend(head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
        lines.push(format!("body: {}", String::from_utf8_lossy(&body)));
        lines.join("\n")
    }
    async fn to(request: Incoming) -> Outgoing<String> {
        let query = request.uri().query().unwrap_or_default();
        let (status, location) = query.split_once(',').unwrap();
        Outgoing::builder().status(status).header("location", location).body(String::new()).unwrap()
    }
    let gzipped = Router::new()
        .route("/zeros", any(|| async { vec![0_u8; 20 << 20] }))
        .route("/small", any(|| async { "zipped ".repeat(100) }))
        .layer(CompressionLayer::new());
    let router = Router::new()
        .route("/echo", any(echo))
        .route("/to", any(to))
        .route("/plain-zeros", any(|| async { vec![0_u8; 2 << 20] }))
        .route(
            "/missing",
            any(|| async { (StatusCode::NOT_FOUND, AppendHeaders([("x-a", "1"), ("x-a", "2")]), "gone") }),
        )
        .route("/never", any(std::future::pending::<()>))
        .merge(gzipped);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

fn http(open: &[&str]) -> Http {
    let open: Vec<_> = open.iter().map(|net| net.parse().unwrap()).collect();
    Http::new(AddressGuard::new(&open), Handle::current())
}

fn call(url: &str, allow: &[&str]) -> HttpCall {
    HttpCall {
        method: Method::GET,
        url: url.parse().unwrap(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: Duration::from_secs(20),
        allow: allow.iter().map(|host| host.parse().unwrap()).collect(),
        max_answer: 1 << 20,
    }
}

fn text(answer: &HttpAnswer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

const LOOPBACK: &[&str] = &["127.0.0.1/32"];

#[tokio::test]
async fn a_request_arrives_as_it_was_made_and_its_answer_comes_back() {
    let port = server().await;
    let http = http(LOOPBACK);
    let headers = vec![("X-Key".to_owned(), "k".to_owned())];
    let put = HttpCall {
        method: Method::PUT,
        headers,
        body: b"data".to_vec(),
        ..call(&format!("http://127.0.0.1:{port}/echo?a=1"), &["127.0.0.1"])
    };
    let echoed = http.send(put).await.unwrap();
    assert_eq!(echoed.status, 200);
    for line in ["PUT /echo?a=1", "x-key: k", "user-agent: ryemill/", "content-length: 4", "body: data"] {
        assert!(text(&echoed).contains(line), "{line} is not in\n{}", text(&echoed));
    }
    let missing = http.send(call(&format!("http://localhost:{port}/missing"), &["localhost"])).await.unwrap();
    assert_eq!((missing.status, text(&missing)), (404, "gone"));
    assert!(missing.headers.contains(&("x-a".to_owned(), "1, 2".to_owned())), "{:?}", missing.headers);
}

#[tokio::test]
async fn only_listed_hosts_are_reached() {
    let port = server().await;
    let http = http(LOOPBACK);
    let url = format!("http://127.0.0.1:{port}/echo");
    for allow in [&[][..], &["localhost"], &["127.0.0.1:1"], &["*.0.0.1.example"]] {
        let error = http.send(call(&url, allow)).await.unwrap_err();
        assert_eq!((error.kind, error.retryable), (ErrorKind::Denied, false));
        assert!(error.message.contains(&format!("may not reach 127.0.0.1:{port}")), "{error}");
    }
    for url in ["ftp://localhost/x", "file:///etc/passwd", "data:text/plain,x", "unix:/run/x"] {
        let error = http.send(call(url, &["localhost"])).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{url}");
    }
}

#[tokio::test]
async fn closed_addresses_are_not_reached_in_any_spelling() {
    let port = server().await;
    let http = http(&["192.168.77.0/24"]);
    let hosts = [
        "127.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "10.0.0.1",
        "localhost",
        "LOCALHOST",
    ];
    let patterns = [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "10.0.0.1",
        "localhost",
    ];
    for host in hosts {
        let error = http.send(call(&format!("http://{host}:{port}/echo"), &patterns)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{host}: {error}");
        assert!(error.message.contains("is not a public address"), "{host}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_followed_and_each_hop_is_checked() {
    let port = server().await;
    let http = http(LOOPBACK);
    let base = format!("http://127.0.0.1:{port}");
    let get = |path: String| http.send(call(&format!("{base}{path}"), &["127.0.0.1", "127.0.0.2", "*.example.com"]));

    assert!(text(&get("/to?302,/echo?b=2".to_owned()).await.unwrap()).starts_with("GET /echo?b=2"));
    for (location, said) in [
        (format!("http://127.0.0.2:{port}/echo"), "127.0.0.2 is not a public address"),
        (format!("http://localhost:{port}/echo"), "may not reach localhost"),
        ("http://169.254.169.254/latest".to_owned(), "may not reach 169.254.169.254"),
        ("file:///etc/passwd".to_owned(), "`file:` is not a scheme"),
        ("//evil.test/x".to_owned(), "may not reach evil.test"),
    ] {
        let error = get(format!("/to?307,{location}")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{location}: {error}");
        assert!(error.message.contains(said), "{location}: {error}");
    }
    let error = http.send(call(&format!("{base}/to?301,/to?301,/"), &["127.0.0.1"])).await;
    assert_eq!(error.unwrap().status, 404, "a redirect that ends");
    let endless = HttpCall { url: format!("{base}/to?302,").parse().unwrap(), ..call(&base, &["127.0.0.1"]) };
    let error = http.send(endless).await.unwrap_err();
    assert!(error.message.contains("more than 10 times"), "{error}");
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_origin() {
    let port = server().await;
    let http = http(LOOPBACK);
    let headers = [("authorization", "Bearer k3y"), ("x-api-key", "k3y"), ("cookie", "c=k3y"), ("accept", "*/*")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let via = |location: String, status: u16| HttpCall {
        method: Method::POST,
        headers: headers.clone(),
        body: b"data".to_vec(),
        ..call(&format!("http://127.0.0.1:{port}/to?{status},{location}"), &["127.0.0.1", "localhost"])
    };
    let same = http.send(via("/echo".to_owned(), 308)).await.unwrap();
    assert_eq!(text(&same).matches("k3y").count(), 3, "{}", text(&same));
    assert!(text(&same).starts_with("POST") && text(&same).contains("body: data"));
    let other = http.send(via(format!("http://u:k3y@localhost:{port}/echo"), 307)).await.unwrap();
    assert!(!text(&other).contains("k3y") && !text(&other).contains("authorization"), "{}", text(&other));
    assert!(text(&other).contains("accept: */*") && text(&other).contains("body: data"));
    let seen = http.send(via("/echo".to_owned(), 303)).await.unwrap();
    assert!(text(&seen).starts_with("GET") && text(&seen).ends_with("body: "), "{}", text(&seen));
}

#[tokio::test]
async fn answers_are_bounded_after_decompression() {
    let port = server().await;
    let http = http(LOOPBACK);
    for path in ["zeros", "plain-zeros"] {
        let error = http.send(call(&format!("http://127.0.0.1:{port}/{path}"), &["127.0.0.1"])).await.unwrap_err();
        assert!(error.message.contains("more than the 1048576 bytes") && !error.retryable, "{error}");
    }
    let small = http.send(call(&format!("http://127.0.0.1:{port}/small"), &["127.0.0.1"])).await.unwrap();
    assert_eq!(text(&small), "zipped ".repeat(100));
    // The length that HEAD tells is of a body that does not come.
    for path in ["plain-zeros", "zeros", "small"] {
        let head =
            HttpCall { method: Method::HEAD, ..call(&format!("http://127.0.0.1:{port}/{path}"), &["127.0.0.1"]) };
        assert_eq!(http.send(head).await.map(|answer| (answer.status, answer.body)), Ok((200, vec![])), "{path}");
    }
}

#[tokio::test]
async fn what_does_not_answer_is_worth_another_try() {
    let port = server().await;
    let http = http(LOOPBACK);
    let never = HttpCall {
        timeout: Duration::from_millis(50),
        ..call(&format!("http://127.0.0.1:{port}/never"), &["127.0.0.1"])
    };
    let error = http.send(never).await.unwrap_err();
    assert!(error.retryable && error.message.contains("did not answer in full within 50ms"), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let error = http.send(call(&format!("http://{gone}/?token=s3cret"), &["127.0.0.1"])).await.unwrap_err();
    assert_eq!((error.kind, error.retryable), (ErrorKind::HostHttp, true));
    assert!(error.message.contains("cannot connect to") && !error.message.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_header_cannot_carry_another() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-a", "1\r\nx-b: 2"),
        ("x-a", "1\n"),
        ("x-a", "\0"),
        ("x a", "1"),
        ("x-a:", "1"),
        ("", "1"),
        ("Host", "internal"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Proxy-Authorization", "x"),
    ] {
        let error = add_header(&mut headers, name, value).unwrap_err();
        assert_eq!(error.kind, ErrorKind::HostHttp, "{name}: {value}");
    }
    assert!(headers.is_empty());
}

/// Answers each question for a name with the next of these addresses, and with the last one from then on.
struct Changing(Mutex<Vec<Vec<&'static str>>>);

impl Resolve for Changing {
    fn resolve(&self, _: Name) -> Resolving {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        let found: Vec<SocketAddr> = answer.into_iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        Box::pin(async move { Ok(Box::new(found.into_iter()) as Addrs) })
    }
}

/// Servers on 127.0.0.2 and 127.0.0.3, of which the first is open and plays the public one, on one port; each tells
/// where it is and keeps no connection.
async fn two_servers() -> u16 {
    let open = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = open.local_addr().unwrap().port();
    let closed = TcpListener::bind(("127.0.0.3", port)).await.unwrap();
    for listener in [open, closed] {
        let ip = listener.local_addr().unwrap().ip().to_string();
        let page = any(|| async { ([("connection", "close")], ip) });
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(page)).await });
    }
    port
}

#[tokio::test]
async fn a_name_that_changes_its_mind_does_not_reach_a_closed_address() {
    let port = two_servers().await;
    let guard = AddressGuard::new(&["127.0.0.2/32".parse().unwrap()]);
    let url = format!("http://rebound.example.com:{port}/");
    let asked = |answers: &[&[&'static str]]| {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        let client = client(guard.clone(), Arc::new(Changing(Mutex::new(answers))));
        Http { guard: guard.clone(), client: Arc::new(OnceLock::from(client)), edge: None, runtime: Handle::current() }
    };
    // Public at first, private then: on the first request, on the second, and behind a redirect's second look.
    let http = asked(&[&["127.0.0.2"], &["127.0.0.3"]]);
    assert_eq!(text(&http.send(call(&url, &["*.example.com"])).await.unwrap()), "127.0.0.2");
    let error = http.send(call(&url, &["*.example.com"])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert!(error.message.contains("127.0.0.3 is not a public address"), "{error}");
    // Both in one answer, in either order: only the open one is tried, also when nobody listens there.
    for answer in [["127.0.0.3", "127.0.0.2"], ["127.0.0.2", "127.0.0.3"]] {
        let http = asked(&[&answer]);
        for _ in 0..3 {
            assert_eq!(text(&http.send(call(&url, &["*.example.com"])).await.unwrap()), "127.0.0.2");
        }
    }
    let nobody = TcpListener::bind("127.0.0.3:0").await.unwrap();
    let url = format!("http://rebound.example.com:{}/", nobody.local_addr().unwrap().port());
    let error = asked(&[&["127.0.0.2", "127.0.0.3"]]).send(call(&url, &["*.example.com"])).await.unwrap_err();
    assert!(error.kind == ErrorKind::HostHttp && error.message.contains("cannot connect to"), "{error}");
}
