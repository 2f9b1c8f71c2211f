//! The operator's databases, by name: one statement per call, parameters always bound, results bounded.
//!
//! Each database has a few connections. A connection goes from run to run, so nothing may stay on it: no transaction, no
//! temporary table, no setting. Dropping a call's reply stops its statement, at the server as well. Knows which databases
//! there are, not which a script may use.

mod pg_connect;
mod pg_numbers;
mod pg_params;
mod pg_values;
mod postgres;
mod sqlite;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::runtime::Handle;

use super::Reply;
use super::edge::{Edge, SqlReply};
use crate::config::DatabaseUrl;
use crate::job::ErrorKind;
use crate::script::notes::Errand;
use crate::script::ports::{HostError, HostResult};

pub use transaction::Transaction;

/// A value on its way to or from a database.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue {
    Null,
    Bool(bool),
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
    /// The text of a JSON value.
    Json(String),
    List(Vec<SqlValue>),
}

/// One statement with its parameters.
#[derive(Clone, Debug)]
pub struct Asked {
    pub sql: String,
    pub params: Vec<SqlValue>,
    /// Bytes that its rows may take as script values; none for a statement that returns none.
    pub rows: Option<usize>,
    /// When nobody waits for it any more.
    pub until: Instant,
    /// Whom it is for, for the blocking thread that does it.
    pub errand: Errand,
}

/// What a statement came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Rows(Rows),
    Changed(u64),
}

/// What a statement that returns rows found.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    pub columns: Vec<String>,
    /// Each row has one value per column.
    pub rows: Vec<Vec<SqlValue>>,
}

/// What a row and a value take as a script's map, rounded up: a node of its B-tree is 456 bytes and holds 11 entries.
const ROW_BYTES: usize = 512;
const CELL_BYTES: usize = 96;

#[derive(Clone, Debug)]
enum Backend {
    Sqlite(Arc<sqlite::Database>),
    Postgres(Arc<postgres::Database>),
}

/// The databases by lower-case name.
#[derive(Debug)]
pub struct Databases {
    by_name: BTreeMap<String, Backend>,
    edge: Option<Arc<dyn Edge>>,
    runtime: Handle,
}

impl Databases {
    /// Nothing is opened before its first use; SQLite files must exist then.
    ///
    /// # Errors
    /// When a URL cannot be understood.
    pub fn new(urls: BTreeMap<String, DatabaseUrl>, runtime: Handle) -> Result<Self, String> {
        let backend = |(name, url): (String, DatabaseUrl)| {
            let name = name.to_ascii_lowercase();
            let backend = match url {
                DatabaseUrl::Sqlite { path } => Backend::Sqlite(Arc::new(sqlite::Database::new(name.clone(), path))),
                DatabaseUrl::Postgres { url } => {
                    let opened = postgres::Database::new(name.clone(), url.expose());
                    let upper = name.to_ascii_uppercase();
                    Backend::Postgres(Arc::new(opened.map_err(|why| format!("DATABASE_{upper}_URL: {why}"))?))
                }
            };
            Ok((name, backend))
        };
        Ok(Self { by_name: urls.into_iter().map(backend).collect::<Result<_, String>>()?, edge: None, runtime })
    }

    /// Asks no database from now on.
    pub fn answer_by(&mut self, edge: Arc<dyn Edge>) {
        self.edge = Some(edge);
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Whether a list or a map can be a parameter.
    #[must_use]
    pub fn takes_lists(&self, name: &str) -> bool {
        self.edge.is_some() || matches!(self.by_name.get(&name.to_ascii_lowercase()), Some(Backend::Postgres(_)))
    }

    /// Runs a statement, as a transaction of its own.
    ///
    /// # Errors
    /// Of kind `host.sql`, through the reply.
    pub fn run(&self, name: &str, asked: Asked) -> Reply<Found> {
        if let Some(edge) = &self.edge {
            let answer = answer_of(edge.as_ref(), name, &asked);
            return Reply::of(&self.runtime, async move { answer });
        }
        let found = self.find(name);
        let runtime = self.runtime.clone();
        Reply::of(&self.runtime, async move {
            match found? {
                Backend::Sqlite(database) => database.run(asked).await,
                Backend::Postgres(database) => database.run(asked, &runtime).await,
            }
        })
    }

    /// Begins a transaction, which is rolled back when it is dropped without a commit.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn begin(&self, name: &str, until: Instant) -> Reply<Transaction> {
        let runtime = self.runtime.clone();
        if let Some(edge) = &self.edge {
            let staged = Transaction::staged(Arc::clone(edge), name, runtime);
            return Reply::of(&self.runtime, async move { Ok(staged) });
        }
        let found = self.find(name);
        Reply::of(&self.runtime, async move {
            match found? {
                Backend::Sqlite(database) => Transaction::on_sqlite(database, runtime).await,
                Backend::Postgres(database) => Transaction::on_postgres(database, until, runtime).await,
            }
        })
    }

    fn find(&self, name: &str) -> HostResult<Backend> {
        self.by_name.get(&name.to_ascii_lowercase()).cloned().ok_or_else(|| {
            let (upper, known) = (name.to_ascii_uppercase(), self.names().collect::<Vec<_>>().join(", "));
            let known = if known.is_empty() { "none is set".to_owned() } else { format!("known: {known}") };
            sql_error(format!("there is no database `{name}`: set DATABASE_{upper}_URL ({known})"), false)
        })
    }
}

/// What a test says that a statement comes to.
fn answer_of(edge: &dyn Edge, name: &str, asked: &Asked) -> HostResult<Found> {
    let reply = edge.sql(name, &asked.sql)?;
    Ok(match (asked.rows, reply) {
        (Some(_), reply) => Found::Rows(rows_of(reply)),
        (None, SqlReply::Changed(count)) => Found::Changed(count),
        (None, SqlReply::Rows(rows)) => Found::Changed(rows.len() as u64),
    })
}

fn rows_of(reply: SqlReply) -> Rows {
    let SqlReply::Rows(rows) = reply else { return Rows { columns: Vec::new(), rows: Vec::new() } };
    let columns: BTreeSet<String> = rows.iter().flat_map(|row| row.keys().cloned()).collect();
    let columns: Vec<String> = columns.into_iter().collect();
    let rows = rows
        .into_iter()
        .map(|mut row| columns.iter().map(|column| value_of(row.remove(column).unwrap_or_default())).collect())
        .collect();
    Rows { columns, rows }
}

fn value_of(value: Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Bool(value) => SqlValue::Bool(value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| SqlValue::Real(number.as_f64().unwrap_or_default()), SqlValue::Integer)
        }
        Value::String(text) => SqlValue::Text(text),
        other => SqlValue::Json(other.to_string()),
    }
}

/// Refuses names that would be one entry of a row's map.
fn distinct(columns: &[String]) -> Result<(), String> {
    for (index, name) in columns.iter().enumerate() {
        if columns[..index].contains(name) {
            return Err(format!("two columns are named `{name}`: give one another name with AS"));
        }
    }
    Ok(())
}

fn too_large(max_bytes: usize, fit: usize) -> String {
    format!(
        "the rows take more than the {max_bytes} bytes that the run may hold ({fit} fit): select fewer columns, use \
         LIMIT, or sum up in SQL"
    )
}

fn sql_error(message: String, retryable: bool) -> HostError {
    HostError::new(ErrorKind::HostSql, message, retryable)
}
