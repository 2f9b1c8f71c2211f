//! What people do to jobs and queues: cancel, retry, delete, pause.

use rusqlite::params;

use super::ends::{End, archive, end, keep_of, remove};
use super::row::outcome;
use super::writer::Tx;
use crate::broker::{BrokerError, Result, Topic};
use crate::job::state::IllegalTransition;
use crate::job::{Event, JobId, QueueName, State, Timestamp};

pub(super) fn cancel(tx: &mut Tx<'_>, id: JobId) -> Result<State> {
    let head = tx.job(id)?;
    match head.state {
        State::Cancelled => return Ok(State::Cancelled),
        State::Running => {
            if !head.cancel {
                tx.db.execute("UPDATE jobs SET cancel = 1 WHERE seq = ?1", [head.seq])?;
                tx.wake(Topic::Cancel);
                tx.wake(Topic::Jobs);
            }
            return Ok(State::Running);
        }
        _ => {}
    }
    head.state.on(Event::Cancel)?;
    let keep = keep_of(tx, head.name)?;
    end(tx, &head, &End::new(Event::Cancel, None, keep))?;
    Ok(State::Cancelled)
}

pub(super) fn retry(tx: &mut Tx<'_>, id: JobId) -> Result<()> {
    let head = tx.job(id)?;
    let next = head.state.on(Event::Requeue)?;
    let mut bytes = head.bytes;
    if !head.worker.is_empty() {
        // The last run goes where the earlier ones are, as it ended.
        let (last, version, error, finished_at) = tx
            .db
            .first("SELECT outcome, version, error, finished_at FROM jobs WHERE seq = ?1", [head.seq], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Option<String>>(1)?,
                    row.get::<_, Option<String>>(2)?,
                    Timestamp(row.get(3)?),
                ))
            })?
            .ok_or(BrokerError::NotFound(id))?;
        bytes += archive(tx, &head, outcome(last)?, version.as_deref(), error.as_deref(), finished_at)?;
    }
    tx.db.execute(
        "UPDATE jobs SET state = ?2, attempt = 0, run_at = ?3, bytes = ?4, ended_bytes = 0, suspect = 0, charged = 0,
                uncharged = 0, worker = '', outcome = NULL, started_at = NULL, finished_at = NULL, expires = NULL,
                reason = NULL, progress = NULL, result = NULL, error = NULL
         WHERE seq = ?1",
        params![head.seq, next as i64, tx.now.0, bytes],
    )?;
    tx.count(head.queue, head.name, Some(head.state), Some(next));
    tx.count_ended_bytes(head.queue, -head.ended_bytes);
    tx.wake(Topic::Work);
    tx.wake(Topic::Jobs);
    Ok(())
}

pub(super) fn delete(tx: &mut Tx<'_>, id: JobId) -> Result<()> {
    let head = tx.job(id)?;
    if head.state == State::Running {
        return Err(IllegalTransition { from: head.state, event: Event::Delete }.into());
    }
    remove(tx, head.seq)?;
    tx.count(head.queue, head.name, Some(head.state), None);
    tx.count_ended_bytes(head.queue, -head.ended_bytes);
    tx.wake(Topic::Jobs);
    Ok(())
}

pub(super) fn set_paused(tx: &mut Tx<'_>, queue: &QueueName, paused: bool) -> Result<()> {
    let id = tx.db.queue_id(queue)?;
    let changed = tx.db.execute("UPDATE queues SET paused = ?2 WHERE id = ?1 AND paused <> ?2", (id, paused))?;
    if changed == 1 {
        tx.wake(Topic::Work);
        tx.wake(Topic::Jobs);
    }
    Ok(())
}
