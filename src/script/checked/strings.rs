//! String functions whose result, or whose scratch memory, can outgrow the string: `replace`, `pad`, `split`,
//! changes of case, blobs read as text, and the ones that Rhai does character by character.
//!
//! Positions are counted in characters, as everywhere in Rhai; here they become byte offsets, so that cutting a
//! string allocates nothing but the result.

use std::ops::Range;

use rhai::{Array, Blob, Dynamic, INT, ImmutableString};

use super::{Checked, ExclusiveRange, InclusiveRange, start_and_len, start_and_len_inclusive};
use crate::script::account;

/// Bytes of a string value besides its text: the value, and the shared, counted string object.
const STRING_VALUE: usize = size_of::<Dynamic>() + 2 * size_of::<usize>() + size_of::<String>();

/// Texts longer than this are stored outside the string object, in no less than twice as much.
const INLINE_TEXT: usize = 23;

/// The byte offset of character `index`, counted from the end when negative.
fn char_at(string: &str, index: INT) -> Option<usize> {
    let mut chars = string.char_indices();
    let found = match usize::try_from(index) {
        Ok(index) => chars.nth(index),
        Err(_) => chars.nth_back(usize::try_from(index.unsigned_abs()).ok()? - 1),
    };
    found.map(|(offset, _)| offset)
}

/// The same for the start of a part: before the first character is at the first.
pub(super) fn offset(string: &str, start: INT) -> Option<usize> {
    char_at(string, start).or((start < 0 && !string.is_empty()).then_some(0))
}

/// The byte range of at most `len` characters from `start`; empty when there are none.
fn window(string: &str, start: INT, len: INT) -> Range<usize> {
    match (offset(string, start), usize::try_from(len)) {
        (Some(from), Ok(len)) => {
            let mut rest = string[from..].char_indices();
            from..rest.nth(len).map_or(string.len(), |(end, _)| from + end)
        }
        _ => 0..0,
    }
}

/// The character position of `find` at or after character `start`, −1 when there is none.
fn find(string: &str, start: INT, find: impl FnOnce(&str) -> Option<usize>) -> INT {
    let found = offset(string, start).and_then(|from| Some(from + find(&string[from..])?));
    found.map_or(-1, |at| INT::try_from(string[..at].chars().count()).unwrap_or(INT::MAX))
}

/// Replaces every `find` in `string`, in memory asked for. An empty string stays empty, whatever is to be found.
fn replace_all(string: &mut ImmutableString, find: &str, with: &str) -> Checked<()> {
    let matches = string.matches(find).count();
    if matches == 0 || string.is_empty() {
        return Ok(());
    }
    let len = (string.len() - matches * find.len()).saturating_add(matches.saturating_mul(with.len()));
    account::reserve(len)?;

    let mut result = String::with_capacity(len);
    let mut rest = 0;
    for (at, found) in string.match_indices(find) {
        result.push_str(&string[rest..at]);
        result.push_str(with);
        rest = at + found.len();
    }
    result.push_str(&string[rest..]);
    *string = result.into();
    Ok(())
}

/// `string` padded to `len` characters by repeating `padding`.
fn padded(string: &mut ImmutableString, len: INT, padding: &str) -> Checked<()> {
    let Ok(len) = usize::try_from(len) else {
        return Ok(());
    };
    let missing = len.saturating_sub(string.chars().count());
    if missing == 0 {
        return Ok(());
    }
    let unit = padding.chars().count();
    if unit == 0 {
        return Err("pad: the padding is empty, give at least one character".into());
    }
    let (whole, part) = (missing / unit, missing % unit);
    let part = &padding[window(padding, 0, INT::try_from(part).unwrap_or(INT::MAX))];
    let more = whole.saturating_mul(padding.len()).saturating_add(part.len());
    let total = string.len().saturating_add(more);
    account::reserve(total)?;

    let mut result = String::with_capacity(total);
    result.push_str(string);
    for _ in 0..whole {
        result.push_str(padding);
    }
    result.push_str(part);
    *string = result.into();
    Ok(())
}

/// An array of `pieces`, in memory asked for.
fn array_of<'s>(pieces: impl Iterator<Item = &'s str> + Clone) -> Checked<Array> {
    let (count, bytes) = pieces.clone().fold((0_usize, 0_usize), |(count, bytes), piece| {
        let text = match piece.len() {
            0..=INLINE_TEXT => 0,
            len => len.max(2 * INLINE_TEXT),
        };
        (count + 1, bytes + text)
    });
    account::reserve(count.saturating_mul(STRING_VALUE).saturating_add(bytes))?;

    let mut array = Array::with_capacity(count);
    array.extend(pieces.map(Into::into));
    Ok(array)
}

/// What `split` gives when there is nothing to split: the string itself, shared.
fn unsplit(string: &ImmutableString) -> Array {
    vec![string.clone().into()]
}

/// Whether `split` by text leaves the string in one piece.
fn is_one_piece(string: &str, delimiter: &str) -> bool {
    string.is_empty() || (!delimiter.is_empty() && !string.contains(delimiter))
}

