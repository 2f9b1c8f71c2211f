//! The claim: takes the first jobs in line, type by type, so that a type nobody has costs and blocks nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::db::{Db, damaged};
use super::quarantine::quarantine;
use super::row::{check_record, count, job_id};
use super::writer::Tx;
use crate::broker::{BrokerError, Claim, Claimed, ClaimedJob, Result, Run, Topic};
use crate::job::{ClaimTicket, JobName, Priority, QueueName, RequestId, RunToken, State, Timestamp, Version, WorkerId};

/// Scheduled jobs that one claim moves to `queued` in one queue.
pub(super) const DUE: usize = 1000;

/// The last claim of each worker of this process: nobody else asks again for its runs.
pub(super) type Last = Mutex<HashMap<WorkerId, (ClaimTicket, Vec<Run>)>>;

pub(super) fn claim(tx: &mut Tx<'_>, claim: &Claim, last: &Last) -> Result<Claimed> {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    require_lease(tx, &claim.worker).inspect_err(|_| drop(last.remove(&claim.worker)))?;
    if let Some((_, runs)) = last.get(&claim.worker).filter(|(ticket, _)| *ticket == claim.ticket) {
        return again(tx, runs);
    }
    let claimed = claim_new(tx, claim)?;
    let runs = claimed.jobs.iter().map(|job| job.run.clone()).collect();
    last.insert(claim.worker.clone(), (claim.ticket, runs));
    Ok(claimed)
}

