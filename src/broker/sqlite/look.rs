//! Looking: one job, lists, queues. Reads only.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use data_encoding::BASE64URL_NOPAD;
use rusqlite::Row;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::db::{Db, damaged};
use super::row::{check_record, count, job_id, outcome, signed, state};
use crate::broker::{BrokerError, Filter, Page, QueueInfo, Result};
use crate::job::{
    Attempt, FileInfo, Job, JobId, Json, Outcome, Priority, RequestId, State, Timestamp, Version, WorkerId,
};

/// Records that one list call examines.
const MAX_EXAMINED: usize = 10_000;

const JOB: &str = "j.seq, j.v, j.id, j.queue, j.name, j.state, j.reason, j.priority, j.attempt, j.max_attempts, j.lost,
    j.worker, j.version, j.progress, j.result, j.error, j.outcome, j.created_at, j.run_at, j.started_at, j.finished_at,
    i.payload, i.request_id, i.tags, i.parent";

pub(super) fn json(text: String) -> Result<Json> {
    RawValue::from_string(text).map_err(|error| damaged(error.to_string()))
}

pub(super) fn tags(text: Option<String>) -> Result<Vec<String>> {
    Ok(parsed(text)?.unwrap_or_default())
}

fn parsed<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>> {
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| damaged(error.to_string()))
}

fn named<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| damaged(error.to_string()))
}

/// What is true of many jobs of one answer, read once.
struct Surroundings<'a> {
    db: &'a Db,
    now: Timestamp,
    paused: OnceCell<HashSet<i64>>,
    /// Types that a live worker has.
    served: OnceCell<HashSet<i64>>,
}

impl<'a> Surroundings<'a> {
    fn new(db: &'a Db, now: Timestamp) -> Self {
        Self { db, now, paused: OnceCell::new(), served: OnceCell::new() }
    }

    /// Why a queued job waits, when it is not only that others are before it.
    fn reason(&self, queue: i64, name: i64, job: &Job) -> Result<Option<String>> {
        let read = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<HashSet<i64>> {
            Ok(self.db.all(sql, params, |row| row.get(0))?.into_iter().collect())
        };
        if self.paused.get().is_none() {
            drop(self.paused.set(read("SELECT id FROM queues WHERE paused", &[])?));
            drop(self.served.set(read(
                "SELECT l.name FROM loaded l JOIN workers w ON w.id = l.worker
                 WHERE w.gone IS NULL AND w.lease_until > ?1",
                &[&self.now.0],
            )?));
        }
        if self.paused.get().is_some_and(|paused| paused.contains(&queue)) {
            return Ok(Some(format!("the queue {} is paused", job.queue)));
        }
        if self.served.get().is_some_and(|served| !served.contains(&name)) {
            return Ok(Some(format!("no worker has the job type {}", job.name)));
        }
        Ok(None)
    }

