//! What a script calls, read from its syntax tree: names that nobody has, wrong numbers of arguments, and what is reached
//! outside of `allow`. Only what can be known for certain is a fault: a method may be a function in a map, so methods
//! are left to the run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use rhai::{AST, ASTNode, Engine, Expr, FnAccess, FnCallExpr, Position, Stmt};
use url::Url;

use super::diagnostics::{Fault, near};
use super::hints::variable as variable_hint;
use super::services::net_guard::HostPattern;
use super::{engine, testing};
use crate::job::spec::Allow;

/// Name → numbers of arguments.
pub type Functions = BTreeMap<String, BTreeSet<usize>>;

/// Calls that Rhai itself takes apart, with any number of arguments.
const SPECIAL: [&str; 10] =
    ["Fn", "call", "curry", "debug", "eval", "is_def_fn", "is_def_var", "is_shared", "print", "type_of"];

/// The functions of a file that others may call by a name: closures have none.
pub fn functions_of(ast: &AST) -> Functions {
    let mut functions = Functions::new();
    let named = ast.iter_functions().filter(|function| is_word(function.name));
    for function in named.filter(|function| function.access == FnAccess::Public) {
        functions.entry(function.name.to_owned()).or_default().insert(function.params.len());
    }
    functions
}

/// All functions that an engine has, `name` or `namespace::name`.
pub fn known() -> &'static Functions {
    static KNOWN: OnceLock<Functions> = OnceLock::new();
    KNOWN.get_or_init(|| registered(&engine::build()))
}

fn registered(engine: &Engine) -> Functions {
    let mut functions = Functions::new();
    for signature in engine.gen_fn_signatures(true) {
        let Some((name, rest)) = signature.split_once('(') else { continue };
        let list = rest.split(") ->").next().unwrap_or_default().trim_end_matches(')');
        let count = list.split(',').filter(|parameter| !parameter.trim().is_empty()).count();
        functions.entry(name.trim().to_owned()).or_default().insert(count);
    }
    functions
}

/// The names of Ryemill's modules: `http`, `sql` …
pub fn namespaces() -> BTreeSet<&'static str> {
    known().keys().filter_map(|name| Some(name.split_once("::")?.0)).collect()
}

/// The file that is looked at.
pub struct Subject<'a> {
    pub file: &'a str,
    pub source: &'a str,
    pub ast: &'a AST,
    /// The functions of the modules it may import.
    pub modules: &'a BTreeMap<String, Functions>,
    /// Whether it has the functions of tests.
    pub is_test: bool,
}

/// What was found: faults, and what the script may have meant, since a `try` around it catches the error.
#[derive(Debug, Default)]
pub struct Found {
    pub faults: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

impl Subject<'_> {
    /// Calls that cannot work, and variables that nobody has.
    pub fn look(&self) -> Found {
        let aliases = self.aliases();
        let mut own = Functions::new();
        for function in self.ast.iter_functions() {
            own.entry(function.name.to_owned()).or_default().insert(function.params.len());
        }
        let tried = tried(self.ast);
        let mut found = Found::default();
        let mut add = |at: Position, fault: Fault| {
            let is_tried = tried.iter().any(|(from, to)| (*from..=*to).contains(&at));
            if is_tried { found.warnings.push(fault) } else { found.faults.push(fault) }
        };
        each_call(self.ast, |call, at, is_method| {
            if is_method || call.op_token.is_some() || !is_word(&call.name) {
                return;
            }
            let fault = match call.namespace.path.as_slice() {
                [] => self.unqualified(call, &own),
                [only] => self.qualified(call, only.name.as_str(), &aliases),
                _ => None,
            };
            // Rhai says a place in the middle of `a::b`; the name begins the call.
            let at = call.namespace.path.first().map_or(at, |first| first.pos);
            if let Some((message, hint)) = fault {
                let fault = Fault::new(self.file, at, message);
                add(at, if let Some(hint) = hint { fault.with_hint(hint) } else { fault });
            }
        });
        for (name, at) in unknown_variables(self.ast, &own) {
            let fault = Fault::new(self.file, at, format!("there is no variable `{name}`"));
            add(at, fault.with_hint(variable_hint(self.source, &name)));
        }
        found.faults.sort_by_key(|fault| (fault.line, fault.column));
        found
    }

