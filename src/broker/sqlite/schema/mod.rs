//! The tables, as numbered migrations that are part of the program. Version `n` of the file has the first `n` of them.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::broker::{BrokerError, Result};

const MIGRATIONS: [&str; 3] =
    [include_str!("0001_jobs.sql"), include_str!("0002_log_heads.sql"), include_str!("0003_reload.sql")];

/// Marks the file as ours (`PRAGMA application_id`): "rye1".
const APPLICATION: i64 = 0x7279_6531;

/// The newest version that this program knows.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the file to the newest version. Several processes may do so at once: the look and the change are one
/// transaction that holds the write lock.
pub(super) fn migrate(conn: &mut Connection) -> Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = usize::try_from(check(&tx)?).unwrap_or(0);
    if done < MIGRATIONS.len() {
        for migration in &MIGRATIONS[done..] {
            tx.execute_batch(migration)?;
        }
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", newest())?;
    }
    Ok(tx.commit()?)
}

/// Refuses a file that is not ours or too new; changes nothing. Answers its version, 0 for an empty file. In a
/// transaction, because another process may be making the tables at this moment.
pub(super) fn check(conn: &Transaction<'_>) -> Result<i64> {
    let application: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && (application != 0 || tables != 0) {
        return Err(BrokerError::Unavailable("the file is an SQLite database of another program".into()));
    }
    let version = version(conn)?;
    check_version(version)?;
    Ok(version)
}

pub(super) fn version(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))?)
}

/// Refuses a file that a newer program has changed.
pub(super) fn check_version(version: i64) -> Result<()> {
    if version > newest() {
        return Err(BrokerError::Unavailable(format!(
            "the broker file has schema version {version}, this ryemill knows up to {}: use a newer ryemill",
            newest()
        )));
    }
    Ok(())
}
