//! One log line: the fields of an event and of the spans around it, as a flat JSON object or as text for people.
//!
//! Whatever a value holds, a line stays one line: control characters, and the Unicode characters that end lines or
//! reorder text, are escaped in both forms. Who calls, and where lines go, is not known here.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde_json::Value as Json;
use tracing::Level;
use tracing::field::{Field, Visit};

/// Names that a line has of its own; a field with such a name becomes `field.NAME`.
const OWN: [(&str, &str); 4] = [
    ("timestamp", "field.timestamp"),
    ("level", "field.level"),
    ("target", "field.target"),
    ("message", "field.message"),
];

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    /// A number or a boolean, written as JSON writes it.
    Literal(String),
}

/// Named values in the order of their first appearance; a later value replaces an earlier one of the same name.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(Cow<'static, str>, Value)>);

impl Fields {
    fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes these fields over, replacing what is there.
    pub(super) fn merge(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            self.set(name.clone(), value.clone());
        }
    }
}

/// Reads the fields of a span or an event.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) fields: Fields,
    pub(super) message: Option<String>,
    /// The module of a record that came through the `log` crate, whose own target says only `log`.
    pub(super) log_target: Option<String>,
}

impl Recorder {
    /// What a span contributes to the lines inside it. It has no message, so a field of that name is one of many.
    pub(super) fn into_span_fields(mut self) -> Fields {
        if let Some(text) = self.message {
            self.fields.set("field.message", Value::Text(text));
        }
        self.fields
    }

    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text)) => self.message = Some(text),
            ("log.target", Value::Text(text)) => self.log_target = Some(text),
            (name, _) if name.starts_with("log.") => {}
            // Fields that a script chose travel as one JSON object, since the names of fields are fixed when the
            // program is compiled. Their prefix keeps them from posing as ours.
            ("fields", Value::Text(text)) => match serde_json::from_str(&text) {
                Ok(Json::Object(entries)) => {
                    for (name, value) in entries {
                        self.fields.set(format!("fields.{name}"), value.into());
                    }
                }
                _ => self.fields.set("fields", Value::Text(text)),
            },
            (name, value) => {
                let own = OWN.iter().find(|(own, _)| *own == name);
                self.fields.set(own.map_or(name, |(_, renamed)| renamed), value);
            }
        }
    }
}

impl From<Json> for Value {
    fn from(value: Json) -> Self {
        match value {
            Json::String(text) => Self::Text(text),
            // Flat: what is nested becomes text.
            Json::Array(_) | Json::Object(_) => Self::Text(value.to_string()),
            Json::Null | Json::Bool(_) | Json::Number(_) => Self::Literal(value.to_string()),
        }
    }
}

impl Visit for Recorder {
    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = format!("{value:?}");
        self.set(field, if value.is_finite() { Value::Literal(text) } else { Value::Text(text) });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Literal(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Literal(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Literal(value.to_string()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::Text(value.into()));
    }

    /// An error with all its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.set(field, Value::Text(text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::Text(format!("{value:?}")));
    }
}

/// A line before it is written in one form or the other.
pub(super) struct Line<'a> {
    pub(super) timestamp: Timestamp,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(super) fields: &'a Fields,
}

impl Line<'_> {
    /// One flat JSON object and a line end.
    pub(super) fn json(&self) -> String {
        let mut out = String::with_capacity(256);
        let _ = write!(out, r#"{{"timestamp":"{:.6}","level":"{}","target":"#, self.timestamp, self.level);
        json_text(&mut out, self.target);
        out += r#","message":"#;
        json_text(&mut out, self.message);
        for (name, value) in &self.fields.0 {
            out.push(',');
            json_text(&mut out, name);
            out.push(':');
            match value {
                Value::Text(text) => json_text(&mut out, text),
                Value::Literal(text) => out += text,
            }
        }
        out += "}\n";
        out
    }

    /// `time LEVEL target: message name=value name="value with spaces"` and a line end.
    pub(super) fn pretty(&self, color: bool) -> String {
        let mut out = String::with_capacity(256);
        let (start, end) = if color { (color_of(self.level), "\u{1b}[0m") } else { ("", "") };
        let _ = write!(out, "{:.3} {start}{:>5}{end} {}: ", self.timestamp, self.level, self.target);
        escape(&mut out, self.message, |_| None);
        for (name, value) in &self.fields.0 {
            out.push(' ');
            if is_plain(name) {
                out += name;
            } else {
                json_text(&mut out, name);
            }
            out.push('=');
            match value {
                Value::Text(text) if !is_plain(text) => json_text(&mut out, text),
                Value::Text(text) | Value::Literal(text) => out += text,
            }
        }
        out.push('\n');
        out
    }
}

fn color_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-:/@+".contains(&c))
}

fn json_text(out: &mut String, text: &str) {
    out.push('"');
    escape(out, text, |c| match c {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        _ => None,
    });
    out.push('"');
}

/// Appends a text with `special` characters replaced and all that could break or disguise a line as an escape that
/// is valid JSON too.
fn escape(out: &mut String, text: &str, special: impl Fn(char) -> Option<&'static str>) {
    for c in text.chars() {
        match c {
            '\n' => *out += "\\n",
            '\r' => *out += "\\r",
            '\t' => *out += "\\t",
            // Controls; the line and paragraph separators; the marks that reorder text.
            c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => match special(c) {
                Some(replacement) => *out += replacement,
                None => out.push(c),
            },
        }
    }
}
