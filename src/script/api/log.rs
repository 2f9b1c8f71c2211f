//! `log::debug`, `info`, `warn`, `error`: a message, and fields as a map.

use rhai::{Dynamic, Module};
use serde_json::value::RawValue;

use super::{args, control, put, to_json};
use crate::job::LogLevel;
use crate::script::context::{self, ScriptResult};

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
