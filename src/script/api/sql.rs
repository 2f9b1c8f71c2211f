//! `sql::query`, `sql::execute` and `sql::transaction` on the databases that the script's `allow` names.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::{Array, Dynamic, FnPtr, FuncRegistration, Identifier, ImmutableString, Map, Module, NativeCallContext};

use super::reference::{Function, Namespace, Outcome};
use super::{answer, args, from_json, go_on, placed, put, room};
use crate::job::{ErrorKind, RunToken};
use crate::script::account;
use crate::script::context::{self, RunContext, ScriptResult};
use crate::script::convert;
use crate::script::moment::Time;
use crate::script::notes::Errand;
use crate::script::ports::HostError;
use crate::script::services::databases::{Asked, Found, Rows, SqlValue, Transaction};

/// Bytes of one result, as script values.
const MAX_ROWS: usize = 64 << 20;
/// Bytes of all parameters of a call, and of the JSON of one.
const MAX_PARAMS: usize = 32 << 20;
const MAX_JSON: usize = 8 << 20;

pub const REFERENCE: Namespace = Namespace {
    name: "sql",
    about: "`db` is a name that the operator set as `DATABASE_NAME_URL` and that the script's `allow.databases` has, or the `tx` of a \
            transaction.",
    functions: &[
        Function::new(
            &[
                "query(db: string | transaction, sql: string) -> array",
                "query(db: string | transaction, sql: string, params: array) -> array",
            ],
            "an array of maps, one for each row",
            r#"sql::query("sales", "SELECT item, price FROM sale WHERE id = ?", [1])"#,
            Outcome::Value(r#"[{"item": "tea", "price": 2.5}]"#),
        ),
        Function::new(
            &[
                "execute(db: string | transaction, sql: string) -> int",
                "execute(db: string | transaction, sql: string, params: array) -> int",
            ],
            "how many rows it changed",
            r#"sql::execute("sales", "UPDATE sale SET price = ? WHERE item = ?", [3.5, "jam"])"#,
            Outcome::Value("1"),
        ),
        Function::new(
            &["transaction(db: string, body: Fn) -> any"],
            "several statements, all or none: committed when `body` returns, whose value it gives; undone when it throws or the run ends",
            "sql::transaction(\"sales\", |tx| {\n    let tea = sql::query(tx, \"SELECT price FROM sale WHERE item = 'tea'\")[0];\n    \
             sql::execute(tx, \"UPDATE sale SET price = ? WHERE item = 'jam'\", [tea.price * 2]);\n    \
             sql::execute(tx, \"INSERT INTO sale (item) VALUES (?)\", [\"salt\"])\n})",
            Outcome::Value("1"),
        ),
    ],
    notes: NOTES,
};

const NOTES: &str = include_str!("sql.md").trim_ascii_end();

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "query", |db: Dynamic, sql: Dynamic| query(&db, &sql, &no_params()));
    put!(&mut module, "query", |db: Dynamic, sql: Dynamic, params: Dynamic| query(&db, &sql, &params));
    put!(&mut module, "execute", |db: Dynamic, sql: Dynamic| execute(&db, &sql, &no_params()));
    put!(&mut module, "execute", |db: Dynamic, sql: Dynamic, params: Dynamic| execute(&db, &sql, &params));
    let transact =
        |call: NativeCallContext, db: Dynamic, body: Dynamic| placed(&call, || transaction(&call, &db, &body));
    FuncRegistration::new("transaction").set_into_module(&mut module, transact);
    module
}

fn no_params() -> Dynamic {
    Array::new().into()
}

fn query(db: &Dynamic, sql: &Dynamic, params: &Dynamic) -> ScriptResult<Array> {
    const FUNCTION: &str = "sql::query";

    let call = Call::of(FUNCTION, db, sql, params, false)?;
    let most = MAX_ROWS.min(room(&call.run));
    match call.answer(Some(most))? {
        Found::Rows(rows) => script_rows(FUNCTION, rows),
        Found::Changed(_) => Ok(Array::new()),
    }
}

fn execute(db: &Dynamic, sql: &Dynamic, params: &Dynamic) -> ScriptResult<i64> {
    match Call::of("sql::execute", db, sql, params, true)?.answer(None)? {
        Found::Changed(count) => Ok(i64::try_from(count).unwrap_or(i64::MAX)),
        Found::Rows(_) => Ok(0),
    }
}

