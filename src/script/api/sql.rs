//! `sql::query` and `sql::execute` on the databases that the script's `allow` names.

use rhai::{Array, Dynamic, Identifier, ImmutableString, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{answer, args, go_on, put, room};
use crate::script::account;
use crate::script::context::{self, RunContext, ScriptResult};
use crate::script::moment::Time;
use crate::script::ports::HostError;
use crate::script::services::databases::{Rows, SqlValue};

/// Bytes of one result, as script values.
const MAX_ROWS: usize = 64 << 20;

pub const REFERENCE: Namespace = Namespace {
    name: "sql",
    about: "",
    functions: &[
        Function::new(
            &["query(db: string, sql: string) -> array", "query(db: string, sql: string, params: array) -> array"],
            "an array of maps, one for each row",
            r#"sql::query("sales", "SELECT item, price FROM sale WHERE id = ?", [1])"#,
            Outcome::Value(r#"[{"item": "tea", "price": 2.5}]"#),
        ),
        Function::new(
            &["execute(db: string, sql: string) -> int", "execute(db: string, sql: string, params: array) -> int"],
            "how many rows it changed",
            r#"sql::execute("sales", "UPDATE sale SET price = ? WHERE item = ?", [3.5, "jam"])"#,
            Outcome::Value("1"),
        ),
    ],
    notes: "`db` is a name that the operator set as `DATABASE_NAME_URL` and that the script's `allow.databases` has. Parameters \
            are an array, for `?` or `?1`; they\nare always bound and never part of the statement. One statement a call, and \
            each call is a transaction of its own: to change\nseveral rows together, write one statement. `ATTACH`, temporary \
            tables and most `PRAGMA`s are refused. NULL is `()`, a bool goes as 0\nor 1. Maps sort their keys: the order of the \
            columns is lost. A statement waits up to 5 s for other writers.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "query", |db: Dynamic, sql: Dynamic| query(&db, &sql, &no_params()));
    put!(&mut module, "query", |db: Dynamic, sql: Dynamic, params: Dynamic| query(&db, &sql, &params));
    put!(&mut module, "execute", |db: Dynamic, sql: Dynamic| execute(&db, &sql, &no_params()));
    put!(&mut module, "execute", |db: Dynamic, sql: Dynamic, params: Dynamic| execute(&db, &sql, &params));
    module
}

fn no_params() -> Dynamic {
    Array::new().into()
}

fn query(db: &Dynamic, sql: &Dynamic, params: &Dynamic) -> ScriptResult<Array> {
    let call = Call::of("sql::query", db, sql, params)?;
    let most = MAX_ROWS.min(room(&call.run));
    let Call { run, name, sql, params } = call;
    let reply = account::uncharged(|| run.services.databases.query(&name, sql, params, most));
    script_rows(answer(reply)?)
}

fn execute(db: &Dynamic, sql: &Dynamic, params: &Dynamic) -> ScriptResult<i64> {
    let Call { run, name, sql, params } = Call::of("sql::execute", db, sql, params)?;
    let reply = account::uncharged(|| run.services.databases.execute(&name, sql, params));
    Ok(i64::try_from(answer(reply)?).unwrap_or(i64::MAX))
}

/// A checked call; `sql` and `params` are no longer the script's memory.
struct Call {
    run: std::rc::Rc<RunContext>,
    name: String,
    sql: String,
    params: Vec<SqlValue>,
}

impl Call {
    fn of(function: &str, db: &Dynamic, sql: &Dynamic, params: &Dynamic) -> ScriptResult<Self> {
        let run = context::current()?;
        let name = args::name(function, "db", db)?.to_lowercase();
        if !run.spec().allow.databases.contains(&name) {
            return Err(context::throw(HostError::denied(format!(
                "{function}: this script may not use the database `{name}`: its `allow` has no such entry in `databases`"
            ))));
        }
        let sql = args::text(function, "sql", sql)?;
        let Some(given) = params.read_lock::<Array>() else {
            return Err(args::unfit(function, "params", "an array", params));
        };
        let params = account::uncharged(|| {
            given.iter().enumerate().map(|(index, value)| parameter(function, index, value)).collect::<Result<_, _>>()
        });
        Ok(Self { run, name, sql: account::uncharged(|| sql.to_string()), params: params? })
    }
}

fn parameter(function: &str, index: usize, value: &Dynamic) -> ScriptResult<SqlValue> {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(SqlValue::Text(text.to_string()));
    }
    if let Some(blob) = value.read_lock::<rhai::Blob>() {
        return Ok(SqlValue::Blob(blob.clone()));
    }
    if let Some(time) = value.read_lock::<Time>() {
        return Ok(SqlValue::Text(time.to_string()));
    }
    if let Ok(int) = value.as_int() {
        Ok(SqlValue::Integer(int))
    } else if let Some(float) = value.as_float().ok().filter(|float| !float.is_nan()) {
        Ok(SqlValue::Real(float))
    } else if let Ok(flag) = value.as_bool() {
        Ok(SqlValue::Integer(flag.into()))
    } else if value.is_unit() {
        Ok(SqlValue::Null)
    } else if let Ok(char) = value.as_char() {
        Ok(SqlValue::Text(char.to_string()))
    } else {
        let place = format!("params[{index}]");
        Err(args::unfit(function, &place, "a string, a number, a bool, a blob or ()", value))
    }
}

/// Rows from another thread as an array of maps.
fn script_rows(found: Rows) -> ScriptResult<Array> {
    enter(&found);
    let columns: Vec<Identifier> = found.columns.iter().map(|column| column.as_str().into()).collect();
    let mut rows = Array::with_capacity(found.rows.len());
    for row in found.rows {
        let row: Map = columns.iter().cloned().zip(row.into_iter().map(script_value)).collect();
        rows.push(row.into());
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
        let values: usize = row
            .iter()
            .map(|value| match value {
                SqlValue::Text(text) => text.capacity(),
                SqlValue::Blob(bytes) => bytes.capacity(),
                SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) => 0,
            })
            .sum();
        account::adopt(values + row.capacity() * size_of::<SqlValue>());
    }
}

fn script_value(value: SqlValue) -> Dynamic {
    match value {
        SqlValue::Null => Dynamic::UNIT,
        SqlValue::Integer(int) => int.into(),
        SqlValue::Real(real) => real.into(),
        SqlValue::Text(text) => text.into(),
        SqlValue::Blob(bytes) => Dynamic::from_blob(bytes),
    }
}
