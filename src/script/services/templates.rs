//! The templates of `jobs/templates/`: compiled once per snapshot, rendered with a bound on time and memory.
//!
//! What a file's values are escaped for follows from its name: HTML for `.html`, `.htm` and `.xml`, JSON for `.json`
//! and `.js`, nothing for others. Knows no folder: sources come as text.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, Output, State, UndefinedBehavior, escape_formatter};

use crate::job::ErrorKind;
use crate::script::ports::{HostError, HostResult};

/// What one render may use: an instruction costs 1, and so do each 64 bytes that the template makes. It bounds time to
/// a fraction of a second and memory to about 128 MB, and is enough for a table of 100 000 cells.
const FUEL: u64 = 2_000_000;

/// Nesting of blocks, includes and macros, well within the stack of any thread that renders.
const RECURSION: usize = 200;

/// A fault of one template, found when it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template `{name}`{}: {message}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct TemplateFault {
    /// The template's name.
    pub name: String,
    /// 1-based, where known.
    pub line: Option<usize>,
    /// The fault alone.
    pub message: String,
}

/// One snapshot of the templates.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

impl Default for Templates {
    /// No templates.
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(escaping);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default());
        environment.set_formatter(write_value);
        // Errors then know the expression they are about.
        environment.set_debug(true);
        Self { environment }
    }
}

impl Templates {
    /// Compiles all `sources`, given by name: `welcome.html`, `mail/footer.txt`.
    ///
    /// # Errors
    /// All templates that do not compile.
    pub fn new(sources: BTreeMap<String, Arc<str>>) -> Result<Self, Vec<TemplateFault>> {
        let mut templates = Self::default();
        let mut faults = Vec::new();
        for (name, source) in sources {
            if let Err(error) = templates.environment.add_template_owned(name.clone(), source.to_string()) {
                faults.push(fault_of(&error, &name));
            }
        }
        if faults.is_empty() { Ok(templates) } else { Err(faults) }
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.environment.templates().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    /// Renders `name` with the values of the JSON object `values`, into at most `max_bytes`. Takes up to a fraction of
    /// a second: not for a thread that others wait for.
    ///
    /// # Errors
    /// When there is no such template, when it uses what is not in `values`, and when it is too long or too large.
    pub fn render(&self, name: &str, values: &str, max_bytes: usize) -> HostResult<String> {
        let template = self.environment.get_template(name).map_err(|error| {
            if error.kind() == minijinja::ErrorKind::TemplateNotFound {
                self.unknown(name)
            } else {
                failed(&error, name)
            }
        })?;
        let values: Value =
            serde_json::from_str(values).map_err(|error| wrong(format!("template `{name}`: its values: {error}")))?;
        let mut out = Capped { bytes: Vec::new(), max: max_bytes };
        match template.render_captured_to(values, &mut out) {
            Ok(_) => {}
            Err(error) if error.kind() == minijinja::ErrorKind::WriteFailure => {
                return Err(wrong(format!("template `{name}` makes more than the {max_bytes} bytes that are allowed")));
            }
            Err(error) => return Err(failed(&error, name)),
        }
        String::from_utf8(out.bytes).map_err(|error| wrong(format!("template `{name}`: {error}")))
    }

    fn unknown(&self, name: &str) -> HostError {
        let names = self.names();
        let near = names.iter().map(|known| (strsim::osa_distance(known, name), known)).min();
        wrong(match near {
            Some((distance, near)) if distance <= 3 => {
                format!("there is no template `{name}` in jobs/templates; did you mean `{near}`?")
            }
            _ => format!("there is no template `{name}` in jobs/templates (there are: {})", names.join(", ")),
        })
    }
}

fn escaping(name: &str) -> AutoEscape {
    let name = name.strip_suffix(".j2").unwrap_or(name);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html" | "htm" | "xml" | "xhtml" | "svg") => AutoEscape::Html,
        Some("json" | "js" | "json5" | "yaml" | "yml") => AutoEscape::Json,
        _ => AutoEscape::None,
    }
}

/// As scripts write them: `true`, and nothing for `()`. The engine's own way is Python's: `True`, `None`.
fn write_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        _ if matches!(state.auto_escape(), AutoEscape::Json) => escape_formatter(out, state, value),
        ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" }).map_err(Error::from),
        ValueKind::None => Ok(()),
        _ => escape_formatter(out, state, value),
    }
}

fn failed(error: &Error, name: &str) -> HostError {
    wrong(fault_of(error, name).to_string())
}

/// A template is part of the script's own files, so its faults are the script's.
fn wrong(message: String) -> HostError {
    HostError::new(ErrorKind::Script, message, false)
}

