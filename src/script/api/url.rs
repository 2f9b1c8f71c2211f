//! `url`: taking addresses apart and putting them together, by the WHATWG rules that browsers and `http` go by.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use rhai::{Array, Dynamic, ImmutableString, Map, Module};
use url::{Url, form_urlencoded};

use super::http::pairs;
use super::reference::{Function, Namespace, Outcome};
use super::{args, go_on, over_bytes, put};
use crate::job::ErrorKind;
use crate::script::account;
use crate::script::context::{self, ScriptResult};
use crate::script::ports::HostError;

/// An address; longer ones no server takes. Bytes.
const MAX_URL: usize = 64 << 10;
/// A query or a form. Bytes.
const MAX_QUERY: usize = 1 << 20;

/// What RFC 3986 leaves as it is everywhere.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub const REFERENCE: Namespace = Namespace {
    name: "url",
    about: "",
    functions: &[
        Function::new(
            &["parse(url: string) -> map"],
            "its parts: `scheme`, `username`, `password`, `host`, `port`, `path`, `query`, `fragment`; `()` for what it has not",
            "let parts = url::parse(\"https://example.com/a%20b?x=1&x=2#top\");\n[parts.host, parts.port, parts.path, parts.query]",
            Outcome::Value(r#"["example.com", 443, "/a%20b", "x=1&x=2"]"#),
        ),
        Function::new(
            &["join(base: string, relative: string) -> string"],
            "the address that a link on a page leads to",
            r#"url::join("https://example.com/docs/a.html", "../img/b.png?x=1")"#,
            Outcome::Value(r#""https://example.com/img/b.png?x=1""#),
        ),
        Function::new(
            &["encode(text: string) -> string"],
            "percent-encodes all but letters, digits and `- . _ ~`, for one part of a path or query",
            r#"url::encode("a/b c?")"#,
            Outcome::Value(r#""a%2Fb%20c%3F""#),
        ),
        Function::new(
            &["decode(text: string) -> string"],
            "the other way; what is no UTF-8 is an error",
            r#"url::decode("a%2Fb%20c%3F")"#,
            Outcome::Value(r#""a/b c?""#),
        ),
        Function::new(
            &["query(values: map) -> string"],
            "a query or form; an array gives its name several times, `()` none",
            r#"url::query(#{ name: "Ada & Co", tag: [1, 2] })"#,
            Outcome::Value(r#""name=Ada+%26+Co&tag=1&tag=2""#),
        ),
        Function::new(
            &["parse_query(text: string) -> map"],
            "its values as strings; a name that is there several times has an array",
            r#"url::parse_query("name=Ada+%26+Co&tag=1&tag=2")"#,
            Outcome::Value(r#"{"name": "Ada & Co", "tag": ["1", "2"]}"#),
        ),
    ],
    notes: "An address has at most 64 KiB, a query 1 MiB.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "parse", |url: Dynamic| parse(&url));
    put!(&mut module, "join", |base: Dynamic, relative: Dynamic| join(&base, &relative));
    put!(&mut module, "encode", |text: Dynamic| encode(&text));
    put!(&mut module, "decode", |text: Dynamic| decode(&text));
    put!(&mut module, "query", |values: Dynamic| query(&values));
    put!(&mut module, "parse_query", |text: Dynamic| parse_query(&text));
    module
}

fn parse(url: &Dynamic) -> ScriptResult<Map> {
    const FUNCTION: &str = "url::parse";

    let url = address(FUNCTION, "url", url)?;
    let present = |text: &str| if text.is_empty() { Dynamic::UNIT } else { text.into() };
    let optional = |text: Option<&str>| text.map_or(Dynamic::UNIT, Into::into);
    let mut parts = Map::new();
    for (name, value) in [
        ("scheme", url.scheme().into()),
        ("username", present(url.username())),
        ("password", optional(url.password())),
        ("host", optional(url.host_str())),
        ("port", url.port_or_known_default().map_or(Dynamic::UNIT, |port| i64::from(port).into())),
        ("path", url.path().into()),
        ("query", optional(url.query())),
        ("fragment", optional(url.fragment())),
    ] {
        parts.insert(name.into(), value);
    }
    Ok(parts)
}

fn join(base: &Dynamic, relative: &Dynamic) -> ScriptResult<String> {
    const FUNCTION: &str = "url::join";

    let base = address(FUNCTION, "base", base)?;
    let relative = bounded(FUNCTION, "relative", relative, MAX_URL)?;
    let joined = base.join(&relative);
    joined.map(String::from).map_err(|error| args::wrong(format!("{FUNCTION}: `relative` is no address: {error}")))
}

fn address(function: &str, argument: &str, value: &Dynamic) -> ScriptResult<Url> {
    let text = bounded(function, argument, value, MAX_URL)?;
    Url::parse(&text).map_err(|error| args::wrong(format!("{function}: `{argument}` is no address: {error}")))
}

fn bounded(function: &str, argument: &str, value: &Dynamic, most: usize) -> ScriptResult<ImmutableString> {
    let text = args::text(function, argument, value)?;
    if text.len() > most {
        let size = text.len();
        return Err(args::wrong(format!("{function}: `{argument}` has {size} bytes, at most {most} are allowed")));
    }
    Ok(text)
}

fn encode(text: &Dynamic) -> ScriptResult<String> {
    const FUNCTION: &str = "url::encode";

    let length = args::text(FUNCTION, "text", text)?.len();
    // Each byte may become three, in a text that doubles as it grows.
    account::reserve(6 * length)?;
    over_bytes(FUNCTION, "text", text, String::capacity, |bytes| {
        let text = std::str::from_utf8(bytes).map_err(|error| undecoded(&error))?;
        Ok(utf8_percent_encode(text, COMPONENT).to_string())
    })
}

fn decode(text: &Dynamic) -> ScriptResult<String> {
    const FUNCTION: &str = "url::decode";

    let length = args::text(FUNCTION, "text", text)?.len();
    account::reserve(2 * length)?;
    over_bytes(FUNCTION, "text", text, String::capacity, |bytes| {
        percent_decode(bytes).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|error| undecoded(&error))
    })
}

fn undecoded(error: &std::str::Utf8Error) -> HostError {
    HostError::new(ErrorKind::Script, format!("url::decode: `text` is not UTF-8 when it is decoded: {error}"), false)
}

fn query(values: &Dynamic) -> ScriptResult<String> {
    const FUNCTION: &str = "url::query";

    let mut query = String::new();
    for (name, value) in pairs(FUNCTION, "values", values)? {
        if query.len() + name.len() + value.len() > MAX_QUERY {
            return Err(args::wrong(format!("{FUNCTION}: the query has more than {MAX_QUERY} bytes")));
        }
        account::reserve(2 * query.len() + 6 * (name.len() + value.len()))?;
        let start = query.len();
        form_urlencoded::Serializer::for_suffix(&mut query, start).append_pair(&name, &value);
        if start > 0 {
            query.insert(start, '&');
        }
        if !go_on() {
            context::current()?;
        }
    }
    Ok(query)
}

fn parse_query(text: &Dynamic) -> ScriptResult<Map> {
    const FUNCTION: &str = "url::parse_query";

    let text = bounded(FUNCTION, "text", text, MAX_QUERY)?;
    let mut values = Map::new();
    for (name, value) in form_urlencoded::parse(text.trim_start_matches('?').as_bytes()) {
        let value: Dynamic = value.into_owned().into();
        match values.get_mut(name.as_ref()) {
            None => {
                values.insert(name.as_ref().into(), value);
            }
            Some(known) => {
                if let Some(mut several) = known.write_lock::<Array>() {
                    several.push(value);
                } else {
                    let first = known.take();
                    *known = Array::from([first, value]).into();
                }
            }
        }
        if !go_on() {
            context::current()?;
        }
    }
    Ok(values)
}
