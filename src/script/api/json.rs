//! `json::parse` and `json::format`, for values of any size.

use rhai::{Dynamic, Module};

use super::{args, from_json, put, room, to_json};
use crate::script::context::{self, ScriptResult};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "parse", |text: Dynamic| parse(&text));
    put!(&mut module, "format", |value: Dynamic| format(&value));
    module
}

fn parse(text: &Dynamic) -> ScriptResult<Dynamic> {
    context::current()?;
    let text = args::text("json::parse", "text", text)?;
    from_json("json::parse", &text)
}

fn format(value: &Dynamic) -> ScriptResult<String> {
    let run = context::current()?;
    to_json("json::format", "value", value, room(&run))
}
