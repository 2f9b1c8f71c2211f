//! `template::render`: a file of `jobs/templates/`, filled with values, in the version that the run began with.

use std::sync::Arc;

use rhai::{Dynamic, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{args, handed_over, put, room, to_json};
use crate::script::account;
use crate::script::context::{self, ScriptResult};

/// Bytes of values and of rendered text.
const MAX_VALUES: usize = 8 << 20;
const MAX_TEXT: usize = 8 << 20;

pub const REFERENCE: Namespace = Namespace {
    name: "template",
    about: "",
    functions: &[Function::new(
        &["render(name: string) -> string", "render(name: string, values: map) -> string"],
        "fills a file of `jobs/templates/`",
        "// templates/hello.html is <p>{{ name }}: {{ items | length }}</p>\n\
         template::render(\"hello.html\", #{ name: \"Ada & Co\", items: [1, 2] })",
        Outcome::Value(r#""<p>Ada &amp; Co: 2</p>\n""#),
    )],
    notes: "The syntax is Jinja's: `{{ x }}`, `{% for %}`, `{% include %}`. `.html`, `.htm`, `.xml` and `.svg` escape for\nHTML, \
            `.json`, `.js` and `.yaml` for JSON, others not. `()` prints as nothing. A name that is not among the values is an \
            error with its line; `{{ x | default(\"\") }}` allows it.\nAt most 8 MiB of text.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "render", |name: Dynamic| render(&name, &Map::new().into()));
    put!(&mut module, "render", |name: Dynamic, values: Dynamic| render(&name, &values));
    module
}

fn render(name: &Dynamic, values: &Dynamic) -> ScriptResult<String> {
    const FUNCTION: &str = "template::render";

    let run = context::current()?;
    let name = args::name(FUNCTION, "name", name)?;
    if !values.is_map() {
        return Err(args::unfit(FUNCTION, "values", "a map", values));
    }
    let values = handed_over(&to_json(FUNCTION, "values", values, MAX_VALUES)?);
    let (name, templates) = (handed_over(&name), Arc::clone(&run.script.templates));
    let most = MAX_TEXT.min(room(&run));
    // A few values can make a template work for long, so it always leaves the thread.
    let text = context::compute(usize::MAX, move || templates.render(&name, &values, most))?;
    account::adopt(text.capacity());
    Ok(text)
}
