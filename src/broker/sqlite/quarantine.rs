//! Records that cannot be read are moved aside, so that one of them never stops the rest.

use rusqlite::types::ValueRef;
use serde_json::{Map, Value};

use super::db::Db;
use super::ends::remove;
use super::writer::Tx;
use crate::broker::{Result, Topic};

/// Moves a job to the table `quarantine`, as it is.
pub(super) fn quarantine(tx: &mut Tx<'_>, seq: i64, why: &str) -> Result<()> {
    let record = Value::Array(vec![
        raw(tx.db, "SELECT * FROM jobs WHERE seq = ?1", seq)?,
        raw(tx.db, "SELECT * FROM inputs WHERE seq = ?1", seq)?,
    ]);
    tracing::error!(seq, why, "a job's record cannot be read and was moved to the table quarantine");
    tx.db.execute("INSERT INTO quarantine VALUES (?1, ?2, ?3)", (tx.now.0, why, record.to_string()))?;
    remove(tx, seq)?;
    // What the record says of its queue and state may be the damage.
    tx.recount();
    tx.wake(Topic::Jobs);
    Ok(())
}

/// A row by its column names, whatever is in it. Blobs and texts that are not UTF-8 as hex.
fn raw(db: &Db, sql: &str, seq: i64) -> Result<Value> {
    let mut statement = db.prepare(sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([seq])?;
    let Some(row) = rows.next()? else { return Ok(Value::Null) };
    let mut record = Map::new();
    for (n, column) in columns.into_iter().enumerate() {
        let value = match row.get_ref(n)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => number.into(),
            ValueRef::Real(number) => number.into(),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => text.into(),
                Err(_) => data_encoding::HEXLOWER.encode(text).into(),
            },
            ValueRef::Blob(bytes) => data_encoding::HEXLOWER.encode(bytes).into(),
        };
        record.insert(column, value);
    }
    Ok(Value::Object(record))
}
