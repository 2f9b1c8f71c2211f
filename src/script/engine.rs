//! The script engine of one thread, and what it compiles. Never leaves its thread: rhai is built without `sync`.

use std::cell::RefCell;
use std::collections::HashMap;

use rhai::{
    AST, ASTNode, Dynamic, Engine, EvalAltResult, Expr, ModuleResolver, ParseError, Position, Scope, Shared, Stmt,
    StmtBlock,
};

use super::fiber::context;
use super::library::Script;
use super::{api, checked};
use crate::job::{JobName, LogLevel};

type SharedModule = Shared<rhai::Module>;

/// Calls within calls. The stack guard ends a deep recursion first where the levels are large.
const CALL_LEVELS: usize = 128;
/// Nesting of expressions, at the top level (a `const JOB` with a schema) and in functions. Rhai's optimiser doubles its work
/// per nested `switch`, which stays under 1 ms at 32; and 32 bounds what one call level needs of the stack.
const EXPR_DEPTHS: (usize, usize) = (64, 32);

/// What the types of those values are called of which methods are called most. At each call of a method, Rhai looks for a
/// name of the value's type in one module after the other; found in the first, it is not sought in all those of the host
/// functions.
const TYPES: [&str; 6] = ["array", "blob", "f64", "i64", "map", "string"];

/// An engine with Ryemill's limits and host functions.
#[must_use]
pub fn build() -> Engine {
    let mut engine = Engine::new();
    // The same in every profile: Rhai's own defaults differ between debug and release.
    engine.set_max_call_levels(CALL_LEVELS);
    engine.set_max_expr_depths(EXPR_DEPTHS.0, EXPR_DEPTHS.1);
    engine.disable_symbol("eval");
    engine.set_module_resolver(SnapshotResolver);
    engine.on_progress(|_| if context::goes_on() { None } else { attend() });
    engine.on_print(|text| log(LogLevel::Info, text));
    engine.on_debug(|text, _, _| log(LogLevel::Debug, text));
    engine.register_fn(TAKE_JOB, context::take_job);
    for name in TYPES {
        engine.register_type_with_name_raw(name, name);
    }
    checked::register(&mut engine);
    api::register(&mut engine);
    engine
}

/// A call in itself, so that the hook needs no frame on its way through.
#[cold]
fn attend() -> Option<Dynamic> {
    context::attend().filter(|_| !checked::is_interpolating())
}

fn log(level: LogLevel, text: &str) {
    // The hooks cannot fail; a stopped run simply logs no more.
    if let Ok(run) = context::current() {
        run.log(level, text, None);
    }
}

/// A script as one thread runs it.
pub struct Compiled {
    pub name: JobName,
    /// What a run evaluates: the top level without `const JOB` (which would otherwise be built anew for each run), the
    /// parameter of `run`, and the body of `run` in place of a call. Rhai replaces the place of an error that ends a
    /// script by the place of the call it passes through, and the outermost call has none.
    pub program: AST,
    /// The keys of the map that `run` is given.
    pub job: rhai::Map,
    modules: RefCell<HashMap<String, SharedModule>>,
}

/// What a script knows of its job.
const JOB_KEYS: [&str; 9] =
    ["id", "name", "queue", "payload", "attempt", "max_attempts", "request_id", "created_at", "tags"];

/// Hands the job over to the script, by value. No name that a script would use by chance.
const TAKE_JOB: &str = "__ryemill_job";

