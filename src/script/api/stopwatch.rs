//! Rhai's `timestamp()` and `elapsed` on the clock of the run, which in tests is ahead of the real one. What they give is
//! Rhai's own.

use std::time::Instant;

use rhai::{Dynamic, EvalAltResult, FuncRegistration, Module, Position};

use crate::script::context;

pub fn module() -> Module {
    let mut module = Module::new();
    FuncRegistration::new("timestamp").with_volatility(true).set_into_module(&mut module, now);
    FuncRegistration::new("elapsed").set_into_module(&mut module, elapsed);
    FuncRegistration::new_getter("elapsed").set_into_module(&mut module, elapsed);
    module
}

fn now() -> Instant {
    let now = Instant::now();
    // A run that was ended does not read it any more.
    let ahead = context::current().map(|run| run.ports.ahead()).unwrap_or_default();
    now.checked_add(ahead).unwrap_or(now)
}

fn elapsed(timestamp: &mut Instant) -> Result<Dynamic, Box<EvalAltResult>> {
    let later = || Box::new(EvalAltResult::ErrorArithmetic("Time-stamp is later than now".to_owned(), Position::NONE));
    let passed = now().checked_duration_since(*timestamp).ok_or_else(later)?;
    Ok(passed.as_secs_f64().into())
}