    fn unqualified(&self, call: &FnCallExpr, own: &Functions) -> Option<(String, Option<String>)> {
        let (name, count) = (call.name.as_str(), call.args.len());
        if SPECIAL.contains(&name) {
            return None;
        }
        let mut counts: BTreeSet<usize> = BTreeSet::new();
        counts.extend(own.get(name).into_iter().chain(known().get(name)).flatten());
        let of_tests = testing::REFERENCE.functions.iter().flat_map(|function| function.signatures);
        let tests: Vec<_> = of_tests.map(|text| super::reference::Signature::of(text)).collect();
        if self.is_test {
            let same = tests.iter().filter(|signature| signature.name == name);
            counts.extend(same.map(|signature| signature.parameters.len()));
        }
        if counts.contains(&count) {
            return None;
        }
        if !counts.is_empty() {
            return Some((wrong_count(name, &counts, count), None));
        }
        let hint = if self.has_variable(name) {
            Some(format!("`{name}` is a variable: a function in it is called as `{name}.call(…)`"))
        } else if tests.iter().any(|signature| signature.name == name) {
            Some("only tests can call it, in a file NAME.test.rhai".to_owned())
        } else {
            let of_tests = tests.iter().filter(|_| self.is_test).map(|signature| signature.name);
            near(name, of_tests).or_else(|| near_function(name, own))
        };
        Some((format!("there is no function `{name}`"), hint))
    }

    fn qualified(
        &self,
        call: &FnCallExpr,
        namespace: &str,
        aliases: &BTreeMap<String, String>,
    ) -> Option<(String, Option<String>)> {
        let (name, count) = (call.name.as_str(), call.args.len());
        if namespace == "global" {
            return None;
        }
        let of_module: Functions = if let Some(path) = aliases.get(namespace) {
            // What is wrong with the module itself is told elsewhere.
            self.modules.get(path)?.clone()
        } else {
            let before = format!("{namespace}::");
            let ours = known().iter().filter_map(|(name, counts)| Some((name.strip_prefix(&before)?, counts)));
            ours.map(|(name, counts)| (name.to_owned(), counts.clone())).collect()
        };
        if of_module.is_empty() && !aliases.contains_key(namespace) {
            let known = namespaces();
            let names = known.iter().copied().chain(aliases.keys().map(String::as_str));
            let importable =
                self.modules.keys().find(|path| path.rsplit('/').next() == Some(namespace)).map(String::as_str);
            let hint = match importable {
                Some(path) => Some(format!("write `import \"{path}\" as {namespace};` at the top of the file")),
                None => near(namespace, names),
            };
            return Some((format!("there is no module `{namespace}`"), hint));
        }
        match of_module.get(name) {
            Some(counts) if counts.contains(&count) => None,
            Some(counts) => Some((wrong_count(&format!("{namespace}::{name}"), counts, count), None)),
            None => {
                let hint = near(name, of_module.keys().map(String::as_str)).unwrap_or_else(|| {
                    let all: Vec<&str> = of_module.keys().map(String::as_str).collect();
                    format!("it has {}", all.join(", "))
                });
                Some((format!("there is no function `{name}` in the module `{namespace}`"), Some(hint)))
            }
        }
    }

    /// Alias → path of every import, wherever it stands.
    fn aliases(&self) -> BTreeMap<String, String> {
        let mut aliases = BTreeMap::new();
        self.ast.walk(&mut |path: &[ASTNode]| {
            if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = path.last()
                && let Expr::StringConstant(module, _) = &import.0
            {
                aliases.insert(import.1.name.to_string(), module.to_string());
            }
            true
        });
        aliases
    }

    fn has_variable(&self, name: &str) -> bool {
        let mut found = self.ast.iter_functions().any(|function| function.params.contains(&name));
        self.ast.walk(&mut |path: &[ASTNode]| {
            if let Some(ASTNode::Stmt(Stmt::Var(variable, ..))) = path.last() {
                found |= variable.0.as_str() == name;
            }
            !found
        });
        found
    }
}

