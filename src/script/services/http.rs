//! Outgoing HTTP: one shared client, redirects followed by hand so that every hop is checked, answers bounded.
//!
//! Three checks stand before each connection: the scheme, the host against the script's list, and the address against
//! the [`AddressGuard`]. Names are checked as they are resolved for the connection itself, so there is no second look-up
//! that could answer otherwise; address literals never reach a resolver and are checked here.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request, Response, StatusCode, Url};
use tokio::runtime::Handle;
use url::Host;

use super::Reply;
use super::edge::Edge;
use super::net_guard::{AddressGuard, ClosedAddress, HostPattern};
use crate::job::{ErrorKind, units};
use crate::script::ports::{HostError, HostResult};

const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What may go along when a redirect leads to another origin: nothing that could be a credential.
const FOR_ANY_ORIGIN: [&str; 6] =
    ["accept", "accept-language", "content-type", "user-agent", "x-request-id", "idempotency-key"];

/// What belongs to the connection and not to the script.
const NOT_FOR_SCRIPTS: [&str; 9] =
    ["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// One request, redirects included.
#[derive(Clone, Debug)]
pub struct HttpCall {
    pub method: Method,
    pub url: Url,
    /// A name that is there twice is sent twice.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// For the whole of it.
    pub timeout: Duration,
    /// The hosts that the script may reach.
    pub allow: Vec<HostPattern>,
    /// Bytes of the answer's body, after decompression.
    pub max_answer: usize,
}

/// The answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    /// Lower-case names, each once; repeated ones joined with `, `.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

fn parsed(headers: &[(String, String)]) -> HostResult<HeaderMap> {
    let mut parsed = HeaderMap::new();
    for (name, value) in headers {
        add_header(&mut parsed, name, value)?;
    }
    Ok(parsed)
}

/// # Errors
/// When `name` or `value` is not valid in a header, or the header is the connection's own.
fn add_header(headers: &mut HeaderMap, name: &str, value: &str) -> HostResult<()> {
    let shown: String = name.chars().take(80).collect();
    let parsed = HeaderName::try_from(name)
        .map_err(|_| wrong(format!("the header name {shown:?} has characters that are not allowed")))?;
    if NOT_FOR_SCRIPTS.contains(&parsed.as_str()) || parsed.as_str().starts_with("proxy-") {
        return Err(wrong(format!("the header `{parsed}` is set by the connection")));
    }
    let value = HeaderValue::try_from(value).map_err(|_| {
        wrong(format!("the value of the header `{parsed}` has a line break or another control character"))
    })?;
    headers.append(parsed, value);
    Ok(())
}

/// The client and its guard.
#[derive(Debug)]
pub struct Http {
    guard: AddressGuard,
    /// Made at first use: a machine without root certificates can still do all the rest.
    client: Arc<OnceLock<Result<Client, String>>>,
    edge: Option<Arc<dyn Edge>>,
    runtime: Handle,
}

impl Http {
    #[must_use]
    pub fn new(guard: AddressGuard, runtime: Handle) -> Self {
        Self { guard, client: Arc::default(), edge: None, runtime }
    }

    /// Makes no connection from now on.
    pub fn answer_by(&mut self, edge: Arc<dyn Edge>) {
        self.edge = Some(edge);
    }

    /// Sends the request and reads the answer. Dropping the reply breaks it off.
    ///
    /// # Errors
    /// Of kind `denied` for what the script or the network may not reach, else `host.http`, through the reply.
    pub fn send(&self, call: HttpCall) -> Reply<HttpAnswer> {
        let (made, guard, edge) = (Arc::clone(&self.client), self.guard.clone(), self.edge.clone());
        Reply::of(&self.runtime, async move {
            let way = match edge {
                Some(edge) => Way::Edge(edge),
                None => Way::Net(
                    made.get_or_init(|| client(guard.clone())).clone().map_err(|error| http_error(error, true))?,
                ),
            };
            within_time(way, guard, call).await
        })
    }
}

/// How requests go out.
enum Way {
    Net(Client),
    Edge(Arc<dyn Edge>),
}

impl Way {
    async fn execute(&self, request: Request, url: &Url) -> HostResult<Response> {
        match self {
            Self::Net(client) => client.execute(request).await.map_err(|error| failed(error, url)),
            Self::Edge(edge) => edge.http(&request),
        }
    }
}

fn client(guard: AddressGuard) -> Result<Client, String> {
    // The first to install one wins; all of this program are the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("ryemill/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        // A proxy would resolve names itself, behind the guard.
        .no_proxy()
        .dns_resolver(Arc::new(GuardedResolver(guard)))
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| format!("no HTTP client: {}", with_sources(&error)))
}

/// The system's resolver, without the closed addresses of its answers.
struct GuardedResolver(AddressGuard);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let open = guard.filter(found)?;
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

