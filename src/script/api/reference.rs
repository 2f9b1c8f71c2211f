//! What the host library consists of, for people: each namespace says beside its functions how they are called, what
//! they do, and an example with what comes of it.
//!
//! From this come `docs/host-functions.md` and the definitions for editors. Tests run every example, and hold
//! the names and numbers of arguments against what is registered and the page against what is written here.

use std::fmt::Write as _;

/// Functions that begin with the same `name::`, or with none.
#[derive(Clone, Copy, Debug)]
pub struct Namespace {
    /// Empty for the functions without a namespace.
    pub name: &'static str,
    /// Markdown, before the functions; may be empty.
    pub about: &'static str,
    pub functions: &'static [Function],
    /// Markdown, after the functions; may be empty.
    pub notes: &'static str,
}

/// One function, with all its numbers of arguments.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Ways to call it, as `name(argument: type, …) -> type`, without the namespace. Types are `string`, `int`, `float`,
    /// `bool`, `char`, `map`, `array`, `blob`, `Fn`, `time`, `transaction`, `any`, or several with ` | `. What returns `()` has no arrow.
    pub signatures: &'static [&'static str],
    /// Markdown without line breaks.
    pub about: &'static str,
    /// The body of a `run`.
    pub example: &'static str,
    pub outcome: Outcome,
    /// Called as `argument.name()`, whatever the namespace.
    pub method: bool,
}

/// What an example comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// JSON of the value of the last expression.
    Value(&'static str),
    /// `()`.
    Nothing,
    /// The run ends, or throws, with this message.
    Fails(&'static str),
}

impl Function {
    /// A function with its example.
    pub const fn new(
        signatures: &'static [&'static str],
        about: &'static str,
        example: &'static str,
        outcome: Outcome,
    ) -> Self {
        Self { signatures, about, example, outcome, method: false }
    }

    /// The same, called on its first argument.
    #[must_use]
    pub const fn method(self) -> Self {
        Self { method: true, ..self }
    }
}

/// One way to call a function, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub name: &'static str,
    /// Name and type.
    pub parameters: Vec<(&'static str, &'static str)>,
    /// `()` for none.
    pub returns: &'static str,
}

impl Signature {
    /// # Panics
    /// When the text has another form than [`Function::signatures`] tells; a test reads them all.
    #[must_use]
    pub fn of(text: &'static str) -> Self {
        let (name, rest) = text.split_once('(').expect("a parameter list");
        let (list, returns) = rest.rsplit_once(") -> ").unwrap_or_else(|| (rest.trim_end_matches(')'), "()"));
        let parameters = list.split(", ").filter(|parameter| !parameter.is_empty());
        let parameters = parameters.map(|parameter| parameter.split_once(": ").expect("a type")).collect();
        Self { name, parameters, returns }
    }
}

/// The whole library, in the order of the page.
#[must_use]
pub fn reference() -> Vec<Namespace> {
    vec![
        super::control::REFERENCE,
        super::log::REFERENCE,
        super::http::REFERENCE,
        super::email::REFERENCE,
        super::sql::REFERENCE,
        super::template::REFERENCE,
        super::file::REFERENCE,
        super::csv::REFERENCE,
        super::xlsx::REFERENCE,
        super::json::REFERENCE,
        super::time::REFERENCE,
        super::crypto::REFERENCE,
        super::random::REFERENCE,
        super::regex::REFERENCE,
        super::url::REFERENCE,
    ]
}

/// The page `docs/host-functions.md`.
#[must_use]
pub fn page() -> String {
    let mut page = PREFACE.to_owned();
    for namespace in reference() {
        let title = if namespace.name.is_empty() { "Control" } else { namespace.name };
        let _ = write!(page, "\n## {title}\n");
        paragraph(&mut page, namespace.about);
        page.push_str("\n| call | |\n|---|---|\n");
        for function in namespace.functions {
            let calls: Vec<String> =
                function.signatures.iter().map(|text| call(namespace.name, function, text)).collect();
            let _ = writeln!(page, "| {} | {} |", calls.join("<br>"), function.about);
        }
        page.push_str("\n```rhai\n");
        let examples: Vec<String> = namespace.functions.iter().map(example).collect();
        let mut before: Option<&String> = None;
        for example in &examples {
            // Short ones stand together.
            if before.is_some_and(|before| before.contains('\n') || example.contains('\n')) {
                page.push('\n');
            }
            page.push_str(example);
            page.push('\n');
            before = Some(example);
        }
        page.push_str("```\n");
        paragraph(&mut page, namespace.notes);
    }
    page
}

fn paragraph(page: &mut String, text: &str) {
    if !text.is_empty() {
        let _ = write!(page, "\n{}\n", text.trim());
    }
}

/// A call as the page shows it.
fn call(namespace: &str, function: &Function, text: &'static str) -> String {
    let signature = Signature::of(text);
    let mut names: Vec<&str> = signature.parameters.iter().map(|(name, _)| *name).collect();
    let before = match namespace {
        _ if function.method => format!("{}.", names.remove(0)),
        "" => String::new(),
        name => format!("{name}::"),
    };
    let returns = match signature.returns {
        "()" => String::new(),
        returns => format!(" → {}", returns.replace('|', "or")),
    };
    format!("`{before}{}({})`{returns}", signature.name, names.join(", "))
}

/// An example with what comes of it.
fn example(function: &Function) -> String {
    let said = match function.outcome {
        Outcome::Value(json) => format!("// → {json}"),
        Outcome::Nothing => return function.example.to_owned(),
        Outcome::Fails(message) => format!("// fails: {message}"),
    };
    let line = format!("{}  {said}", function.example);
    if line.len() <= 110 && !line.contains('\n') { line } else { format!("{}\n{said}", function.example) }
}

const PREFACE: &str = r#"# What scripts can call

Everything here waits without holding a thread, ends with its run, and counts what it brings towards the run's `memory`.
Arguments of a wrong type are errors that name the argument. Options are maps; an unknown key is an error.

**Errors** can be caught: `try { … } catch (e) { … }` gives `e` as `#{ kind, message, retryable, status? }`. `kind` is `script` for a wrong
argument, `denied` for what the script may not reach and for a limit of its run, else `host.http`, `host.sql`, `host.email`,
`host.file`. `status` is the other side's code, where it gave one. `fail` and `retry_in` cannot be caught.

**Durations** are strings: `"250ms"` `"2s"` `"5m"` `"1h"` `"1d"`. A number is refused, since nobody could know its unit.

**Calls with an effect keep their identity.** When a run is repeated (a retry, a dead worker), a call that asks for the same again
has the same id: the child job is found instead of made twice, mail has the same message id, and HTTP sends the same
`Idempotency-Key`. The id comes from the job, what is asked for, and how many times the run asked for it; what else the
script did in between does not matter.

This page is made from `src/script/api/`; its examples are tests. `→` is what the line before, or the last of several, gives, as JSON.
"#;
