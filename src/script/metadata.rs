//! What a script says of itself: `const JOB`, read from its syntax tree without running it, and the form that the top
//! level of a script must have. Reports every fault with its place.

mod keywords;

use std::time::Duration;

use rhai::{AST, ASTFlags, ASTNode, Expr, Position, Stmt};
use serde_json::{Map, Number, Value};

use super::diagnostics::{Fault, near};
use super::services::net_guard::HostPattern;
use crate::job::retry::BackoffKind;
use crate::job::units::{parse_duration, parse_size};
use crate::job::{Backoff, JobSpec, PayloadSchema, Priority, QueueName};

/// Keys of `const JOB`.
const KEYS: [&str; 10] =
    ["queue", "priority", "timeout", "max_attempts", "backoff", "memory", "payload", "examples", "keep", "allow"];
/// Kept for later: using one is an error that says so.
const RESERVED: [&str; 6] = ["concurrency", "rate", "unique", "schedule", "pin", "isolate"];

/// Longest `timeout`.
const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
/// `memory` lies between these. Bytes.
const MEMORY: std::ops::RangeInclusive<u64> = (1 << 20)..=(4 << 30);
const MAX_ATTEMPTS: i64 = 1000;
const LOCAL_REF: &str = "a `$ref` leads to a place in the same schema, such as \"#/$defs/address\"";

/// A literal with its place.
struct Literal {
    at: Position,
    value: Kind,
}

enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    Array(Vec<Literal>),
    Map(Vec<(String, Position, Literal)>),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Null => "()",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
        }
    }
}

/// What was found so far in one file.
struct Report<'a> {
    file: &'a str,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Report<'_> {
    fn add(&mut self, at: Position, message: impl Into<String>) {
        self.faults.push(Fault::new(self.file, at, message));
    }

    fn add_hint(&mut self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(Fault::new(self.file, at, message).with_hint(hint));
    }

    fn warn(&mut self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Fault::new(self.file, at, message).with_hint(hint));
    }
}

/// What a job script says of itself.
pub struct Said {
    /// Every fault found, or the specification.
    pub spec: Result<JobSpec, Vec<Fault>>,
    pub warnings: Vec<Fault>,
}

/// Reads a job script's `const JOB` and checks its form. `ast` must not be optimised, or places are lost.
pub fn read(file: &str, source: &str, ast: &AST) -> Said {
    let mut report = Report { file, faults: Vec::new(), warnings: Vec::new() };
    let job = top_level(ast, &mut report);
    entry(ast, source, &mut report);
    let spec = match job {
        Some(expr) => spec(expr, &mut report),
        None => JobSpec::default(),
    };
    report.faults.sort_by_key(|fault| (fault.line, fault.column));
    let spec = if report.faults.is_empty() { Ok(spec) } else { Err(report.faults) };
    Said { spec, warnings: report.warnings }
}

/// The literal paths of all `import`s of a script or module, at the top level and in functions.
/// Those whose path is not a literal or leads out of the jobs folder are faults.
pub fn imports(file: &str, ast: &AST) -> (Vec<(String, Position)>, Vec<Fault>) {
    let mut report = Report { file, faults: Vec::new(), warnings: Vec::new() };
    let mut found = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, at))) = path.last() {
            match &import.0 {
                Expr::StringConstant(name, name_at) => {
                    if is_module_path(name) {
                        found.push((name.to_string(), *name_at));
                    } else {
                        report.add_hint(
                            *name_at,
                            format!("`{name}` is no module of this jobs folder"),
                            "write a path below jobs/ without `..` and without `.rhai`, such as \"lib/money\"",
                        );
                    }
                }
                _ => report.add_hint(
                    *at,
                    "the path of an import must be a literal string",
                    "import \"lib/money\" as money;",
                ),
            }
        }
        true
    });
    (found, report.faults)
}

/// The modules that a module imports as soon as it is loaded: not those that its functions import when they are called.
pub fn imports_at_once(ast: &AST) -> Vec<(String, Position)> {
    let imports = ast.statements().iter().filter_map(|statement| match statement {
        Stmt::Import(import, _) => match &import.0 {
            Expr::StringConstant(name, at) => Some((name.to_string(), *at)),
            _ => None,
        },
        _ => None,
    });
    imports.collect()
}

