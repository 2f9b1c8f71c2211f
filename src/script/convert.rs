//! Script values to JSON text and back: payloads, results, thrown values, `json::parse`, bodies of requests.
//!
//! Straight from one to the other, without a document tree between them. Depth and size are bounded while the value is
//! walked, so a result of 20 MB is refused at its first megabyte. Numbers are exact: integers stay integers, and what
//! an `i64` cannot hold is refused. Knows nothing of runs and fibers.

use std::cell::Cell;
use std::fmt;
use std::io;

use rhai::{Array, Dynamic, FnPtr, Identifier, ImmutableString, Map};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::account;
use super::moment::Time;

/// Nesting that every JSON text of a job is held to; a scalar has depth 0.
pub const MAX_DEPTH: usize = 64;

/// Asked now and then while a large value is walked; `false` breaks the work off. It may suspend the fiber.
pub type GoOn = fn() -> bool;

/// Values between two questions.
const STRIDE: u32 = 32;

/// Why a value is not JSON or a text is no script value. Displays as "`result.items[3]` is a function, …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {message}", shown(path))]
pub struct ConvertFault {
    /// Where, as a script would write it: `result.items[3]`. Empty for a fault of a whole text.
    pub path: String,
    pub message: String,
}

fn shown(path: &str) -> String {
    if path.is_empty() { "the text".to_owned() } else { format!("`{path}`") }
}

/// Writes `value` as compact JSON of at most `max_bytes` bytes. `root` names the value in errors.
///
/// `()` becomes `null`, a character and a time strings, a shared value what it holds. Map keys keep the order of the map, which
/// is the alphabet's.
///
/// # Errors
/// At a function, blob, timestamp, host object, not-a-number or infinity, at [`MAX_DEPTH`], and at `max_bytes`; the
/// fault names the place.
pub fn to_json(value: &Dynamic, root: &str, max_bytes: usize) -> Result<String, ConvertFault> {
    written(None, value, root, max_bytes)
}

/// [`to_json`] for a value of any size: asks `go_on` on the way, and the memory account before the text grows.
///
/// # Errors
/// As [`to_json`], and when it was broken off.
pub fn to_json_while(go_on: GoOn, value: &Dynamic, root: &str, max_bytes: usize) -> Result<String, ConvertFault> {
    written(Some(go_on), value, root, max_bytes)
}

fn written(go_on: Option<GoOn>, value: &Dynamic, root: &str, max_bytes: usize) -> Result<String, ConvertFault> {
    let mut out = Writer { bytes: Vec::new(), max: max_bytes, go_on, values: 0 };
    match write_value(&mut out, value, 0) {
        // The writer below only ever adds whole strings, so this is a check and never a loss.
        Ok(()) => String::from_utf8(out.bytes)
            .map_err(|_| ConvertFault { path: root.to_owned(), message: "is not valid UTF-8".to_owned() }),
        Err(Fault::TooLarge) => Err(ConvertFault {
            path: root.to_owned(),
            message: format!("is larger than the {max_bytes} bytes of JSON that are allowed"),
        }),
        Err(Fault::At { steps, message }) => Err(ConvertFault { path: path_of(root, &steps), message }),
    }
}

/// Reads JSON text as a script value.
///
/// # Errors
/// When the text is not JSON, is nested deeper than [`MAX_DEPTH`], or holds an integer outside `i64`; the fault names
/// line and column.
pub fn from_json(text: &str) -> Result<Dynamic, ConvertFault> {
    from_json_while(|| true, text)
}

/// [`from_json`] for a text of any size: asks `go_on` on the way.
///
/// # Errors
/// As [`from_json`], and when it was broken off.
pub fn from_json_while(go_on: GoOn, text: &str) -> Result<Dynamic, ConvertFault> {
    let fault =
        |message: String| ConvertFault { path: String::new(), message: format!("is not valid JSON: {message}") };
    let reading = Reading { go_on, values: Cell::new(0), wide: Cell::new(false) };
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Seed { depth: 0, reading: &reading }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| fault(error.to_string()))?;
    if reading.wide.get()
        && let Some(message) = wide_integer(text)
    {
        return Err(fault(message));
    }
    Ok(value)
}

const BROKEN_OFF: &str = "was given up, since the run is over";

// ---------------------------------------------------------------------------------------------- value → text

/// A step from a container to one of its values.
enum Step {
    Key(String),
    Index(usize),
}

