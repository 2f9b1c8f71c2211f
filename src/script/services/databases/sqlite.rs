//! A database in a SQLite file: a few connections, used on the runtime's blocking threads.
//!
//! An authorizer refuses what would stay on a connection or reach another file. A statement waits a while for other
//! writers; a flag that is looked at every few thousand instructions stops it.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::transaction::{Command, UNCOMMITTED};
use super::{Asked, CELL_BYTES, Found, ROW_BYTES, Rows, SqlValue, distinct, sql_error, too_large};
use crate::script::ports::{HostError, HostResult};
use crate::script::services::{StopOnDrop, joined};

/// Connections of one database in this process. SQLite has one writer at a time; more readers than cores gain nothing.
const CONNECTIONS: usize = 4;

/// How long a statement waits for other writers, in all and in one go; between goes it looks whether it was stopped.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const BUSY_STEP: Duration = Duration::from_millis(100);

/// Virtual machine instructions between two looks at the stop flag; some tens of microseconds.
const STOP_CHECK: i32 = 4096;

/// Bytes of one text, blob or row. SQLite builds them in memory that no account of a run counts.
const MAX_VALUE: i32 = 16 << 20;
const MAX_STATEMENT: i32 = 1 << 20;

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
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        slot.map_err(|_| sql_error("the databases are closed".to_owned(), true))
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

    /// Begins a transaction and serves it on a thread of its own, until it is committed or nobody can command any more.
    pub async fn serve(self: Arc<Self>, commands: mpsc::UnboundedReceiver<Command>) -> HostResult<()> {
        let slot = self.slot().await?;
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        let (begun, ready) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _slot = slot;
            // The lock at once: a transaction that reads first could not be tried again when it comes to write.
            let session = self.session().and_then(|session| {
                session
                    .patiently(&stopped, |connection| session.ours(|| connection.execute_batch("BEGIN IMMEDIATE")))?;
                Ok(session)
            });
            match session {
                Err(refusal) => drop(begun.send(Err(self.told(refusal)))),
                Ok(session) if begun.send(Ok(())).is_err() => self.give_back(session),
                Ok(session) => self.transact(session, commands),
            }
        });
        ready.await.unwrap_or_else(|_| Err(sql_error("the process is shutting down".to_owned(), true)))
    }

    fn transact(&self, mut session: Session, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut failed = false;
        while let Some(command) = commands.blocking_recv() {
            match command {
                Command::Run { asked, stopped, reply } => {
                    let result = session.answer(&stopped, &asked).map_err(|refusal| self.told(refusal));
                    failed |= result.is_err();
                    let _ = reply.send(result);
                }
                Command::Commit { reply } if failed => {
                    let _ = reply.send(Err(sql_error(format!("database `{}`: {UNCOMMITTED}", self.name), false)));
                    break;
                }
                Command::Commit { reply } => {
                    let never = AtomicBool::new(false);
                    let done =
                        session.patiently(&never, |connection| session.ours(|| connection.execute_batch("COMMIT")));
                    let _ = reply.send(done.map_err(|refusal| self.told(refusal)));
                    break;
                }
            }
        }
        self.give_back(session);
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
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            connection.set_limit(limit, most)?;
        }
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
        Error::SqliteFailure(failure, message) => {
            let retryable = matches!(
                failure.code,
                ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::CannotOpen | ErrorCode::OutOfMemory
            );
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
mod tests {
    use std::collections::BTreeMap;

    use tokio::runtime::Handle;

    use super::super::{Backend, Databases};
    use super::*;
    use crate::config::DatabaseUrl;
    use crate::job::ErrorKind;
    use crate::script::notes::Errand;

    struct Sales {
        databases: Databases,
        folder: tempfile::TempDir,
    }

    const MIB: usize = 1 << 20;

    fn sales() -> Sales {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sales.db");
        let setup = Connection::open(&file).unwrap();
        setup
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE sale (id INTEGER PRIMARY KEY, item TEXT UNIQUE, price REAL);
                 INSERT INTO sale VALUES (1, 'tea', 2.5), (2, 'jam', NULL);",
            )
            .unwrap();
        let databases = databases(file);
        Sales { databases, folder }
    }

    fn databases(path: PathBuf) -> Databases {
        let urls = BTreeMap::from([("SALES".to_owned(), DatabaseUrl::Sqlite { path })]);
        Databases::new(urls, Handle::current()).unwrap()
    }

    fn asked(sql: &str, params: Vec<SqlValue>, rows: Option<usize>) -> Asked {
        Asked {
            sql: sql.to_owned(),
            params,
            rows,
            until: Instant::now() + Duration::from_mins(1),
            errand: Errand::here(),
        }
    }

    impl From<i32> for SqlValue {
        fn from(value: i32) -> Self {
            Self::Integer(value.into())
        }
    }

    impl From<f64> for SqlValue {
        fn from(value: f64) -> Self {
            Self::Real(value)
        }
    }

    impl From<String> for SqlValue {
        fn from(value: String) -> Self {
            Self::Text(value)
        }
    }

    impl Sales {
        async fn query(&self, sql: &str, params: Vec<SqlValue>) -> Result<Rows, String> {
            match self.databases.run("sales", asked(sql, params, Some(MIB))).await {
                Ok(Found::Rows(rows)) => Ok(rows),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::HostSql);
                    Err(error.message)
                }
            }
        }

        async fn execute(&self, sql: &str, params: Vec<SqlValue>) -> Result<u64, String> {
            match self.databases.run("Sales", asked(sql, params, None)).await {
                Ok(Found::Changed(count)) => Ok(count),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.message),
            }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("sales.db")
        }
    }

    #[tokio::test]
    async fn rows_come_with_their_types() {
        let sales = sales();
        let rows = sales
            .query("SELECT id, item, price, x'00ff' AS raw FROM sale WHERE id <= ?1 ORDER BY id", vec![2.into()])
            .await
            .unwrap();
        assert_eq!(rows.columns, ["id", "item", "price", "raw"]);
        let raw = || SqlValue::Blob(vec![0, 255]);
        assert_eq!(rows.rows[0], [1.into(), "tea".to_owned().into(), 2.5.into(), raw()]);
        assert_eq!(rows.rows[1], [2.into(), "jam".to_owned().into(), SqlValue::Null, raw()]);
        let bytes = sales.query("SELECT CAST(x'ff' AS TEXT) AS t", vec![]).await.unwrap();
        assert_eq!(bytes.rows, [[SqlValue::Blob(vec![255])]]);
    }

    #[tokio::test]
    async fn changes_are_counted_and_stay() {
        let sales = sales();
        assert_eq!(sales.execute("UPDATE sale SET price = ?", vec![3.into()]).await, Ok(2));
        assert_eq!(sales.execute("CREATE TABLE t (a)", vec![]).await, Ok(0));
        assert_eq!(sales.execute("DELETE FROM sale WHERE id = 99", vec![]).await, Ok(0));
        let rows = sales.query("INSERT INTO t VALUES (1), (2) RETURNING a", vec![]).await.unwrap();
        assert_eq!(rows.rows.len(), 2);
        assert_eq!(sales.query("SELECT count(*) AS n FROM t", vec![]).await.unwrap().rows, [[SqlValue::Integer(2)]]);
    }

    #[tokio::test]
    async fn a_parameter_is_never_sql() {
        let sales = sales();
        let evil = "x'; DROP TABLE sale; --".to_owned();
        let rows = sales.query("SELECT id FROM sale WHERE item = ?", vec![evil.into()]).await.unwrap();
        assert_eq!(rows.rows.len(), 0);
        assert!(sales.query("SELECT id FROM sale", vec![]).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        let sales = sales();
        for (sql, said) in [
            ("SELECT nope FROM sale", "no such column: nope, at: nope FROM sale"),
            ("SELEC 1", "near \"SELEC\": syntax error"),
            ("SELECT 1; SELECT 2", "one statement per call"),
            ("", "returns no rows"),
            ("DELETE FROM sale", "returns no rows: use sql::execute"),
            ("SELECT ? + ?", "has 2 parameters, 0 were given"),
            ("SELECT 1 AS a, 2 AS a", "two columns are named `a`"),
            ("ATTACH 'x.db' AS x", "ATTACH, DETACH and VACUUM"),
            ("BEGIN", "use sql::transaction"),
            ("SAVEPOINT a", "use sql::transaction"),
            ("PRAGMA journal_mode = DELETE", "only the PRAGMAs"),
            ("PRAGMA writable_schema = ON", "only the PRAGMAs"),
            ("SELECT * FROM pragma_database_list", "only the PRAGMAs"),
            ("SELECT load_extension('x')", "load_extension is not available"),
            ("CREATE TEMP TABLE t (a)", "temporary tables are not available"),
        ] {
            let error = sales.query(sql, vec![]).await.unwrap_err();
            assert!(error.starts_with("database `sales`: ") && error.contains(said), "{sql}: {error}");
        }
        for (sql, said) in [
            ("SELECT 1", "returns rows: use sql::query"),
            ("VACUUM INTO '/tmp/ryemill-stolen.db'", "VACUUM"),
            ("INSERT INTO sale (item) VALUES ('tea')", "UNIQUE constraint failed"),
            ("UPDATE sqlite_master SET sql = ''", "may not be modified"),
            ("INSERT INTO sale (item) VALUES (zeroblob(20000000))", "too big"),
        ] {
            let error = sales.execute(sql, vec![]).await.unwrap_err();
            assert!(error.contains(said), "{sql}: {error}");
        }
        assert!(sales.query("PRAGMA table_info(sale)", vec![]).await.is_ok());
        let error = sales.databases.run("prices", asked("SELECT 1", vec![], Some(MIB))).await.unwrap_err();
        assert_eq!(error.message, "there is no database `prices`: set DATABASE_PRICES_URL (known: sales)");
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("missing.db");
        let databases = databases(file.clone());
        let error = databases.run("sales", asked("SELECT 1", vec![], Some(MIB))).await.unwrap_err();
        assert!(error.message.contains("there is no file") && error.message.contains("missing.db"), "{error}");
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn rows_beyond_the_limit_are_refused() {
        let sales = sales();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        let error = sales.query(endless, vec![]).await.unwrap_err();
        assert!(error.contains("the rows take more than the 1048576 bytes"), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_call_stops_its_statement_and_frees_its_slot() {
        let sales = sales();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n";
        for _ in 0..2 * CONNECTIONS {
            let call = sales.databases.run("sales", asked(endless, vec![], Some(MIB)));
            let timed = tokio::time::timeout(Duration::from_millis(20), call).await;
            assert!(timed.is_err(), "the statement has no end");
        }
        // All slots come back only if all eight statements ended.
        let Backend::Sqlite(database) = &sales.databases.by_name["sales"] else { panic!("it is on SQLite") };
        let all = database.slots.acquire_many(u32::try_from(CONNECTIONS).unwrap()).await.unwrap();
        drop(all);
        assert!(sales.query("SELECT 1 AS one", vec![]).await.is_ok());
    }

    #[tokio::test]
    async fn a_writer_waits_for_another_and_gives_up_with_a_retryable_error() {
        let sales = sales();
        let other = Connection::open(sales.file()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let write = sales.databases.run("sales", asked("DELETE FROM sale", vec![], None));
        let mut write = Box::pin(write);
        let early = tokio::time::timeout(2 * BUSY_STEP, &mut write).await;
        assert!(early.is_err(), "it waits");
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(write.await, Ok(Found::Changed(2)));

        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = sales.databases.run("sales", asked("DELETE FROM sale", vec![], None)).await.unwrap_err();
        assert!(error.retryable && error.message.contains("others held the database"), "{error}");
    }
}