fn transaction(call: &NativeCallContext, db: &Dynamic, body: &Dynamic) -> ScriptResult<Dynamic> {
    const FUNCTION: &str = "sql::transaction";

    let run = context::current()?;
    let name = database(FUNCTION, &run, db)?;
    let Some(body) = body.read_lock::<FnPtr>().map(|body| body.clone()) else {
        return Err(args::unfit(FUNCTION, "body", "a function such as |tx| { … }", body));
    };
    outside_of_transactions(FUNCTION, &run, &name)?;
    let begun = answer(account::uncharged(|| run.services.databases.begin(&name, run.deadline())))?;
    account::uncharged(|| OPEN.with_borrow_mut(|open| open.push((run.job.token, name.clone()))));
    let open = Open(Rc::new(OpenTransaction { name, transaction: RefCell::new(Some(begun)) }));
    // However this is left, and whoever kept the value: after it there is no transaction.
    let _close = CloseOnDrop { open: open.clone(), token: run.job.token };
    let value = body.call_within_context::<Dynamic>(call, (open.clone(),))?;
    let commit = account::uncharged(|| open.0.transaction.borrow().as_ref().map(Transaction::commit));
    if let Some(commit) = commit {
        answer(commit)?;
    }
    Ok(value)
}

thread_local! {
    /// The databases with an open transaction, of all runs of this thread, which they never leave.
    static OPEN: RefCell<Vec<(RunToken, String)>> = const { RefCell::new(Vec::new()) };
}

/// Refuses what would wait for the run's own transaction: always on SQLite, elsewhere where both change the same row. No
/// server sees that, since it is the script that waits.
fn outside_of_transactions(function: &str, run: &RunContext, name: &str) -> ScriptResult<()> {
    let within = OPEN.with_borrow(|open| open.iter().any(|(token, known)| *token == run.job.token && *known == name));
    if within {
        return Err(args::wrong(format!("{function}: a transaction on `{name}` is open already: use its `tx`")));
    }
    Ok(())
}

/// A transaction under way, as its body has it.
#[derive(Clone)]
pub struct Open(Rc<OpenTransaction>);

struct OpenTransaction {
    name: String,
    transaction: RefCell<Option<Transaction>>,
}

struct CloseOnDrop {
    open: Open,
    token: RunToken,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let OpenTransaction { name, transaction } = &*self.open.0;
        account::uncharged(|| {
            drop(transaction.borrow_mut().take());
            OPEN.with_borrow_mut(|open| open.retain(|(token, known)| *token != self.token || known != name));
        });
    }
}

/// The name of a database that the script may use.
fn database(function: &str, run: &RunContext, db: &Dynamic) -> ScriptResult<String> {
    let name = args::name(function, "db", db)?.to_lowercase();
    if run.spec().allow.databases.contains(&name) {
        return Ok(name);
    }
    Err(context::throw(HostError::denied(format!(
        "{function}: this script may not use the database `{name}`: its `allow` has no such entry in `databases`"
    ))))
}

/// A checked call; `sql` and `params` are no longer the script's memory.
struct Call {
    run: Rc<RunContext>,
    name: String,
    open: Option<Open>,
    sql: String,
    params: Vec<SqlValue>,
}

impl Call {
    fn of(function: &str, db: &Dynamic, sql: &Dynamic, params: &Dynamic, changes: bool) -> ScriptResult<Self> {
        let run = context::current()?;
        let open = db.read_lock::<Open>().map(|open| open.clone());
        let name = match &open {
            Some(open) => open.0.name.clone(),
            None => database(function, &run, db)?,
        };
        if changes && open.is_none() {
            outside_of_transactions(function, &run, &name)?;
        }
        let sql = args::text(function, "sql", sql)?;
        if sql.contains('\0') {
            // SQLite would take the text before it for the whole.
            let message = format!("{function}: `sql` has a NUL character");
            return Err(context::throw(HostError::new(ErrorKind::HostSql, message, false)));
        }
        let Some(given) = params.read_lock::<Array>() else {
            return Err(args::unfit(function, "params", "an array", params));
        };
        let mut taker = Taker { lists: run.services.databases.takes_lists(&name), left: MAX_PARAMS };
        let params: Result<Vec<SqlValue>, String> = account::uncharged(|| {
            let values = given.iter().enumerate();
            values.map(|(index, value)| taker.take(&format!("params[{index}]"), value, 0)).collect()
        });
        let params = match params {
            Ok(params) => params,
            Err(why) => {
                let error = args::wrong(format!("{function}: {why}"));
                account::uncharged(|| drop(why));
                return Err(error);
            }
        };
        Ok(Self { run, name, open, sql: account::uncharged(|| sql.to_string()), params })
    }

    fn answer(self, rows: Option<usize>) -> ScriptResult<Found> {
        let Self { run, name, open, sql, params } = self;
        let errand = account::uncharged(Errand::here);
        let asked = Asked { sql, params, rows, until: run.deadline(), errand };
        let reply = match &open {
            None => account::uncharged(|| run.services.databases.run(&name, asked)),
            Some(open) => {
                let transaction = open.0.transaction.borrow();
                let Some(transaction) = transaction.as_ref() else {
                    account::uncharged(|| drop(asked));
                    return Err(args::wrong("sql: the transaction is over: `tx` is only for its body"));
                };
                account::uncharged(|| transaction.run(asked))
            }
        };
        answer(reply)
    }
}