/// Modules have the form of scripts, without `const JOB` and `run`, and may compute what they export.
///
/// # Errors
/// Statements that a module may not have.
pub fn check_module(file: &str, ast: &AST) -> Result<(), Vec<Fault>> {
    let mut report = Report { file, faults: Vec::new(), warnings: Vec::new() };
    for statement in ast.statements() {
        if !matches!(statement, Stmt::Import(..) | Stmt::Export(..) | Stmt::Var(..) | Stmt::Noop(_)) {
            report.add_hint(
                statement.position(),
                "the top level of a module holds only `import`, `const`, `let`, `export` and `fn`",
                "put statements into a function, which the scripts that import the module call",
            );
        }
    }
    if report.faults.is_empty() { Ok(()) } else { Err(report.faults) }
}

/// Where an entry of `allow` is written.
pub fn place_of_entry(ast: &AST, key: &str, entry: &str) -> Position {
    fn value<'a>(map: &'a Expr, key: &str) -> Option<&'a Expr> {
        let Expr::Map(entries, _) = map else { return None };
        entries.0.iter().find(|(name, _)| name.name == key).map(|(_, value)| value)
    }
    let job = ast.statements().iter().find_map(|statement| match statement {
        Stmt::Var(var, ..) if var.0.as_str() == "JOB" => Some(&var.1),
        _ => None,
    });
    let list = job.and_then(|job| value(job, "allow")).and_then(|allow| value(allow, key));
    let Some(Expr::Array(items, at)) = list else { return Position::NONE };
    let is_entry = |item: &&Expr| matches!(item, Expr::StringConstant(text, _) if text.eq_ignore_ascii_case(entry));
    items.iter().find(is_entry).map_or(*at, Expr::position)
}

/// Test files have the form of modules; what they define is for their tests.
///
/// # Errors
/// Statements that a test file may not have.
pub fn check_test(file: &str, ast: &AST) -> Result<(), Vec<Fault>> {
    let mut report = Report { file, faults: Vec::new(), warnings: Vec::new() };
    for statement in ast.statements() {
        if !matches!(statement, Stmt::Import(..) | Stmt::Noop(_))
            && !matches!(statement, Stmt::Var(_, flags, _) if flags.intersects(ASTFlags::CONSTANT))
        {
            report.add_hint(
                statement.position(),
                "the top level of a test file holds only `import`, `const` and `fn`",
                "put statements into a `fn test_…()`",
            );
        }
    }
    if report.faults.is_empty() { Ok(()) } else { Err(report.faults) }
}

/// Names below the folder, forward slashes, no dots at all: nothing that could lead out.
fn is_module_path(path: &str) -> bool {
    !path.is_empty()
        && path
            .split('/')
            .all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-'))
}

/// Checks what stands at the top level and finds the value of `const JOB`.
fn top_level<'a>(ast: &'a AST, report: &mut Report) -> Option<&'a Expr> {
    let mut job = None;
    for statement in ast.statements() {
        match statement {
            Stmt::Var(var, flags, at) if flags.intersects(ASTFlags::CONSTANT) => {
                if var.0.as_str() == "JOB" {
                    if job.is_some() {
                        report.add(*at, "`const JOB` is there twice");
                    }
                    job = Some(&var.1);
                }
            }
            Stmt::Var(_, _, at) => {
                report.add_hint(
                    *at,
                    "`let` has no use at the top level of a script",
                    "write `const`, or put it in a function",
                );
            }
            Stmt::Import(..) | Stmt::Noop(_) => {}
            other => report.add_hint(
                other.position(),
                "the top level of a script holds only `import`, `const` and `fn`",
                "put statements into `fn run(job)`",
            ),
        }
    }
    if job.is_none() {
        report.add_hint(
            Position::NONE,
            "there is no `const JOB`",
            "every job script has one, at least `const JOB = #{};`",
        );
    }
    job
}

