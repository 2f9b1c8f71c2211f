//! Values as text: the one writer that asks the memory account before it grows, and `print`, `debug`,
//! `to_string` and `to_debug` of containers written with it.
//!
//! A string is shared, not copied, when an array holds it many times, so a few kilobytes of array can print
//! as gigabytes: the text must be checked while it is written. It must not know what the text is for.

use std::fmt::{self, Write as _};
use std::io;

use data_encoding::HEXLOWER;
use rhai::{
    Array, Blob, Dynamic, EvalAltResult, FUNC_TO_DEBUG, FUNC_TO_STRING, ImmutableString, Map, NativeCallContext,
};

use super::{Checked, tick};
use crate::script::account;

/// Containers nested deeper than this are written as `…` (text) or refused (JSON): writing recurses on the
/// native stack. No deeper can `serde_json` read.
pub(super) const MAX_DEPTH: usize = 127;

/// Pieces written between two chances for the engine to interrupt.
const PIECES_PER_TICK: usize = 1024;

/// A text under construction.
pub(super) struct Text<'c> {
    written: ImmutableString,
    pieces: usize,
    ctx: &'c NativeCallContext<'c>,
    failure: Option<Box<EvalAltResult>>,
}

impl<'c> Text<'c> {
    pub(super) fn new(ctx: &'c NativeCallContext<'c>) -> Self {
        Self { written: ImmutableString::new(), pieces: 0, ctx, failure: None }
    }

    pub(super) fn push(&mut self, piece: &str) -> Checked<()> {
        self.pieces += 1;
        if self.pieces.is_multiple_of(PIECES_PER_TICK) {
            tick(self.ctx)?;
        }
        let text = self.written.make_mut();
        if text.len() + piece.len() > text.capacity() {
            // It grows by doubling, or to what is needed.
            account::reserve(text.capacity().max(piece.len()))?;
        }
        text.push_str(piece);
        Ok(())
    }

    /// Writes formatted text; use instead of `write!`, which has no room for the reason of a failure.
    pub(super) fn format(&mut self, text: fmt::Arguments<'_>) -> Checked<()> {
        fmt::Write::write_fmt(self, text).or_else(|_| self.outcome())
    }

    /// Why a writer that knows only [`fmt::Error`] or [`io::Error`] was stopped.
    pub(super) fn outcome(&mut self) -> Checked<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    pub(super) fn finish(self) -> ImmutableString {
        self.written
    }

    /// Appends what the plain `to_debug` of Rhai gives for `value`.
    fn push_debug(&mut self, value: &mut Dynamic, depth: usize) -> Checked<()> {
        if let Ok(array) = value.as_array_mut().as_deref_mut() {
            self.push_array(array, depth)
        } else if let Ok(map) = value.as_map_mut().as_deref_mut() {
            self.push_map(map, depth)
        } else if let Ok(blob) = value.as_blob_ref() {
            self.push_blob(&blob)
        } else if let Ok(string) = value.as_immutable_string_ref() {
            self.format(format_args!("{:?}", string.as_str()))
        } else {
            let piece = native_text(self.ctx, FUNC_TO_DEBUG, value)?;
            self.push(&piece)
        }
    }

    fn push_array(&mut self, array: &mut Array, depth: usize) -> Checked<()> {
        if depth == MAX_DEPTH {
            return self.push("…");
        }
        self.push("[")?;
        for (index, item) in array.iter_mut().enumerate() {
            if index > 0 {
                self.push(", ")?;
            }
            self.push_debug(item, depth + 1)?;
        }
        self.push("]")
    }

    fn push_map(&mut self, map: &mut Map, depth: usize) -> Checked<()> {
        if depth == MAX_DEPTH {
            return self.push("…");
        }
        self.push("#{")?;
        for (index, (key, value)) in map.iter_mut().enumerate() {
            if index > 0 {
                self.push(", ")?;
            }
            self.format(format_args!("{:?}: ", key.as_str()))?;
            self.push_debug(value, depth + 1)?;
        }
        self.push("}")
    }

    fn push_blob(&mut self, blob: &Blob) -> Checked<()> {
        self.push("[")?;
        for (index, bytes) in blob.chunks(8).enumerate() {
            if index > 0 {
                self.push(" ")?;
            }
            self.push(&HEXLOWER.encode(bytes))?;
        }
        self.push("]")
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.push(piece).map_err(|error| {
            self.failure = Some(error);
            fmt::Error
        })
    }
}

