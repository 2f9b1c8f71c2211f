//! Upkeep: the runs of dead workers go back, ended jobs go in the end. Every step is bounded.

use std::time::Duration;

use rusqlite::params;

use super::claim::{DUE, make_due};
use super::ends::{Back, End, end, give_back, remove};
use super::quarantine::quarantine;
use super::row::{Head, job_id, signed, state};
use super::workers::forget_types;
use super::writer::Tx;
use crate::broker::{BrokerError, Result, Run, Sweep, Swept, Topic};
use crate::job::time::micros;
use crate::job::{ErrorKind, Event, JobError, JobId, Outcome, RunToken};

/// Runs that one sweep gives back.
const RUNS: usize = 1000;
/// Charged losses that end a job.
const MAX_CHARGED: i64 = 3;
/// Uncharged losses that make a job a suspect.
const MAX_UNCHARGED: i64 = 5;
/// Old keys and workers that one prune removes.
const OLD: i64 = 1000;
/// How long the id of a worker that is gone is remembered. Whoever wakes up after that finds its runs gone anyway.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);

pub(super) fn sweep(tx: &mut Tx<'_>, sweep: &Sweep) -> Result<Swept> {
    let mut swept = Swept::default();
    bury_workers(tx)?;
    for run in &sweep.blamed {
        match tx.current(run) {
            Ok(head) => lose(tx, sweep, &head, true, &mut swept)?,
            Err(BrokerError::LeaseLost | BrokerError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    for seq in lost_runs(tx, micros(sweep.overdue))? {
        match Head::at(tx.db, seq) {
            Ok(Some(head)) => lose(tx, sweep, &head, false, &mut swept)?,
            Ok(None) => {}
            Err(BrokerError::Damaged(why)) => {
                quarantine(tx, seq, &why)?;
                swept.quarantined += 1;
            }
            Err(error) => return Err(error),
        }
        swept.more = swept.lost.len() >= RUNS;
        if swept.more {
            break;
        }
    }
    let queues: Vec<i64> = tx.db.all("SELECT id FROM queues", [], |row| row.get(0))?;
    for queue in queues {
        swept.more |= make_due(tx, queue, DUE)?.is_some_and(|due| due <= tx.now);
    }
    Ok(swept)
}

/// Takes the workers off the list whose lease is over.
fn bury_workers(tx: &mut Tx<'_>) -> Result<()> {
    let dead: Vec<String> = tx.db.all(
        "UPDATE workers SET gone = ?1 WHERE gone IS NULL AND lease_until <= ?1 RETURNING id",
        [tx.now.0],
        |row| row.get(0),
    )?;
    for worker in dead {
        forget_types(tx, &worker)?;
    }
    Ok(())
}

/// Running jobs without a live worker, and those that are over their time by more than `overdue`. Goes through all
/// workers that running jobs name, whether they are on the list or not.
fn lost_runs(tx: &Tx<'_>, overdue: i64) -> Result<Vec<i64>> {
    let limit = signed(RUNS as u64 + 1);
    let latest = tx.now.0.saturating_sub(overdue);
    let mut found = Vec::new();
    let mut next = tx.db.first("SELECT min(worker) FROM jobs WHERE state = 2", [], |row| row.get(0))?.flatten();
    while let Some(worker) = next {
        let worker: String = worker;
        let alive =
            tx.db.first("SELECT 1 FROM workers WHERE id = ?1 AND gone IS NULL", [&worker], |_| Ok(()))?.is_some();
        let before = if alive { latest } else { i64::MAX };
        found.extend(tx.db.all(
            "SELECT seq FROM jobs WHERE state = 2 AND worker = ?1 AND deadline <= ?2 LIMIT ?3",
            params![worker, before, limit],
            |row| row.get::<_, i64>(0),
        )?);
        if found.len() > RUNS {
            break;
        }
        next = tx
            .db
            .first("SELECT min(worker) FROM jobs WHERE state = 2 AND worker > ?1", [&worker], |row| row.get(0))?
            .flatten();
    }
    Ok(found)
}

/// One lost run.
fn lose(tx: &mut Tx<'_>, sweep: &Sweep, head: &Head, blamed: bool, swept: &mut Swept) -> Result<()> {
    let queue = match tx.db.queue(head.queue) {
        Ok(queue) => queue,
        Err(BrokerError::Damaged(why)) => {
            swept.quarantined += 1;
            return quarantine(tx, head.seq, &why);
        }
        Err(error) => return Err(error),
    };
    let charge = blamed || head.suspect;
    let charged = head.charged + i64::from(charge);
    let uncharged = head.uncharged + i64::from(!charge);
    let suspect = head.suspect || uncharged >= MAX_UNCHARGED;
    tx.db.execute(
        "UPDATE jobs SET lost = lost + 1, charged = ?2, uncharged = ?3, suspect = ?4 WHERE seq = ?1",
        params![head.seq, charged, uncharged, suspect],
    )?;
    if head.cancel {
        end(tx, head, &End::new(Event::Cancel, Some(Outcome::Lost), sweep.keep))?;
    } else if charged >= MAX_CHARGED {
        let text = format!("a worker died {charged} times while it ran this job");
        let error = JobError::new(ErrorKind::WorkerLost, text, false);
        let last = End { error: Some(&error), ..End::new(Event::Abandon, Some(Outcome::Lost), sweep.keep) };
        end(tx, head, &last)?;
        swept.failed.push(head.id);
    } else {
        let reason = "its worker was lost";
        let back = Back::unburned(Event::Lose, Outcome::Lost, head, tx.now, reason);
        give_back(tx, head, &back)?;
    }
    swept.lost.push(Run { job: head.id, queue, token: RunToken(head.token) });
    Ok(())
}

pub(super) fn prune(tx: &mut Tx<'_>, retain_bytes: u64, limit: usize) -> Result<Vec<JobId>> {
    let mut removed = Vec::new();
    let expired = tx.db.all(
        "SELECT seq, id, queue, name, state, ended_bytes FROM jobs WHERE expires <= ?1 ORDER BY expires LIMIT ?2",
        [tx.now.0, signed(limit as u64)],
        ended,
    )?;
    for job in expired {
        remove_ended(tx, &job, &mut removed)?;
    }
    let queues = tx.db.all("SELECT id, ended_bytes FROM queues", [], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    for (queue, bytes) in queues {
        let mut over = bytes + tx.ended_bytes_so_far(queue) - signed(retain_bytes);
        if over <= 0 || removed.len() >= limit {
            continue;
        }
        let oldest = tx.db.all(
            "SELECT seq, id, queue, name, state, ended_bytes FROM jobs
             WHERE state >= 3 AND queue = ?1 ORDER BY finished_at, seq LIMIT ?2",
            [queue, signed((limit - removed.len()) as u64)],
            ended,
        )?;
        for job in oldest {
            if over <= 0 {
                break;
            }
            over -= job.bytes;
            remove_ended(tx, &job, &mut removed)?;
        }
    }
    tx.db.execute(
        "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
        [tx.now.0, OLD],
    )?;
    let forgotten = tx.now.0.saturating_sub(micros(REMEMBERED));
    tx.db.execute(
        "DELETE FROM workers WHERE id IN (SELECT id FROM workers WHERE gone <= ?1 LIMIT ?2)",
        [forgotten, OLD],
    )?;
    if !removed.is_empty() {
        tx.wake(Topic::Jobs);
    }
    Ok(removed)
}

struct Ended {
    seq: i64,
    id: Vec<u8>,
    queue: i64,
    name: i64,
    state: i64,
    bytes: i64,
}

fn ended(row: &rusqlite::Row<'_>) -> rusqlite::Result<Ended> {
    Ok(Ended {
        seq: row.get(0)?,
        id: row.get(1)?,
        queue: row.get(2)?,
        name: row.get(3)?,
        state: row.get(4)?,
        bytes: row.get(5)?,
    })
}

fn remove_ended(tx: &mut Tx<'_>, job: &Ended, removed: &mut Vec<JobId>) -> Result<()> {
    remove(tx, job.seq)?;
    match (state(job.state), job_id(&job.id)) {
        (Ok(state), Ok(id)) => {
            tx.count(job.queue, job.name, Some(state), None);
            tx.count_ended_bytes(job.queue, -job.bytes);
            removed.push(id);
        }
        _ => tx.recount(),
    }
    Ok(())
}