/// The nearest function without a namespace, or a namespaced one that ends so.
pub fn near_function(name: &str, own: &Functions) -> Option<String> {
    let all = || known().keys().chain(own.keys()).map(String::as_str).filter(|name| is_path(name));
    let end = format!("::{name}");
    all()
        .find(|known| known.ends_with(&end))
        .map(|known| format!("did you mean `{known}`?"))
        .or_else(|| near(name, all().filter(|known| is_word(known))))
}

fn wrong_count(name: &str, counts: &BTreeSet<usize>, given: usize) -> String {
    let listed: Vec<String> = counts.iter().map(ToString::to_string).collect();
    let plural = if counts.len() == 1 && counts.contains(&1) { "argument" } else { "arguments" };
    format!("`{name}` takes {} {plural}, not {given}", listed.join(" or "))
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

fn is_path(name: &str) -> bool {
    name.split("::").all(is_word)
}

/// From where to where each `try` stands, without its `catch`.
fn tried(ast: &AST) -> Vec<(Position, Position)> {
    let mut tried = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Stmt(Stmt::TryCatch(parts, _))) = path.last() {
            tried.push((parts.body.span().start(), parts.body.span().end()));
        }
        true
    });
    tried
}

/// Variables that are declared nowhere: the parser knows no place for them, and none of the functions `own` is meant.
fn unknown_variables(ast: &AST, own: &Functions) -> Vec<(String, Position)> {
    // What a closure takes from around it stands where the closure is made, too, and only there with its place.
    let mut named = ast.clone();
    named.retain_functions(|_, _, name, _| is_word(name));
    let mut unknown = Vec::new();
    // Where functions see the variables of their callers, or ask what there is, nothing is certain.
    let mut is_certain = true;
    each_call(ast, |call, _, _| is_certain &= !call.capture_parent_scope && call.name != "is_def_var");
    named.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Expr(Expr::Variable(variable, _, at))) = path.last()
            && variable.0.is_none()
            && variable.2.is_empty()
            && !own.contains_key(variable.1.as_str())
        {
            unknown.push((variable.1.to_string(), *at));
        }
        true
    });
    if is_certain { unknown } else { Vec::new() }
}

/// Calls `look` for each call, with its place and whether it is one of a method.
fn each_call(ast: &AST, mut look: impl FnMut(&FnCallExpr, Position, bool)) {
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, at)) | ASTNode::Stmt(Stmt::FnCall(call, at))) => {
                look(call, *at, false);
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, at))) => look(call, *at, true),
            _ => {}
        }
        true
    });
}

/// What a file reaches of one kind.
#[derive(Clone, Debug, Default)]
struct Reached {
    literal: Vec<(String, Position)>,
    /// Something is reached whose name is known only when it runs.
    other: bool,
}

/// What a file reaches outside of the process.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    hosts: Reached,
    secrets: Reached,
    databases: Reached,
    /// Names of child jobs.
    jobs: Reached,
}

impl Reach {
    pub fn of(ast: &AST) -> Self {
        let mut reach = Self::default();
        each_call(ast, |call, _, is_method| {
            let namespace = call.namespace.path.first().map(|first| first.name.as_str());
            let first = call.args.first();
            match (namespace, call.name.as_str()) {
                (Some("http"), "request") => reach.hosts.add(first.and_then(url_option).and_then(literal_url)),
                (Some("http"), _) => reach.hosts.add(first.and_then(literal_url)),
                (Some("sql"), _) => reach.databases.add(first.and_then(literal_name)),
                (None, "secret") if !is_method => reach.secrets.add(first.and_then(literal_name)),
                (None, "submit") if !is_method => reach.jobs.add(first.and_then(literal_text)),
                _ => {}
            }
        });
        reach
    }

