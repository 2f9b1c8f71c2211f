//! `instr`, `replace`, the trims and `unhex` with two arguments, in time linear in their text.
//!
//! Nothing stops SQLite within a function, and its own ones take text times pattern: on some megabytes of each they hold
//! a thread and a connection for hours after their run has ended. These give the same bytes. What cannot be made linear
//! within reason is refused by the authorizer ([`refused`]).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, Result, ffi};

use super::MAX_VALUE;

/// Characters that `unhex` may skip, in bytes: SQLite looks at each of them for each character of the text.
const MAX_SKIPPED: usize = 64;

/// Why a function is not available, if it is not.
pub fn refused(function: &str) -> Option<&'static str> {
    const REFUSED: [(&str, &str); 3] = [
        ("json_patch", "json_patch is not available, its time has no bound: use json_set and json_remove"),
        ("jsonb_patch", "jsonb_patch is not available, its time has no bound: use jsonb_set and jsonb_remove"),
        ("json_pretty", "json_pretty is not available, its memory has no bound"),
    ];
    REFUSED.iter().find(|(name, _)| function.eq_ignore_ascii_case(name)).map(|(_, why)| *why)
}

/// Why a column of a table-valued function is not available, if it is not.
pub fn refused_column(table: &str, column: &str) -> Option<&'static str> {
    let tree = ["json_tree", "jsonb_tree"].iter().any(|name| table.eq_ignore_ascii_case(name));
    (tree && column.eq_ignore_ascii_case("path"))
        .then_some("the column path of json_tree is not available, its time has no bound: use fullkey")
}

/// Puts them in the place of SQLite's own, also where the schema uses them.
pub fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    let plain = Plain(Arc::new(Mutex::new(Connection::open_in_memory()?)));
    let texts = plain.clone();
    connection.create_scalar_function(c"instr", 2, flags, move |arguments| instr(arguments, &texts))?;
    let texts = plain.clone();
    connection.create_scalar_function(c"replace", 3, flags, move |arguments| replace(arguments, &texts))?;
    for (name, sides) in [(c"ltrim", Sides::LEFT), (c"rtrim", Sides::RIGHT), (c"trim", Sides::BOTH)] {
        let texts = plain.clone();
        connection.create_scalar_function(name, 2, flags, move |arguments| trim(arguments, &texts, sides))?;
    }
    connection.create_scalar_function(c"unhex", 2, flags, move |arguments| unhex(arguments, &plain))
}

/// A connection with SQLite's own functions, which knows how a number looks as text.
#[derive(Clone)]
struct Plain(Arc<Mutex<Connection>>);

impl Plain {
    /// The value as text; none for NULL. In a database of UTF-16, which nobody has, a blob is UTF-8 here as well.
    fn text<'a>(&self, value: ValueRef<'a>) -> Result<Option<Cow<'a, [u8]>>> {
        Ok(match value {
            ValueRef::Null => None,
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Cow::Borrowed(bytes)),
            ValueRef::Integer(int) => Some(Cow::Owned(int.to_string().into_bytes())),
            ValueRef::Real(real) => {
                let plain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let text: String =
                    plain.prepare_cached("SELECT CAST(?1 AS TEXT)")?.query_row([real], |row| row.get(0))?;
                Some(Cow::Owned(text.into_bytes()))
            }
        })
    }
}

/// Text that need not be UTF-8.
struct Text(Vec<u8>);

impl ToSql for Text {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

fn instr(arguments: &Context<'_>, plain: &Plain) -> Result<Option<i64>> {
    let (text, needle) = (arguments.get_raw(0), arguments.get_raw(1));
    let bytes = matches!((text, needle), (ValueRef::Blob(_), ValueRef::Blob(_)));
    let (Some(text), Some(needle)) = (plain.text(text)?, plain.text(needle)?) else { return Ok(None) };
    let place = place(&text, &needle, bytes).and_then(|place| i64::try_from(place).ok());
    Ok(Some(place.unwrap_or_default()))
}

/// The place of the first occurrence, from 1, in bytes or else in characters.
fn place(text: &[u8], needle: &[u8], bytes: bool) -> Option<usize> {
    if text.starts_with(needle) {
        return Some(1);
    }
    // Beyond the start a text is searched from character to character only.
    if !bytes && is_continuation(needle[0]) {
        return None;
    }
    let at = memmem::find(text, needle)?;
    Some(1 + text[1..=at].iter().filter(|byte| bytes || !is_continuation(**byte)).count())
}

fn replace(arguments: &Context<'_>, plain: &Plain) -> Result<Option<Text>> {
    let (Some(text), Some(pattern)) = (plain.text(arguments.get_raw(0))?, plain.text(arguments.get_raw(1))?) else {
        return Ok(None);
    };
    // SQLite takes a NUL at the start for the end of the pattern.
    if pattern.first().is_none_or(|byte| *byte == 0) {
        return Ok(Some(Text(text.into_owned())));
    }
    let Some(with) = plain.text(arguments.get_raw(2))? else { return Ok(None) };
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for at in memmem::find_iter(&text, &*pattern) {
        append(&mut out, &text[done..at])?;
        append(&mut out, &with)?;
        done = at + pattern.len();
    }
    append(&mut out, &text[done..])?;
    Ok(Some(Text(out)))
}

fn append(out: &mut Vec<u8>, more: &[u8]) -> Result<()> {
    if out.len() + more.len() > usize::try_from(MAX_VALUE).unwrap_or_default() {
        return Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None));
    }
    out.extend_from_slice(more);
    Ok(())
}

