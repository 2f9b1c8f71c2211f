//! Looks through all records, says which disagree, and mends them when asked to.
//!
//! The look is one snapshot and holds no lock: work that goes on meanwhile is neither stopped nor taken for damage. Each
//! repair looks again, in the transaction that mends.

use super::db::Db;
use super::ends::remove;
use super::quarantine::quarantine;
use super::row::{Head, job_id};
use super::writer::Tx;
use super::{claim, look};
use crate::broker::{BrokerError, RecordFault, Result};
use crate::job::time::micros;
use crate::job::{JobId, Priority, QueueName, RunToken, Timestamp};

/// Faults of one kind that SQLite names before it stops.
const MOST: i64 = 100;
/// Rows that one statement gives.
const ROWS: i64 = 1000;

/// What would mend a fault.
#[derive(Clone, Debug)]
pub(super) enum Mend {
    /// A job that cannot be read.
    Quarantine(i64),
    /// Rows of a job that is not there.
    Orphans(i64),
    /// When an ended job goes, or that one that has not ended does not.
    Expiry(i64),
    /// A job's place in line.
    Score(i64),
    /// The bytes of a job's log.
    Log(i64),
    /// Types of a worker that is gone.
    Worker(String),
    /// Counts of jobs and bytes.
    Recount,
}

pub(super) struct Found {
    pub fault: RecordFault,
    pub mend: Mend,
}

fn fault(place: &str, job: Option<JobId>, what: impl Into<String>) -> RecordFault {
    RecordFault { job, place: place.into(), what: what.into(), repaired: false }
}

/// What SQLite itself says of the file. Empty: it is whole.
pub(super) fn integrity(db: &Db) -> Result<Vec<RecordFault>> {
    let said: Vec<String> = db.all(&format!("PRAGMA integrity_check({MOST})"), [], |row| row.get(0))?;
    Ok(said.into_iter().filter(|line| line != "ok").map(|line| fault("the file", None, line)).collect())
}

/// An index is made anew from its table; other damage of the file only a backup mends.
pub(super) fn is_of_index(fault: &RecordFault) -> bool {
    fault.what.contains("index")
}

/// How many jobs there are, and what is wrong with the records.
pub(super) fn look(db: &Db, now: Timestamp) -> Result<(u64, Vec<Found>)> {
    let (mut examined, mut found) = (0, Vec::new());
    let mut after = i64::MIN;
    loop {
        let seqs: Vec<i64> =
            db.all("SELECT seq FROM jobs WHERE seq > ?1 ORDER BY seq LIMIT ?2", [after, ROWS], |row| row.get(0))?;
        let Some(last) = seqs.last() else { break };
        after = *last;
        for seq in seqs {
            examined += 1;
            if let Err(error) = readable(db, now, seq) {
                let BrokerError::Damaged(why) = error else { return Err(error) };
                let what = format!("row {seq} cannot be read: {why}");
                found.push(Found { fault: fault("jobs", id_of(db, seq)?, what), mend: Mend::Quarantine(seq) });
            }
        }
    }
    fields(db, &mut found)?;
    orphans(db, &mut found)?;
    counts(db, &mut found)?;
    let gone: Vec<String> = db.all(
        "SELECT worker FROM loaded UNION SELECT worker FROM refused
         EXCEPT SELECT id FROM workers WHERE gone IS NULL",
        [],
        |row| row.get(0),
    )?;
    for worker in gone {
        let what = format!("types of the worker {worker}, which is not on the list");
        found.push(Found { fault: fault("loaded", None, what), mend: Mend::Worker(worker) });
    }
    Ok((examined, found))
}

/// Reads a job as everybody who may come to it would.
fn readable(db: &Db, now: Timestamp, seq: i64) -> Result<()> {
    let Some(head) = Head::at(db, seq)? else { return Ok(()) };
    let queue: QueueName = db.queue(head.queue)?;
    look::at(db, now, seq)?.ok_or_else(|| super::db::damaged("its input is missing"))?;
    claim::read(db, seq, &queue, RunToken(0), 0)?;
    Ok(())
}