fn claim_new(tx: &mut Tx<'_>, claim: &Claim) -> Result<Claimed> {
    let lacking = known_names(tx.db, &claim.lacking)?;
    let mut claimed = Claimed::default();
    let mut suspect = claim.suspect;
    for queue in &claim.queues {
        let found = tx.db.first("SELECT id, paused FROM queues WHERE name = ?1", [queue.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let Some((id, false)) = found else { continue };
        if let Some(due) = make_due(tx, id, DUE)? {
            let wait = due.since(tx.now);
            claimed.next_due = Some(claimed.next_due.map_or(wait, |first: Duration| first.min(wait)));
        }
        let mut lines = lines(tx.db, id, suspect, &lacking)?;
        while claimed.jobs.len() < claim.limit {
            let wanted = claim.limit - claimed.jobs.len();
            let Some(seq) = next_in_line(tx.db, id, &mut lines, wanted)? else { break };
            let token = claim.ticket.token(claimed.jobs.len());
            match take(tx, seq, queue, &claim.worker, token) {
                Ok(job) => {
                    if job.suspect {
                        suspect = false;
                        lines.retain(|line| !line.suspect);
                    }
                    claimed.jobs.push(job);
                }
                Err(BrokerError::Damaged(why)) => quarantine(tx, seq, &why)?,
                Err(error) => return Err(error),
            }
        }
    }
    if !claimed.jobs.is_empty() {
        tx.wake(Topic::Jobs);
    }
    Ok(claimed)
}

fn require_lease(tx: &Tx<'_>, worker: &WorkerId) -> Result<()> {
    tx.db
        .first(
            "SELECT 1 FROM workers WHERE id = ?1 AND gone IS NULL AND lease_until > ?2",
            (worker.as_str(), tx.now.0),
            |_| Ok(()),
        )?
        .ok_or(BrokerError::LeaseLost)
}

/// The numbers of those names that jobs can have.
fn known_names(db: &Db, names: &[JobName]) -> Result<HashSet<i64>> {
    names.iter().filter_map(|name| db.find_name(name).transpose()).collect()
}

/// Moves up to `limit` scheduled jobs of a queue whose time has come to `queued`. Answers when the next one is due.
pub(super) fn make_due(tx: &mut Tx<'_>, queue: i64, limit: usize) -> Result<Option<Timestamp>> {
    const NEXT: &str = "SELECT run_at FROM jobs WHERE state = 0 AND queue = ?1 ORDER BY run_at LIMIT 1";
    let next = tx.db.first(NEXT, [queue], |row| row.get(0))?;
    if next.is_none_or(|due: i64| due > tx.now.0) {
        return Ok(next.map(Timestamp));
    }
    let moved: Vec<i64> = tx.db.all(
        "UPDATE jobs SET state = 1, reason = NULL WHERE seq IN
             (SELECT seq FROM jobs WHERE state = 0 AND queue = ?1 AND run_at <= ?2 ORDER BY run_at LIMIT ?3)
         RETURNING name",
        params![queue, tx.now.0, i64::try_from(limit).unwrap_or(i64::MAX)],
        |row| row.get(0),
    )?;
    for name in moved {
        tx.count(queue, name, Some(State::Scheduled), Some(State::Queued));
    }
    tx.wake(Topic::Work);
    tx.wake(Topic::Jobs);
    Ok(tx.db.first(NEXT, [queue], |row| row.get(0))?.map(Timestamp))
}

/// The queued jobs of one queue and type, in order, a few at a time.
struct Line {
    suspect: bool,
    name: i64,
    ahead: VecDeque<(i64, i64)>,
    more: bool,
}

/// A line for each type that has queued jobs. One look into the index per type, however many jobs there are.
fn lines(db: &Db, queue: i64, suspect: bool, lacking: &HashSet<i64>) -> Result<Vec<Line>> {
    // Each with scalars of its own: for `(suspect, name) > (?, ?)` SQLite walks over all entries that are equal.
    let mut next = db.prepare(
        "SELECT name FROM jobs WHERE state = 1 AND queue = ?1 AND suspect = ?2 AND name > ?3 ORDER BY name LIMIT 1",
    )?;
    let mut found = Vec::new();
    for suspect in [false, true].into_iter().take(if suspect { 2 } else { 1 }) {
        let mut last = i64::MIN;
        while let Some(name) = next.query_row((queue, suspect, last), |row| row.get(0)).optional()? {
            last = name;
            if !lacking.contains(&name) {
                found.push(Line { suspect, name, ahead: VecDeque::new(), more: true });
            }
        }
    }
    Ok(found)
}

/// The first of all lines. The caller takes the job off its line before it asks again.
fn next_in_line(db: &Db, queue: i64, lines: &mut [Line], wanted: usize) -> Result<Option<i64>> {
    let share = wanted / lines.len().max(1) + 8;
    for line in lines.iter_mut().filter(|line| line.ahead.is_empty() && line.more) {
        // What was taken is off the index, so looking again from the start goes on where the last look ended.
        line.ahead = db
            .all(
                "SELECT score, seq FROM jobs WHERE state = 1 AND queue = ?1 AND suspect = ?2 AND name = ?3
                 ORDER BY score, seq LIMIT ?4",
                params![queue, line.suspect, line.name, i64::try_from(share).unwrap_or(i64::MAX)],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?
            .into();
        line.more = line.ahead.len() == share;
    }
    let first = lines.iter_mut().filter(|line| !line.ahead.is_empty()).min_by_key(|line| line.ahead.front().copied());
    Ok(first.and_then(|line| line.ahead.pop_front()).map(|(_, seq)| seq))
}

/// Makes one queued job a run of `worker`.
fn take(tx: &mut Tx<'_>, seq: i64, queue: &QueueName, worker: &WorkerId, token: RunToken) -> Result<ClaimedJob> {
    let (job, queue_id, name_id, timeout) = read(tx.db, seq, queue, token, 1)?;
    tx.db.execute(
        "UPDATE jobs SET state = 2, attempt = ?2, worker = ?3, token = ?4, deadline = ?5, started_at = ?6,
                outcome = NULL, finished_at = NULL, version = NULL, reason = NULL, progress = NULL, error = NULL
         WHERE seq = ?1",
        params![seq, job.attempt, worker.as_str(), token.0, tx.now.0.saturating_add(timeout), tx.now.0,],
    )?;
    tx.count(queue_id, name_id, Some(State::Queued), Some(State::Running));
    Ok(job)
}

/// The runs of a claim that is made again, as far as they still go on.
fn again(tx: &Tx<'_>, runs: &[Run]) -> Result<Claimed> {
    let mut claimed = Claimed::default();
    for run in runs {
        match tx.current(run) {
            Ok(head) => claimed.jobs.push(read(tx.db, head.seq, &run.queue, run.token, 0)?.0),
            Err(BrokerError::LeaseLost | BrokerError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(claimed)
}

/// What a run needs of a job, whose attempt is `next` after the stored one; the numbers of its queue and name, its timeout.
pub(super) fn read(
    db: &Db,
    seq: i64,
    queue: &QueueName,
    token: RunToken,
    next: i64,
) -> Result<(ClaimedJob, i64, i64, i64)> {
    {
        let mut statement = db.prepare(
            "SELECT j.v, j.id, j.queue, j.name, j.priority, j.attempt, j.max_attempts, j.timeout, j.created_at, j.run_at,
                    j.suspect, i.payload, i.request_id, i.tags, i.checked_with, i.depth
             FROM jobs j JOIN inputs i USING (seq) WHERE seq = ?1",
        )?;
        let mut rows = statement.query([seq])?;
        let row = rows.next()?.ok_or_else(|| damaged("its input is missing"))?;
        check_record(row.get(0)?)?;
        let name_id = row.get(3)?;
        let timeout: i64 = row.get(7)?;
        let invalid = |error: crate::job::id::InvalidName| damaged(error.to_string());
        let job = ClaimedJob {
            run: Run {
                job: job_id(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?,
                queue: queue.clone(),
                token,
            },
            name: db.name(name_id)?,
            priority: Priority::new(row.get(4)?).map_err(|error| damaged(error.to_string()))?,
            attempt: count(row.get::<_, i64>(5)? + next)?,
            max_attempts: count(row.get(6)?)?,
            timeout: Duration::from_micros(u64::try_from(timeout).map_err(|_| damaged("a negative timeout"))?),
            created_at: Timestamp(row.get(8)?),
            ready_at: Timestamp(row.get(9)?),
            suspect: row.get(10)?,
            payload: super::look::json(row.get(11)?)?,
            request_id: RequestId::new(row.get_ref(12)?.as_str().map_err(rusqlite::Error::from)?).map_err(invalid)?,
            tags: super::look::tags(row.get(13)?)?,
            checked_with: row
                .get::<_, Option<String>>(14)?
                .map(|text| Version::new(&text))
                .transpose()
                .map_err(invalid)?,
            depth: count(row.get(15)?)?,
        };
        Ok((job, row.get(2)?, name_id, timeout))
    }
}