impl Compiled {
    /// # Errors
    /// When the source does not compile; the library has compiled it before, so this is a fault of ours.
    pub fn new(engine: &Engine, script: &Script) -> Result<Self, ParseError> {
        let whole = compile(engine, &script.file, &script.source)?;
        let keeps_job = script.source.contains("global::JOB");
        let mut program: Vec<Stmt> =
            whole.statements().iter().filter(|statement| keeps_job || !is_job(statement)).cloned().collect();
        let (entry, body) = if let Some(test) = &script.test {
            (format!("{test}()"), body_of(&whole, test, 0))
        } else {
            let run = whole.shared_lib().get_script_fn("run", 1);
            let param = run.and_then(|run| run.params.first()).map_or("job", |param| param.as_str());
            (format!("let {param} = {TAKE_JOB}(); run({param})"), body_of(&whole, "run", 1))
        };
        let entry = engine.compile(entry)?;
        if names_constants(&program, &body) {
            program.extend(entry.statements().iter().cloned());
        } else {
            // The parameter of `run`; a test has none.
            program.extend(entry.statements().first().filter(|_| script.test.is_none()).cloned());
            program.push(Stmt::Block(Box::new(StmtBlock::new(body, Position::NONE, Position::NONE))));
        }
        let mut program = AST::new(program, whole.shared_lib().clone());
        program.set_source(script.file.as_str());
        let job = JOB_KEYS.iter().map(|key| ((*key).into(), Dynamic::UNIT)).collect();
        Ok(Self { name: script.job_type.name.clone(), program, job, modules: RefCell::default() })
    }
}

/// Whether a top-level statement is `const JOB = …`.
fn is_job(statement: &Stmt) -> bool {
    matches!(statement, Stmt::Var(var, flags, _)
        if var.0.as_str() == "JOB" && flags.intersects(rhai::ASTFlags::CONSTANT))
}

/// The statements of a function. Rhai does not export the type of a function's body, but walks over it.
fn body_of(ast: &AST, function: &str, arity: usize) -> Vec<Stmt> {
    let mut only = ast.clone();
    only.clear_statements().retain_functions(|_, _, name, params| name == function && params == arity);
    let mut body = Vec::new();
    only.walk(&mut |path: &[ASTNode]| {
        if let [ASTNode::Stmt(statement)] = path {
            body.push((*statement).clone());
        }
        true
    });
    body
}

/// Whether a function's body names a top-level constant as if it were its own. Rhai does not know it there, and that
/// must not change by evaluating the body at the top level.
fn names_constants(top_level: &[Stmt], body: &[Stmt]) -> bool {
    let constants: Vec<&str> = top_level
        .iter()
        .filter_map(|statement| match statement {
            Stmt::Var(var, ..) => Some(var.0.as_str()),
            _ => None,
        })
        .collect();
    let mut found = false;
    for statement in body {
        statement.walk(&mut Vec::new(), &mut |path: &[ASTNode]| {
            match path.last() {
                Some(ASTNode::Expr(Expr::Variable(variable, ..))) => {
                    found |= variable.2.is_empty() && constants.contains(&variable.1.as_str());
                }
                // It may ask for one.
                Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _))) => {
                    found |= call.name == "is_def_var";
                }
                _ => {}
            }
            !found
        });
    }
    found
}

/// Compiles one source under its file name.
///
/// # Errors
/// When it is not valid.
pub fn compile(engine: &Engine, file: &str, source: &str) -> Result<AST, ParseError> {
    let mut ast = engine.compile(source)?;
    ast.set_source(file);
    Ok(ast)
}

/// Finds modules in the snapshot that the running script came from: names only, nothing on disk, no way out.
struct SnapshotResolver;

impl ModuleResolver for SnapshotResolver {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        path: &str,
        pos: Position,
    ) -> Result<SharedModule, Box<EvalAltResult>> {
        let run = context::current()?;
        let compiled = &run.compiled;
        if let Some(module) = compiled.modules.borrow().get(path) {
            return Ok(module.clone());
        }
        let Some(source) = run.script.modules.get(path) else {
            return Err(EvalAltResult::ErrorModuleNotFound(path.to_owned(), pos).into());
        };
        // Evaluated on the fiber, under the run's own limits: a module's constants may be any expression.
        let in_module = |error: Box<EvalAltResult>| Box::new(EvalAltResult::ErrorInModule(path.to_owned(), error, pos));
        let ast =
            compile(engine, &format!("{path}.rhai"), source).map_err(|error| in_module(Box::new(error.into())))?;
        let module: SharedModule = rhai::Module::eval_ast_as_new(Scope::new(), &ast, engine).map_err(in_module)?.into();
        compiled.modules.borrow_mut().insert(path.to_owned(), module.clone());
        Ok(module)
    }
}
