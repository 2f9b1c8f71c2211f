//! `http::get`, `post`, `put`, `delete`, `request`, and `.json()` of an answer.

use std::time::Duration;

use data_encoding::BASE64;
use percent_encoding::percent_decode_str;
use reqwest::{Method, Url};
use rhai::{Array, Dynamic, ImmutableString, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{answer, args, call_id, file, from_json, handed_over, put, room, to_json};
use crate::job::ErrorKind;
use crate::script::account;
use crate::script::context::{self, RunContext, ScriptResult};
use crate::script::moment::Time;
use crate::script::ports::HostError;
use crate::script::services::http::{HttpAnswer, HttpCall};
use crate::script::services::net_guard::HostPattern;

/// Bytes of a body, in each direction.
const MAX_BODY: usize = 8 << 20;
/// Bytes of a URL and of its query.
const MAX_URL: usize = 64 << 10;
/// When a script names no timeout. The run's deadline ends a request in any case.
const TIMEOUT: Duration = Duration::from_secs(30);

pub const REFERENCE: Namespace = Namespace {
    name: "http",
    about: "",
    functions: &[
        Function::new(
            &["get(url: string) -> map"],
            "asks for a page",
            r#"http::get("https://api.example.com/users/7").status"#,
            Outcome::Value("200"),
        ),
        Function::new(
            &["post(url: string, body: any) -> map"],
            "sends a body",
            r#"http::post("https://api.example.com/users", #{ name: "Ada" }).status"#,
            Outcome::Value("200"),
        ),
        Function::new(
            &["put(url: string, body: any) -> map"],
            "sends a body that replaces what is there",
            r#"http::put("https://api.example.com/users/7/note", "a text").status"#,
            Outcome::Value("200"),
        ),
        Function::new(
            &["delete(url: string) -> map"],
            "removes what is there",
            r#"http::delete("https://api.example.com/users/7").status"#,
            Outcome::Value("200"),
        ),
        Function::new(
            &["request(options: map) -> map"],
            "any request: `url`, `method` (GET), `headers`, `query`, `body` or `form`, `timeout` (`\"30s\"`)",
            "let answer = http::request(#{\n    method: \"PATCH\",\n    url: \"https://api.example.com/users\",\n    \
             query: #{ id: [7, 8] },\n    headers: #{ Accept: \"application/json\" },\n    \
             form: #{ name: \"Ada Lovelace\" },\n    timeout: \"5s\",\n});\n\
             answer.json().body",
            Outcome::Value("\"name=Ada+Lovelace\""),
        ),
        Function::new(
            &["json(answer: map) -> any"],
            "the body of an answer as a value",
            r#"http::get("https://api.example.com/users/7").json().method"#,
            Outcome::Value("\"GET\""),
        )
        .method(),
    ],
    notes: NOTES,
};

const NOTES: &str = "\
A map or array goes as JSON, a string as text, a blob as it is, `()` is no body; `headers` may name another content type. In \
`headers`, `query`\nand `form` a value is a string, number or bool, or an array of them for several of one name.

An answer is `#{ status, headers, body }`, also for 4xx and 5xx: only no answer at all is an error. Header names are in lower \
case, repeated\nones joined with `, `. The body is a string when it is UTF-8, else a blob. Up to 10 redirects are followed; \
credentials do not go\nalong to another origin. Bodies have at most 8 MiB in both directions, after decompression (gzip, once), and an answer no more than the run\nhas memory \
for: what is longer or never ends is given up there, or after `timeout` (30 s if not said). A line break or another control character in\nURL, method or \
headers is\nrefused, and so is more than 100 headers, or than 64 KiB of them or of the URL.

The script's `allow.hosts` must name the host, also where a redirect leads:

| entry | what it opens |
|---|---|
| `api.example.com` | this name, on any port, by http and https |
| `api.example.com:8443` | this name on this port; `:443` and `:80` also where a URL leaves the port out |
| `*.example.com`, `*.example.com:8443` | every name below, at any depth, and not `example.com` itself |
| `192.0.2.7`, `[2001:db8::1]`, `[2001:db8::1]:8080` | this address, however a URL writes it |

Case and a dot at the end do not count; a name in other letters can be written as it is or as `xn--…`. There are no other wildcards, no paths \
and no\nnetworks, and `check` refuses an entry that is none of these.

An address that is private, loopback, link-local or otherwise not of the public internet is refused, also when it is listed, in any \
spelling, within an\nIPv6 address, as what a name resolves to, and on every hop, unless the operator opened it with `HTTP_ALLOW_PRIVATE`. Proxies of the environment are not used. `X-Request-ID` of the job goes along, \
and with POST, PUT,\nPATCH and DELETE an `Idempotency-Key`, unless the script sets them.";

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "get", |url: Dynamic| Asked::of("http::get", "GET", &url)?.send());
    put!(&mut module, "delete", |url: Dynamic| Asked::of("http::delete", "DELETE", &url)?.send());
    put!(&mut module, "post", |url: Dynamic, body: Dynamic| Asked::of("http::post", "POST", &url)?.body(&body)?.send());
    put!(&mut module, "put", |url: Dynamic, body: Dynamic| Asked::of("http::put", "PUT", &url)?.body(&body)?.send());
    put!(&mut module, "request", |options: Dynamic| request(options));
    module
}

