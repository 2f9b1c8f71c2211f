//! What a worker says of its runs: more time, progress, files, the end.

use std::time::Duration;

use rusqlite::params;

use super::ends::{Back, End, end, give_back};
use super::row::Head;
use super::writer::Tx;
use crate::broker::{BrokerError, Finish, Result, Run, Topic};
use crate::job::time::micros;
use crate::job::{Event, FileInfo, JobError, Outcome, Progress, RunEnd};

/// Of an error's message in a reason. Characters.
const MAX_REASON: usize = 300;

pub(super) fn extend(tx: &mut Tx<'_>, run: &Run, timeout: Duration) -> Result<()> {
    let head = tx.current(run)?;
    tx.db.execute(
        "UPDATE jobs SET deadline = ?2 WHERE seq = ?1",
        [head.seq, tx.now.0.saturating_add(micros(timeout))],
    )?;
    Ok(())
}

pub(super) fn progress(tx: &mut Tx<'_>, run: &Run, progress: &Progress) -> Result<()> {
    let head = tx.current(run)?;
    let text = serde_json::to_string(progress).map_err(|error| BrokerError::Invalid(error.to_string()))?;
    tx.db.execute("UPDATE jobs SET progress = ?2 WHERE seq = ?1", params![head.seq, text])?;
    tx.wake(Topic::Jobs);
    Ok(())
}

pub(super) fn record_file(tx: &mut Tx<'_>, run: &Run, file: &FileInfo) -> Result<()> {
    let head = tx.current(run)?;
    let info = serde_json::to_string(file).map_err(|error| BrokerError::Invalid(error.to_string()))?;
    tx.db.execute("INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3)", params![head.seq, file.name, info])?;
    tx.wake(Topic::Jobs);
    Ok(())
}

pub(super) fn finish(tx: &mut Tx<'_>, runs: &[Finish]) -> Result<Vec<Result<()>>> {
    let mut answers = Vec::with_capacity(runs.len());
    for run in runs {
        match tx.current(&run.run) {
            Ok(head) => {
                finish_one(tx, &head, run)?;
                answers.push(Ok(()));
            }
            Err(refused @ (BrokerError::LeaseLost | BrokerError::Damaged(_))) => answers.push(Err(refused)),
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}

fn finish_one(tx: &mut Tx<'_>, head: &Head, finish: &Finish) -> Result<()> {
    let version = finish.script_version.as_ref();
    let mut last = End { version, ..End::new(Event::Cancel, Some(Outcome::Cancelled), finish.keep) };
    match &finish.end {
        RunEnd::Succeeded { result } => {
            last.event = Event::Succeed;
            last.outcome = Some(Outcome::Succeeded);
            last.result = Some(result);
        }
        RunEnd::Failed { error } => {
            last.event = Event::Fail;
            last.outcome = Some(Outcome::Failed);
            last.error = Some(error);
        }
        RunEnd::Retry { error, delay } if !head.cancel => {
            let reason = why_again(head.attempt, error);
            let back = Back {
                event: Event::Defer,
                outcome: Outcome::Retried,
                attempt: head.attempt,
                run_at: tx.now.plus(*delay),
                reason: Some(&reason),
                error: Some(error),
                version,
            };
            return give_back(tx, head, &back);
        }
        RunEnd::Released { reason, delay } if !head.cancel => {
            let event = if delay.is_zero() { Event::Release } else { Event::Defer };
            let back = Back {
                run_at: tx.now.plus(*delay),
                version,
                ..Back::unburned(event, Outcome::Released, head, tx.now, reason)
            };
            return give_back(tx, head, &back);
        }
        RunEnd::Retry { .. } | RunEnd::Released { .. } | RunEnd::Cancelled => {}
    }
    end(tx, head, &last)
}

fn why_again(attempt: i64, error: &JobError) -> String {
    let message: String = error.message.chars().take(MAX_REASON).collect();
    format!("attempt {attempt} failed ({}): {message}", error.kind)
}