/// The id of a job, as far as that much can be read.
fn id_of(db: &Db, seq: i64) -> Result<Option<JobId>> {
    let id: Option<Vec<u8>> = db.first("SELECT id FROM jobs WHERE seq = ?1", [seq], |row| row.get(0))?;
    Ok(id.and_then(|id| job_id(&id).ok()))
}

/// Fields of jobs that contradict others.
fn fields(db: &Db, found: &mut Vec<Found>) -> Result<()> {
    let mut add = |sql: &str, place: &str, what: &str, mend: fn(i64) -> Mend| -> Result<()> {
        for (seq, id) in db.all(sql, [], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))? {
            found.push(Found { fault: fault(place, job_id(&id).ok(), what), mend: mend(seq) });
        }
        Ok(())
    };
    add(
        EXPIRY_WRONG,
        "jobs.expires",
        "an ended job that never expires, or one that expires before it has ended",
        Mend::Expiry,
    )?;
    add(SCORE_WRONG, "jobs.score", "its place in line is not that of its age and priority", Mend::Score)?;
    add(LOG_WRONG, "log_heads", "the bytes or the last number are not those of the log's lines", Mend::Log)
}

const EXPIRY_WRONG: &str = "SELECT seq, id FROM jobs
    WHERE (state >= 3) <> (expires IS NOT NULL) OR (state >= 3 AND finished_at IS NULL)";
const SCORE_WRONG: &str = "SELECT seq, id FROM jobs WHERE score <> created_at - 60000000 * priority";
const LOG_WRONG: &str = "SELECT j.seq, j.id FROM jobs j
    LEFT JOIN log_heads h ON h.job = j.seq
    LEFT JOIN (SELECT job, max(seq) AS last,
                      sum(octet_length(message) + coalesce(octet_length(fields), 0) + 40) AS bytes
               FROM logs GROUP BY job) l ON l.job = j.seq
    WHERE coalesce(h.bytes, 0) <> coalesce(l.bytes, 0) OR coalesce(h.last, 0) < coalesce(l.last, 0)";

fn orphans(db: &Db, found: &mut Vec<Found>) -> Result<()> {
    for (table, column) in
        [("inputs", "seq"), ("attempts", "job"), ("files", "job"), ("logs", "job"), ("log_heads", "job")]
    {
        let sql = format!("SELECT DISTINCT {column} FROM {table} WHERE {column} NOT IN (SELECT seq FROM jobs)");
        for seq in db.all(&sql, [], |row| row.get(0))? {
            let what = format!("rows of job row {seq}, which is not there");
            found.push(Found { fault: fault(table, None, what), mend: Mend::Orphans(seq) });
        }
    }
    Ok(())
}

fn counts(db: &Db, found: &mut Vec<Found>) -> Result<()> {
    let wrong: Vec<String> = db.all(
        "SELECT coalesce(q.name, '?') || ', ' || coalesce(n.name, '?') || ', state ' || both.state || ': counted '
                || sum(both.counted) || ', there are ' || sum(both.there)
         FROM (SELECT queue, name, state, n AS counted, 0 AS there FROM counts
               UNION ALL SELECT queue, name, state, 0, count(*) FROM jobs GROUP BY queue, name, state) both
         LEFT JOIN queues q ON q.id = both.queue LEFT JOIN names n ON n.id = both.name
         GROUP BY both.queue, both.name, both.state HAVING sum(both.counted) <> sum(both.there)",
        [],
        |row| row.get(0),
    )?;
    found.extend(wrong.into_iter().map(|what| Found { fault: fault("counts", None, what), mend: Mend::Recount }));
    let wrong: Vec<String> = db.all(
        "SELECT name || ': ' || ended_bytes || ' bytes counted, there are ' || there FROM
             (SELECT name, ended_bytes, (SELECT coalesce(sum(ended_bytes), 0) FROM jobs
                                         WHERE queue = queues.id AND state >= 3) AS there FROM queues)
         WHERE ended_bytes <> there",
        [],
        |row| row.get(0),
    )?;
    let place = "queues.ended_bytes";
    found.extend(wrong.into_iter().map(|what| Found { fault: fault(place, None, what), mend: Mend::Recount }));
    Ok(())
}

