//! What a worker says of its runs: more time, progress, lines, files, the end.

use std::time::Duration;

use redis::{ToRedisArgs, Value};

use super::codec::{damaged, micros};
use super::reply::{list, number};
use super::script::{Call, SCRIPTS, Script};
use super::{Inner, by_queue};
use crate::broker::{BrokerError, Finish, LogBatch, NewLogLine, Result, Run};
use crate::job::{FileInfo, JobError, Progress, RunEnd, Version};

/// Of an error's message in a reason. Characters.
const MAX_REASON: usize = 300;
/// Bytes of a reason; its length is stored in two.
const MAX_REASON_BYTES: usize = 8 << 10;
/// Runs that one call ends: what a script does in about 2 ms.
const AT_ONCE: usize = 256;

impl Inner {
    pub(super) async fn do_extend(&self, run: &Run, timeout: Duration) -> Result<()> {
        self.current(&SCRIPTS.extend, run, |call| {
            call.arg(micros(timeout));
        })
        .await
    }

    pub(super) async fn do_progress(&self, run: &Run, progress: &Progress) -> Result<()> {
        let text = serde_json::to_string(progress).map_err(|error| BrokerError::Invalid(error.to_string()))?;
        self.current(&SCRIPTS.progress, run, |call| {
            call.arg(text);
        })
        .await
    }

    pub(super) async fn do_record_file(&self, run: &Run, file: &FileInfo) -> Result<()> {
        let card = serde_json::to_string(file).map_err(|error| BrokerError::Invalid(error.to_string()))?;
        self.current(&SCRIPTS.record_file, run, |call| {
            call.arg(&file.name).arg(card);
        })
        .await
    }

    pub(super) async fn do_log(&self, batches: &[LogBatch], max_bytes: u64) -> Result<Vec<Result<()>>> {
        let sent = batches.iter().map(|batch| {
            self.current(&SCRIPTS.log, &batch.run, move |call| {
                call.arg(max_bytes.min(1 << 50)).arg(batch.first.min(1 << 50)).arg(batch.dropped.min(1 << 50));
                for line in &batch.lines {
                    call.arg(stored_line(line, batch.attempt));
                }
            })
        });
        // All of them are on the wire at once.
        let mut answers = Vec::with_capacity(batches.len());
        for answer in futures_util::future::join_all(sent).await {
            match answer {
                Ok(()) => answers.push(Ok(())),
                Err(refused @ (BrokerError::LeaseLost | BrokerError::Damaged(_))) => answers.push(Err(refused)),
                Err(problem) => return Err(problem),
            }
        }
        Ok(answers)
    }

    /// Calls a script about one run that answers 1, or 0 when the run is not current.
    async fn current(&self, script: &Script, run: &Run, args: impl FnOnce(&mut Call<'_>)) -> Result<()> {
        let mut call = script.on(&self.names.queue(&run.queue));
        call.arg(self.now()).arg(run.job.as_bytes().as_slice()).arg(&token(run)[..]);
        args(&mut call);
        match number(&call.run(&self.link).await?)? {
            1 => Ok(()),
            _ => Err(BrokerError::LeaseLost),
        }
    }

    pub(super) async fn do_finish(&self, runs: &[Finish]) -> Result<Vec<Result<()>>> {
        let mut calls = Vec::new();
        for (queue, places) in by_queue(runs.iter().map(|finish| &finish.run.queue)) {
            for places in places.chunks(AT_ONCE) {
                let mut call = SCRIPTS.finish.on(&self.names.queue(queue));
                call.arg(self.now());
                for &place in places {
                    add(&mut call, &runs[place]);
                }
                calls.push((places.to_vec(), call));
            }
        }
        let mut answers: Vec<Result<()>> = vec![Ok(()); runs.len()];
        let sent = calls.iter().map(|(_, call)| call.run_knowing(&self.link));
        for ((places, _), answer) in calls.iter().zip(futures_util::future::join_all(sent).await) {
            let (answer, resent) = answer?;
            for (&place, answer) in places.iter().zip(list(answer)?) {
                answers[place] = match answer {
                    Value::Int(1) => Ok(()),
                    // The answer to the first time was lost.
                    Value::Int(3) if resent => Ok(()),
                    Value::Int(0 | 3) => Err(BrokerError::LeaseLost),
                    _ => Err(damaged("the state record of a running job")),
                };
            }
        }
        Ok(answers)
    }
}

pub(super) fn token(run: &Run) -> [u8; 8] {
    run.token.0.to_be_bytes()
}

fn add(call: &mut Call<'_>, finish: &Finish) {
    let json = |error: &JobError| serde_json::to_string(error).unwrap_or_default();
    call.arg(finish.run.job.as_bytes().as_slice()).arg(&token(&finish.run)[..]);
    let (kind, delay) = match &finish.end {
        RunEnd::Succeeded { .. } => ("s", Duration::ZERO),
        RunEnd::Failed { .. } => ("f", Duration::ZERO),
        RunEnd::Retry { delay, .. } => ("r", *delay),
        RunEnd::Released { delay, .. } => ("b", *delay),
        RunEnd::Cancelled => ("c", Duration::ZERO),
    };
    call.arg(kind).arg(micros(finish.keep)).arg(micros(delay));
    call.arg(finish.script_version.as_ref().map_or("", Version::as_str));
    match &finish.end {
        RunEnd::Succeeded { result } => call.arg(result.get()).arg(""),
        RunEnd::Failed { error } => call.arg(json(error)).arg(""),
        RunEnd::Retry { error, .. } => {
            let message: String = error.message.chars().take(MAX_REASON).collect();
            call.arg(json(error)).arg(format!("({}): {message}", error.kind))
        }
        RunEnd::Released { reason, .. } => {
            let end = reason.floor_char_boundary(MAX_REASON_BYTES);
            call.arg("").arg(&reason[..end])
        }
        RunEnd::Cancelled => call.arg("").arg(""),
    };
}

/// A line as it is stored: time, level, attempt, length of the message, message, fields.
fn stored_line(line: &NewLogLine, attempt: u32) -> impl ToRedisArgs {
    let fields = line.fields.as_ref().map_or("", |fields| fields.get());
    let mut bytes = Vec::with_capacity(line.message.len() + fields.len() + 17);
    bytes.extend(line.time.0.to_be_bytes());
    bytes.push(line.level as u8);
    bytes.extend(attempt.to_be_bytes());
    bytes.extend(u32::try_from(line.message.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(line.message.as_bytes());
    bytes.extend(fields.as_bytes());
    bytes
}
