//! Worker processes and their leases.

use rusqlite::params;

use super::db::{Db, damaged};
use super::ends::{Back, End, end, give_back, keep_of};
use super::row::{Head, count, job_id, signed};
use super::writer::Tx;
use crate::broker::{BrokerError, Renewed, Result, Run, Topic, WorkerBeat, WorkerInfo};
use crate::job::{Event, Outcome, RunToken, Timestamp, WorkerId};

pub(super) fn renew(tx: &mut Tx<'_>, beat: &WorkerBeat) -> Result<Renewed> {
    let id = beat.worker.as_str();
    let gone: Option<Option<i64>> = tx.db.first("SELECT gone FROM workers WHERE id = ?1", [id], |row| row.get(0))?;
    if let Some(Some(_)) = gone {
        return Err(BrokerError::LeaseLost);
    }
    tx.db.execute(
        "INSERT INTO workers (id, host, pid, concurrency, started_at, lease_until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET concurrency = excluded.concurrency, lease_until = excluded.lease_until",
        params![id, beat.host, beat.pid, signed(beat.concurrency as u64), tx.now.0, tx.now.plus(beat.lease).0],
    )?;
    let marked = tx.db.all("SELECT id, queue, token FROM jobs WHERE cancel = 1 AND worker = ?1", [id], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?))
    })?;
    let mut renewed = Renewed::default();
    for (job, queue, token) in marked {
        renewed.cancelled.push(Run { job: job_id(&job)?, queue: tx.db.queue(queue)?, token: RunToken(token) });
    }
    Ok(renewed)
}

pub(super) fn retire(tx: &mut Tx<'_>, worker: &WorkerId) -> Result<()> {
    let known =
        tx.db.execute("UPDATE workers SET gone = ?2 WHERE id = ?1 AND gone IS NULL", (worker.as_str(), tx.now.0))?;
    if known == 0 {
        return Ok(());
    }
    forget_types(tx, worker.as_str())?;
    let runs: Vec<i64> =
        tx.db.all("SELECT seq FROM jobs WHERE state = 2 AND worker = ?1", [worker.as_str()], |row| row.get(0))?;
    for seq in runs {
        let head = match Head::at(tx.db, seq) {
            Ok(Some(head)) => head,
            Ok(None) | Err(BrokerError::Damaged(_)) => continue, // for the sweep
            Err(error) => return Err(error),
        };
        if head.cancel {
            let keep = keep_of(tx, head.name)?;
            end(tx, &head, &End::new(Event::Cancel, Some(Outcome::Cancelled), keep))?;
        } else {
            let reason = "its worker stopped";
            let back = Back::unburned(Event::Release, Outcome::Released, &head, tx.now, reason);
            give_back(tx, &head, &back)?;
        }
    }
    Ok(())
}

/// What a worker that is gone had loaded. The types stay known.
pub(super) fn forget_types(tx: &mut Tx<'_>, worker: &str) -> Result<()> {
    let loaded = tx.db.execute("DELETE FROM loaded WHERE worker = ?1", [worker])?;
    let refused = tx.db.execute("DELETE FROM refused WHERE worker = ?1", [worker])?;
    if loaded + refused > 0 {
        tx.wake(Topic::JobTypes);
    }
    Ok(())
}

pub(super) fn workers(db: &Db) -> Result<Vec<WorkerInfo>> {
    let mut statement = db.prepare(
        "SELECT id, host, pid, concurrency, started_at, lease_until,
                (SELECT count(*) FROM jobs WHERE state = 2 AND worker = workers.id)
         FROM workers WHERE gone IS NULL ORDER BY started_at, id",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(WorkerInfo {
            id: WorkerId::new(&row.get::<_, String>(0)?).map_err(|error| damaged(error.to_string()))?,
            host: row.get(1)?,
            pid: count(row.get(2)?)?,
            concurrency: usize::try_from(row.get::<_, i64>(3)?).unwrap_or(usize::MAX),
            started_at: Timestamp(row.get(4)?),
            lease_until: Timestamp(row.get(5)?),
            running: row.get::<_, i64>(6)?.unsigned_abs(),
        });
    }
    Ok(found)
}
