//! Rhai's standard functions, made safe for the memory account: those whose result can outgrow their input are
//! replaced by versions that ask [`account::reserve`](super::account::reserve) first, those that cannot be
//! interrupted by versions that can. It must not know jobs, fibers or host functions.
//!
//! What holds: one operation takes at most twice its inputs, or what it asked for, and before the next one the engine
//! looks at the account. The operators that Rhai has built in (`+` and `+=` of strings, arrays and blobs; replacing
//! them has no effect) and copies of values stay below that by themselves. Which function is of which kind is listed
//! in `standard.txt`; a test holds the list against Rhai. Results are Rhai's own, with these exceptions:
//! an error in a comparer of `sort`, `order` or `dedup` is passed on, and a comparer without a total order gives some
//! order instead of an error; `pad` with an empty text is an error instead of an endless loop; the text of values nested
//! deeper than 127 levels is cut, as JSON they are an error; a function in JSON is its name alone.

mod arrays;
mod blobs;
mod chars;
mod interpolation;
mod json;
mod sort;
mod strings;
mod text;

#[cfg(test)]
mod tests;

use std::ops::{Range, RangeInclusive};

use rhai::plugin::combine_with_exported_module;
use rhai::{Dynamic, Engine, EvalAltResult, INT, Module, NativeCallContext};

pub use interpolation::is_interpolating;

/// What a replaced function returns.
type Checked<T> = Result<T, Box<EvalAltResult>>;

type ExclusiveRange = Range<INT>;
type InclusiveRange = RangeInclusive<INT>;

/// Replaces standard functions of `engine`, which must have the standard package.
pub fn register(engine: &mut Engine) {
    interpolation::prepare();
    let mut module = Module::new();
    combine_with_exported_module!(&mut module, "text", text::functions);
    combine_with_exported_module!(&mut module, "strings", strings::functions);
    combine_with_exported_module!(&mut module, "chars", chars::functions);
    combine_with_exported_module!(&mut module, "arrays", arrays::functions);
    combine_with_exported_module!(&mut module, "blobs", blobs::functions);
    combine_with_exported_module!(&mut module, "json", json::functions);
    chars::register_iterators(&mut module);
    module.set_custom_type::<chars::Chars>("range");
    engine.register_global_module(module.into());
}

/// Lets the engine count an operation, and so interrupt: calling some native function is the only way a native
/// function has to reach `on_progress`.
fn tick(ctx: &NativeCallContext) -> Checked<()> {
    let mut value = Dynamic::FALSE;
    ctx.call_native_fn_raw("!", false, &mut [&mut value]).map(drop)
}

/// A range of positions, as the start and length that the functions without a range take.
fn start_and_len(range: &ExclusiveRange) -> (INT, INT) {
    let start = range.start.max(0);
    (start, range.end.max(start) - start)
}

/// The same for a range that includes its end.
fn start_and_len_inclusive(range: &InclusiveRange) -> (INT, INT) {
    let start = (*range.start()).max(0);
    let end = (*range.end()).max(start).min(INT::MAX - 1);
    (start, end - start + 1)
}
