//! The logs of jobs: lines in order, the oldest dropped and counted over a number of bytes.

use rusqlite::params;

use super::db::Db;
use super::look::json;
use super::row::{Head, count, level, signed};
use super::writer::Tx;
use crate::broker::{BrokerError, LogBatch, Logs, NewLogLine, Result, Topic};
use crate::job::{JobId, LogLine, Timestamp};

/// What a line needs besides its texts, roughly.
const LINE_BYTES: usize = 40;

/// Bytes of a stored line, as SQL over `logs`; the same as [`size`].
const SIZE: &str = "octet_length(message) + coalesce(octet_length(fields), 0) + 40";

fn size(line: &NewLogLine) -> i64 {
    let texts = line.message.len() + line.fields.as_ref().map_or(0, |fields| fields.get().len());
    signed((texts + LINE_BYTES) as u64)
}

pub(super) fn log(tx: &mut Tx<'_>, batches: &[LogBatch], max_bytes: u64) -> Result<Vec<Result<()>>> {
    let mut answers = Vec::with_capacity(batches.len());
    for batch in batches {
        match tx.current(&batch.run) {
            Ok(head) => {
                append(tx, head.seq, batch, signed(max_bytes))?;
                answers.push(Ok(()));
            }
            Err(refused @ (BrokerError::LeaseLost | BrokerError::Damaged(_))) => answers.push(Err(refused)),
            Err(error) => return Err(error),
        }
    }
    if answers.iter().any(Result::is_ok) {
        tx.wake(Topic::Jobs);
    }
    Ok(answers)
}

fn append(tx: &Tx<'_>, job: i64, batch: &LogBatch, max_bytes: i64) -> Result<()> {
    let sql = "SELECT last, bytes, dropped, CASE token WHEN ?2 THEN taken ELSE 0 END FROM log_heads WHERE job = ?1";
    let run = batch.run.token.0;
    let (mut last, mut bytes, mut dropped, taken) = tx
        .db
        .first(sql, [job, run], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        })?
        .unwrap_or_default();
    let before = bytes;
    // The batch stands for its lines and then for those that were thrown away; it may have come before.
    let known = taken.unsigned_abs().saturating_sub(batch.first);
    let known_lines = usize::try_from(known).unwrap_or(usize::MAX).min(batch.lines.len());
    let new_dropped = batch.dropped.saturating_sub(known - known_lines as u64);
    let end = batch.first + batch.lines.len() as u64 + batch.dropped;
    let mut line_row = tx.db.prepare("INSERT INTO logs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for line in &batch.lines[known_lines..] {
        last += 1;
        bytes += size(line);
        line_row.execute(params![
            job,
            last,
            line.time.0,
            line.level as i64,
            batch.attempt,
            line.message,
            line.fields.as_ref().map(|fields| fields.get()),
        ])?;
    }
    if bytes > max_bytes {
        let sql = format!("SELECT seq, {SIZE} FROM logs WHERE job = ?1 ORDER BY seq");
        let mut oldest = tx.db.prepare(&sql)?;
        let mut rows = oldest.query([job])?;
        let mut first_kept = last + 1;
        while let Some(row) = rows.next()? {
            if bytes <= max_bytes {
                first_kept = row.get(0)?;
                break;
            }
            bytes -= row.get::<_, i64>(1)?;
            dropped += 1;
        }
        drop(rows);
        tx.db.execute("DELETE FROM logs WHERE job = ?1 AND seq < ?2", [job, first_kept])?;
    }
    dropped += signed(new_dropped);
    tx.db.execute(
        "INSERT OR REPLACE INTO log_heads VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        [job, last, bytes, dropped, run, taken.max(signed(end))],
    )?;
    tx.db.execute("UPDATE jobs SET bytes = bytes + ?2 WHERE seq = ?1", [job, bytes - before])?;
    Ok(())
}

pub(super) fn logs(db: &Db, id: JobId, after: u64, limit: usize) -> Result<Option<Logs>> {
    let Some(head) = Head::find(db, id)? else { return Ok(None) };
    let dropped: i64 =
        db.first("SELECT dropped FROM log_heads WHERE job = ?1", [head.seq], |row| row.get(0))?.unwrap_or(0);
    let mut statement = db.prepare(
        "SELECT seq, time, level, attempt, message, fields FROM logs WHERE job = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query([head.seq, signed(after), signed(limit as u64)])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        lines.push(LogLine {
            seq: row.get::<_, i64>(0)?.unsigned_abs(),
            time: Timestamp(row.get(1)?),
            level: level(row.get(2)?)?,
            attempt: count(row.get(3)?)?,
            message: row.get(4)?,
            fields: row.get::<_, Option<String>>(5)?.map(json).transpose()?,
        });
    }
    Ok(Some(Logs { lines, dropped: dropped.unsigned_abs() }))
}
