//! Who may do what: API keys and their scopes; and, on a server without keys, that no web page drives it.
//!
//! `read` is for every GET, `submit` for submitting and cancelling jobs, `admin` for everything.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use data_encoding::HEXLOWER;

use super::App;
use super::problem::{Answer, Code, Problem};
use crate::config::{ApiKey, Scope};

/// The id of the key that a request came with; empty on a server without keys. Among the request's extensions.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<str>);

/// Makes a key: the full text, shown once, and the entry that makes a server accept it.
///
/// # Errors
/// When the id is not of 1 to 32 letters, digits or `-`, or when there is no scope.
pub fn new_key(id: &str, scopes: BTreeSet<Scope>) -> Result<(String, ApiKey), String> {
    let secret: [u8; 24] = rand::random();
    let key = format!("rm_{id}_{}", HEXLOWER.encode(&secret));
    let entry = ApiKey::new(id, &key, scopes)?;
    Ok((key, entry))
}

/// The middleware of everything that needs a key.
pub async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Answer {
    let keys = &app.options.keys;
    let caller = if keys.is_empty() {
        refuse_web_pages(request.headers(), request.uri())?;
        Caller("".into())
    } else {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let key = authenticate(keys, request.headers())?;
        authorize(key, needed(request.method(), path))?;
        Caller(key.id().into())
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// What a route needs; what is not named here needs the most.
fn needed(method: &Method, path: &str) -> Scope {
    match (method, path) {
        (&Method::GET | &Method::HEAD, _) => Scope::Read,
        (&Method::POST, "/v1/jobs" | "/v1/jobs/batch" | "/v1/jobs/{id}/cancel") => Scope::Submit,
        _ => Scope::Admin,
    }
}

fn authenticate<'a>(keys: &'a [ApiKey], headers: &HeaderMap) -> Answer<&'a ApiKey> {
    let unauthorized = |detail| Problem::new(Code::Unauthorized, detail);
    let value =
        headers.get(AUTHORIZATION).ok_or_else(|| unauthorized("send `Authorization: Bearer rm_<id>_<secret>`"))?;
    let key = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim())
        .ok_or_else(|| unauthorized("the Authorization header is not of the form `Bearer rm_<id>_<secret>`"))?;
    // One answer for an unknown id and for a wrong secret.
    let id = key.strip_prefix("rm_").and_then(|rest| rest.split_once('_')).map(|(id, _)| id);
    keys.iter()
        .filter(|known| Some(known.id()) == id)
        .find(|known| known.matches(key))
        .ok_or_else(|| unauthorized("this server does not know the API key"))
}

fn authorize(key: &ApiKey, needed: Scope) -> Answer<()> {
    if key.scopes().contains(&needed) || key.scopes().contains(&Scope::Admin) {
        return Ok(());
    }
    let detail = format!("this needs an API key with the scope `{}`; `{}` has not got it", needed.as_str(), key.id());
    Err(Problem::new(Code::Forbidden, detail))
}

/// Without keys everybody on this machine may do everything, but a page in somebody's browser must not: it shows
/// itself by an `Origin`, or, when it had its own name resolve to this machine, by its `Host`.
fn refuse_web_pages(headers: &HeaderMap, uri: &Uri) -> Answer<()> {
    if headers.contains_key(ORIGIN) {
        let detail = "requests from web pages (with an Origin header) are refused while the server has no API_KEYS";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    // HTTP/2 has the host in the URI. Without any it is no browser.
    let given = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    let Some(host) = uri.authority().map(Authority::as_str).or(given) else { return Ok(()) };
    if is_loopback(host) {
        return Ok(());
    }
    let detail = "while the server has no API_KEYS it is only for this machine: call it as 127.0.0.1 or localhost, or set API_KEYS";
    Err(Problem::new(Code::Forbidden, detail))
}

/// Whether a `Host` (with or without a port) is this machine's loopback.
fn is_loopback(host: &str) -> bool {
    let Ok(url) = url::Url::parse(&format!("http://{host}/")) else { return false };
    // Anything but a host and a port (`127.0.0.1@example.com`) is no Host.
    if !url.username().is_empty() || url.password().is_some() || url.path() != "/" {
        return false;
    }
    let name = url.host_str().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_accepted_and_only_whole() {
        let (key, entry) = new_key("ops", BTreeSet::from([Scope::Read])).unwrap();
        let keys = [entry];
        let with = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(authenticate(&keys, &with(&format!("Bearer {key}"))).unwrap().id(), "ops");
        let short = &key[..key.len() - 1];
        for bad in [short, "rm_ops_", "rm_other_x", "", key.strip_prefix("rm_").unwrap()] {
            assert_eq!(authenticate(&keys, &with(&format!("Bearer {bad}"))).unwrap_err().code, Code::Unauthorized);
        }
        assert!(authenticate(&keys, &with(&format!("Basic {key}"))).is_err());
    }

    #[test]
    fn a_scope_gives_what_it_says_and_admin_gives_all() {
        let key = |scope| new_key("a", BTreeSet::from([scope])).unwrap().1;
        let submit = needed(&Method::POST, "/v1/jobs");
        let pause = needed(&Method::POST, "/v1/queues/{name}/pause");
        let list = needed(&Method::GET, "/v1/jobs");
        assert!(authorize(&key(Scope::Submit), submit).is_ok() && authorize(&key(Scope::Submit), list).is_err());
        assert!(authorize(&key(Scope::Read), list).is_ok() && authorize(&key(Scope::Read), submit).is_err());
        for scope in [Scope::Submit, Scope::Read] {
            assert!(authorize(&key(scope), pause).unwrap_err().detail.contains("`admin`"));
        }
        for needed in [submit, pause, list] {
            assert!(authorize(&key(Scope::Admin), needed).is_ok());
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for good in ["localhost", "localhost:8080", "127.0.0.1:1", "127.1.2.3", "[::1]:80", "app.localhost"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "example.com",
            "127.0.0.1.example.com",
            "127.0.0.1@example.com",
            "10.0.0.1",
            "",
            "localhost.evil:80",
            "a b",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
