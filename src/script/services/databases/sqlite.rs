//! A database in a SQLite file: a few connections, used on the runtime's blocking threads.
//!
//! An authorizer refuses what would stay on a connection or reach another file. A statement waits a while for other
//! writers; a flag that is looked at every few instructions stops it, and no single function takes long (`functions`).

mod functions;
mod transaction;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Statement, params_from_iter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Asked, CELL_BYTES, Found, ROW_BYTES, Rows, SqlValue, distinct, sql_error, too_large};
use crate::script::ports::{HostError, HostResult};
use crate::script::services::{StopOnDrop, joined};

/// Connections of one database in this process. SQLite has one writer at a time; more readers than cores gain nothing.
const CONNECTIONS: usize = 4;

/// How long a call waits for a connection.
const WAIT: Duration = Duration::from_secs(10);

/// How long a statement waits for other writers, in all and in one go; between goes it looks whether it was stopped.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const BUSY_STEP: Duration = Duration::from_millis(100);

/// Virtual machine instructions between two looks at the stop flag. One of them may work on a value of 16 MiB for some
/// tens of milliseconds; a look takes some nanoseconds.
const STOP_CHECK: i32 = 32;

/// Bytes of one text, blob or row. SQLite builds them in memory that no account of a run counts.
const MAX_VALUE: i32 = 16 << 20;
const MAX_STATEMENT: i32 = 1 << 20;

/// Bytes of a pattern of LIKE or GLOB: one comparison is not stopped in its middle, and takes pattern times text.
const MAX_PATTERN: i32 = 512;

/// Arguments of a function, as SQLite had it for long: `json_set` goes through its whole text once for each.
const MAX_ARGUMENTS: i32 = 127;

/// Bytes that SQLite may hold for all statements of the process together, an embedded broker's too. Its JSON functions build
/// without regard to [`MAX_VALUE`]; they double what they hold, so at half of this the next step fails and others go on.
const MAX_HELD: i64 = 1 << 30;

pub struct Database {
    name: String,
    file: PathBuf,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("name", &self.name).field("file", &self.file).finish_non_exhaustive()
    }
}

/// A connection, and why its authorizer refused the last statement.
struct Session {
    connection: Connection,
    refused: Arc<Mutex<Option<&'static str>>>,
    /// Set while we begin and end a transaction, which no script may.
    ours: Arc<AtomicBool>,
}

impl Database {
    pub fn new(name: String, file: PathBuf) -> Self {
        Self { name, file, slots: Arc::new(Semaphore::new(CONNECTIONS)), idle: Mutex::default() }
    }

    async fn slot(&self) -> HostResult<OwnedSemaphorePermit> {
        let slot = tokio::time::timeout(WAIT, Arc::clone(&self.slots).acquire_owned()).await;
        if let Ok(slot) = slot {
            return slot.map_err(|_| sql_error("the databases are closed".to_owned(), true));
        }
        let (name, seconds) = (&self.name, WAIT.as_secs());
        Err(sql_error(format!("database `{name}`: all {CONNECTIONS} connections were busy for {seconds} s"), true))
    }

    pub async fn run(self: Arc<Self>, asked: Asked) -> HostResult<Found> {
        let slot = self.slot().await?;
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        let task = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let mut session = self.session().map_err(|refusal| self.told(refusal))?;
            let result = session.answer(&stopped, &asked);
            self.give_back(session);
            result.map_err(|refusal| self.told(refusal))
        });
        joined(task.await)
    }

    fn session(&self) -> Result<Session, Refusal> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Session::open(&self.file), Ok)
    }

    /// Without what was not committed.
    fn give_back(&self, session: Session) {
        if !session.connection.is_autocommit() {
            let _ = session.ours(|| session.connection.execute_batch("ROLLBACK"));
        }
        if session.connection.is_autocommit() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
    }

    fn told(&self, refusal: Refusal) -> HostError {
        refusal.into_host_error(&self.name)
    }
}

