//! Rhai's `to_json` and `parse_json` within the memory account.
//!
//! Eight bytes of JSON can become half a kilobyte of values, and a few values, sharing one string, gigabytes of
//! JSON: both ways are checked as they go.

use std::io::{self, Read};

use rhai::{Dynamic, EvalAltResult, FnPtr, ImmutableString, Map, NativeCallContext};
use serde::ser::{Error as _, Serialize, Serializer};

use super::text::{MAX_DEPTH, Text};
use super::{Checked, tick};
use crate::script::account;

/// The most bytes of values that one byte of JSON can become: `{"":0}` makes a map with one node of a B-tree.
const VALUE_PER_BYTE: usize = 128;

/// Bytes read between two chances for the engine to interrupt.
const BYTES_PER_TICK: usize = 1 << 16;

/// A value as JSON, `depth` containers deep.
struct Json<'v> {
    value: &'v Dynamic,
    depth: usize,
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (array, map) = (self.value.as_array_ref(), self.value.as_map_ref());
        if (array.is_ok() || map.is_ok()) && self.depth == MAX_DEPTH {
            let reason = format!("to_json: nested deeper than {MAX_DEPTH} levels");
            return Err(S::Error::custom(reason));
        }
        let depth = self.depth + 1;
        if let Ok(array) = array {
            serializer.collect_seq(array.iter().map(|value| Json { value, depth }))
        } else if let Ok(map) = map {
            let entries = map.iter();
            serializer.collect_map(entries.map(|(key, value)| (key.as_str(), Json { value, depth })))
        } else if let Some(function) = self.value.read_lock::<FnPtr>() {
            // What it has captured may contain the function itself.
            serializer.serialize_str(function.fn_name())
        } else {
            self.value.serialize(serializer)
        }
    }
}

/// JSON text that stops being readable when the run must end.
struct Interruptible<'t> {
    text: &'t [u8],
    ctx: &'t NativeCallContext<'t>,
    since_tick: usize,
    failure: Option<Box<EvalAltResult>>,
}

impl Interruptible<'_> {
    fn proceed(&mut self, bytes: usize) -> Checked<()> {
        account::reserve(0)?;
        self.since_tick += bytes;
        if self.since_tick >= BYTES_PER_TICK {
            self.since_tick = 0;
            tick(self.ctx)?;
        }
        Ok(())
    }
}

impl Read for Interruptible<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.proceed(buffer.len()) {
            self.failure = Some(error);
            return Err(io::Error::other("interrupted"));
        }
        self.text.read(buffer)
    }
}

/// A catchable error with the reader's or writer's own words.
fn faulty<T>(error: &serde_json::Error) -> Checked<T> {
    Err(error.to_string().into())
}

#[rhai::export_module]
pub(super) mod functions {
    #[rhai_fn(return_raw)]
    pub fn parse_json(ctx: NativeCallContext, json: &str) -> Checked<Dynamic> {
        if !account::would_exceed(json.len().saturating_mul(VALUE_PER_BYTE)) {
            return serde_json::from_str(json).or_else(|error| faulty(&error));
        }
        let mut reader = Interruptible { text: json.as_bytes(), ctx: &ctx, since_tick: 0, failure: None };
        let value = serde_json::from_reader(&mut reader);
        value.or_else(|error| reader.failure.map_or_else(|| faulty(&error), Err))
    }

    #[rhai_fn(pure, return_raw)]
    pub fn to_json(ctx: NativeCallContext, map: &mut Map) -> Checked<ImmutableString> {
        let mut text = Text::new(&ctx);
        let entries = map.iter();
        let written = serde_json::Serializer::new(&mut text)
            .collect_map(entries.map(|(key, value)| (key.as_str(), Json { value, depth: 1 })));
        text.outcome()?;
        written.or_else(|error| faulty(&error))?;
        Ok(text.finish())
    }
}