    /// What it reaches by name that `allow` does not have.
    pub fn outside(&self, file: &str, allow: &Allow) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (text, at) in &self.hosts.literal {
            let Ok(url) = Url::parse(text) else { continue };
            if !allow.hosts.iter().any(|entry| reaches(entry, &url)) {
                let mut host = url.host_str().unwrap_or_default().to_owned();
                // Where the host is there with another port, the port is what is wrong.
                if let Some(port) = url.port_or_known_default().filter(|_| {
                    url.port().is_some() || allow.hosts.iter().any(|entry| entry.starts_with(&format!("{host}:")))
                }) {
                    host = format!("{host}:{port}");
                }
                faults.push(outside(file, *at, &format!("`{host}`"), "hosts", &host));
            }
        }
        for (kind, reached, allowed) in
            [("secrets", &self.secrets, &allow.secrets), ("databases", &self.databases, &allow.databases)]
        {
            for (name, at) in reached.literal.iter().filter(|(name, _)| !allowed.contains(name)) {
                faults.push(outside(file, *at, &format!("the name `{name}`"), kind, name));
            }
        }
        faults
    }

    /// Child jobs that none of the known scripts is.
    pub fn unknown_jobs(&self, file: &str, known: &[&str]) -> Vec<Fault> {
        let unknown = self.jobs.literal.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        let told = unknown.map(|(name, at)| {
            let fault = Fault::new(file, *at, format!("there is no script {name}.rhai in this folder"));
            let hint = near(name, known.iter().copied());
            fault.with_hint(hint.unwrap_or_else(|| "only workers with another folder can run such a job".to_owned()))
        });
        told.collect()
    }

    /// Entries of `allow` that none of these files uses, as `(key, entry)`.
    pub fn unused(files: &[&Self], allow: &Allow) -> Vec<(&'static str, String)> {
        let mut unused = Vec::new();
        let mut look = |key, entries: &[String], of: fn(&Self) -> &Reached, fits: fn(&str, &str) -> bool| {
            if files.iter().any(|reach| of(reach).other) {
                return;
            }
            let used =
                |entry: &String| files.iter().any(|reach| of(reach).literal.iter().any(|(text, _)| fits(entry, text)));
            unused.extend(entries.iter().filter(|entry| !used(entry)).map(|entry| (key, entry.clone())));
        };
        look(
            "hosts",
            &allow.hosts,
            |reach| &reach.hosts,
            |entry, text| Url::parse(text).is_ok_and(|url| reaches(entry, &url)),
        );
        look("secrets", &allow.secrets, |reach| &reach.secrets, |entry, text| entry == text);
        look("databases", &allow.databases, |reach| &reach.databases, |entry, text| entry == text);
        unused
    }
}

impl Reached {
    fn add(&mut self, found: Option<(String, Position)>) {
        match found {
            Some(found) => self.literal.push(found),
            None => self.other = true,
        }
    }
}

fn outside(file: &str, at: Position, what: &str, key: &str, entry: &str) -> Fault {
    let fault = Fault::new(file, at, format!("{what} is not in the script's `allow.{key}`"));
    fault.with_hint(format!("add it to `const JOB`: allow: #{{ {key}: [\"{entry}\"] }}"))
}

fn reaches(entry: &str, url: &Url) -> bool {
    let (Ok(pattern), Some(host), Some(port)) = (entry.parse::<HostPattern>(), url.host(), url.port_or_known_default())
    else {
        return false;
    };
    pattern.matches(&host, port)
}

/// The value of `url` in a literal map.
fn url_option(options: &Expr) -> Option<&Expr> {
    let Expr::Map(entries, _) = options else { return None };
    entries.0.iter().find(|(key, _)| key.name == "url").map(|(_, value)| value)
}

fn literal_text(expr: &Expr) -> Option<(String, Position)> {
    if let Expr::StringConstant(text, at) = expr { Some((text.to_string(), *at)) } else { None }
}

fn literal_name(expr: &Expr) -> Option<(String, Position)> {
    if let Expr::StringConstant(name, at) = expr { Some((name.to_lowercase(), *at)) } else { None }
}

/// A URL whose host is written out, whatever follows it.
fn literal_url(expr: &Expr) -> Option<(String, Position)> {
    let (text, at, whole) = match expr {
        Expr::StringConstant(text, at) => (text, *at, true),
        Expr::InterpolatedString(parts, at) => match parts.first()? {
            Expr::StringConstant(text, _) => (text, *at, false),
            _ => return None,
        },
        Expr::FnCall(call, _) if call.name == "+" => match call.args.first()? {
            Expr::StringConstant(text, at) => (text, *at, false),
            _ => return None,
        },
        _ => return None,
    };
    let after_scheme = text.split_once("://")?.1;
    let is_known = whole || after_scheme.contains(['/', '?', '#']);
    // Other schemes are refused as such when it runs.
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && is_known)?;
    Some((url.to_string(), at))
}