/// The number of pieces asked for; `None` when that is one.
fn pieces(segments: INT) -> Option<usize> {
    usize::try_from(segments).ok().filter(|segments| *segments > 1)
}

/// `string` in another case. A character outside ASCII can become three.
fn recased<I: Iterator<Item = char>>(
    string: &str,
    convert: impl Fn(&str) -> String,
    convert_char: impl Fn(char) -> I,
) -> Checked<ImmutableString> {
    let len =
        if string.is_ascii() { string.len() } else { string.chars().flat_map(convert_char).map(char::len_utf8).sum() };
    account::reserve(len)?;
    Ok(convert(string).into())
}

/// `blob` read as UTF-8, each faulty sequence as one U+FFFD, which is longer than the sequence can be.
pub(super) fn lossy(blob: &[u8]) -> Checked<String> {
    let chunks = || blob.utf8_chunks();
    let faults = chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    let valid = chunks().map(|chunk| chunk.valid().len()).sum::<usize>();
    let len = valid + faults * char::REPLACEMENT_CHARACTER.len_utf8();
    account::reserve(len)?;

    let mut text = String::with_capacity(len);
    for chunk in chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Ok(text)
}

#[rhai::export_module]
pub(super) mod functions {
    #[rhai_fn(return_raw)]
    pub fn replace(string: &mut ImmutableString, find: &str, with: &str) -> Checked<()> {
        replace_all(string, find, with)
    }

    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace_by_char(string: &mut ImmutableString, find: &str, with: char) -> Checked<()> {
        replace_all(string, find, &with.to_string())
    }

    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace_char(string: &mut ImmutableString, find: char, with: &str) -> Checked<()> {
        replace_all(string, &find.to_string(), with)
    }

    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace_char_by_char(string: &mut ImmutableString, find: char, with: char) -> Checked<()> {
        replace_all(string, &find.to_string(), &with.to_string())
    }

    #[rhai_fn(return_raw)]
    pub fn pad(string: &mut ImmutableString, len: INT, padding: &str) -> Checked<()> {
        padded(string, len, padding)
    }

    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_by_char(string: &mut ImmutableString, len: INT, padding: char) -> Checked<()> {
        padded(string, len, padding.encode_utf8(&mut [0; 4]))
    }

    #[rhai_fn(name = "split", pure, return_raw)]
    pub fn split_whitespace(string: &mut ImmutableString) -> Checked<Array> {
        if string.is_empty() {
            return Ok(unsplit(string));
        }
        array_of(string.split_whitespace())
    }

    #[rhai_fn(name = "split", pure)]
    pub fn split_at(string: &mut ImmutableString, index: INT) -> Array {
        // Counted from the end, 0 is the end itself.
        let at = if index == 0 { None } else { offset(string, index) };
        let (head, tail) = string.split_at(at.unwrap_or(string.len()));
        vec![head.into(), tail.into()]
    }

    #[rhai_fn(pure, return_raw)]
    pub fn split(string: &mut ImmutableString, delimiter: &str) -> Checked<Array> {
        if is_one_piece(string, delimiter) {
            return Ok(unsplit(string));
        }
        array_of(string.split(delimiter))
    }

    #[rhai_fn(name = "split", pure, return_raw)]
    pub fn split_n(string: &mut ImmutableString, delimiter: &str, segments: INT) -> Checked<Array> {
        match pieces(segments) {
            Some(count) if !is_one_piece(string, delimiter) => array_of(string.splitn(count, delimiter)),
            _ => Ok(unsplit(string)),
        }
    }

    #[rhai_fn(name = "split", pure, return_raw)]
    pub fn split_by_char(string: &mut ImmutableString, delimiter: char) -> Checked<Array> {
        if !string.contains(delimiter) {
            return Ok(unsplit(string));
        }
        array_of(string.split(delimiter))
    }

    #[rhai_fn(name = "split", pure, return_raw)]
    pub fn split_n_by_char(string: &mut ImmutableString, delimiter: char, segments: INT) -> Checked<Array> {
        match pieces(segments) {
            Some(count) if string.contains(delimiter) => array_of(string.splitn(count, delimiter)),
            _ => Ok(unsplit(string)),
        }
    }

    #[rhai_fn(name = "split_rev", pure, return_raw)]
    pub fn split_rev(string: &mut ImmutableString, delimiter: &str) -> Checked<Array> {
        if is_one_piece(string, delimiter) {
            return Ok(unsplit(string));
        }
        array_of(string.rsplit(delimiter))
    }

    #[rhai_fn(name = "split_rev", pure, return_raw)]
    pub fn split_rev_n(string: &mut ImmutableString, delimiter: &str, segments: INT) -> Checked<Array> {
        match pieces(segments) {
            Some(count) if !is_one_piece(string, delimiter) => array_of(string.rsplitn(count, delimiter)),
            _ => Ok(unsplit(string)),
        }
    }

    #[rhai_fn(name = "split_rev", pure, return_raw)]
    pub fn split_rev_by_char(string: &mut ImmutableString, delimiter: char) -> Checked<Array> {
        if !string.contains(delimiter) {
            return Ok(unsplit(string));
        }
        array_of(string.rsplit(delimiter))
    }

