//! The script engine of one thread, and what it compiles. Never leaves its thread: rhai is built without `sync`.

use std::cell::RefCell;
use std::collections::HashMap;

use rhai::{AST, Engine, EvalAltResult, ModuleResolver, ParseError, Position, Scope, Shared, Stmt};

use super::fiber::context::{self, on_operation};
use super::library::Script;
use super::{api, checked};
use crate::job::{JobName, LogLevel};

type SharedModule = Shared<rhai::Module>;

/// Calls within calls. The stack guard ends a deep recursion first where the levels are large.
const CALL_LEVELS: usize = 128;
/// Nesting of expressions, at the top level (a `const JOB` with a schema) and in functions. Rhai's optimiser doubles its work
/// per nested `switch`, which stays under 1 ms at 32; and 32 bounds what one call level needs of the stack.
const EXPR_DEPTHS: (usize, usize) = (64, 32);

/// An engine with Ryemill's limits and host functions.
#[must_use]
pub fn build() -> Engine {
    let mut engine = Engine::new();
    // The same in every profile: Rhai's own defaults differ between debug and release.
    engine.set_max_call_levels(CALL_LEVELS);
    engine.set_max_expr_depths(EXPR_DEPTHS.0, EXPR_DEPTHS.1);
    engine.disable_symbol("eval");
    engine.set_module_resolver(SnapshotResolver);
    engine.on_progress(|_| on_operation());
    engine.on_print(|text| log(LogLevel::Info, text));
    engine.on_debug(|text, _, _| log(LogLevel::Debug, text));
    checked::register(&mut engine);
    api::register(&mut engine);
    engine
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
    /// Without `const JOB`, which would otherwise be built anew for each run.
    pub ast: AST,
    /// Whether anything is left at the top level (imports, other constants) that each run has to evaluate.
    pub has_top_level: bool,
    modules: RefCell<HashMap<String, SharedModule>>,
}

impl Compiled {
    /// # Errors
    /// When the source does not compile; the library has compiled it before, so this is a fault of ours.
    pub fn new(engine: &Engine, script: &Script) -> Result<Self, ParseError> {
        let whole = compile(engine, &script.file, &script.source)?;
        let keeps_job = script.source.contains("global::JOB");
        let statements: Vec<Stmt> =
            whole.statements().iter().filter(|statement| keeps_job || !is_job(statement)).cloned().collect();
        let has_top_level = !statements.is_empty();
        let mut ast = AST::new(statements, whole.shared_lib().clone());
        ast.set_source(script.file.as_str());
        Ok(Self { name: script.job_type.name.clone(), ast, has_top_level, modules: RefCell::default() })
    }
}

/// Whether a top-level statement is `const JOB = …`.
fn is_job(statement: &Stmt) -> bool {
    matches!(statement, Stmt::Var(var, flags, _)
        if var.0.as_str() == "JOB" && flags.intersects(rhai::ASTFlags::CONSTANT))
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
