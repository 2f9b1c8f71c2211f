//! What helps with an error of a run: the name that was meant, how constants are reached, what `()` is. Says nothing
//! where it can only guess.

use std::collections::BTreeSet;

use rhai::{AST, ASTNode, EvalAltResult, Expr, Position, Stmt};

use super::calls::{self, Functions, near_function};
use super::diagnostics::near;
use super::library::Script;

/// A hint for the innermost error of a run.
pub fn hint(script: &Script, program: &AST, error: &EvalAltResult) -> Option<String> {
    match error {
        EvalAltResult::ErrorFunctionNotFound(signature, _) => function(program, signature),
        EvalAltResult::ErrorVariableNotFound(name, _) => Some(variable(&script.source, name)),
        EvalAltResult::ErrorModuleNotFound(name, _) => {
            let namespaces = calls::namespaces();
            let modules = script.modules.keys().map(String::as_str);
            near(name, namespaces.into_iter().chain(modules))
                .or_else(|| Some("import it at the top: `import \"lib/NAME\" as NAME;`".to_owned()))
        }
        EvalAltResult::ErrorDotExpr(text, _) if text.contains("'()'") => Some(NOTHING.to_owned()),
        EvalAltResult::ErrorDotExpr(text, _) => {
            let kind = text.rsplit('\'').nth(1).filter(|_| text.starts_with("Unknown property"))?;
            Some(format!("only maps have properties of their own, and the value before it is of the type {kind}"))
        }
        EvalAltResult::ErrorMismatchDataType(expected, ..) if expected == "bool" => {
            Some("a condition is true or false: compare, as in `x > 0` or `x != ()`".to_owned())
        }
        EvalAltResult::ErrorArrayBounds(..) | EvalAltResult::ErrorStringBounds(..) => Some(
            "positions begin at 0, and at -1 from the end; `.get(position)` gives () where there is nothing".to_owned(),
        ),
        EvalAltResult::ErrorIndexingType(text, _) if text.starts_with("()") => Some(NOTHING.to_owned()),
        EvalAltResult::ErrorAssignmentToConstant(..) => {
            Some("constants and parameters of closures stay as they are: copy it into a `let` first".to_owned())
        }
        EvalAltResult::ErrorStackOverflow(_) => {
            Some("a function that calls itself needs an end; long lists are work for a loop".to_owned())
        }
        _ => None,
    }
}

const NOTHING: &str = "the value before it is (), which is what a map gives for a key that it does not have: test for it, or \
                       write `?.` and `??`";

/// `signature` is `name (type, type)`.
fn function(program: &AST, signature: &str) -> Option<String> {
    let (name, types) = signature.split_once(" (").unwrap_or((signature, ")"));
    let types = types.strip_suffix(')').unwrap_or(types).replace("&str | ImmutableString | String", "string");
    let own = calls::functions_of(program);
    let name = name.rsplit("::").next().unwrap_or(name);
    if let Some(counts) = own.get(name).or_else(|| calls::known().get(name)) {
        if types.split(", ").next() == Some("()") {
            return Some(NOTHING.to_owned());
        }
        let given = types.split(", ").filter(|kind| !kind.is_empty()).count();
        if is_operator(name) && types.contains("string") {
            return Some(format!(
                "`{name}` is for numbers: `parse_int(text)` and `parse_float(text)` make one of a text"
            ));
        }
        if is_operator(name) {
            let types = types.split(", ").collect::<Vec<_>>().join("` and `");
            return Some(format!("`{name}` does not take `{types}`"));
        }
        if counts.contains(&given) {
            return Some(format!("there is a `{name}`, for values of other types"));
        }
        return Some(counted(name, counts));
    }
    near_function(name, &own).or_else(|| near(name, own.keys().map(String::as_str)))
}

fn is_operator(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn counted(name: &str, counts: &BTreeSet<usize>) -> String {
    let listed: Vec<String> = counts.iter().map(ToString::to_string).collect();
    format!("`{name}` takes {} arguments (a method counts what it is called on)", listed.join(" or "))
}

/// What helps with a variable that is not there.
pub fn variable(source: &str, name: &str) -> String {
    let is_constant = |line: &str| {
        line.trim_start().strip_prefix("const ").is_some_and(|rest| {
            rest.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
        })
    };
    if name.contains("::") {
        return "what a module shows of its values it says with `export const NAME = …;`".to_owned();
    }
    if source.lines().any(is_constant) {
        return format!("in a function it is `global::{name}`, as every constant of the top level");
    }
    if name == "job" {
        return "only `run` has it: hand it over to the function that needs it".to_owned();
    }
    let words = source.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let mut declared: BTreeSet<&str> = words
        .scan("", |before, word| {
            let declared = matches!(std::mem::replace(before, word), "let" | "const" | "for" | "catch").then_some(word);
            Some(declared.filter(|word| *word != name))
        })
        .flatten()
        .collect();
    if source.contains("fn run(job)") {
        declared.insert("job");
    }
    near(name, declared).unwrap_or_else(|| {
        "a variable is declared with `let`; functions do not see the variables of those who call them".to_owned()
    })
}

/// The function of the script that is called at a place. Rhai tells of an end that no script can catch only where the
/// outermost call stands.
pub fn called_at(program: &AST, at: Position) -> Option<String> {
    let own: Functions = calls::functions_of(program);
    let mut found = None;
    program.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Expr(Expr::FnCall(call, place)) | ASTNode::Stmt(Stmt::FnCall(call, place))) = path.last()
            && *place == at
            && (own.contains_key(call.name.as_str()) || !call.namespace.is_empty())
        {
            let before = call.namespace.path.first().map_or(String::new(), |first| format!("{}::", first.name));
            found = Some(format!("{before}{}", call.name));
        }
        found.is_none()
    });
    found
}

/// What helps with an end by time or memory in a function that is called where the error stands: the loops that it may
/// have been in.
pub fn ended_within(program: &AST, called: &str) -> String {
    let lines: Vec<String> = loops_of(program, called).iter().map(ToString::to_string).collect();
    let said = format!("it ended within `{called}`, which is called here");
    match lines.as_slice() {
        [] => said,
        [line] => format!("{said}; the loop there begins at line {line}"),
        _ => format!("{said}; the loops there begin at lines {}", lines.join(", ")),
    }
}

/// The lines of the loops in a function of the script, and in those of its functions that it calls.
fn loops_of(program: &AST, function: &str) -> BTreeSet<usize> {
    let (mut lines, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![function.to_owned()]);
    while let Some(name) = open.pop() {
        let mut only = program.clone();
        only.clear_statements().retain_functions(|_, _, function, _| function == name);
        if !seen.insert(name) {
            continue;
        }
        only.walk(&mut |path: &[ASTNode]| {
            match path.last() {
                Some(ASTNode::Stmt(Stmt::While(_, at) | Stmt::Do(_, _, at) | Stmt::For(_, at))) => {
                    lines.extend(at.line());
                }
                Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _)))
                    if call.namespace.is_empty() =>
                {
                    open.push(call.name.to_string());
                }
                _ => {}
            }
            true
        });
    }
    lines
}
