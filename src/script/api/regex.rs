//! `regex`: searches in time that grows with text and pattern, and never with anything's power.
//!
//! A pattern is compiled once, off the executor thread; a short text is searched here, a long one on a blocking thread.

use std::ops::Range;
use std::sync::Arc;

use rhai::{Array, Dynamic, ImmutableString, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{answer, args, go_on, handed_over, put, room};
use crate::job::ErrorKind;
use crate::script::account;
use crate::script::context::{self, RunContext, ScriptResult};
use crate::script::ports::HostError;
use crate::script::services::patterns::{self, Broken, Pattern, Search};

pub const REFERENCE: Namespace = Namespace {
    name: "regex",
    about: "",
    functions: &[
        Function::new(
            &["is_match(pattern: string, text: string) -> bool"],
            "whether the pattern is found in the text",
            r#"regex::is_match("^[a-z]+[0-9]{2}$", "order17")"#,
            Outcome::Value("true"),
        ),
        Function::new(
            &["find(pattern: string, text: string) -> string | ()"],
            "the first match, or `()`",
            r#"regex::find("[0-9]+", "order 17 of 20")"#,
            Outcome::Value(r#""17""#),
        ),
        Function::new(
            &["find_all(pattern: string, text: string) -> array"],
            "all matches, from left to right",
            r#"regex::find_all("[0-9]+", "order 17 of 20")"#,
            Outcome::Value(r#"["17", "20"]"#),
        ),
        Function::new(
            &["captures(pattern: string, text: string) -> map | ()"],
            "the groups of the first match, by name and, as strings, by number (`\"0\"` is all of it), or `()`",
            r#"regex::captures(`(?<year>\d{4})-(\d\d)`, "on 2026-03-01")"#,
            Outcome::Value(r#"{"0": "2026-03", "1": "2026", "2": "03", "year": "2026"}"#),
        ),
        Function::new(
            &["replace(pattern: string, text: string, by: string) -> string"],
            "the text with `by` in place of every match; in it `$1` and `${name}` are groups, `$$` is a dollar",
            r#"regex::replace(`(\d+)-(\d+)`, "7-1, 8-2", "$2/$1")"#,
            Outcome::Value(r#""1/7, 2/8""#),
        ),
        Function::new(
            &["split(pattern: string, text: string) -> array"],
            "the pieces between the matches",
            r#"regex::split(`\s*,\s*`, "a , b,c")"#,
            Outcome::Value(r#"["a", "b", "c"]"#),
        ),
    ],
    notes: "The syntax is that of Rust's [regex](https://docs.rs/regex/latest/regex/#syntax): no look-around, no back-references. \
            In backticks a `\\` stands for itself. A pattern has at most\n4 KiB and compiles to at most 4 MiB; a text has at most 8 MiB, \
            with a pattern of large repetitions less (128 KiB with the largest).",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "is_match", |pattern: Dynamic, text: Dynamic| is_match(&pattern, &text));
    put!(&mut module, "find", |pattern: Dynamic, text: Dynamic| find(&pattern, &text));
    put!(&mut module, "find_all", |pattern: Dynamic, text: Dynamic| find_all(&pattern, &text));
    put!(&mut module, "captures", |pattern: Dynamic, text: Dynamic| captures(&pattern, &text));
    put!(&mut module, "replace", |pattern: Dynamic, text: Dynamic, with: Dynamic| replace(&pattern, &text, &with));
    put!(&mut module, "split", |pattern: Dynamic, text: Dynamic| split(&pattern, &text));
    module
}

fn is_match(pattern: &Dynamic, text: &Dynamic) -> ScriptResult<bool> {
    let (found, _) =
        searched("regex::is_match", pattern, text, |_| 0, |search| Ok(search.regex.is_match(search.text)))?;
    Ok(found)
}

fn find(pattern: &Dynamic, text: &Dynamic) -> ScriptResult<Dynamic> {
    let (found, text) = searched(
        "regex::find",
        pattern,
        text,
        |_| 0,
        |search| Ok(search.regex.find(search.text).map(|found| found.range())),
    )?;
    Ok(found.map_or(Dynamic::UNIT, |range| text[range].into()))
}

fn find_all(pattern: &Dynamic, text: &Dynamic) -> ScriptResult<Array> {
    let (ranges, text) = searched("regex::find_all", pattern, text, size_of_ranges, patterns::ranges)?;
    pieces(&text, ranges)
}

fn split(pattern: &Dynamic, text: &Dynamic) -> ScriptResult<Array> {
    let (ranges, text) = searched("regex::split", pattern, text, size_of_ranges, patterns::between)?;
    pieces(&text, ranges)
}

type Ranges = Vec<Range<usize>>;

fn size_of_ranges(ranges: &Ranges) -> usize {
    ranges.capacity() * size_of::<Range<usize>>()
}

fn pieces(text: &ImmutableString, ranges: Ranges) -> ScriptResult<Array> {
    account::reserve(ranges.len() * size_of::<Dynamic>())?;
    let mut pieces = Array::with_capacity(ranges.len());
    for range in ranges {
        pieces.push(text[range].into());
        if !go_on() {
            context::current()?;
        }
    }
    Ok(pieces)
}

/// Where a group was found, and what it is called.
type Groups = Vec<(Option<Range<usize>>, Option<String>)>;

#[expect(clippy::ref_option, reason = "it is given what the search gives")]
fn size_of_groups(groups: &Option<Groups>) -> usize {
    let Some(groups) = groups else { return 0 };
    let names: usize = groups.iter().filter_map(|(_, name)| name.as_ref()).map(String::capacity).sum();
    names + groups.capacity() * size_of::<(Option<Range<usize>>, Option<String>)>()
}

fn captures(pattern: &Dynamic, text: &Dynamic) -> ScriptResult<Dynamic> {
    let (found, text) = searched("regex::captures", pattern, text, size_of_groups, |search| {
        let names = search.regex.capture_names().map(|name| name.map(str::to_owned));
        Ok(patterns::groups(search).map(|groups| groups.into_iter().zip(names).collect()))
    })?;
    let Some(groups) = found else { return Ok(Dynamic::UNIT) };
    let mut map = Map::new();
    for (number, (range, name)) in groups.into_iter().enumerate() {
        // Groups may hold one another, so that together they are longer than the text.
        account::reserve(2 * range.as_ref().map_or(0, Range::len))?;
        let piece: Dynamic = range.map_or(Dynamic::UNIT, |range| ImmutableString::from(&text[range]).into());
        if let Some(name) = name {
            map.insert(name.into(), piece.clone());
        }
        map.insert(number.to_string().into(), piece);
        if !go_on() {
            context::current()?;
        }
    }
    Ok(map.into())
}

fn replace(pattern: &Dynamic, text: &Dynamic, with: &Dynamic) -> ScriptResult<String> {
    const FUNCTION: &str = "regex::replace";

    let with = args::text(FUNCTION, "by", with)?;
    let (text, _) = searched_with(FUNCTION, pattern, text, &with, String::capacity, patterns::replaced)?;
    Ok(text)
}

fn searched<T: Send + 'static>(
    function: &'static str,
    pattern: &Dynamic,
    text: &Dynamic,
    size: fn(&T) -> usize,
    search: fn(&Search<'_>) -> Result<T, Broken>,
) -> ScriptResult<(T, ImmutableString)> {
    let none = ImmutableString::new();
    searched_with(function, pattern, text, &none, size, move |asked, _| search(asked))
}

/// Searches where there is time for it. `size` is what the result holds on the heap.
fn searched_with<T: Send + 'static>(
    function: &'static str,
    pattern: &Dynamic,
    text: &Dynamic,
    with: &ImmutableString,
    size: fn(&T) -> usize,
    search: impl FnOnce(&Search<'_>, &str) -> Result<T, Broken> + Send + 'static,
) -> ScriptResult<(T, ImmutableString)> {
    let run = context::current()?;
    let text = args::text(function, "text", text)?;
    let pattern = args::text(function, "pattern", pattern)?;
    let pattern = Kept::of(function, &run, &pattern)?;
    let (length, most) = (text.len(), pattern.get().max_text());
    if length > most {
        return Err(args::wrong(format!(
            "{function}: `text` has {length} bytes, at most {most} can be searched with a pattern of that size"
        )));
    }
    let room = room(&run);
    let found = if pattern.get().is_quick(&text) {
        // The clone's scratch pad is this run's.
        let regex = pattern.get().regex.clone();
        let asked = Search { regex: &regex, text: &text, room, go_on: &go_on };
        search(&asked, with).map_err(|broken| unfound(function, &broken, room))
    } else {
        let (regex, own, with) =
            account::uncharged(|| (pattern.get().regex.clone(), text.to_string(), with.to_string()));
        let reply = account::uncharged(|| {
            run.services.compute_while_wanted(move |wanted| {
                let asked = Search { regex: &regex, text: &own, room, go_on: wanted };
                search(&asked, &with).map_err(|broken| unfound(function, &broken, room))
            })
        });
        let found = answer(reply)?;
        account::adopt(size(&found));
        return Ok((found, text));
    };
    match found {
        Ok(found) => Ok((found, text)),
        Err(error) => {
            context::current()?;
            Err(context::throw(error))
        }
    }
}

fn unfound(function: &str, broken: &Broken, room: usize) -> HostError {
    let message = match broken {
        Broken::Off => format!("{function}: the search was given up, since the run is over"),
        Broken::TooLarge => format!("{function}: the result takes more than the {room} bytes that the run may hold"),
    };
    HostError::new(ErrorKind::Script, message, false)
}

/// A compiled pattern, which is the process's memory and not the run's.
struct Kept(Option<Pattern>);

impl Kept {
    fn of(function: &'static str, run: &RunContext, pattern: &ImmutableString) -> ScriptResult<Self> {
        if let Some(kept) = account::uncharged(|| run.services.patterns.kept(pattern)) {
            return Ok(Self(Some(kept)));
        }
        let (services, pattern) = (Arc::clone(&run.services), handed_over(&pattern.to_string()));
        let compile = move || services.patterns.compile(function, &pattern);
        answer(account::uncharged(|| run.services.compute(compile))).map(|pattern| Self(Some(pattern)))
    }

    fn get(&self) -> &Pattern {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        account::uncharged(|| drop(self.0.take()));
    }
}
