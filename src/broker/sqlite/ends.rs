//! How a run or a job ends: the changes that `finish`, `cancel`, `retire` and the sweep have in common.

use std::time::Duration;

use rusqlite::params;

use super::row::{Head, signed};
use super::writer::Tx;
use crate::broker::{Result, Topic};
use crate::job::spec::Keep;
use crate::job::time::micros;
use crate::job::{Event, JobError, Json, Outcome, Timestamp, Version};

/// The history of a job keeps its newest runs only: a job can be given back any number of times.
const MAX_ATTEMPTS_KEPT: i64 = 100;
/// What a run in the history needs besides its error, roughly.
const ATTEMPT_BYTES: i64 = 150;

/// How a job ends for good.
pub(super) struct End<'a> {
    pub event: Event,
    /// None when no run is under way.
    pub outcome: Option<Outcome>,
    pub result: Option<&'a Json>,
    pub error: Option<&'a JobError>,
    pub version: Option<&'a Version>,
    pub keep: Duration,
}

impl End<'_> {
    pub fn new(event: Event, outcome: Option<Outcome>, keep: Duration) -> Self {
        Self { event, outcome, result: None, error: None, version: None, keep }
    }
}

/// How a run ends whose job goes on.
pub(super) struct Back<'a> {
    pub event: Event,
    pub outcome: Outcome,
    /// The number of the attempt that the job then stands at.
    pub attempt: i64,
    pub run_at: Timestamp,
    pub reason: Option<&'a str>,
    pub error: Option<&'a JobError>,
    pub version: Option<&'a Version>,
}

impl<'a> Back<'a> {
    /// At once and without a burned attempt.
    pub fn unburned(event: Event, outcome: Outcome, head: &Head, now: Timestamp, reason: &'a str) -> Self {
        let attempt = head.attempt - 1;
        Self { event, outcome, attempt, run_at: now, reason: Some(reason), error: None, version: None }
    }
}

/// Ends a job.
pub(super) fn end(tx: &mut Tx<'_>, head: &Head, end: &End<'_>) -> Result<()> {
    let next = head.state.on(end.event)?;
    let error = end.error.map(text);
    let result = end.result.map(|json| json.get());
    let texts = result.map_or(0, str::len) + error.as_deref().map_or(0, str::len);
    let bytes = head.bytes + signed(texts as u64);
    tx.db.execute(
        "UPDATE jobs SET state = ?2, outcome = ?3, version = coalesce(?4, version), result = ?5, error = ?6,
                finished_at = ?7, expires = ?8, ended_bytes = ?9, token = 0, deadline = 0, cancel = 0, reason = NULL
         WHERE seq = ?1",
        params![
            head.seq,
            next as i64,
            end.outcome.map(|outcome| outcome as i64),
            end.version.map(Version::as_str),
            result,
            error,
            tx.now.0,
            tx.now.plus(end.keep).0,
            bytes,
        ],
    )?;
    tx.count(head.queue, head.name, Some(head.state), Some(next));
    tx.count_ended_bytes(head.queue, bytes);
    tx.wake(Topic::Jobs);
    Ok(())
}

/// Ends a run and puts its job back in line.
pub(super) fn give_back(tx: &mut Tx<'_>, head: &Head, back: &Back<'_>) -> Result<()> {
    let next = head.state.on(back.event)?;
    let error = back.error.map(text);
    let version = back.version.map(Version::as_str);
    let added = archive(tx, head, back.outcome, version, error.as_deref(), tx.now)?;
    tx.db.execute(
        "UPDATE jobs SET state = ?2, attempt = ?3, run_at = ?4, reason = ?5, error = ?6,
                version = coalesce(?7, version), bytes = bytes + ?8,
                worker = '', token = 0, deadline = 0, cancel = 0, started_at = NULL, progress = NULL
         WHERE seq = ?1",
        params![head.seq, next as i64, back.attempt, back.run_at.0, back.reason, error, version, added],
    )?;
    tx.count(head.queue, head.name, Some(head.state), Some(next));
    tx.wake(Topic::Jobs);
    tx.wake(Topic::Work);
    Ok(())
}

/// Puts a job's run into its history. Answers the bytes that it takes there.
pub(super) fn archive(
    tx: &Tx<'_>,
    head: &Head,
    outcome: Outcome,
    version: Option<&str>,
    error: Option<&str>,
    finished_at: Timestamp,
) -> Result<i64> {
    let last: i64 = tx
        .db
        .first("SELECT coalesce(max(n), 0) FROM attempts WHERE job = ?1", [head.seq], |row| row.get(0))?
        .unwrap_or(0);
    tx.db.execute(
        "INSERT INTO attempts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            head.seq,
            last + 1,
            head.attempt,
            head.worker,
            version,
            head.started_at.unwrap_or_default(),
            finished_at.0,
            outcome as i64,
            error,
        ],
    )?;
    if last >= MAX_ATTEMPTS_KEPT {
        tx.db.execute("DELETE FROM attempts WHERE job = ?1 AND n <= ?2", [head.seq, last + 1 - MAX_ATTEMPTS_KEPT])?;
        return Ok(0);
    }
    Ok(ATTEMPT_BYTES + signed(error.map_or(0, str::len) as u64))
}

/// How long a job of this type is kept that ends without a worker's word: as its live version says.
pub(super) fn keep_of(tx: &Tx<'_>, name: i64) -> Result<Duration> {
    let keep: Option<i64> = tx.db.first("SELECT keep FROM types WHERE name = ?1", [name], |row| row.get(0))?;
    Ok(keep.and_then(|keep| u64::try_from(keep).ok()).map_or(Keep::default().failed, Duration::from_micros))
}

/// For `types.keep`.
pub(super) fn stored_keep(keep: &Keep) -> i64 {
    micros(keep.failed)
}

/// Removes every trace of a job.
pub(super) fn remove(tx: &Tx<'_>, seq: i64) -> Result<()> {
    for sql in [
        "DELETE FROM jobs WHERE seq = ?1",
        "DELETE FROM inputs WHERE seq = ?1",
        "DELETE FROM attempts WHERE job = ?1",
        "DELETE FROM files WHERE job = ?1",
        "DELETE FROM logs WHERE job = ?1",
        "DELETE FROM log_heads WHERE job = ?1",
    ] {
        tx.db.execute(sql, [seq])?;
    }
    Ok(())
}

pub(super) fn text(error: &JobError) -> String {
    // Plain data: it cannot fail to become JSON.
    serde_json::to_string(error).unwrap_or_default()
}