    #[rhai_fn(name = "split_rev", pure, return_raw)]
    pub fn split_rev_n_by_char(string: &mut ImmutableString, delimiter: char, segments: INT) -> Checked<Array> {
        match pieces(segments) {
            Some(count) if string.contains(delimiter) => array_of(string.rsplitn(count, delimiter)),
            _ => Ok(unsplit(string)),
        }
    }

    #[rhai_fn(return_raw)]
    pub fn to_chars(string: &str) -> Checked<Array> {
        let count = string.chars().count();
        account::reserve(count.saturating_mul(size_of::<Dynamic>()))?;
        let mut array = Array::with_capacity(count);
        array.extend(string.chars().map(Dynamic::from));
        Ok(array)
    }

    #[rhai_fn(return_raw)]
    pub fn to_upper(string: ImmutableString) -> Checked<ImmutableString> {
        recased(&string, str::to_uppercase, char::to_uppercase)
    }

    #[rhai_fn(return_raw)]
    pub fn make_upper(string: &mut ImmutableString) -> Checked<()> {
        *string = recased(string, str::to_uppercase, char::to_uppercase)?;
        Ok(())
    }

    #[rhai_fn(return_raw)]
    pub fn to_lower(string: ImmutableString) -> Checked<ImmutableString> {
        recased(&string, str::to_lowercase, char::to_lowercase)
    }

    #[rhai_fn(return_raw)]
    pub fn make_lower(string: &mut ImmutableString) -> Checked<()> {
        *string = recased(string, str::to_lowercase, char::to_lowercase)?;
        Ok(())
    }

    pub fn sub_string(string: &str, start: INT, len: INT) -> ImmutableString {
        string[window(string, start, len)].into()
    }

    #[rhai_fn(name = "sub_string")]
    pub fn sub_string_from(string: &str, start: INT) -> ImmutableString {
        string[window(string, start, INT::MAX)].into()
    }

    #[rhai_fn(name = "sub_string")]
    pub fn sub_string_range(string: &str, range: ExclusiveRange) -> ImmutableString {
        let (start, len) = start_and_len(&range);
        string[window(string, start, len)].into()
    }

    #[rhai_fn(name = "sub_string")]
    pub fn sub_string_inclusive(string: &str, range: InclusiveRange) -> ImmutableString {
        let (start, len) = start_and_len_inclusive(&range);
        string[window(string, start, len)].into()
    }

    pub fn crop(string: &mut ImmutableString, start: INT, len: INT) {
        *string = string[window(string, start, len)].into();
    }

    #[rhai_fn(name = "crop")]
    pub fn crop_from(string: &mut ImmutableString, start: INT) {
        *string = string[window(string, start, INT::MAX)].into();
    }

    #[rhai_fn(name = "crop")]
    pub fn crop_range(string: &mut ImmutableString, range: ExclusiveRange) {
        let (start, len) = start_and_len(&range);
        *string = string[window(string, start, len)].into();
    }

    #[rhai_fn(name = "crop")]
    pub fn crop_inclusive(string: &mut ImmutableString, range: InclusiveRange) {
        let (start, len) = start_and_len_inclusive(&range);
        *string = string[window(string, start, len)].into();
    }

    pub fn set(string: &mut ImmutableString, index: INT, character: char) {
        let Some(at) = char_at(string, index) else {
            return;
        };
        let old = string[at..].chars().next().map_or(0, char::len_utf8);
        string.make_mut().replace_range(at..at + old, character.encode_utf8(&mut [0; 4]));
    }

    pub fn pop(string: &mut ImmutableString, len: INT) -> ImmutableString {
        if len <= 0 {
            return ImmutableString::new();
        }
        match offset(string, -len) {
            Some(at) if at > 0 => {
                let tail = string[at..].into();
                string.make_mut().truncate(at);
                tail
            }
            _ => std::mem::take(string),
        }
    }

    #[rhai_fn(name = "index_of")]
    pub fn index_of_from(string: &str, text: &str, start: INT) -> INT {
        find(string, start, |rest| rest.find(text))
    }

    #[rhai_fn(name = "index_of")]
    pub fn index_of_char_from(string: &str, character: char, start: INT) -> INT {
        find(string, start, |rest| rest.find(character))
    }

    #[rhai_fn(name = "+", return_raw)]
    pub fn append_blob(string: ImmutableString, utf8: Blob) -> Checked<ImmutableString> {
        Ok(string + lossy(&utf8)?)
    }

    #[rhai_fn(name = "+=", name = "append", return_raw)]
    pub fn append_blob_assign(string: &mut ImmutableString, utf8: Blob) -> Checked<()> {
        *string += lossy(&utf8)?;
        Ok(())
    }

    #[rhai_fn(name = "+", pure, return_raw)]
    pub fn prepend_blob(utf8: &mut Blob, string: &str) -> Checked<ImmutableString> {
        Ok(ImmutableString::from(lossy(utf8)?) + string)
    }
}