enum Fault {
    TooLarge,
    /// Steps from the value up to the root, collected while the walk unwinds.
    At {
        steps: Vec<Step>,
        message: String,
    },
}

impl Fault {
    fn here(message: impl Into<String>) -> Self {
        Self::At { steps: Vec::new(), message: message.into() }
    }

    fn below(mut self, step: impl FnOnce() -> Step) -> Self {
        if let Self::At { steps, .. } = &mut self {
            steps.push(step());
        }
        self
    }
}

fn path_of(root: &str, steps: &[Step]) -> String {
    use fmt::Write as _;

    let mut path = root.to_owned();
    for step in steps.iter().rev() {
        let written = match step {
            Step::Index(index) => write!(path, "[{index}]"),
            Step::Key(key) if is_plain(key) => write!(path, ".{key}"),
            Step::Key(key) => write!(path, "[{key:?}]"),
        };
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        if path.len() > 200 {
            path.push('…');
            break;
        }
    }
    path
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        && !key.as_bytes()[0].is_ascii_digit()
}

/// At most 40 characters of a key, for an error.
fn short(key: &str) -> String {
    match key.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.to_owned(),
    }
}

/// A buffer that refuses to grow over its limit, and over the running script's memory.
struct Writer {
    bytes: Vec<u8>,
    max: usize,
    go_on: Option<GoOn>,
    values: u32,
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let free = self.bytes.capacity() - self.bytes.len();
        let grows = bytes.len() > free;
        // A vector doubles, or takes what it must.
        if bytes.len() > self.max - self.bytes.len()
            || grows && self.go_on.is_some() && account::reserve(bytes.len().max(self.bytes.capacity())).is_err()
        {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer {
    fn next_value(&mut self) -> Result<(), Fault> {
        self.values += 1;
        if self.values.is_multiple_of(STRIDE) && self.go_on.is_some_and(|go_on| !go_on()) {
            return Err(Fault::here(BROKEN_OFF));
        }
        Ok(())
    }

    fn put(&mut self, text: &str) -> Result<(), Fault> {
        io::Write::write(self, text.as_bytes()).map(|_| ()).map_err(|_| Fault::TooLarge)
    }

    /// A string, number or bool, in `serde_json`'s way of writing it.
    fn scalar<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        serde_json::to_writer(self, value).map_err(|_| Fault::TooLarge)
    }
}

fn write_value(out: &mut Writer, value: &Dynamic, depth: usize) -> Result<(), Fault> {
    out.next_value()?;
    // A captured variable is shared; reading through the guard serves both cases.
    let Some(value) = value.read_lock::<Dynamic>() else {
        return Err(Fault::here("is being changed while it is read"));
    };
    if let Ok(text) = value.as_immutable_string_ref() {
        out.scalar(text.as_str())
    } else if let Ok(int) = value.as_int() {
        out.scalar(&int)
    } else if let Ok(float) = value.as_float() {
        if float.is_finite() {
            out.scalar(&float)
        } else {
            Err(Fault::here(format!("is {float}, which JSON cannot hold")))
        }
    } else if let Ok(flag) = value.as_bool() {
        out.scalar(&flag)
    } else if value.is_unit() {
        out.put("null")
    } else if let Ok(map) = value.as_map_ref() {
        write_map(out, &map, deeper(depth)?)
    } else if let Ok(array) = value.as_array_ref() {
        write_array(out, &array, deeper(depth)?)
    } else if let Ok(char) = value.as_char() {
        out.scalar(&char)
    } else if let Some(time) = value.read_lock::<Time>() {
        out.scalar(&time.to_string())
    } else {
        Err(Fault::here(foreign(&value)))
    }
}

fn write_map(out: &mut Writer, map: &Map, depth: usize) -> Result<(), Fault> {
    out.put("{")?;
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            out.put(",")?;
        }
        out.scalar(key.as_str())?;
        out.put(":")?;
        write_value(out, value, depth).map_err(|fault| fault.below(|| Step::Key(short(key))))?;
    }
    out.put("}")
}

fn write_array(out: &mut Writer, array: &Array, depth: usize) -> Result<(), Fault> {
    out.put("[")?;
    for (index, value) in array.iter().enumerate() {
        if index > 0 {
            out.put(",")?;
        }
        write_value(out, value, depth).map_err(|fault| fault.below(|| Step::Index(index)))?;
    }
    out.put("]")
}

