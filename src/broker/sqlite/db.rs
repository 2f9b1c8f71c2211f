//! One connection to the file: how it is opened, and the numbers that stand for names in it. Knows no verb.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row};

use super::schema;
use crate::broker::{BrokerError, Result};
use crate::job::{JobName, QueueName};

/// How a commit is made safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncMode {
    /// On the disk before the answer: what was answered survives a power cut.
    #[default]
    Full,
    /// With the system before the answer: survives a killed process, but a power cut may take the last commits.
    Normal,
}

/// How long a statement waits for the lock of another process before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pages of the log file before it is copied into the main file: 16 MiB.
const CHECKPOINT_PAGES: i64 = 4000;
const STATEMENTS: usize = 128;

/// A connection with its name caches. Numbers of names never change, so they are cached for good.
pub(super) struct Db {
    pub conn: Connection,
    queues: Interned<QueueName>,
    names: Interned<JobName>,
}

impl Db {
    /// The connection that writes. Makes the file and its folder, and brings the tables up to date.
    pub fn open_writer(path: &Path, sync: SyncMode) -> Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| BrokerError::Unavailable(format!("{}: {error}", folder.display())))?;
        }
        let mut conn = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        schema::check(&conn.transaction()?)?;
        enter_wal(&conn)?;
        conn.pragma_update(None, "synchronous", if sync == SyncMode::Full { "FULL" } else { "NORMAL" })?;
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
        schema::migrate(&mut conn)?;
        Ok(Self::new(conn))
    }

    pub fn open_reader(path: &Path) -> Result<Self> {
        let conn = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(Self::new(conn))
    }

    fn new(conn: Connection) -> Self {
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Self {
            conn,
            queues: Interned::new(
                "SELECT id FROM queues WHERE name = ?1",
                "SELECT name FROM queues WHERE id = ?1",
                "INSERT INTO queues (name) VALUES (?1)",
            ),
            names: Interned::new(
                "SELECT id FROM names WHERE name = ?1",
                "SELECT name FROM names WHERE id = ?1",
                "INSERT INTO names (name) VALUES (?1)",
            ),
        }
    }

    pub fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        Ok(self.conn.prepare_cached(sql)?)
    }

    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        Ok(self.prepare(sql)?.execute(params)?)
    }

    /// The first row, if there is one.
    pub fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.prepare(sql)?.query_row(params, read).optional()?)
    }

    /// Every row.
    pub fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.prepare(sql)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<T>>>()?)
    }

    /// The number of a queue that is known.
    pub fn find_queue(&self, queue: &QueueName) -> Result<Option<i64>> {
        self.queues.find(&self.conn, queue)
    }

    /// The number of a queue, which is made known by this. Write connection only.
    pub fn queue_id(&self, queue: &QueueName) -> Result<i64> {
        self.queues.id(&self.conn, queue)
    }

    pub fn queue(&self, id: i64) -> Result<QueueName> {
        self.queues.name(&self.conn, id)
    }

    /// The number of a job name that is known.
    pub fn find_name(&self, name: &JobName) -> Result<Option<i64>> {
        self.names.find(&self.conn, name)
    }

    /// The number of a job name, which is made known by this. Write connection only.
    pub fn name_id(&self, name: &JobName) -> Result<i64> {
        self.names.id(&self.conn, name)
    }

    pub fn name(&self, id: i64) -> Result<JobName> {
        self.names.name(&self.conn, id)
    }

    /// After a rollback: numbers that were given in it are void.
    pub fn forget_names(&self) {
        self.queues.forget();
        self.names.forget();
    }
}

struct Interned<T> {
    ids: RefCell<HashMap<T, i64>>,
    names: RefCell<HashMap<i64, T>>,
    find: &'static str,
    read: &'static str,
    insert: &'static str,
}

impl<T> Interned<T>
where
    T: Clone + Eq + Hash + ToString + FromStr,
{
    fn new(find: &'static str, read: &'static str, insert: &'static str) -> Self {
        Self { ids: RefCell::default(), names: RefCell::default(), find, read, insert }
    }

    fn find(&self, conn: &Connection, name: &T) -> Result<Option<i64>> {
        if let Some(id) = self.ids.borrow().get(name) {
            return Ok(Some(*id));
        }
        let found = conn.prepare_cached(self.find)?.query_row([name.to_string()], |row| row.get(0)).optional()?;
        if let Some(id) = found {
            self.keep(name, id);
        }
        Ok(found)
    }

    fn id(&self, conn: &Connection, name: &T) -> Result<i64> {
        if let Some(id) = self.find(conn, name)? {
            return Ok(id);
        }
        conn.prepare_cached(self.insert)?.execute([name.to_string()])?;
        let id = conn.last_insert_rowid();
        self.keep(name, id);
        Ok(id)
    }

    fn name(&self, conn: &Connection, id: i64) -> Result<T> {
        if let Some(name) = self.names.borrow().get(&id) {
            return Ok(name.clone());
        }
        let text: Option<String> = conn.prepare_cached(self.read)?.query_row([id], |row| row.get(0)).optional()?;
        let name = text.and_then(|text| text.parse::<T>().ok()).ok_or_else(|| damaged(format!("no name {id}")))?;
        self.keep(&name, id);
        Ok(name)
    }

    fn keep(&self, name: &T, id: i64) {
        self.ids.borrow_mut().insert(name.clone(), id);
        self.names.borrow_mut().insert(id, name.clone());
    }

    fn forget(&self) {
        self.ids.borrow_mut().clear();
        self.names.borrow_mut().clear();
    }
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)
        .map_err(|error| BrokerError::Unavailable(format!("{}: {error}", path.display())))?;
    // SQLite's own handler sleeps up to 100 ms at a time; a group commit of another process takes about one.
    let mut since = Instant::now();
    conn.busy_handler(Some(move |tries: i32| {
        if tries == 0 {
            since = Instant::now();
        }
        let wait = Duration::from_micros(100).saturating_mul(1 << tries.clamp(0, 5));
        std::thread::sleep(wait);
        since.elapsed() < PATIENCE
    }))?;
    // One plan per statement, whatever is bound: otherwise SQLite plans again for each new value, at twice the cost
    // of the whole statement.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -64 << 10)?;
    Ok(conn)
}

/// Changing the journal mode needs the file alone, and SQLite does not wait for that by itself.
fn enter_wal(conn: &Connection) -> Result<()> {
    let started = Instant::now();
    loop {
        match conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(BrokerError::Unavailable(format!(
                    "the file system does not support SQLite's WAL mode (it stays in mode {mode}): use a local disk"
                )));
            }
            Err(error) if is_busy(&error) && started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

pub(super) fn damaged(what: impl Into<String>) -> BrokerError {
    BrokerError::Damaged(what.into())
}

impl From<rusqlite::Error> for BrokerError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &error {
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..) => Self::Damaged(error.to_string()),
            _ if is_busy(&error) => {
                Self::Unavailable("another process has kept the broker file busy for too long".into())
            }
            _ if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                Self::Full("the disk of the broker file is full".into())
            }
            _ => Self::Unavailable(format!("SQLite: {error}")),
        }
    }
}