impl Session {
    fn open(file: &Path) -> Result<Self, Refusal> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(file, flags).map_err(|error| Refusal::Open {
            missing: !file.exists(),
            file: file.to_owned(),
            error,
        })?;
        connection.busy_timeout(BUSY_STEP)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        for (limit, most) in [
            (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN),
            (Limit::SQLITE_LIMIT_FUNCTION_ARG, MAX_ARGUMENTS),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            connection.set_limit(limit, most)?;
        }
        connection.pragma_update(None, "hard_heap_limit", MAX_HELD)?;
        functions::register(&connection)?;
        let refused = Arc::new(Mutex::new(None));
        let reason = Arc::clone(&refused);
        let ours: Arc<AtomicBool> = Arc::default();
        let allowed = Arc::clone(&ours);
        connection.authorizer(Some(move |context: AuthContext<'_>| match forbidden(&context.action) {
            None => Authorization::Allow,
            Some(_) if allowed.load(Ordering::Relaxed) => Authorization::Allow,
            Some(why) => {
                *reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                Authorization::Deny
            }
        }))?;
        Ok(Self { connection, refused, ours })
    }

    /// Runs a statement, until it is stopped.
    fn answer(&mut self, stopped: &Arc<AtomicBool>, asked: &Asked) -> Result<Found, Refusal> {
        let _working = asked.errand.begin();
        let flag = Arc::clone(stopped);
        self.connection.progress_handler(STOP_CHECK, Some(move || flag.load(Ordering::Relaxed)))?;
        let result = self.patiently(stopped, |connection| match asked.rows {
            Some(most) => select(connection, &asked.sql, &asked.params, most).map(Found::Rows),
            None => change(connection, &asked.sql, &asked.params).map(Found::Changed),
        });
        self.connection.progress_handler(0, None::<fn() -> bool>)?;
        result
    }

    /// Does what the authorizer refuses to scripts.
    fn ours<T>(&self, f: impl FnOnce() -> Result<T, Error>) -> Result<T, Refusal> {
        self.ours.store(true, Ordering::Relaxed);
        let result = f();
        self.ours.store(false, Ordering::Relaxed);
        Ok(result?)
    }

    /// Tries again while others hold the database. A statement that failed for that has changed nothing.
    fn patiently<T>(
        &self,
        stopped: &AtomicBool,
        work: impl Fn(&Connection) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let begun = Instant::now();
        loop {
            match work(&self.connection) {
                Err(Refusal::Sqlite(error))
                    if is_busy(&error) && begun.elapsed() < BUSY_WAIT && !stopped.load(Ordering::Relaxed) =>
                {
                    // Some kinds of "busy" come back at once instead of after `BUSY_STEP`.
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(Refusal::Sqlite(error)) => {
                    let why = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return Err(why.map_or(Refusal::Sqlite(error), |why| Refusal::Said(why.to_owned())));
                }
                other => return other,
            }
        }
    }
}

fn select(connection: &Connection, sql: &str, params: &[SqlValue], max_bytes: usize) -> Result<Rows, Refusal> {
    let mut statement = prepare(connection, sql, params)?;
    if statement.column_count() == 0 {
        return Err(Refusal::said("the statement returns no rows: use sql::execute"));
    }
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    distinct(&columns).map_err(Refusal::Said)?;
    let mut left = max_bytes;
    let mut rows = Vec::new();
    let mut found = statement.query(params_from_iter(params))?;
    while let Some(row) = found.next()? {
        let mut size = ROW_BYTES;
        let mut values = Vec::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            let value = row.get_ref(index)?;
            size += column.len() + CELL_BYTES + length(value);
            values.push(owned(value));
        }
        left = left.checked_sub(size).ok_or_else(|| Refusal::Said(too_large(max_bytes, rows.len())))?;
        rows.push(values);
    }
    Ok(Rows { columns, rows })
}

impl ToSql for SqlValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Bool(flag) => ToSqlOutput::Owned((*flag).into()),
            Self::Integer(int) => ToSqlOutput::Owned((*int).into()),
            Self::Real(real) => ToSqlOutput::Owned((*real).into()),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Self::Json(_) | Self::List(_) => {
                return Err(Error::ToSqlConversionFailure("SQLite has no lists and maps: use json::format".into()));
            }
        })
    }
}

fn length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
    }
}

