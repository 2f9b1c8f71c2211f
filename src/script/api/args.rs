//! Taking arguments apart: each helper gives the typed value or an error that names the function, the argument, what
//! it must be and what was given. Those errors are the script's own fault, kind `script`.

use std::time::Duration;

use rhai::{Array, Blob, Dynamic, EvalAltResult, FnPtr, ImmutableString, Map};

use crate::job::ErrorKind;
use crate::job::units::parse_duration;
use crate::script::account;
use crate::script::context::{ScriptResult, throw};
use crate::script::diagnostics::near;
use crate::script::ports::HostError;

/// A fault of the script.
pub fn wrong(message: impl Into<String>) -> Box<EvalAltResult> {
    throw(HostError::new(ErrorKind::Script, message, false))
}

/// An error such as ``http::get: `url` must be a string, not an integer``.
pub fn unfit(function: &str, argument: &str, expected: &str, given: &Dynamic) -> Box<EvalAltResult> {
    wrong(format!("{function}: `{argument}` must be {expected}, not {}", kind_of(given)))
}

/// What a value is, with its article.
pub fn kind_of(value: &Dynamic) -> String {
    let Some(value) = value.read_lock::<Dynamic>() else { return "a value in use".to_owned() };
    let known = if value.is_string() {
        "a string"
    } else if value.is_int() {
        "an integer"
    } else if value.is_float() {
        "a float"
    } else if value.is_bool() {
        "a bool"
    } else if value.is_map() {
        "a map"
    } else if value.is_array() {
        "an array"
    } else if value.is_blob() {
        "a blob"
    } else if value.is_unit() {
        "()"
    } else if value.is_char() {
        "a character"
    } else if value.read_lock::<FnPtr>().is_some() {
        "a function"
    } else {
        return format!("a value of type {}", value.type_name());
    };
    known.to_owned()
}

pub fn text(function: &str, argument: &str, value: &Dynamic) -> ScriptResult<ImmutableString> {
    let found = value.read_lock::<ImmutableString>().map(|text| text.clone());
    found.ok_or_else(|| unfit(function, argument, "a string", value))
}

/// A name that errors may repeat: short, whatever the script gave.
pub fn name(function: &str, argument: &str, value: &Dynamic) -> ScriptResult<String> {
    let text = text(function, argument, value)?;
    if text.is_empty() || text.len() > 256 {
        return Err(wrong(format!("{function}: `{argument}` must have 1 to 256 bytes, not {}", text.len())));
    }
    Ok(text.to_string())
}

pub fn duration(function: &str, argument: &str, value: &Dynamic) -> ScriptResult<Duration> {
    let Some(text) = value.read_lock::<ImmutableString>() else {
        let expected = "a duration such as \"250ms\", \"2s\" or \"5m\"";
        return Err(unfit(function, argument, expected, value));
    };
    parse_duration(&text).map_err(|error| wrong(format!("{function}: `{argument}`: {error}")))
}

/// A string, or an array of strings.
pub fn texts(function: &str, argument: &str, value: &Dynamic) -> ScriptResult<Vec<String>> {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(vec![text.to_string()]);
    }
    let Some(array) = value.read_lock::<Array>() else {
        return Err(unfit(function, argument, "a string or an array of strings", value));
    };
    array
        .iter()
        .enumerate()
        .map(|(index, item)| text(function, &format!("{argument}[{index}]"), item).map(|text| text.to_string()))
        .collect()
}

/// A copy of the bytes of a text or a blob, to be handed over.
pub fn bytes(function: &str, argument: &str, value: &Dynamic) -> ScriptResult<Vec<u8>> {
    let copied = account::uncharged(|| {
        let text = value.read_lock::<ImmutableString>().map(|text| text.as_bytes().to_vec());
        text.or_else(|| value.read_lock::<Blob>().map(|blob| blob.clone()))
    });
    copied.ok_or_else(|| unfit(function, argument, "a string or a blob", value))
}

/// The bytes of a string or a blob, where they are.
pub fn with_bytes<T>(function: &str, argument: &str, value: &Dynamic, f: impl FnOnce(&[u8]) -> T) -> ScriptResult<T> {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(f(text.as_bytes()));
    }
    if let Some(blob) = value.read_lock::<Blob>() {
        return Ok(f(&blob));
    }
    Err(unfit(function, argument, "a string or a blob", value))
}

pub fn map(function: &str, argument: &str, value: Dynamic) -> ScriptResult<Map> {
    let value = value.flatten();
    if !value.is_map() {
        return Err(unfit(function, argument, "a map", &value));
    }
    Ok(value.cast())
}

/// A map of options: a key that is not among `known` is a fault.
pub fn options(function: &str, argument: &str, value: Dynamic, known: &[&str]) -> ScriptResult<Map> {
    let map = map(function, argument, value)?;
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(map),
        Some(key) => {
            let shown: String = key.chars().take(40).collect();
            let hint = near(&shown, known.iter().copied()).unwrap_or_else(|| format!("known are {}", known.join(", ")));
            Err(wrong(format!("{function}: `{argument}` has no key `{shown}`: {hint}")))
        }
    }
}
