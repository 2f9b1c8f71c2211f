//! `log::debug`, `info`, `warn`, `error`: a message, and fields as a map.

use rhai::{Dynamic, Module};
use serde_json::value::RawValue;

use super::reference::{Function, Namespace, Outcome};
use super::{args, control, put, to_json};
use crate::job::LogLevel;
use crate::script::context::{self, ScriptResult};

pub const REFERENCE: Namespace = Namespace {
    name: "log",
    about: "",
    functions: &[
        Function::new(
            &["debug(message: any)", "debug(message: any, fields: map)"],
            "what helps to find a fault",
            r#"log::debug("cache missed", #{ key: "a7" })"#,
            Outcome::Nothing,
        ),
        Function::new(
            &["info(message: any)", "info(message: any, fields: map)"],
            "what happened",
            r#"log::info("orders summed up", #{ orders: 7 })"#,
            Outcome::Nothing,
        ),
        Function::new(
            &["warn(message: any)", "warn(message: any, fields: map)"],
            "what somebody should look at",
            r#"log::warn("no price, taken as 0")"#,
            Outcome::Nothing,
        ),
        Function::new(
            &["error(message: any)", "error(message: any, fields: map)"],
            "what went wrong",
            r#"log::error("refused", #{ status: 403 })"#,
            Outcome::Nothing,
        ),
    ],
    notes: "A message that is no string is written as JSON. `print` is `info`, `debug` is `debug`.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    for (name, level) in
        [("debug", LogLevel::Debug), ("info", LogLevel::Info), ("warn", LogLevel::Warn), ("error", LogLevel::Error)]
    {
        put!(&mut module, name, |message: Dynamic| log(name, level, &message, &Dynamic::UNIT));
        put!(&mut module, name, |message: Dynamic, fields: Dynamic| log(name, level, &message, &fields));
    }
    module
}

fn log(name: &str, level: LogLevel, message: &Dynamic, fields: &Dynamic) -> ScriptResult<()> {
    let run = context::current()?;
    // Anything can be logged: a value that is no string shows as it prints.
    let message = match args::text("log", "message", message) {
        Ok(text) => text,
        Err(_) => to_json(&format!("log::{name}"), "message", message, run.limits.log_line)?.into(),
    };
    let fields = if fields.is_unit() {
        None
    } else if fields.is_map() {
        let text = to_json(&format!("log::{name}"), "fields", fields, run.limits.log_line)?;
        RawValue::from_string(text).ok()
    } else {
        return Err(args::unfit(&format!("log::{name}"), "fields", "a map", fields));
    };
    run.log(level, control::cut(&message, run.limits.log_line), fields.as_ref());
    Ok(())
}
