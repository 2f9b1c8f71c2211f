//! Regular expressions: compiled patterns kept for a while, and searches that can be stopped between two matches.
//!
//! The `regex` crate needs time in proportion to text times pattern for one match, but all matches of a text may take
//! that for each: so a search looks between matches whether anybody still waits. Plain Rust; knows no script values.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use regex::{Regex, RegexBuilder};

use crate::job::ErrorKind;
use crate::script::ports::{HostError, HostResult};

/// Bytes of a pattern as it is written, and of what it is compiled to. The time of one match is this times the text.
const MAX_PATTERN: usize = 4 << 10;
const SIZES: [usize; 4] = [64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Compiled size times length of a text that is searched. One match may take that many steps of about 5 ns, on a thread
/// that nobody else waits for.
const MAX_WORK: usize = 64 << 33;
/// The same for a search on an executor thread: about a millisecond.
const MAX_WORK_HERE: usize = 64 << 20;
/// What a pattern may keep besides as a scratch pad.
const MAX_SCRATCH: usize = 256 << 10;
/// Bytes of all patterns that are kept, each counted with its bound.
const KEPT: usize = 16 << 20;

/// Compiled patterns of a process, by their text.
#[derive(Debug, Default)]
pub struct Patterns(Mutex<HashMap<String, Pattern>>);

/// A compiled pattern. A clone shares it, but for the scratch pad.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub regex: Regex,
    /// Compiled, it has at most that many bytes.
    size: usize,
}

impl Pattern {
    /// Bytes of a text that it may search.
    #[must_use]
    pub fn max_text(&self) -> usize {
        MAX_WORK / self.size
    }

    /// Whether a text is short enough to be searched where others wait for the thread.
    #[must_use]
    pub fn is_quick(&self, text: &str) -> bool {
        text.len() <= MAX_WORK_HERE / self.size
    }
}

impl Patterns {
    /// The pattern, if it is kept.
    #[must_use]
    pub fn kept(&self, pattern: &str) -> Option<Pattern> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(pattern).cloned()
    }

    /// Compiles a pattern, which may take some milliseconds, and keeps it.
    ///
    /// # Errors
    /// When it is not one, or too large.
    pub fn compile(&self, function: &str, pattern: &str) -> HostResult<Pattern> {
        let wrong = |why: String| HostError::new(ErrorKind::Script, format!("{function}: `pattern` {why}"), false);
        if pattern.len() > MAX_PATTERN {
            return Err(wrong(format!("has {} bytes, at most {MAX_PATTERN} are allowed", pattern.len())));
        }
        let build = |size: usize| {
            let regex = RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(MAX_SCRATCH).build();
            regex.map(|regex| Pattern { regex, size })
        };
        let too_big = |result: &Result<_, _>| matches!(result, Err(regex::Error::CompiledTooBig(_)));
        let [first, rest @ ..] = SIZES;
        let found =
            rest.into_iter().fold(build(first), |found, size| if too_big(&found) { build(size) } else { found });
        let found = found.map_err(|error| match error {
            regex::Error::CompiledTooBig(most) => {
                wrong(format!("becomes larger than the {most} bytes that are allowed: use smaller repetitions"))
            }
            other => wrong(format!("is not a regular expression: {other}")),
        })?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.values().map(|pattern| pattern.size).sum::<usize>() + found.size > KEPT {
            // Those in use come back soon.
            kept.clear();
        }
        kept.insert(pattern.to_owned(), found.clone());
        Ok(found)
    }
}

/// A search over a text, with a bound for what it finds.
pub struct Search<'t> {
    pub regex: &'t Regex,
    pub text: &'t str,
    /// Bytes that the result may take.
    pub room: usize,
    /// Asked between two matches.
    pub go_on: &'t dyn Fn() -> bool,
}

/// Why a search has no result.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody waits any more.
    Off,
    TooLarge,
}

/// What a script string takes beside its bytes, about.
const PIECE: usize = 64;

/// Where the pattern matches, one after the other.
///
/// # Errors
/// When it was broken off, or the result has no room.
pub fn ranges(search: &Search<'_>) -> Result<Vec<Range<usize>>, Broken> {
    let mut ranges = Vec::new();
    let mut left = search.room;
    for found in search.regex.find_iter(search.text) {
        left = left.checked_sub(PIECE + found.len()).ok_or(Broken::TooLarge)?;
        ranges.push(found.range());
        look(search)?;
    }
    Ok(ranges)
}