fn entry(ast: &AST, source: &str, report: &mut Report) {
    let mut arities = ast.iter_functions().filter(|function| function.name == "run").map(|f| f.params.len());
    match (arities.next(), arities.next()) {
        (Some(1), None) => {}
        (None, _) => report.add_hint(Position::NONE, "there is no `fn run(job)`", "it is the entry of a job script"),
        _ => report.add(place_of(source, "run"), "`fn run` must be there once, with one parameter: `fn run(job)`"),
    }
}

/// Turns a literal expression into a value with places; anything else is a fault.
fn literal(expr: &Expr, report: &mut Report) -> Option<Literal> {
    let at = expr.position();
    let value = match expr {
        Expr::Unit(_) => Kind::Null,
        Expr::BoolConstant(value, _) => Kind::Bool(*value),
        Expr::IntegerConstant(value, _) => Kind::Int(*value),
        Expr::FloatConstant(value, _) => Kind::Float(**value),
        Expr::CharConstant(value, _) => Kind::String(value.to_string()),
        Expr::StringConstant(value, _) => Kind::String(value.to_string()),
        Expr::Array(items, _) => Kind::Array(items.iter().filter_map(|item| literal(item, report)).collect()),
        Expr::Map(entries, _) => Kind::Map(
            entries
                .0
                .iter()
                .filter_map(|(key, value)| Some((key.name.to_string(), key.pos, literal(value, report)?)))
                .collect(),
        ),
        _ => {
            report.add_hint(
                at,
                "`const JOB` must be literal",
                "it is read without running the script: write the value itself, without calls, operators or variables",
            );
            return None;
        }
    };
    Some(Literal { at, value })
}

fn spec(expr: &Expr, report: &mut Report) -> JobSpec {
    let mut spec = JobSpec::default();
    let Some(job) = literal(expr, report) else { return spec };
    let Kind::Map(entries) = job.value else {
        report
            .add(job.at, format!("`const JOB` must be a map such as #{{ queue: \"mail\" }}, not {}", job.value.name()));
        return spec;
    };
    let mut payload = None;
    let mut examples = Vec::new();
    for (key, at, value) in entries {
        match key.as_str() {
            "queue" => set(
                &mut spec.queue,
                string(&value, "queue", report).and_then(|(text, at)| {
                    QueueName::new(&text).map_err(|error| report.add(at, error.to_string())).ok()
                }),
            ),
            "priority" => {
                set(&mut spec.priority, int(&value, "priority", 0..=9, report).and_then(|n| Priority::new(n).ok()));
            }
            "timeout" => set(
                &mut spec.timeout,
                duration(&value, "timeout", report).filter(|timeout| {
                    let fits = !timeout.is_zero() && *timeout <= MAX_TIMEOUT;
                    if !fits {
                        report.add(value.at, "`timeout` must be longer than nothing and at most \"7d\"");
                    }
                    fits
                }),
            ),
            "max_attempts" => set(
                &mut spec.max_attempts,
                int(&value, "max_attempts", 1..=MAX_ATTEMPTS, report).and_then(|n| u32::try_from(n).ok()),
            ),
            "backoff" => spec.backoff = backoff(value, report),
            "memory" => set(&mut spec.memory, memory(&value, report)),
            "payload" => {
                spec.schema = json(&value);
                payload = Some(value);
            }
            "examples" => examples = array(value, "examples", report),
            "keep" => keep(value, &mut spec, report),
            "allow" => allow(value, &mut spec, report),
            "description" => {
                report.add_hint(
                    at,
                    "`description` is no key of `const JOB`",
                    "write `//! text` at the top of the file",
                );
            }
            other if RESERVED.contains(&other) => {
                report.add(at, format!("`{other}` is reserved for a later version of Ryemill and does nothing yet"));
            }
            other => unknown_key(other, at, "const JOB", KEYS, report),
        }
    }
    if let Some(payload) = payload {
        check_schema(&spec, &payload, report);
        keywords::check(&payload, report);
    }
    check_examples(&mut spec, examples, report);
    spec
}