/// Takes parameters out of the script, up to a size. Its errors are texts, since it works outside of the run's account.
struct Taker {
    /// Whether the database knows lists and maps.
    lists: bool,
    left: usize,
}

impl Taker {
    fn take(&mut self, place: &str, value: &Dynamic, depth: usize) -> Result<SqlValue, String> {
        let taken = if let Some(text) = value.read_lock::<ImmutableString>() {
            self.count(text.len())?;
            SqlValue::Text(text.to_string())
        } else if let Some(blob) = value.read_lock::<rhai::Blob>() {
            self.count(blob.len())?;
            SqlValue::Blob(blob.clone())
        } else if let Some(time) = value.read_lock::<Time>() {
            SqlValue::Text(time.to_string())
        } else if let Some(array) = value.read_lock::<Array>().filter(|_| self.lists) {
            if depth == convert::MAX_DEPTH {
                return Err(format!("`{place}` is nested deeper than {depth} levels"));
            }
            let items = array.iter().map(|item| self.take(place, item, depth + 1));
            SqlValue::List(items.collect::<Result<_, _>>()?)
        } else if value.is_map() && self.lists {
            let json = convert::to_json(value, place, MAX_JSON.min(self.left)).map_err(|fault| fault.to_string())?;
            self.count(json.len())?;
            SqlValue::Json(json)
        } else if let Ok(int) = value.as_int() {
            SqlValue::Integer(int)
        } else if let Some(float) = value.as_float().ok().filter(|float| self.lists || !float.is_nan()) {
            SqlValue::Real(float)
        } else if let Ok(flag) = value.as_bool() {
            SqlValue::Bool(flag)
        } else if value.is_unit() {
            SqlValue::Null
        } else if let Ok(char) = value.as_char() {
            SqlValue::Text(char.to_string())
        } else {
            let kind = args::kind_of(value);
            return Err(format!("`{place}` must be a string, a number, a bool, a blob or (), not {kind}"));
        };
        self.count(size_of::<SqlValue>())?;
        Ok(taken)
    }

    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.left =
            self.left.checked_sub(bytes).ok_or_else(|| format!("the parameters have more than {MAX_PARAMS} bytes"))?;
        Ok(())
    }
}

/// Rows from another thread as an array of maps.
fn script_rows(function: &str, found: Rows) -> ScriptResult<Array> {
    enter(&found);
    let columns: Vec<Identifier> = found.columns.iter().map(|column| column.as_str().into()).collect();
    let mut rows = Array::with_capacity(found.rows.len());
    for row in found.rows {
        let mut map = Map::new();
        for (column, value) in columns.iter().zip(row) {
            map.insert(column.clone(), script_value(function, column, value)?);
        }
        rows.push(map.into());
        if !go_on() {
            context::current()?;
        }
    }
    Ok(rows)
}

/// Charges the run with what the rows hold, byte by byte: it is given back as they are turned into script values.
fn enter(found: &Rows) {
    let texts: usize = found.columns.iter().map(String::capacity).sum();
    account::adopt(texts + found.columns.capacity() * size_of::<String>());
    account::adopt(found.rows.capacity() * size_of::<Vec<SqlValue>>());
    for row in &found.rows {
        account::adopt(row.capacity() * size_of::<SqlValue>() + row.iter().map(held).sum::<usize>());
    }
}

/// What a value holds on the heap.
fn held(value: &SqlValue) -> usize {
    match value {
        SqlValue::Text(text) | SqlValue::Json(text) => text.capacity(),
        SqlValue::Blob(bytes) => bytes.capacity(),
        SqlValue::List(items) => items.capacity() * size_of::<SqlValue>() + items.iter().map(held).sum::<usize>(),
        SqlValue::Null | SqlValue::Bool(_) | SqlValue::Integer(_) | SqlValue::Real(_) => 0,
    }
}

fn script_value(function: &str, column: &str, value: SqlValue) -> ScriptResult<Dynamic> {
    Ok(match value {
        SqlValue::Null => Dynamic::UNIT,
        SqlValue::Bool(flag) => flag.into(),
        SqlValue::Integer(int) => int.into(),
        SqlValue::Real(real) => real.into(),
        SqlValue::Text(text) => text.into(),
        SqlValue::Blob(bytes) => Dynamic::from_blob(bytes),
        // The fault of a value that a script cannot hold names the column and the way around.
        SqlValue::Json(text) => {
            from_json(&format!("{function}: column `{column}`, to be had as {column}::text"), &text)?
        }
        SqlValue::List(items) => {
            let items = items.into_iter().map(|item| script_value(function, column, item));
            items.collect::<ScriptResult<Array>>()?.into()
        }
    })
}
