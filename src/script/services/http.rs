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
/// Headers of a request, and bytes of all their names and values. Few servers take more.
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 64 << 10;
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
    let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || size > MAX_HEADER_BYTES {
        return Err(wrong(format!(
            "{} headers with {size} bytes are more than the {MAX_HEADERS} with {MAX_HEADER_BYTES} bytes that are sent",
            headers.len()
        )));
    }
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
                    made.get_or_init(|| client(guard.clone(), Arc::new(SystemResolver)))
                        .clone()
                        .map_err(|error| http_error(error, true))?,
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

fn client(guard: AddressGuard, resolver: Arc<dyn Resolve>) -> Result<Client, String> {
    // The first to install one wins; all of this program are the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("ryemill/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        // A proxy would resolve names itself, behind the guard.
        .no_proxy()
        .dns_resolver(Arc::new(GuardedResolver { guard, resolver }))
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| format!("no HTTP client: {}", with_sources(&error)))
}

struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A resolver without the closed addresses of its answers. What it gives is what is connected to: a name that would
/// answer otherwise a moment later is not asked again.
struct GuardedResolver {
    guard: AddressGuard,
    resolver: Arc<dyn Resolve>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, found) = (self.guard.clone(), self.resolver.resolve(name));
        Box::pin(async move {
            let open = guard.filter(found.await?)?;
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
    let too_large = || {
        let place = place(url);
        http_error(
            format!(
                "the answer of {place} has more than the {max} bytes that the run may take: ask for less at a time, by \
                 pages or with a Range header"
            ),
            false,
        )
    };
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let status = response.status().as_u16();
    let headers = collected(response.headers());
    let mut body = Body::default();
    // Counted as it comes out of decompression: a small answer can be a large one.
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(error, url))? {
        if chunk.len() > max - body.length {
            return Err(too_large());
        }
        body.push(&chunk);
    }
    Ok(HttpAnswer { status, headers, body: body.whole() })
}

/// A body as it comes, in pieces of one size. A vector that doubles would ask the allocator for ever larger blocks, of
/// which it keeps some for each thread; the chunks as they are could each hold on to a buffer that is much larger.
#[derive(Default)]
struct Body {
    pieces: Vec<Vec<u8>>,
    length: usize,
}

impl Body {
    const PIECE: usize = 128 << 10;

    fn push(&mut self, mut chunk: &[u8]) {
        self.length += chunk.len();
        while !chunk.is_empty() {
            let room = match self.pieces.last() {
                Some(piece) => Self::PIECE - piece.len(),
                None => 0,
            };
            if room == 0 {
                self.pieces.push(Vec::with_capacity(Self::PIECE));
                continue;
            }
            let (fits, rest) = chunk.split_at(room.min(chunk.len()));
            if let Some(piece) = self.pieces.last_mut() {
                piece.extend_from_slice(fits);
            }
            chunk = rest;
        }
    }

    fn whole(self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.length);
        for piece in self.pieces {
            whole.extend_from_slice(&piece);
        }
        whole
    }
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
mod tests;