/// The schema must be one; a fault stands where it is written.
fn check_schema(spec: &JobSpec, written: &Literal, report: &mut Report) {
    for fault in PayloadSchema::faults_of(&spec.schema) {
        let (at, said) = (place(written, &fault.pointer), fault.message);
        let message = |said: &str| format!("the payload schema is not valid: {said}");
        if let Some((document, _)) = said.split_once(" is not present in a registry") {
            let document = document.trim_start_matches("Resource ");
            report.add_hint(at, message(&format!("{document} is another document")), LOCAL_REF);
        } else if said.starts_with("Pointer ") {
            report.add_hint(at, message(&said), LOCAL_REF);
        } else if let Some((given, _)) =
            said.split_once(" is not valid under").filter(|_| fault.pointer.ends_with("/type"))
        {
            let hint = "the types are array, boolean, integer, null, number, object, string";
            report.add_hint(at, message(&format!("{given} is no type")), hint);
        } else {
            report.add(at, message(&said));
        }
    }
}

/// The examples must fit the schema.
fn check_examples(spec: &mut JobSpec, examples: Vec<Literal>, report: &mut Report) {
    let schema = PayloadSchema::compile(&spec.schema).ok();
    for example in examples {
        let value = json(&example);
        for fault in schema.iter().flat_map(|schema| schema.faults(&value)) {
            let said = if fault.pointer.is_empty() {
                "the example".to_owned()
            } else {
                format!("the example's {}", fault.pointer)
            };
            let at = place(&example, &fault.pointer);
            report.add(at, format!("{said} does not fit the payload schema: {}", fault.message));
        }
        spec.examples.push(value);
    }
}

/// Where the value is written that a JSON Pointer leads to, or what is nearest around it.
fn place(literal: &Literal, pointer: &str) -> Position {
    let mut found = literal;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        let next = match &found.value {
            Kind::Map(entries) => entries.iter().find(|(key, ..)| *key == part).map(|(.., value)| value),
            Kind::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        found = next;
    }
    found.at
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn unknown_key<'a>(
    key: &str,
    at: Position,
    of: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
    report: &mut Report,
) {
    let hint = near(key, known.clone())
        .unwrap_or_else(|| format!("the keys are {}", known.into_iter().collect::<Vec<_>>().join(", ")));
    report.add_hint(at, format!("`{key}` is no key of `{of}`"), hint);
}

fn wrong_type(value: &Literal, name: &str, expected: &str, report: &mut Report) {
    report.add(value.at, format!("`{name}` must be {expected}, not {}", value.value.name()));
}

fn string(value: &Literal, name: &str, report: &mut Report) -> Option<(String, Position)> {
    if let Kind::String(text) = &value.value {
        return Some((text.clone(), value.at));
    }
    wrong_type(value, name, "a string", report);
    None
}

fn int(value: &Literal, name: &str, range: std::ops::RangeInclusive<i64>, report: &mut Report) -> Option<i64> {
    match value.value {
        Kind::Int(n) if range.contains(&n) => Some(n),
        _ => {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            match value.value {
                Kind::Int(n) => report.add(value.at, format!("`{name}` must be {expected}, not {n}")),
                _ => wrong_type(value, name, &expected, report),
            }
            None
        }
    }
}

fn duration(value: &Literal, name: &str, report: &mut Report) -> Option<Duration> {
    let Kind::String(text) = &value.value else {
        wrong_type(value, name, "a duration in a string, such as \"30s\"", report);
        return None;
    };
    parse_duration(text).map_err(|error| report.add(value.at, format!("`{name}`: {error}"))).ok()
}

fn memory(value: &Literal, report: &mut Report) -> Option<u64> {
    let bytes = match &value.value {
        Kind::Int(n) => u64::try_from(*n).unwrap_or(0),
        Kind::String(text) => {
            parse_size(text).map_err(|error| report.add(value.at, format!("`memory`: {error}"))).ok()?
        }
        _ => {
            wrong_type(value, "memory", "a size such as \"64MiB\"", report);
            return None;
        }
    };
    if !MEMORY.contains(&bytes) {
        report.add(value.at, "`memory` must be from \"1MiB\" to \"4GiB\"");
        return None;
    }
    Some(bytes)
}