/// Mends one fault, if it is still there.
pub(super) fn mend(tx: &mut Tx<'_>, mend: &Mend) -> Result<()> {
    match mend {
        Mend::Quarantine(seq) => match readable(tx.db, tx.now, *seq) {
            Err(BrokerError::Damaged(why)) => quarantine(tx, *seq, &why),
            other => other,
        },
        Mend::Orphans(seq) => {
            let is_there = |table: &str| -> Result<bool> {
                let sql = format!("SELECT 1 FROM {table} WHERE seq = ?1");
                Ok(tx.db.first(&sql, [seq], |_| Ok(()))?.is_some())
            };
            if is_there("jobs")? {
                return Ok(());
            }
            // What was submitted is worth keeping; the rest is nothing without it.
            if is_there("inputs")? { quarantine(tx, *seq, "its job is not there") } else { remove(tx, *seq) }
        }
        Mend::Expiry(seq) => {
            let Some(head) = Head::at(tx.db, *seq)? else { return Ok(()) };
            let keep = micros(super::ends::keep_of(tx, head.name)?);
            tx.db.execute(
                "UPDATE jobs SET finished_at = CASE WHEN state >= 3 THEN coalesce(finished_at, ?2) END,
                        expires = CASE WHEN state >= 3 THEN coalesce(expires, ?2 + ?3) END
                 WHERE seq = ?1",
                [*seq, tx.now.0, keep],
            )?;
            Ok(())
        }
        Mend::Score(seq) => {
            let priority_and_age =
                tx.db.first("SELECT priority, created_at FROM jobs WHERE seq = ?1", [seq], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get(1)?))
                })?;
            let Some((priority, created)) = priority_and_age else { return Ok(()) };
            let priority = Priority::new(priority).map_err(|error| super::db::damaged(error.to_string()))?;
            tx.db.execute("UPDATE jobs SET score = ?2 WHERE seq = ?1", [*seq, priority.score(Timestamp(created))])?;
            Ok(())
        }
        Mend::Log(seq) => {
            let (last, bytes) = tx
                .db
                .first(
                    "SELECT coalesce(max(seq), 0), sum(octet_length(message) + coalesce(octet_length(fields), 0) + 40)
                     FROM logs WHERE job = ?1",
                    [seq],
                    |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or(0))),
                )?
                .unwrap_or_default();
            tx.db.execute(
                "INSERT INTO log_heads (job, last, bytes, dropped) VALUES (?1, ?2, ?3, 0)
                 ON CONFLICT DO UPDATE SET last = max(last, excluded.last), bytes = excluded.bytes",
                [*seq, last, bytes],
            )?;
            Ok(())
        }
        Mend::Worker(worker) => {
            let lives = tx.db.first("SELECT 1 FROM workers WHERE id = ?1 AND gone IS NULL", [worker], |_| Ok(()))?;
            if lives.is_none() { super::workers::forget_types(tx, worker) } else { Ok(()) }
        }
        Mend::Recount => {
            tx.recount();
            Ok(())
        }
    }
}

impl super::SqliteBroker {
    pub(super) async fn fsck(&self, repair: bool) -> Result<crate::broker::Checked> {
        let mut checked = crate::broker::Checked { faults: self.readers.call(integrity).await?, ..Default::default() };
        if repair && checked.faults.iter().any(is_of_index) {
            self.writer.call(|tx| tx.db.execute("REINDEX", []).map(drop)).await?;
            let left = self.readers.call(integrity).await?;
            for fault in &mut checked.faults {
                fault.repaired = !left.contains(fault);
            }
        }
        if checked.faults.iter().any(|fault| !fault.repaired) {
            // What a damaged file says of the records is worth nothing.
            return Ok(checked);
        }
        let now = self.clock.now();
        let (examined, found) = self.readers.call(move |db| look(db, now)).await?;
        checked.examined = examined;
        for Found { mut fault, mend: how } in found {
            if repair {
                self.writer.call(move |tx| mend(tx, &how)).await?;
                fault.repaired = true;
            }
            checked.faults.push(fault);
        }
        Ok(checked)
    }
}