fn fault_of(error: &Error, name: &str) -> TemplateFault {
    use minijinja::ErrorKind as Kind;

    // An error inside an included template is wrapped once per include; the innermost says what happened and where.
    let mut error = error;
    while let Some(inner) = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>()) {
        error = inner;
    }
    let expression = error.range().zip(error.template_source()).and_then(|(range, source)| source.get(range));
    let message = match (error.kind(), expression) {
        (Kind::UndefinedError, Some(expression)) => format!("`{}` is not among the values given", expression.trim()),
        (Kind::OutOfFuel, _) => "it takes too long or makes too much text".to_owned(),
        _ => error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    };
    TemplateFault { name: error.name().unwrap_or(name).to_owned(), line: error.line(), message }
}

/// Refuses to grow over its limit.
struct Capped {
    bytes: Vec<u8>,
    max: usize,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn render(name: &str, source: &str, values: &str) -> Result<String, String> {
        let templates = Templates::new(BTreeMap::from([(name.to_owned(), source.into())])).unwrap();
        templates.render(name, values, MIB).map_err(|error| error.message)
    }

    #[test]
    fn values_are_escaped_by_the_type_of_the_file() {
        let values = r#"{"x":"<b>&\"é"}"#;
        for (name, made) in [
            ("a.html", "&lt;b&gt;&amp;&quot;é"),
            ("a.xml", "&lt;b&gt;&amp;&quot;é"),
            ("a.html.j2", "&lt;b&gt;&amp;&quot;é"),
            ("a.txt", "<b>&\"é"),
            ("a", "<b>&\"é"),
        ] {
            assert_eq!(render(name, "{{ x }}", values).unwrap(), made, "{name}");
        }
        let json = render("a.json", r#"{"x": {{ x }}}"#, values).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["x"], "<b>&\"é");
    }

    #[test]
    fn templates_include_and_extend_each_other() {
        let source = |name: &str, text: &str| (name.to_owned(), text.into());
        let templates = Templates::new(BTreeMap::from([
            source("base.html", "<h1>{% block title %}{% endblock %}</h1>{% include 'parts/foot.txt' %}"),
            source("page.html", "{% extends 'base.html' %}{% block title %}{{ t }}{% endblock %}"),
            source("parts/foot.txt", "{% for n in items %}{{ n }};{% endfor %}\n"),
        ]))
        .unwrap();
        assert_eq!(templates.names(), ["base.html", "page.html", "parts/foot.txt"]);
        let page = templates.render("page.html", r#"{"t":"<T>","items":[1,2.5,true,null,"x"]}"#, MIB).unwrap();
        assert_eq!(page, "<h1>&lt;T&gt;</h1>1;2.5;true;;x;\n");
    }

    #[test]
    fn a_value_that_is_not_there_is_named_with_its_line() {
        let error = render("a.txt", "one\n{{ user.nmae }}", r#"{"user":{"name":"Ada"}}"#).unwrap_err();
        assert_eq!(error, "template `a.txt`, line 2: `user.nmae` is not among the values given");
        let error = render("a.txt", "{% for x in items %}{% endfor %}", "{}").unwrap_err();
        assert!(error.contains("line 1") && error.contains("items"), "{error}");
        assert_eq!(render("a.txt", "{{ x | default('none') }}", "{}").unwrap(), "none");
    }

    #[test]
    fn a_template_that_does_not_compile_is_refused_with_its_line() {
        let faults = Templates::new(BTreeMap::from([
            ("bad.html".to_owned(), "ok\n{% for x %}".into()),
            ("good.html".to_owned(), "ok".into()),
            ("worse.html".to_owned(), "{{ x | nofilter }}{{".into()),
        ]))
        .unwrap_err();
        assert_eq!(faults.len(), 2);
        assert_eq!((faults[0].name.as_str(), faults[0].line), ("bad.html", Some(2)));
        assert!(faults[0].to_string().starts_with("template `bad.html`, line 2: "), "{}", faults[0]);
    }

    #[test]
    fn an_unknown_template_is_answered_with_a_near_name() {
        let templates = Templates::new(BTreeMap::from([("welcome.html".to_owned(), "".into())])).unwrap();
        let error = templates.render("welcom.html", "{}", MIB).unwrap_err().message;
        assert!(error.contains("did you mean `welcome.html`?"), "{error}");
        assert!(templates.render("../secret", "{}", MIB).is_err());
    }

    #[test]
    fn endless_and_huge_templates_end() {
        for (source, said) in [
            ("{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}", "too long"),
            ("{% set x = 'ab' * 90000000 %}", "too"),
            ("{% for a in range(100) %}{% set x = 'a' * 90000000 %}{{ x|length }}{% endfor %}", "too"),
            ("{% for a in range(90000) %}{{ 'a' * 100 }}{% endfor %}", "more than the 1048576 bytes"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
            ("{% include 'a.txt' %}", "recursion"),
        ] {
            let error = render("a.txt", source, "{}").unwrap_err();
            assert!(error.contains(said), "{source}: {error}");
        }
    }
}
