//! Requests to look at the scripts again, and which worker has done so.

use super::db::{Db, damaged};
use super::writer::Tx;
use crate::broker::{BrokerError, Reloads, Result, Topic};
use crate::job::WorkerId;

pub(super) fn request(tx: &mut Tx<'_>) -> Result<u64> {
    tx.db.execute("UPDATE reload SET asked = asked + 1", [])?;
    tx.wake(Topic::JobTypes);
    asked(tx.db)
}

pub(super) fn done(tx: &mut Tx<'_>, worker: &WorkerId, number: u64) -> Result<()> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let known = tx.db.execute(
        "UPDATE workers SET reloaded = max(reloaded, ?2) WHERE id = ?1 AND gone IS NULL",
        (worker.as_str(), number),
    )?;
    if known == 0 {
        return Err(BrokerError::LeaseLost);
    }
    tx.wake(Topic::JobTypes);
    Ok(())
}

pub(super) fn reloads(db: &Db) -> Result<Reloads> {
    let rows = db.all("SELECT id, reloaded FROM workers WHERE gone IS NULL", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    let mut reloads = Reloads { asked: asked(db)?, ..Reloads::default() };
    for (id, number) in rows {
        let id = WorkerId::new(&id).map_err(|error| damaged(error.to_string()))?;
        reloads.done.insert(id, number.unsigned_abs());
    }
    Ok(reloads)
}

fn asked(db: &Db) -> Result<u64> {
    let asked: Option<i64> = db.first("SELECT asked FROM reload", [], |row| row.get(0))?;
    Ok(asked.unwrap_or(0).unsigned_abs())
}