/// What an answer can be asked for.
pub fn methods() -> Module {
    let mut module = Module::new();
    put!(&mut module, "json", |answer: &mut Map| json(answer));
    module
}

/// What a script asks for, in its own memory.
struct Asked {
    function: &'static str,
    method: Method,
    url: Url,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Duration,
}

fn request(options: Dynamic) -> ScriptResult<Map> {
    const FUNCTION: &str = "http::request";
    const OPTIONS: [&str; 7] = ["method", "url", "headers", "query", "body", "form", "timeout"];

    context::current()?;
    let options = args::options(FUNCTION, "request", options, &OPTIONS)?;
    let option = |key: &str| options.get(key).filter(|value| !value.is_unit());
    let Some(url) = option("url") else { return Err(args::wrong(format!("{FUNCTION}: `url` is missing"))) };
    let method = option("method").map(|method| args::name(FUNCTION, "method", method)).transpose()?;
    let mut asked = Asked::of(FUNCTION, &method.unwrap_or_else(|| "GET".to_owned()), url)?;
    if let Some(headers) = option("headers") {
        asked = asked.headers(headers)?;
    }
    if let Some(query) = option("query") {
        let pairs = pairs(FUNCTION, "query", query)?;
        short(FUNCTION, "query", pairs.iter().map(|(name, value)| name.len() + value.len()).sum())?;
        asked.url.query_pairs_mut().extend_pairs(pairs);
    }
    asked = match (option("body"), option("form")) {
        (Some(_), Some(_)) => return Err(args::wrong(format!("{FUNCTION}: `body` and `form` exclude each other"))),
        (Some(body), None) => asked.body(body)?,
        (None, Some(form)) => asked.form(form)?,
        (None, None) => asked,
    };
    if let Some(timeout) = option("timeout") {
        asked.timeout = args::duration(FUNCTION, "timeout", timeout)?;
    }
    asked.send()
}

impl Asked {
    fn of(function: &'static str, method: &str, url: &Dynamic) -> ScriptResult<Self> {
        const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

        let method = method.to_ascii_uppercase();
        plain(function, "method", &method)?;
        if !METHODS.contains(&method.as_str()) {
            return Err(args::wrong(format!("{function}: `method` must be one of {}", METHODS.join(", "))));
        }
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| args::wrong(error.to_string()))?;
        let text = args::text(function, "url", url)?;
        short(function, "url", text.len())?;
        plain(function, "url", &text)?;
        let url = Url::parse(&text).map_err(|error| {
            // The rest may hold credentials.
            let shown = text.split(['?', '#', '@']).next().unwrap_or_default();
            let shown: String = shown.chars().take(80).collect();
            let message =
                format!("{function}: `url`: `{shown}` is not a URL such as https://example.com/path: {error}");
            // A text without a scheme is a slip; what is wrong with a host may be a disguise.
            match error {
                url::ParseError::RelativeUrlWithoutBase => args::wrong(message),
                _ => context::throw(HostError::new(ErrorKind::HostHttp, message, false)),
            }
        })?;
        let mut asked = Self { function, method, url, headers: Vec::new(), body: Vec::new(), timeout: TIMEOUT };
        asked.take_credentials();
        Ok(asked)
    }

    /// `https://user:password@host/` is a way to write a header; in the URL they would be in errors and keys.
    fn take_credentials(&mut self) {
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let (user, password) = (decoded(self.url.username()), self.url.password().map(decoded));
        if user.is_empty() && password.is_none() {
            return;
        }
        let pair = format!("{user}:{}", password.unwrap_or_default());
        self.default_header("authorization", &format!("Basic {}", BASE64.encode(pair.as_bytes())));
        // Both only fail for URLs that cannot have them.
        let _ = self.url.set_username("").and_then(|()| self.url.set_password(None));
    }

    fn headers(mut self, headers: &Dynamic) -> ScriptResult<Self> {
        let headers = pairs(self.function, "headers", headers)?;
        // What the script sets goes before what the URL says.
        self.headers.retain(|(known, _)| !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(known)));
        self.headers.extend(headers);
        Ok(self)
    }

    fn body(self, body: &Dynamic) -> ScriptResult<Self> {
        if body.is_map() || body.is_array() {
            let json = to_json(self.function, "body", body, MAX_BODY)?;
            return self.with_body(json.into_bytes(), "application/json");
        }
        if let Some(text) = body.read_lock::<ImmutableString>() {
            return self.with_body(text.as_bytes().to_vec(), "text/plain; charset=utf-8");
        }
        if let Some(blob) = body.read_lock::<rhai::Blob>() {
            return self.with_body(blob.clone(), "application/octet-stream");
        }
        if body.is_unit() {
            return Ok(self);
        }
        Err(args::unfit(self.function, "body", "a map, an array, a string, a blob or ()", body))
    }

    fn form(self, form: &Dynamic) -> ScriptResult<Self> {
        let pairs = pairs(self.function, "form", form)?;
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        self.with_body(body.into_bytes(), "application/x-www-form-urlencoded")
    }

    fn with_body(mut self, body: Vec<u8>, content_type: &'static str) -> ScriptResult<Self> {
        if body.len() > MAX_BODY {
            let (function, size) = (self.function, body.len());
            return Err(args::wrong(format!("{function}: the body has {size} bytes, at most {MAX_BODY} are sent")));
        }
        self.body = body;
        self.default_header("content-type", content_type);
        Ok(self)
    }

    /// Adds a header that the script has not set.
    fn default_header(&mut self, name: &str, value: &str) {
        if !self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }

    fn send(self) -> ScriptResult<Map> {
        let run = context::current()?;
        let call = self.call(&run);
        let call = handed_over(&call);
        let reply = account::uncharged(|| run.services.http.send(call));
        Ok(script_answer(answer(reply)?))
    }

    fn call(mut self, run: &RunContext) -> HttpCall {
        self.default_header("x-request-id", run.job.request_id.as_str());
        if matches!(self.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
            let parts = [self.method.as_str().as_bytes(), self.url.as_str().as_bytes(), &self.body];
            let id = call_id(run, "http", &parts);
            self.default_header("idempotency-key", &id);
        }
        // Each entry was checked when the script was loaded.
        let allow: Vec<HostPattern> = run.spec().allow.hosts.iter().filter_map(|host| host.parse().ok()).collect();
        HttpCall {
            method: self.method,
            url: self.url,
            headers: self.headers,
            body: self.body,
            timeout: self.timeout,
            allow,
            max_answer: MAX_BODY.min(room(run)),
        }
    }
}