impl io::Write for Text<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(piece).map_err(io::Error::other)?;
        self.write_str(text).map_err(io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text of any value by the native function `name` (`to_string` or `to_debug`), as Rhai's own operators
/// make it, except that an error that must end the run is passed on instead of being printed over.
pub(super) fn native_text(ctx: &NativeCallContext, name: &str, value: &mut Dynamic) -> Checked<ImmutableString> {
    match ctx.call_native_fn_raw(name, true, &mut [value]) {
        Ok(text) => Ok(match text.into_immutable_string() {
            Ok(text) => text,
            Err(type_name) => ctx.engine().map_type_name(type_name).into(),
        }),
        Err(error) if !error.is_catchable() => Err(error),
        Err(_) => {
            let mut text = Text::new(ctx);
            if name == FUNC_TO_STRING {
                text.format(format_args!("{value}"))?;
            } else {
                text.format(format_args!("{value:?}"))?;
            }
            Ok(ctx.engine().map_type_name(&text.finish()).into())
        }
    }
}

/// The text of a container; a refusal ends it early.
///
/// The caller may be a string interpolation, which would answer an error by printing the value once more,
/// unchecked. So the text so far is returned and the refusal, which the account remembers (or which the
/// engine will repeat at its next operation), ends the run.
fn lenient(ctx: &NativeCallContext, write: impl FnOnce(&mut Text) -> Checked<()>) -> ImmutableString {
    let mut text = Text::new(ctx);
    let _ends_the_run_elsewhere = write(&mut text);
    text.finish()
}

/// The text of a container, for `print` and `debug`: nothing is printed when the run must end.
fn strict(ctx: &NativeCallContext, write: impl FnOnce(&mut Text) -> Checked<()>) -> Checked<ImmutableString> {
    let mut text = Text::new(ctx);
    write(&mut text)?;
    Ok(text.finish())
}

#[rhai::export_module]
pub(super) mod functions {
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn array_text(ctx: NativeCallContext, array: &mut Array) -> ImmutableString {
        lenient(&ctx, |text| text.push_array(array, 0))
    }

    #[rhai_fn(name = "print", name = "debug", pure, return_raw)]
    pub fn print_array(ctx: NativeCallContext, array: &mut Array) -> Checked<ImmutableString> {
        strict(&ctx, |text| text.push_array(array, 0))
    }

    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn map_text(ctx: NativeCallContext, map: &mut Map) -> ImmutableString {
        lenient(&ctx, |text| text.push_map(map, 0))
    }

    #[rhai_fn(name = "print", name = "debug", pure, return_raw)]
    pub fn print_map(ctx: NativeCallContext, map: &mut Map) -> Checked<ImmutableString> {
        strict(&ctx, |text| text.push_map(map, 0))
    }

    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn blob_text(ctx: NativeCallContext, blob: &mut Blob) -> ImmutableString {
        lenient(&ctx, |text| text.push_blob(blob))
    }

    #[rhai_fn(name = "print", name = "debug", pure, return_raw)]
    pub fn print_blob(ctx: NativeCallContext, blob: &mut Blob) -> Checked<ImmutableString> {
        strict(&ctx, |text| text.push_blob(blob))
    }

    #[rhai_fn(name = "to_debug", name = "debug", return_raw)]
    pub fn debug_string(ctx: NativeCallContext, string: &str) -> Checked<ImmutableString> {
        strict(&ctx, |text| text.format(format_args!("{string:?}")))
    }

    /// `string + value`
    #[rhai_fn(name = "+", pure, return_raw)]
    pub fn append(ctx: NativeCallContext, string: &mut ImmutableString, item: Dynamic) -> Checked<ImmutableString> {
        let mut item = item;
        let text = native_text(&ctx, FUNC_TO_STRING, &mut item)?;
        Ok(&*string + &text)
    }

    /// `string += value`
    #[rhai_fn(name = "+=", name = "append", return_raw)]
    pub fn append_assign(ctx: NativeCallContext, string: &mut ImmutableString, item: Dynamic) -> Checked<()> {
        let mut item = item;
        let text = native_text(&ctx, FUNC_TO_STRING, &mut item)?;
        *string += text;
        Ok(())
    }

    /// `value + string`
    #[rhai_fn(name = "+", pure, return_raw)]
    pub fn prepend(ctx: NativeCallContext, item: &mut Dynamic, string: &str) -> Checked<ImmutableString> {
        let text = native_text(&ctx, FUNC_TO_STRING, item)?;
        Ok(text + string)
    }
}