#[derive(Clone, Copy)]
struct Sides {
    left: bool,
    right: bool,
}

impl Sides {
    const LEFT: Self = Self { left: true, right: false };
    const RIGHT: Self = Self { left: false, right: true };
    const BOTH: Self = Self { left: true, right: true };
}

fn trim(arguments: &Context<'_>, plain: &Plain, sides: Sides) -> Result<Option<Text>> {
    let (Some(text), Some(set)) = (plain.text(arguments.get_raw(0))?, plain.text(arguments.get_raw(1))?) else {
        return Ok(None);
    };
    let characters = Characters::of(&set)?;
    let mut rest = &*text;
    while sides.left
        && let Some(length) = characters.at_start(rest)
    {
        rest = &rest[length..];
    }
    while sides.right
        && let Some(length) = characters.at_end(rest)
    {
        rest = &rest[..rest.len() - length];
    }
    Ok(Some(Text(rest.to_vec())))
}

/// Characters to trim, each with its place: where several fit, as only such that are not UTF-8 can, the first counts.
struct Characters<'a> {
    one: [Option<usize>; 256],
    more: HashMap<&'a [u8], usize>,
}

/// Bytes of a character, in UTF-8.
const MAX_CHARACTER: usize = 4;

impl<'a> Characters<'a> {
    fn of(set: &'a [u8]) -> Result<Self> {
        let mut characters = Self { one: [None; 256], more: HashMap::new() };
        // SQLite takes a NUL for the end.
        let mut rest = &set[..memchr::memchr(0, set).unwrap_or(set.len())];
        while let Some(first) = rest.first() {
            let place = set.len() - rest.len();
            let follow =
                if *first < 0xc0 { 0 } else { rest[1..].iter().take_while(|byte| is_continuation(**byte)).count() };
            let (character, left) = rest.split_at(1 + follow);
            if character.len() > MAX_CHARACTER {
                return Err(said("the characters to trim are not UTF-8"));
            }
            if follow == 0 {
                characters.one[usize::from(*first)].get_or_insert(place);
            } else {
                characters.more.entry(character).or_insert(place);
            }
            rest = left;
        }
        Ok(characters)
    }

    /// The length of the character that the text begins with, if it is one of these.
    fn at_start(&self, text: &[u8]) -> Option<usize> {
        let first = *text.first()?;
        let longest = if first < 0xc0 { 1 } else { MAX_CHARACTER.min(text.len()) };
        self.first_of(self.one[usize::from(first)], (2..=longest).map(|length| &text[..length]))
    }

    fn at_end(&self, text: &[u8]) -> Option<usize> {
        let last = *text.last()?;
        let longest = if is_continuation(last) { MAX_CHARACTER.min(text.len()) } else { 1 };
        self.first_of(self.one[usize::from(last)], (2..=longest).map(|length| &text[text.len() - length..]))
    }

    fn first_of<'t>(&self, one: Option<usize>, more: impl Iterator<Item = &'t [u8]>) -> Option<usize> {
        let more = more.filter_map(|bytes| self.more.get(bytes).map(|place| (*place, bytes.len())));
        more.chain(one.map(|place| (place, 1))).min().map(|(_, length)| length)
    }
}

/// SQLite's own, of few characters to skip.
fn unhex(arguments: &Context<'_>, plain: &Plain) -> Result<Option<Vec<u8>>> {
    let (text, skipped) = (arguments.get_raw(0), arguments.get_raw(1));
    if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = skipped
        && bytes.len() > MAX_SKIPPED
    {
        return Err(said("unhex skips at most 64 bytes of characters"));
    }
    let plain = plain.0.lock().unwrap_or_else(PoisonError::into_inner);
    let own = |value| ToSqlOutput::Borrowed(value);
    plain.prepare_cached("SELECT unhex(?1, ?2)")?.query_row([own(text), own(skipped)], |row| row.get(0))
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn said(message: &str) -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ERROR), Some(message.to_owned()))
}

#[cfg(test)]
mod tests;
