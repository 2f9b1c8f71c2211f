//! `json::parse` and `json::format`, for values of any size.

use rhai::{Dynamic, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{args, from_json, put, room, to_json};
use crate::script::context::{self, ScriptResult};

pub const REFERENCE: Namespace = Namespace {
    name: "json",
    about: "",
    functions: &[
        Function::new(
            &["parse(text: string) -> any"],
            "the value of a JSON text",
            r#"json::parse("{\"id\": 9007199254740993}").id"#,
            Outcome::Value("9007199254740993"),
        ),
        Function::new(
            &["format(value: any) -> string"],
            "compact JSON; the keys of a map are in the order of the alphabet",
            r#"json::format(#{ b: [1, 2.0, ()], a: "é" })"#,
            Outcome::Value(r#""{\"a\":\"é\",\"b\":[1,2.0,null]}""#),
        ),
    ],
    notes: "Integers are exact; one that does not fit 64 bits is an error. At most 64 levels.",
};

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
