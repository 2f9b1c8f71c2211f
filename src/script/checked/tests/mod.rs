//! What the replaced functions promise: every standard function is classified, results are Rhai's own, and no
//! call outgrows its account.

mod abuse;
mod classes;
mod equivalence;
mod survival;

use std::rc::Rc;

use rhai::{Dynamic, Engine, EvalAltResult};

use super::is_interpolating;
use crate::script::account::{Account, OverMemory};

/// An engine as scripts get it.
fn checked() -> Engine {
    let mut engine = Engine::new();
    super::register(&mut engine);
    engine
}

/// The functions listed in `standard.txt` under `[class]`, as `type.name(types)`.
fn listed(class: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut section, mut receiver) = ("", "");
    let lines = include_str!("../standard.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let functions = if let Some(more) = line.strip_prefix(' ') {
            more
        } else {
            let (first, functions) = line.split_once(": ").expect("a line names a type");
            receiver = first;
            functions
        };
        if section == class || class == "*" {
            found.extend(functions.split_whitespace().map(|f| format!("{receiver}.{f}")));
        }
    }
    found
}

/// Runs `script` with `limit` bytes, interrupted as a fiber would; the outcome, and the peak in bytes.
fn run(limit: usize, script: &str) -> (Result<Dynamic, Box<EvalAltResult>>, usize) {
    let account = Account::new(limit);
    let mut engine = checked();
    let watched = Rc::clone(&account);
    engine.on_progress(move |_| watched.verdict().map(Dynamic::from).filter(|_| !is_interpolating()));
    let outcome = account.charge(|| engine.eval::<Dynamic>(script));
    (outcome, account.peak())
}

/// Why the run was ended, if it was for its memory.
fn over_memory(error: &EvalAltResult) -> Option<OverMemory> {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => over_memory(inner),
        EvalAltResult::ErrorTerminated(token, _) => token.clone().try_cast(),
        _ => None,
    }
}
