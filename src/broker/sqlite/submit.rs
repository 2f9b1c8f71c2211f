//! New jobs, and the idempotency keys that stand for them.

use std::time::Duration;

use rusqlite::params;

use super::row::{self, RECORD, signed};
use super::writer::Tx;
use crate::broker::{Enqueued, NewJob, Reservation, Reserved, Result, Topic};
use crate::job::time::micros;
use crate::job::{State, Timestamp, Version};

/// What a record needs besides its texts: keys, numbers and its places in the indexes, measured roughly.
const RECORD_BYTES: usize = 300;

pub(super) fn enqueue(tx: &mut Tx<'_>, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
    let now = tx.now;
    let mut job_row = tx.db.prepare(
        "INSERT INTO jobs (v, id, queue, name, state, priority, score, created_at, run_at, timeout, max_attempts, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (id) DO NOTHING",
    )?;
    let mut input_row = tx.db.prepare("INSERT INTO inputs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        let queue = tx.db.queue_id(&job.queue)?;
        let name = tx.db.name_id(&job.name)?;
        let state = if job.delay.is_zero() { State::Queued } else { State::Scheduled };
        let run_at = now.plus(job.delay);
        let tags = (!job.tags.is_empty()).then(|| serde_json::json!(job.tags).to_string());
        let bytes = RECORD_BYTES + job.payload.get().len() + tags.as_deref().map_or(0, str::len);
        let created = job_row.execute(params![
            RECORD,
            job.id.as_bytes().as_slice(),
            queue,
            name,
            state as i64,
            job.priority.get(),
            job.priority.score(now),
            now.0,
            run_at.0,
            micros(job.timeout),
            job.max_attempts,
            signed(bytes as u64),
        ])? == 1;
        if !created {
            answers.push(existing(tx, job)?);
            continue;
        }
        input_row.execute(params![
            tx.db.conn.last_insert_rowid(),
            job.payload.get(),
            job.request_id.as_str(),
            tags,
            job.checked_with.as_ref().map(Version::as_str),
            job.parent_id.as_ref().map(|parent| parent.as_bytes().as_slice()),
            job.depth,
        ])?;
        tx.count(queue, name, None, Some(state));
        answers.push(Enqueued { id: job.id, created, state, created_at: now, run_at });
    }
    if answers.iter().any(|answer| answer.created) {
        tx.wake(Topic::Work);
        tx.wake(Topic::Jobs);
    }
    Ok(answers)
}

fn existing(tx: &Tx<'_>, job: &NewJob) -> Result<Enqueued> {
    let (state, created_at, run_at) = tx
        .db
        .first("SELECT state, created_at, run_at FROM jobs WHERE id = ?1", [job.id.as_bytes().as_slice()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .ok_or(crate::broker::BrokerError::NotFound(job.id))?;
    Ok(Enqueued {
        id: job.id,
        created: false,
        state: row::state(state)?,
        created_at: Timestamp(created_at),
        run_at: Timestamp(run_at),
    })
}

pub(super) fn reserve_key(tx: &mut Tx<'_>, key: &str, mine: &Reservation, ttl: Duration) -> Result<Reserved> {
    let first = tx.db.first("SELECT job, hash FROM keys WHERE key = ?1 AND expires > ?2", (key, tx.now.0), |row| {
        Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, [u8; 32]>(1)?))
    })?;
    if let Some((job, body_hash)) = first {
        let reservation = Reservation { job: crate::job::JobId::from_bytes(job), body_hash };
        return Ok(Reserved { first: false, reservation });
    }
    tx.db.execute(
        "INSERT OR REPLACE INTO keys VALUES (?1, ?2, ?3, ?4)",
        (key, mine.job.as_bytes().as_slice(), mine.body_hash.as_slice(), tx.now.plus(ttl).0),
    )?;
    Ok(Reserved { first: true, reservation: mine.clone() })
}