/// The pieces between the matches.
///
/// # Errors
/// As [`ranges`].
pub fn between(search: &Search<'_>) -> Result<Vec<Range<usize>>, Broken> {
    let mut start = 0;
    let mut pieces: Vec<_> = ranges(search)?
        .into_iter()
        .map(|found| {
            let piece = start..found.start;
            start = found.end;
            piece
        })
        .collect();
    pieces.push(start..search.text.len());
    Ok(pieces)
}

/// The groups of the first match, by number.
pub fn groups(search: &Search<'_>) -> Option<Vec<Option<Range<usize>>>> {
    let captures = search.regex.captures(search.text)?;
    Some(captures.iter().map(|group| group.map(|group| group.range())).collect())
}

/// The text with `with` in place of each match; `$1` and `${name}` in it are groups.
///
/// # Errors
/// As [`ranges`], and when it has no room.
pub fn replaced(search: &Search<'_>, with: &str) -> Result<String, Broken> {
    let mut text = String::new();
    let mut copied = 0;
    let plain = !with.contains('$');
    let push = |text: &mut String, piece: &str| {
        if text.len() + piece.len() > search.room {
            return Err(Broken::TooLarge);
        }
        text.push_str(piece);
        Ok(())
    };
    if plain {
        for found in search.regex.find_iter(search.text) {
            push(&mut text, &search.text[copied..found.start()])?;
            push(&mut text, with)?;
            copied = found.end();
            look(search)?;
        }
    } else {
        let mut expanded = String::new();
        for captures in search.regex.captures_iter(search.text) {
            let Some(found) = captures.get(0) else { continue };
            push(&mut text, &search.text[copied..found.start()])?;
            // Each `$` may bring a whole match.
            let dollars = with.matches('$').count();
            if with.len() + dollars.saturating_mul(found.len()) > search.room - text.len() {
                return Err(Broken::TooLarge);
            }
            expanded.clear();
            captures.expand(with, &mut expanded);
            push(&mut text, &expanded)?;
            copied = found.end();
            look(search)?;
        }
    }
    push(&mut text, &search.text[copied..])?;
    Ok(text)
}

fn look(search: &Search<'_>) -> Result<(), Broken> {
    if (search.go_on)() { Ok(()) } else { Err(Broken::Off) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostResult<Pattern> {
        Patterns::default().compile("regex::find", text)
    }

    fn search(text: &str, pattern: &str, room: usize) -> Result<Vec<Range<usize>>, Broken> {
        let pattern = super::tests::pattern(pattern).unwrap();
        ranges(&Search { regex: &pattern.regex, text, room, go_on: &|| true })
    }

    #[test]
    fn a_large_pattern_searches_a_small_text() {
        let sizes = ["a+", r"\w{12}", r"\w{30}"].map(|text| pattern(text).unwrap().max_text());
        assert_eq!(sizes, [8 << 20, 512 << 10, 128 << 10]);
        let error = pattern(r"\w{1000}").unwrap_err();
        assert!(error.message.contains("becomes larger than the 4194304 bytes"), "{error}");
        assert!(pattern(&"a".repeat(5000)).unwrap_err().message.contains("has 5000 bytes"));
        assert!(pattern("a(").unwrap_err().message.contains("unclosed group"));
    }

    #[test]
    fn patterns_are_kept_but_not_for_ever() {
        let patterns = Patterns::default();
        let most = KEPT / SIZES[0];
        for count in 0..=most {
            patterns.compile("t", &format!("a{count}")).unwrap();
        }
        assert!(patterns.kept("a0").is_none());
        assert!(patterns.kept(&format!("a{most}")).is_some());
    }

    #[test]
    fn what_is_found_is_bounded_and_can_be_broken_off() {
        assert_eq!(search("a1b22", "[0-9]+", 1000), Ok(vec![1..2, 3..5]));
        assert_eq!(search(&"a".repeat(100), "a", 1000), Err(Broken::TooLarge));
        let one = pattern("a").unwrap();
        let unwanted = Search { regex: &one.regex, text: "aaa", room: 1000, go_on: &|| false };
        assert_eq!(ranges(&unwanted), Err(Broken::Off));
        assert_eq!(replaced(&unwanted, "b"), Err(Broken::Off));
        let grows = Search { regex: &one.regex, text: &"a".repeat(1000), room: 1 << 20, go_on: &|| true };
        assert_eq!(replaced(&grows, &"x".repeat(2000)), Err(Broken::TooLarge));
        let whole = pattern("(?s).*").unwrap();
        let doubles = Search { regex: &whole.regex, text: &"a".repeat(1000), room: 1500, go_on: &|| true };
        assert_eq!(replaced(&doubles, "$0$0"), Err(Broken::TooLarge));
        assert_eq!(replaced(&doubles, "<$0>").map(|text| text.len()), Ok(1002));
    }
}