fn deeper(depth: usize) -> Result<usize, Fault> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(Fault::here(format!("is nested deeper than the {MAX_DEPTH} levels that are allowed")))
    }
}

/// What a value is that has no JSON form, and what to do about it where that is known.
fn foreign(value: &Dynamic) -> String {
    if value.is_blob() {
        "is a blob, which JSON cannot hold: save it with file::save, or turn it into text".to_owned()
    } else if value.read_lock::<FnPtr>().is_some() {
        "is a function, which JSON cannot hold".to_owned()
    } else if value.is_timestamp() {
        "is a timestamp, which JSON cannot hold: use its `elapsed`, in seconds".to_owned()
    } else {
        format!("is a value of type {}, which JSON cannot hold", value.type_name())
    }
}

// ---------------------------------------------------------------------------------------------- text → value

/// Reads one value at a known depth.
#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    reading: &'a Reading,
}

/// What the seeds of one text share.
struct Reading {
    go_on: GoOn,
    values: Cell<u32>,
    /// Set at a number beyond 2^63: `serde_json` gives a long integer as a rounded float, which [`wide_integer`] finds.
    wide: Cell<bool>,
}

impl Seed<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH {
            Ok(Self { depth: self.depth + 1, ..self })
        } else {
            Err(E::custom(format_args!("nested deeper than the {MAX_DEPTH} levels that are allowed")))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Dynamic;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Dynamic, D::Error> {
        let values = self.reading.values.get().wrapping_add(1);
        self.reading.values.set(values);
        if values.is_multiple_of(STRIDE) && !(self.reading.go_on)() {
            return Err(de::Error::custom(BROKEN_OFF));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Dynamic;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Dynamic, E> {
        Ok(Dynamic::UNIT)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Dynamic, E> {
        Ok(Dynamic::from_bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Dynamic, E> {
        Ok(Dynamic::from_int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Dynamic, E> {
        i64::try_from(value).map(Dynamic::from_int).map_err(|_| E::custom(out_of_range(&value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Dynamic, E> {
        const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
        if value.abs() >= TWO_POW_63 {
            self.reading.wide.set(true);
        }
        Ok(Dynamic::from_float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Dynamic, E> {
        Ok(ImmutableString::from(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dynamic, A::Error> {
        let below = self.deeper()?;
        let mut array = Array::new();
        while let Some(value) = seq.next_element_seed(below)? {
            array.push(value);
        }
        Ok(Dynamic::from_array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Dynamic, A::Error> {
        let below = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            map.insert(key, entries.next_value_seed(below)?);
        }
        Ok(Dynamic::from_map(map))
    }
}

/// Reads a key without a `String` in between.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Identifier;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Identifier, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Identifier;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<Identifier, E> {
        Ok(value.into())
    }
}

fn out_of_range(digits: &str) -> String {
    format!("the integer {} does not fit 64 bits with a sign: give it as a string", short(digits))
}

/// Finds an integer literal outside `i64` in a text that is known to be valid JSON.
fn wide_integer(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|c| matches!(c, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                    .count();
                let number = &text[at..at + length];
                if !number.contains(['.', 'e', 'E']) && number.parse::<i64>().is_err() {
                    let line = text[..at].matches('\n').count() + 1;
                    return Some(format!("{} (line {line})", out_of_range(number)));
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rhai::{Engine, Scope};

    use super::*;

    const MIB: usize = 1 << 20;

    fn eval(script: &str) -> Dynamic {
        let mut engine = Engine::new();
        engine.set_max_expr_depths(0, 0);
        engine.eval_with_scope(&mut Scope::new(), script).unwrap()
    }

    fn json(script: &str) -> Result<String, String> {
        to_json(&eval(script), "result", MIB).map_err(|fault| fault.to_string())
    }

    #[test]
    fn every_json_value_survives_the_way_there_and_back() {
        for text in [
            "null",
            "true",
            "-9223372036854775808",
            "9223372036854775807",
            "1.0",
            "-0.1",
            "1e+300",
            r#""é\"\\\n\u0001😀""#,
            "[]",
            "{}",
            r#"[1,[2,{"a":null}],"x"]"#,
            r#"{"":1,"a b":[true],"z":{"y":{}}}"#,
        ] {
            let value = from_json(text).unwrap();
            assert_eq!(to_json(&value, "result", MIB).unwrap(), text);
        }
        assert!(from_json("1").unwrap().is_int());
        assert!(from_json("1.0").unwrap().is_float());
    }

    #[test]
    fn script_values_become_json() {
        assert_eq!(
            json("#{ b: 1, a: [(), 'c', \"s\", 2.5, true] }").unwrap(),
            r#"{"a":[null,"c","s",2.5,true],"b":1}"#
        );
        assert_eq!(json("let a = [1]; let f = || a.push(2); f.call(); #{ a: a }").unwrap(), r#"{"a":[1,2]}"#);
    }

    #[test]
    fn what_json_cannot_hold_is_named_with_its_place() {
        for (script, path, reason) in [
            ("|| 1", "`result`", "is a function"),
            ("#{ items: [1, 2, 3, || 1] }", "`result.items[3]`", "is a function"),
            ("#{ \"a b\": [blob(3)] }", "`result[\"a b\"][0]`", "is a blob"),
            ("[timestamp()]", "`result[0]`", "is a timestamp"),
            ("#{ x: 0.0 / 0.0 }", "`result.x`", "is NaN"),
            ("#{ x: 1.0 / 0.0 }", "`result.x`", "is inf"),
            ("[1..3]", "`result[0]`", "is a value of type"),
        ] {
            let fault = json(script).unwrap_err();
            assert!(fault.starts_with(path) && fault.contains(reason), "{script}: {fault}");
        }
    }

    #[test]
    fn depth_is_bounded_both_ways() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let deepest = from_json(&nested(MAX_DEPTH)).unwrap();
        assert_eq!(to_json(&deepest, "result", MIB).unwrap(), nested(MAX_DEPTH));

        let fault = from_json(&nested(MAX_DEPTH + 1)).unwrap_err().to_string();
        assert!(fault.contains("nested deeper than the 64 levels") && fault.contains("line 1"), "{fault}");
        let fault = to_json(&Dynamic::from_array(vec![deepest]), "result", MIB).unwrap_err();
        assert!(fault.message.contains("deeper than the 64 levels") && fault.path.len() < 210, "{fault}");

        assert!(from_json(&"[".repeat(1_000_000)).is_err());
        let deep = (0..5000).fold(Dynamic::UNIT, |inner, _| Dynamic::from_array(vec![inner]));
        assert!(to_json(&deep, "result", MIB).is_err());
        let maps = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
        assert!(from_json(&maps).is_err());
    }

    #[test]
    fn a_large_value_is_refused_before_it_is_written() {
        let twenty = Dynamic::from("x".repeat(20 * MIB));
        let fault = to_json(&twenty, "result", MIB).unwrap_err().to_string();
        assert_eq!(fault, "`result` is larger than the 1048576 bytes of JSON that are allowed");

        // Shared values can make a small value of 2^60 leaves.
        let mut shared = Dynamic::from_int(1);
        for _ in 0..60 {
            let half = shared.into_shared();
            shared = Dynamic::from_array(vec![half.clone(), half]);
        }
        assert!(to_json(&shared, "result", MIB).is_err());
        // Exactly at the limit is allowed.
        assert_eq!(to_json(&Dynamic::from("ab"), "result", 4).unwrap(), "\"ab\"");
        assert!(to_json(&Dynamic::from("abc"), "result", 4).is_err());
    }

    #[test]
    fn integers_are_exact_or_refused() {
        for wide in ["9223372036854775808", "-9223372036854775809", "[1, 123456789012345678901234567890]"] {
            let fault = from_json(wide).unwrap_err().to_string();
            assert!(fault.contains("does not fit 64 bits") && fault.contains("line 1"), "{wide}: {fault}");
        }
        // A float of that size was meant as one, and digits in a string are text.
        assert!(from_json("[1e30, 12345678901234567890.0]").is_ok());
        assert!(from_json(r#"[1e30, "123456789012345678901234567890\"1"]"#).is_ok());
    }

    #[test]
    fn a_text_that_is_not_json_is_refused_with_its_place() {
        for bad in ["", "{", "{\"a\":1,}", "[1] 2", "nul", "'a'", "{\"a\":\n NaN}", "\"\\ud800\"", "1e999"] {
            let fault = from_json(bad).unwrap_err().to_string();
            assert!(fault.starts_with("the text is not valid JSON: ") && fault.contains("line"), "{bad}: {fault}");
        }
    }
}