/// Refuses what no server takes as an address, before time goes into it.
fn short(function: &str, argument: &str, length: usize) -> ScriptResult<()> {
    if length <= MAX_URL {
        return Ok(());
    }
    let message = format!("{function}: `{argument}` has {length} bytes, at most {MAX_URL} are sent");
    Err(context::throw(HostError::new(ErrorKind::HostHttp, message, false)))
}

/// Refuses what could end a line of the request. The parser of URLs would drop some of it without a word.
fn plain(function: &str, argument: &str, text: &str) -> ScriptResult<()> {
    if !text.contains(char::is_control) {
        return Ok(());
    }
    let message = format!("{function}: `{argument}` has a line break or another control character");
    Err(context::throw(HostError::new(ErrorKind::HostHttp, message, false)))
}

/// Names and values of a map, for headers, queries and forms. An array gives its name several times.
pub fn pairs(function: &str, argument: &str, value: &Dynamic) -> ScriptResult<Vec<(String, String)>> {
    let Some(map) = value.read_lock::<Map>() else { return Err(args::unfit(function, argument, "a map", value)) };
    let mut pairs = Vec::new();
    for (name, value) in map.iter() {
        if let Some(array) = value.read_lock::<Array>() {
            for (index, item) in array.iter().enumerate() {
                pairs.push((name.to_string(), scalar(function, &format!("{argument}.{name}[{index}]"), item)?));
            }
        } else if !value.is_unit() {
            pairs.push((name.to_string(), scalar(function, &format!("{argument}.{name}"), value)?));
        }
    }
    Ok(pairs)
}

fn scalar(function: &str, place: &str, value: &Dynamic) -> ScriptResult<String> {
    if value.is_string() || value.is_int() || value.is_float() || value.is_bool() || value.is_char() {
        Ok(value.to_string())
    } else if let Some(time) = value.read_lock::<Time>() {
        Ok(time.to_string())
    } else {
        Err(args::unfit(function, place, "a string, a number or a bool", value))
    }
}

fn script_answer(answer: HttpAnswer) -> Map {
    let HttpAnswer { status, headers, body } = answer;
    account::adopt(body.capacity() + headers.capacity() * size_of::<(String, String)>());
    let mut fields = Map::new();
    for (name, value) in headers {
        account::adopt(name.capacity() + value.capacity());
        fields.insert(name.into(), value.into());
    }
    let mut map = Map::new();
    map.insert("status".into(), i64::from(status).into());
    map.insert("headers".into(), fields.into());
    map.insert("body".into(), file::text_or_blob(body));
    map
}

fn json(answer: &Map) -> ScriptResult<Dynamic> {
    context::current()?;
    match answer.get("body").map(|body| (body, body.read_lock::<ImmutableString>())) {
        Some((_, Some(text))) => from_json("json()", &text),
        Some((body, None)) => Err(args::unfit("json()", "body", "a string, as the body of an answer is", body)),
        None => Err(args::wrong("json(): the map has no `body`: it reads the answer of an http function")),
    }
}