    fn job(&self, row: &Row<'_>) -> Result<Job> {
        check_record(row.get(1)?)?;
        let seq: i64 = row.get(0)?;
        let (queue, name) = (row.get(3)?, row.get(4)?);
        let mut job = Job {
            id: job_id(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?,
            queue: self.db.queue(queue)?,
            name: self.db.name(name)?,
            state: state(row.get(5)?)?,
            reason: row.get(6)?,
            priority: Priority::new(row.get(7)?).map_err(|error| damaged(error.to_string()))?,
            attempt: count(row.get(8)?)?,
            max_attempts: count(row.get(9)?)?,
            lost: count(row.get(10)?)?,
            script_version: row.get::<_, Option<String>>(12)?.map(|text| named(&text)).transpose()?,
            progress: parsed(row.get(13)?)?,
            result: row.get::<_, Option<String>>(14)?.map(json).transpose()?,
            error: parsed(row.get(15)?)?,
            attempts: attempts(self.db, seq)?,
            files: files(self.db, seq)?,
            created_at: Timestamp(row.get(17)?),
            run_at: Timestamp(row.get(18)?),
            started_at: row.get::<_, Option<i64>>(19)?.map(Timestamp),
            finished_at: row.get::<_, Option<i64>>(20)?.map(Timestamp),
            payload: json(row.get(21)?)?,
            request_id: named::<RequestId>(row.get_ref(22)?.as_str().map_err(rusqlite::Error::from)?)?,
            tags: tags(row.get(23)?)?,
            parent_id: row.get::<_, Option<Vec<u8>>>(24)?.map(|id| job_id(&id)).transpose()?,
        };
        let worker = row.get_ref(11)?.as_str().map_err(rusqlite::Error::from)?;
        if !worker.is_empty() {
            job.attempts.push(Attempt {
                number: job.attempt,
                worker_id: named(worker)?,
                script_version: job.script_version.clone(),
                started_at: job.started_at.unwrap_or_default(),
                finished_at: job.finished_at,
                outcome: row.get::<_, Option<i64>>(16)?.map(outcome).transpose()?,
                error: job.error.clone(),
            });
        }
        if job.state == State::Queued
            && let Some(reason) = self.reason(queue, name, &job)?
        {
            job.reason = Some(reason);
        }
        Ok(job)
    }
}

fn attempts(db: &Db, seq: i64) -> Result<Vec<Attempt>> {
    let mut statement = db.prepare(
        "SELECT number, worker, version, started_at, finished_at, outcome, error FROM attempts WHERE job = ?1 ORDER BY n",
    )?;
    let mut rows = statement.query([seq])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let version: Option<String> = row.get(2)?;
        let ended: Outcome = outcome(row.get(5)?)?;
        found.push(Attempt {
            number: count(row.get(0)?)?,
            worker_id: named::<WorkerId>(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?,
            script_version: version.map(|text| named::<Version>(&text)).transpose()?,
            started_at: Timestamp(row.get(3)?),
            finished_at: Some(Timestamp(row.get(4)?)),
            outcome: Some(ended),
            error: parsed(row.get(6)?)?,
        });
    }
    Ok(found)
}

fn files(db: &Db, seq: i64) -> Result<Vec<FileInfo>> {
    let infos: Vec<String> = db.all("SELECT info FROM files WHERE job = ?1 ORDER BY name", [seq], |row| row.get(0))?;
    infos.into_iter().filter_map(|info| parsed(Some(info)).transpose()).collect()
}

pub(super) fn get(db: &Db, now: Timestamp, id: JobId) -> Result<Option<Job>> {
    let sql = format!("SELECT {JOB} FROM jobs j JOIN inputs i USING (seq) WHERE j.id = ?1");
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([id.as_bytes().as_slice()])?;
    rows.next()?.map(|row| Surroundings::new(db, now).job(row)).transpose()
}

/// The job of a row, read whole.
pub(super) fn at(db: &Db, now: Timestamp, seq: i64) -> Result<Option<Job>> {
    let sql = format!("SELECT {JOB} FROM jobs j JOIN inputs i USING (seq) WHERE seq = ?1");
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([seq])?;
    rows.next()?.map(|row| Surroundings::new(db, now).job(row)).transpose()
}

pub(super) fn list(db: &Db, now: Timestamp, filter: &Filter) -> Result<Page> {
    let mut page = Page::default();
    let before = filter.cursor.as_deref().map(read_cursor).transpose()?.unwrap_or(i64::MAX);
    let Some(mut found) = Newest::start(db, filter, before)? else { return Ok(page) };
    let sql = format!("SELECT {JOB} FROM jobs j JOIN inputs i USING (seq) WHERE seq = ?1");
    let around = Surroundings::new(db, now);
    let limit = filter.limit.max(1);
    let mut last = None;
    for _ in 0..MAX_EXAMINED {
        if page.jobs.len() == limit {
            break;
        }
        let Some(seq) = found.next(db)? else { return Ok(page) };
        last = Some(seq);
        if !passes(db, seq, filter)? {
            continue;
        }
        let mut statement = db.prepare(&sql)?;
        let mut rows = statement.query([seq])?;
        match rows.next()?.map(|row| around.job(row)).transpose() {
            Ok(job) => page.jobs.extend(job),
            // The list of the others must not depend on it; a claim or a sweep moves it aside.
            Err(BrokerError::Damaged(why)) => tracing::error!(seq, why, "a job's record cannot be read"),
            Err(error) => return Err(error),
        }
    }
    if found.next(db)?.is_some() {
        page.next = last.map(cursor);
    }
    Ok(page)
}

/// The filters that no index serves.
fn passes(db: &Db, seq: i64, filter: &Filter) -> Result<bool> {
    if filter.tag.is_none() && filter.request_id.is_none() {
        return Ok(true);
    }
    let input = db.first("SELECT request_id, tags FROM inputs WHERE seq = ?1", [seq], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?))
    })?;
    let Some((request_id, stored)) = input else { return Ok(false) };
    if filter.request_id.as_ref().is_some_and(|wanted| wanted.as_str() != request_id) {
        return Ok(false);
    }
    Ok(match &filter.tag {
        Some(wanted) => tags(stored).is_ok_and(|tags| tags.contains(wanted)),
        None => true,
    })
}

/// Sequence numbers of the jobs that match by queue, name and state, newest first: a merge of runs of the index
/// `listed`, one for each combination that has jobs; or the table itself when nothing restricts.
struct Newest {
    runs: Vec<IndexRun>,
    all: bool,
}

struct IndexRun {
    key: (i64, i64, i64),
    ahead: Vec<i64>,
    before: i64,
    more: bool,
}

/// Index entries read at once.
const CHUNK: usize = 128;