/// Text that is not UTF-8, which SQLite lets in, comes out as the bytes that it is.
fn owned(value: ValueRef<'_>) -> SqlValue {
    match value {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(int) => SqlValue::Integer(int),
        ValueRef::Real(real) => SqlValue::Real(real),
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_owned()),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => SqlValue::Text(text.to_owned()),
            Err(_) => SqlValue::Blob(bytes.to_owned()),
        },
    }
}

fn change(connection: &Connection, sql: &str, params: &[SqlValue]) -> Result<u64, Refusal> {
    let mut statement = prepare(connection, sql, params)?;
    if statement.column_count() > 0 {
        return Err(Refusal::said("the statement returns rows: use sql::query"));
    }
    let before = connection.total_changes();
    statement.execute(params_from_iter(params))?;
    // `changes` keeps the count of an earlier statement when this one changes no rows, as CREATE TABLE.
    Ok(if connection.total_changes() == before { 0 } else { connection.changes() })
}

fn prepare<'c>(connection: &'c Connection, sql: &str, params: &[SqlValue]) -> Result<Statement<'c>, Refusal> {
    let statement = connection.prepare(sql)?;
    let (needed, given) = (statement.parameter_count(), params.len());
    if needed != given {
        return Err(Refusal::said(format!("the statement has {needed} parameters, {given} were given")));
    }
    Ok(statement)
}

/// What would outlive the call on its connection or reach another file, and so is no business of a script.
fn forbidden(action: &AuthAction<'_>) -> Option<&'static str> {
    const SCHEMA_PRAGMAS: [&str; 7] =
        ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"];
    match action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Some("ATTACH, DETACH and VACUUM are not available to scripts")
        }
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Some("BEGIN, COMMIT, ROLLBACK and SAVEPOINT are not available: use sql::transaction")
        }
        AuthAction::Pragma { pragma_name, .. }
            if !SCHEMA_PRAGMAS.iter().any(|name| pragma_name.eq_ignore_ascii_case(name)) =>
        {
            Some("only the PRAGMAs that describe tables and indexes are available to scripts")
        }
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => {
            Some("temporary tables are not available: a connection serves many jobs; use WITH")
        }
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Some("load_extension is not available to scripts")
        }
        AuthAction::Function { function_name } => functions::refused(function_name),
        AuthAction::Read { table_name, column_name } => functions::refused_column(table_name, column_name),
        AuthAction::Unknown { .. } => Some("the statement is of a kind that is not available to scripts"),
        _ => None,
    }
}

/// Why a call failed, before it is put into words.
enum Refusal {
    Sqlite(Error),
    Open { file: PathBuf, missing: bool, error: Error },
    Said(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Refusal {
    fn said(message: impl Into<String>) -> Self {
        Self::Said(message.into())
    }

    fn into_host_error(self, database: &str) -> HostError {
        let (message, retryable) = match self {
            Self::Said(message) => (message, false),
            Self::Open { file, missing: true, .. } => (format!("there is no file {}", file.display()), false),
            Self::Open { file, error, .. } => (format!("cannot open {}: {error}", file.display()), true),
            Self::Sqlite(error) => worded(&error),
        };
        sql_error(format!("database `{database}`: {message}"), retryable)
    }
}

fn worded(error: &Error) -> (String, bool) {
    match error {
        Error::MultipleStatement => ("one statement per call: there is more after the first".to_owned(), false),
        Error::SqlInputError { msg, sql, offset, .. } => {
            match usize::try_from(*offset).ok().and_then(|at| sql.get(at..)) {
                Some(rest) if !rest.is_empty() => (format!("{msg}, at: {}", start(rest)), false),
                _ => (msg.clone(), false),
            }
        }
        Error::SqliteFailure(..) if is_busy(error) => {
            (format!("others held the database for more than {} s", BUSY_WAIT.as_secs()), true)
        }
        Error::SqliteFailure(failure, _) if failure.code == ErrorCode::OutOfMemory => {
            ("the statement needs more memory than SQLite has for all statements of a worker, 1 GiB".to_owned(), true)
        }
        Error::SqliteFailure(failure, message) => {
            let retryable =
                matches!(failure.code, ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::CannotOpen);
            (message.clone().unwrap_or_else(|| failure.to_string()), retryable)
        }
        other => (other.to_string(), false),
    }
}

fn is_busy(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The first 40 characters.
fn start(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
