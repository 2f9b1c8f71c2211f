//! What scripts can call: one file per namespace, each a thin layer over the services and the run's ports.
//!
//! A host function takes its arguments apart ([`args`]), asks who is calling, and hands plain values to work that is
//! done elsewhere. Whatever it gives away is built outside the run's memory account, whatever comes back is entered
//! into it. Arguments come as `Dynamic`, so that a wrong one gets an error that names it instead of "function not
//! found".

pub(super) mod args;
mod control;
mod crypto;
mod csv;
mod email;
pub(super) mod file;
mod http;
mod json;
mod log;
mod random;
pub mod reference;
mod regex;
mod sql;
mod stopwatch;
mod template;
#[cfg(test)]
mod tests;
mod time;
#[cfg(debug_assertions)]
mod trial;
mod url;
mod xlsx;

use std::cell::Cell;

use data_encoding::HEXLOWER;
use rhai::{Dynamic, Engine, NativeCallContext, Token};
use sha2::{Digest, Sha256};

use super::account;
use super::context::{self, RunContext, ScriptResult};
use super::convert;
use super::moment::Time;
use super::ports::HostResult;
use super::services::Reply;

/// Adds the host library to an engine.
pub fn register(engine: &mut Engine) {
    // One module for all of them: Rhai asks each in turn whenever it looks for a function.
    let mut global = control::module();
    global.combine(http::methods()).combine(stopwatch::module()).combine(time::methods());
    global.set_custom_type::<Time>("time").set_custom_type::<sql::Open>("transaction");
    engine.register_global_module(global.into());
    for (name, module) in [
        ("crypto", crypto::module()),
        ("csv", csv::module()),
        ("email", email::module()),
        ("file", file::module()),
        ("http", http::module()),
        ("json", json::module()),
        ("log", log::module()),
        ("random", random::module()),
        ("regex", regex::module()),
        ("sql", sql::module()),
        ("template", template::module()),
        ("time", time::module()),
        ("url", url::module()),
        ("xlsx", xlsx::module()),
    ] {
        engine.register_static_module(name, module.into());
    }
    #[cfg(debug_assertions)]
    trial::register(engine);
    read_debug_as_a_name(engine);
}

/// Rhai keeps the word `debug` for its own function, also after `::`, where only a name of ours can stand.
fn read_debug_as_a_name(engine: &mut Engine) {
    let after_colons = Cell::new(false);
    let map = move |token: Token| {
        let after_colons = after_colons.replace(token == Token::DoubleColon);
        match token {
            Token::Reserved(word) if after_colons && *word == "debug" => Token::Identifier(word),
            token => token,
        }
    };
    #[expect(deprecated, reason = "not deprecated: the attribute is Rhai's mark of an interface that may change")]
    engine.on_parse_token(move |token, _, _| map(token));
}

/// Puts a function into a module. Its errors get the place of the call, which Rhai does not give them.
macro_rules! put {
    ($module:expr, $name:expr, || $body:expr) => {
        put!($module, $name, | | $body)
    };
    ($module:expr, $name:expr, |$($arg:ident: $type:ty),*| $body:expr) => {
        rhai::FuncRegistration::new($name).set_into_module(
            $module,
            move |context: rhai::NativeCallContext, $($arg: $type),*| $crate::script::api::placed(&context, || $body),
        )
    };
}
pub(super) use put;

pub(super) fn placed<T>(call: &NativeCallContext, function: impl FnOnce() -> ScriptResult<T>) -> ScriptResult<T> {
    function().map_err(|mut error| {
        if !error.is_catchable() {
            // Rhai replaces the place of such an error at every call that it passes through.
            context::ended_at(call.call_source(), call.call_position());
        }
        if error.position().is_none() {
            error.set_position(call.call_position());
        }
        error
    })
}

/// A copy that is no longer the script's memory: for values that are handed to other threads.
fn handed_over<T: Clone>(value: &T) -> T {
    account::uncharged(|| value.clone())
}

/// Lets the engine count, interrupt and give up the thread in the middle of a long conversion.
fn go_on() -> bool {
    context::goes_on() || context::attend().is_none()
}

/// JSON of at most `max_bytes`; errors name the function and the place in `root`.
pub(super) fn to_json(function: &str, root: &str, value: &Dynamic, max_bytes: usize) -> ScriptResult<String> {
    convert::to_json_while(go_on, value, root, max_bytes).map_err(|fault| ended_or(function, &fault))
}

/// The value of a JSON text.
fn from_json(function: &str, text: &str) -> ScriptResult<Dynamic> {
    convert::from_json_while(go_on, text).map_err(|fault| ended_or(function, &fault))
}

/// The end of the run, if that is why a conversion was given up, else its fault.
fn ended_or(function: &str, fault: &convert::ConvertFault) -> Box<rhai::EvalAltResult> {
    match context::current() {
        Err(ended) => ended,
        Ok(_) => args::wrong(format!("{function}: {fault}")),
    }
}

/// Waits for work that is done elsewhere.
fn answer<T: 'static>(reply: Reply<T>) -> ScriptResult<T> {
    context::wait(async move {
        // The text of an error becomes the script's.
        reply.await.inspect_err(|error| account::adopt(error.message.capacity()))
    })
}

/// Computes over the bytes of a string or a blob: here when they are few, else on a blocking thread, to which a copy of
/// them goes. `capacity` is what the result holds on the heap.
fn over_bytes<T: Send + 'static>(
    function: &str,
    argument: &str,
    value: &Dynamic,
    capacity: fn(&T) -> usize,
    work: impl FnOnce(&[u8]) -> HostResult<T> + Send + 'static,
) -> ScriptResult<T> {
    let run = context::current()?;
    let length = args::with_bytes(function, argument, value, <[u8]>::len)?;
    if length <= context::COMPUTE_INLINE {
        return args::with_bytes(function, argument, value, work)?.map_err(context::throw);
    }
    let bytes = args::bytes(function, argument, value)?;
    let result = answer(account::uncharged(|| run.services.compute(move || work(&bytes))))?;
    account::adopt(capacity(&result));
    Ok(result)
}

/// An id of a call that has an effect, the same when another attempt makes the same call: from the job, what is asked
/// for, and how many times it was asked for before. What the script does in between does not matter, as it would if
/// all calls were numbered.
fn call_id(run: &RunContext, kind: &str, parts: &[&[u8]]) -> String {
    const CHUNK: usize = 64 << 10;

    let mut hash = Sha256::new();
    hash.update(run.job.id.as_bytes());
    hash.update(kind);
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        for chunk in part.chunks(CHUNK) {
            hash.update(chunk);
            // When the run is over, so is the call that the id is for.
            let _ = go_on();
        }
    }
    let call = hash.finalize();
    let mut hash = Sha256::new();
    hash.update(call);
    hash.update(run.occurrence(&call).to_le_bytes());
    HEXLOWER.encode(&hash.finalize()[..16])
}

/// Bytes that the run may still take.
fn room(run: &RunContext) -> usize {
    run.account.limit().saturating_sub(run.account.used())
}