fn array(value: Literal, name: &str, report: &mut Report) -> Vec<Literal> {
    if let Kind::Array(items) = value.value {
        return items;
    }
    wrong_type(&value, name, "an array", report);
    Vec::new()
}

fn map(value: Literal, name: &str, report: &mut Report) -> Vec<(String, Position, Literal)> {
    if let Kind::Map(entries) = value.value {
        return entries;
    }
    wrong_type(&value, name, "a map", report);
    Vec::new()
}

fn backoff(value: Literal, report: &mut Report) -> Backoff {
    let mut backoff = Backoff::default();
    for (key, at, value) in map(value, "backoff", report) {
        match key.as_str() {
            "kind" => match string(&value, "backoff.kind", report).as_ref().map(|(text, _)| text.as_str()) {
                Some("exponential") => backoff.kind = BackoffKind::Exponential,
                Some("fixed") => backoff.kind = BackoffKind::Fixed,
                Some(_) => report.add(value.at, "`backoff.kind` must be \"exponential\" or \"fixed\""),
                None => {}
            },
            "first" => set(&mut backoff.first, duration(&value, "backoff.first", report)),
            "max" => set(&mut backoff.max, duration(&value, "backoff.max", report)),
            "jitter" => match value.value {
                Kind::Float(jitter) if (0.0..=1.0).contains(&jitter) => backoff.jitter = jitter,
                Kind::Int(0) => backoff.jitter = 0.0,
                Kind::Int(1) => backoff.jitter = 1.0,
                _ => report.add(value.at, "`backoff.jitter` must be a number from 0 to 1"),
            },
            other => unknown_key(other, at, "backoff", ["kind", "first", "max", "jitter"], report),
        }
    }
    backoff
}

fn keep(value: Literal, spec: &mut JobSpec, report: &mut Report) {
    for (key, at, value) in map(value, "keep", report) {
        match key.as_str() {
            "succeeded" => set(&mut spec.keep.succeeded, duration(&value, "keep.succeeded", report)),
            "failed" => set(&mut spec.keep.failed, duration(&value, "keep.failed", report)),
            other => unknown_key(other, at, "keep", ["succeeded", "failed"], report),
        }
    }
}

fn allow(value: Literal, spec: &mut JobSpec, report: &mut Report) {
    for (key, at, value) in map(value, "allow", report) {
        let target = match key.as_str() {
            "hosts" => &mut spec.allow.hosts,
            "secrets" => &mut spec.allow.secrets,
            "databases" => &mut spec.allow.databases,
            other => {
                unknown_key(other, at, "allow", ["hosts", "secrets", "databases"], report);
                continue;
            }
        };
        for item in array(value, &format!("allow.{key}"), report) {
            if let Some((text, at)) = string(&item, &format!("allow.{key}"), report) {
                if key == "hosts"
                    && let Err(invalid) = text.parse::<HostPattern>()
                {
                    report.add(at, format!("`allow.hosts`: {invalid}"));
                }
                target.push(text.to_lowercase());
            }
        }
    }
}

fn json(literal: &Literal) -> Value {
    match &literal.value {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Int(value) => Value::Number((*value).into()),
        Kind::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Kind::String(value) => Value::String(value.clone()),
        Kind::Array(items) => Value::Array(items.iter().map(json).collect()),
        Kind::Map(entries) => {
            Value::Object(entries.iter().map(|(key, _, value)| (key.clone(), json(value))).collect::<Map<_, _>>())
        }
    }
}

/// Where a function is written; Rhai tells no place of functions.
pub fn place_of(source: &str, function: &str) -> Position {
    let at = source.find(&format!("fn {function}(")).map(|at| at + 3);
    at.map_or(Position::NONE, |at| {
        let line = source[..at].matches('\n').count() + 1;
        let column = source[..at].rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
        match (u16::try_from(line), u16::try_from(column)) {
            (Ok(line), Ok(column)) => Position::new(line, column),
            _ => Position::NONE,
        }
    })
}
