//! `random`: numbers, ids and choices from the operating system's generator, fit for tokens and keys.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rand::{Rng, RngExt};
use rhai::{Array, Blob, Dynamic, FLOAT, INT, Module};
use uuid::Builder;

use super::reference::{Function, Namespace, Outcome};
use super::{args, go_on, put};
use crate::script::account;
use crate::script::context::{self, ScriptResult};

/// Bytes of one call.
const MAX_BYTES: INT = 1 << 20;

pub const REFERENCE: Namespace = Namespace {
    name: "random",
    about: "",
    functions: &[
        Function::new(
            &["int(from: int, to: int) -> int"],
            "an integer; both ends count",
            "let die = random::int(1, 6);\ndie >= 1 && die <= 6",
            Outcome::Value("true"),
        ),
        Function::new(
            &["float() -> float"],
            "a number from 0 up to, but not, 1",
            "let part = random::float();\npart >= 0.0 && part < 1.0",
            Outcome::Value("true"),
        ),
        Function::new(&["bool() -> bool"], "true or false", "type_of(random::bool())", Outcome::Value("\"bool\"")),
        Function::new(&["uuid() -> string"], "a UUID, version 4", "random::uuid().len()", Outcome::Value("36")),
        Function::new(
            &["bytes(count: int) -> blob"],
            "that many bytes, at most 1 MiB",
            "random::bytes(16).len()",
            Outcome::Value("16"),
        ),
        Function::new(
            &["hex(bytes: int) -> string"],
            "that many bytes, as hex",
            "random::hex(8).len()",
            Outcome::Value("16"),
        ),
        Function::new(
            &["token(bytes: int) -> string"],
            "that many bytes as base64 for URLs; 32 are more than anybody can guess",
            "random::token(32).len()",
            Outcome::Value("43"),
        ),
        Function::new(
            &["choice(values: array) -> any"],
            "one of the values",
            r#"["red", "blue"].contains(random::choice(["red", "blue"]))"#,
            Outcome::Value("true"),
        ),
        Function::new(
            &["shuffle(values: array) -> array"],
            "the values in another order",
            "let cards = random::shuffle([3, 1, 2]);\ncards.sort();\ncards",
            Outcome::Value("[1, 2, 3]"),
        ),
    ],
    notes: "A repeated run draws anew: do not make an id of it that must be the same in the next attempt.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "int", |from: Dynamic, to: Dynamic| int(&from, &to));
    put!(&mut module, "float", || Ok(rand::rng().random::<FLOAT>()));
    put!(&mut module, "bool", || Ok(rand::rng().random::<bool>()));
    put!(&mut module, "uuid", || Ok(Builder::from_random_bytes(rand::rng().random()).into_uuid().to_string()));
    put!(&mut module, "bytes", |count: Dynamic| bytes("random::bytes", "count", &count));
    put!(&mut module, "hex", |count: Dynamic| Ok(HEXLOWER.encode(&bytes("random::hex", "bytes", &count)?)));
    put!(&mut module, "token", |count: Dynamic| Ok(BASE64URL_NOPAD.encode(&bytes("random::token", "bytes", &count)?)));
    put!(&mut module, "choice", |values: Dynamic| choice(&values));
    put!(&mut module, "shuffle", |values: Dynamic| shuffle(values));
    module
}

fn int(from: &Dynamic, to: &Dynamic) -> ScriptResult<INT> {
    const FUNCTION: &str = "random::int";

    let integer =
        |name: &str, value: &Dynamic| value.as_int().map_err(|_| args::unfit(FUNCTION, name, "an integer", value));
    let (from, to) = (integer("from", from)?, integer("to", to)?);
    if from > to {
        return Err(args::wrong(format!("{FUNCTION}: there is no integer from {from} to {to}")));
    }
    Ok(rand::rng().random_range(from..=to))
}

fn bytes(function: &str, argument: &str, count: &Dynamic) -> ScriptResult<Blob> {
    let expected = "an integer from 0 to 1048576";
    let count = count.as_int().ok().filter(|count| (0..=MAX_BYTES).contains(count));
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else {
        return Err(args::wrong(format!("{function}: `{argument}` must be {expected}")));
    };
    // The text of them is twice as long.
    account::reserve(3 * count)?;
    let mut bytes = vec![0; count];
    rand::rng().fill_bytes(&mut bytes);
    Ok(bytes)
}

fn choice(values: &Dynamic) -> ScriptResult<Dynamic> {
    const FUNCTION: &str = "random::choice";

    let Some(array) = values.read_lock::<Array>() else {
        return Err(args::unfit(FUNCTION, "values", "an array", values));
    };
    if array.is_empty() {
        return Err(args::wrong(format!("{FUNCTION}: `values` is empty")));
    }
    Ok(array[rand::rng().random_range(0..array.len())].clone())
}

/// Each order is as likely as any other (Fisher and Yates).
fn shuffle(values: Dynamic) -> ScriptResult<Array> {
    let values = values.flatten();
    if !values.is_array() {
        return Err(args::unfit("random::shuffle", "values", "an array", &values));
    }
    let mut array: Array = values.cast();
    for index in (1..array.len()).rev() {
        array.swap(index, rand::rng().random_range(0..=index));
        if index % 1024 == 0 && !go_on() {
            context::current()?;
        }
    }
    Ok(array)
}
