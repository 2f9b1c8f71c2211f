//! No standard function, replaced or not, panics, aborts or outgrows the account, whatever it is called with.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rhai::{AST, Dynamic, Engine, EvalAltResult, FLOAT, INT, Scope};

use super::{checked, listed};
use crate::script::account::{self, Account};

const LIMIT: usize = 1 << 20;

/// Operations of the engine that one call may take.
const OPERATIONS: u64 = 1_000;

fn numbers<T: Into<Dynamic>>(values: impl IntoIterator<Item = T>) -> Vec<Dynamic> {
    values.into_iter().map(Into::into).collect()
}

fn floats() -> Vec<Dynamic> {
    numbers::<FLOAT>([FLOAT::NAN, FLOAT::INFINITY, FLOAT::NEG_INFINITY, FLOAT::MAX, -0.0, 1e-300, 1.5, 1e19])
}

fn integers() -> Vec<Dynamic> {
    numbers::<INT>([INT::MIN, INT::MIN + 1, -65, -1, 0, 1, 2, 63, 64, 400, 1 << 33, INT::MAX - 1, INT::MAX])
}

macro_rules! extremes {
    ($($number:ty),*) => { vec![$(Dynamic::from(<$number>::MIN), Dynamic::from(<$number>::MAX), Dynamic::from(<$number>::default())),*] };
}

/// Extreme values of a parameter type.
fn samples(engine: &Engine, kind: &str) -> Vec<Dynamic> {
    let expressions: &[&str] = match kind {
        "i64" => return integers(),
        "f64" => return floats(),
        "N" => return extremes![i8, u8, i16, u16, i32, u32, u64, i128, u128, f32],
        "_" => return [integers(), floats(), samples(engine, "N"), samples(engine, "char")].concat(),
        "Range<N>" => return vec![Dynamic::from(i8::MIN..i8::MAX), Dynamic::from(0..u128::MAX)],
        "Range<f64>" => return vec![Dynamic::from(0.0..FLOAT::NAN), Dynamic::from(0.0..FLOAT::MAX)],
        "()" => &["()"],
        "bool" => &["true"],
        "char" => &["'a'", "'\\x00'", "'ΐ'", "'\\U0010ffff'"],
        "string" => &[
            "\"\"",
            "\"a\"",
            "let s = \"\"; s.pad(30_000, 'ΐ'); s",
            "let s = \"\"; s.pad(60_000, '\\x01'); s",
            "let s = \"\"; s.pad(20_000, \" ,\"); s",
            "\"[[1e400, -99999999999999999999\"",
        ],
        "array" => &[
            "[]",
            "let a = []; a.pad(5_000, 1); a",
            "let a = []; a.pad(5_000, 1.5); a[3] = 0.0 / 0.0; a",
            "let s = \"\"; s.pad(60_000, 'x'); let a = []; a.pad(1_000, s); a",
            "let a = [1]; for i in 0..300 { a = [a] } a",
            "[1, 'a', #{}, (), Fn(\"many\"), timestamp()]",
        ],
        "map" => &[
            "#{}",
            "let m = #{}; for i in 0..300 { m[`${i}`] = [i] } m",
            "let m = #{}; for i in 0..300 { m = #{ m: m } } m",
        ],
        "blob" => &["blob()", "blob(1)", "blob(60_000, 255)"],
        "Fn" => &["Fn(\"many\")", "Fn(\"missing\")", "let f = 0; f = || f; f", "Fn(\"many\").curry(1).curry([2])"],
        "range" | "Range<i64>" => &["0..0", "-1..9_223_372_036_854_775_807", "9_223_372_036_854_775_807..0", "3..70"],
        "range=" => &["0..=0", "-1..=9_223_372_036_854_775_807", "9_223_372_036_854_775_807..=0", "3..=70"],
        "timestamp" => &["timestamp()", "timestamp() + 1e9", "timestamp() - 1"],
        "Dynamic" => &["1", "\"text\"", "[[1]]", "#{ a: 1 }", "blob(1_000)", "Fn(\"many\")", "timestamp()"],
        other => panic!("no samples of {other}"),
    };
    let value = |text: &&str| engine.eval::<Dynamic>(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    expressions.iter().map(value).collect()
}

/// A script that calls the function with `a`, `b`, `c` and `d`.
fn call(name: &str, parameters: usize) -> String {
    let arguments = ["a", "b", "c", "d"][..parameters].join(", ");
    let is_word = name.starts_with(|first: char| first.is_ascii_alphabetic());
    match (name.split_once('$'), parameters) {
        (Some(("get", property)), _) => format!("a.{property}"),
        (Some((_, property)), _) => format!("a.{property} = b"),
        _ if is_word => format!("fn many(x) {{ [x, x] }} {name}({arguments})"),
        (_, 1) => format!("{name}a"),
        _ => format!("a {name} b"),
    }
}

/// Calls it; whether there is a function for these arguments.
fn survives(engine: &Engine, ast: &AST, operations: &Cell<u64>, arguments: &[&Dynamic], what: &str) -> bool {
    let account = Account::new(LIMIT);
    operations.set(0);
    let call = || {
        let mut scope = Scope::new();
        for (name, value) in ["a", "b", "c", "d"].into_iter().zip(arguments) {
            scope.push_dynamic(name, (*value).clone());
        }
        engine.eval_ast_with_scope::<Dynamic>(&mut scope, ast).map(drop)
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| account.charge(call)));
    let short = |value: &&Dynamic| format!("{} {:.40}", value.type_name(), format!("{value:?}"));
    let shown = || arguments.iter().map(short).collect::<Vec<_>>();
    let Ok(outcome) = outcome else {
        panic!("{what} panics with {:?}", shown());
    };
    // Samples are small against the limit. A text that just fits is copied once when it becomes a Rhai string.
    assert!(account.peak() <= 2 * LIMIT, "{what} takes {} bytes with {:?}", account.peak(), shown());
    !matches!(outcome.map_err(|error| *error), Err(EvalAltResult::ErrorFunctionNotFound(..)))
}

#[test]
fn standard_functions_survive_extreme_arguments() {
    let mut engine = checked();
    let operations = Rc::new(Cell::new(0));
    let counted = Rc::clone(&operations);
    engine.on_progress(move |_| {
        counted.set(counted.get() + 1);
        (counted.get() > OPERATIONS || account::would_exceed(0)).then_some(Dynamic::UNIT)
    });
    engine.on_print(|_| {});
    engine.on_debug(|_, _, _| {});
    let makes_samples = checked();

    for function in listed("*") {
        let (receiver, rest) = function.split_once('.').unwrap();
        let (name, others) = rest[..rest.len() - 1].split_once('(').unwrap();
        if name == "sleep" {
            continue;
        }
        let types = [receiver].into_iter().chain(others.split(',')).filter(|kind| !["-", ""].contains(kind));
        let lists: Vec<_> = types.map(|kind| samples(&makes_samples, kind)).collect();
        let ast = engine.compile(call(name, lists.len())).unwrap();
        let first = vec![vec![]];
        let combinations = lists.iter().fold(first, |combinations: Vec<Vec<&Dynamic>>, list| {
            let longer = combinations.iter().flat_map(|start| list.iter().map(move |value| (start, value)));
            longer.map(|(start, value)| [start.as_slice(), &[value]].concat()).collect()
        });
        let mut found = false;
        for arguments in combinations {
            found |= survives(&engine, &ast, &operations, &arguments, &function);
        }
        assert!(found, "{function} was never called");
    }
}