async fn within_time(way: Way, guard: AddressGuard, call: HttpCall) -> HostResult<HttpAnswer> {
    let (timeout, place) = (call.timeout, place(&call.url));
    tokio::time::timeout(timeout, follow(&way, &guard, call)).await.unwrap_or_else(|_| {
        let timeout = units::format_duration(timeout);
        Err(http_error(format!("{place} did not answer in full within {timeout}"), true))
    })
}

async fn follow(way: &Way, guard: &AddressGuard, call: HttpCall) -> HostResult<HttpAnswer> {
    let HttpCall { mut method, mut url, headers, body, allow, max_answer, .. } = call;
    let mut headers = parsed(&headers)?;
    let mut body = bytes::Bytes::from(body);
    for _ in 0..=MAX_REDIRECTS {
        check(&url, guard, &allow)?;
        let mut request = Request::new(method.clone(), url.clone());
        request.headers_mut().clone_from(&headers);
        if !body.is_empty() || !matches!(method, Method::GET | Method::HEAD) {
            *request.body_mut() = Some(body.clone().into());
        }
        let response = way.execute(request, &url).await?;
        let Some(next) = next_hop(&response, &url)? else {
            return answer(response, &url, max_answer).await;
        };
        let to_get = match response.status() {
            StatusCode::SEE_OTHER => method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => method == Method::POST,
            _ => false,
        };
        if to_get {
            method = Method::GET;
            body.clear();
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
                headers.remove(name);
            }
        }
        if next.origin() != url.origin() {
            headers = headers
                .into_iter()
                .filter_map(|(name, value)| Some((name.filter(|name| FOR_ANY_ORIGIN.contains(&name.as_str()))?, value)))
                .collect();
        }
        url = next;
    }
    Err(http_error(format!("{} redirects more than {MAX_REDIRECTS} times", place(&url)), false))
}

/// Where a redirect leads; `None` for any other answer.
fn next_hop(response: &Response, url: &Url) -> HostResult<Option<Url>> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(header::LOCATION).filter(|_| redirects) else { return Ok(None) };
    let next = location.to_str().ok().and_then(|location| url.join(location).ok());
    let mut next =
        next.ok_or_else(|| http_error(format!("{} redirects to something that is no URL", place(url)), false))?;
    // Somebody else's credentials are not for the script to send.
    // (Setting them fails for a URL without a host, which the check that comes next refuses.)
    let _ = next.set_username("").and_then(|()| next.set_password(None));
    Ok(Some(next))
}

fn check(url: &Url, guard: &AddressGuard, allow: &[HostPattern]) -> HostResult<()> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(HostError::denied(format!("http: `{}:` is not a scheme that scripts may use", url.scheme())));
    }
    let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return Err(wrong(format!("`{url}` has no host")));
    };
    if !allow.iter().any(|pattern| pattern.matches(&host, port)) {
        return Err(HostError::denied(format!(
            "http: this script may not reach {}: its `allow` has no such entry in `hosts`",
            place(url)
        )));
    }
    let literal = match host {
        Host::Ipv4(ip) => IpAddr::from(ip),
        Host::Ipv6(ip) => IpAddr::from(ip),
        Host::Domain(_) => return Ok(()),
    };
    guard.check(literal).map_err(|closed| HostError::denied(format!("http: {closed}")))
}

async fn answer(mut response: Response, url: &Url, max: usize) -> HostResult<HttpAnswer> {
    let too_large =
        || http_error(format!("the answer of {} has more than the {max} bytes that are allowed", place(url)), false);
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let status = response.status().as_u16();
    let headers = collected(response.headers());
    let mut body = Vec::new();
    // Counted as it comes out of decompression: a small answer can be a large one.
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(error, url))? {
        if chunk.len() > max - body.len() {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpAnswer { status, headers, body })
}

fn collected(headers: &HeaderMap) -> Vec<(String, String)> {
    let joined = |name: &HeaderName| {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (name.as_str().to_owned(), values.join(", "))
    };
    headers.keys().map(joined).collect()
}

/// `host:port`, without the rest of a URL, which may hold credentials.
fn place(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => format!("{}:", url.scheme()),
    }
}

fn failed(error: reqwest::Error, url: &Url) -> HostError {
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(inner) = source {
        if let Some(closed) = inner.downcast_ref::<ClosedAddress>() {
            return HostError::denied(format!("http: {}: {closed}", place(url)));
        }
        source = inner.source();
    }
    let what = if error.is_connect() { "cannot connect to" } else { "no whole answer from" };
    http_error(format!("{what} {}: {}", place(url), with_sources(&error.without_url())), true)
}

/// The innermost cause, which says most; the layers above it say "error sending request".
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

fn wrong(message: impl Display) -> HostError {
    http_error(message, false)
}

fn http_error(message: impl Display, retryable: bool) -> HostError {
    HostError::new(ErrorKind::HostHttp, format!("http: {message}"), retryable)
}

#[cfg(test)]
mod tests {
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
        let get =
            |path: String| http.send(call(&format!("{base}{path}"), &["127.0.0.1", "127.0.0.2", "*.example.com"]));

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
}