impl Newest {
    /// None when a name is not known, so that nothing can match.
    fn start(db: &Db, filter: &Filter, before: i64) -> Result<Option<Self>> {
        let all = filter.queue.is_none() && filter.name.is_none() && filter.state.is_none();
        let queue = match &filter.queue {
            Some(queue) => match db.find_queue(queue)? {
                None => return Ok(None),
                known => known,
            },
            None => None,
        };
        let name = match &filter.name {
            Some(name) => match db.find_name(name)? {
                None => return Ok(None),
                known => known,
            },
            None => None,
        };
        let keys = if all {
            vec![(0, 0, 0)]
        } else {
            db.all(
                "SELECT queue, name, state FROM counts
                 WHERE n > 0 AND (?1 IS NULL OR queue = ?1) AND (?2 IS NULL OR name = ?2) AND (?3 IS NULL OR state = ?3)",
                (queue, name, filter.state.map(|state| state as i64)),
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )?
        };
        let runs = keys.into_iter().map(|key| IndexRun { key, ahead: Vec::new(), before, more: true }).collect();
        Ok(Some(Self { runs, all }))
    }

    fn next(&mut self, db: &Db) -> Result<Option<i64>> {
        for run in self.runs.iter_mut().filter(|run| run.ahead.is_empty() && run.more) {
            let chunk = signed(CHUNK as u64);
            run.ahead = if self.all {
                db.all("SELECT seq FROM jobs WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2", [run.before, chunk], |row| {
                    row.get(0)
                })?
            } else {
                let (queue, name, state) = run.key;
                db.all(
                    "SELECT seq FROM jobs WHERE queue = ?1 AND name = ?2 AND state = ?3 AND seq < ?4
                     ORDER BY seq DESC LIMIT ?5",
                    [queue, name, state, run.before, chunk],
                    |row| row.get(0),
                )?
            };
            run.more = run.ahead.len() == CHUNK;
            run.before = run.ahead.last().copied().unwrap_or(run.before);
            run.ahead.reverse();
        }
        let newest = self.runs.iter_mut().max_by_key(|run| run.ahead.last().copied());
        Ok(newest.and_then(|run| run.ahead.pop()))
    }
}

/// The place after which the next page goes on. Opaque to callers.
fn cursor(seq: i64) -> String {
    let mut bytes = vec![1];
    bytes.extend(seq.to_be_bytes());
    BASE64URL_NOPAD.encode(&bytes)
}

fn read_cursor(text: &str) -> Result<i64> {
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| match bytes.split_first() {
            Some((1, seq)) => seq.try_into().ok().map(i64::from_be_bytes),
            _ => None,
        })
        .ok_or_else(|| BrokerError::Invalid("the cursor is not one of this list: take `next_cursor` as it was".into()))
}

pub(super) fn queues(db: &Db, now: Timestamp) -> Result<Vec<QueueInfo>> {
    let known: Vec<(i64, bool)> =
        db.all("SELECT id, paused FROM queues ORDER BY name", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let counts = db.all("SELECT queue, state, sum(n) FROM counts GROUP BY queue, state", [], |row| {
        Ok(((row.get(0)?, row.get(1)?), row.get(2)?))
    })?;
    let counts: HashMap<(i64, i64), i64> = counts.into_iter().collect();
    known
        .into_iter()
        .map(|(id, paused)| {
            let count = |state: State| counts.get(&(id, state as i64)).map_or(0, |n| n.unsigned_abs());
            let waiting = first_in_line(db, id)?;
            Ok(QueueInfo {
                name: db.queue(id)?,
                paused,
                scheduled: count(State::Scheduled),
                queued: count(State::Queued),
                running: count(State::Running),
                succeeded: count(State::Succeeded),
                failed: count(State::Failed),
                cancelled: count(State::Cancelled),
                oldest_queued_seconds: waiting.map(|since| now.since(since).as_secs_f64()),
            })
        })
        .collect()
}

/// Since when the first job in line of a queue is ready: the first of the heads of its types' lines.
fn first_in_line(db: &Db, queue: i64) -> Result<Option<Timestamp>> {
    let mut first: Option<(i64, i64)> = None;
    for suspect in [false, true] {
        let mut last = i64::MIN;
        while let Some((name, score, run_at)) = db.first(
            "SELECT name, score, run_at FROM jobs WHERE state = 1 AND queue = ?1 AND suspect = ?2 AND name > ?3
             ORDER BY name, score LIMIT 1",
            (queue, suspect, last),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )? {
            last = name;
            if first.is_none_or(|(least, _)| score < least) {
                first = Some((score, run_at));
            }
        }
    }
    Ok(first.map(|(_, run_at)| Timestamp(run_at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is_one() {
        for seq in [1, 77, i64::MAX] {
            assert_eq!(read_cursor(&cursor(seq)).unwrap(), seq);
        }
        for bad in ["", "x", "AQ", "!!!!", "AgAAAAAAAAAB", &cursor(5)[1..]] {
            assert!(matches!(read_cursor(bad), Err(BrokerError::Invalid(_))), "{bad}");
        }
    }
}
