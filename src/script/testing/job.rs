//! `run_job`: one job to its end over all its attempts, as a worker and a broker would take it there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rhai::{Array, Dynamic, Map};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::info;
use super::stage::{Asked, Sent, Stage, TestPorts};
use crate::job::{ErrorKind, FileInfo, JobError, Json, RunEnd};
use crate::script::api::file::text_or_blob;
use crate::script::context::{StopReason, StopSignal};
use crate::script::convert;
use crate::script::fiber::RunReport;
use crate::script::library::Script;
use crate::script::memory::{MemoryPorts, Seen};
use crate::script::pool::RunRequest;
use crate::script::ports::{HostError, HostResult, RunPorts};
use crate::script::services::mail::Letter;
use crate::script::verdict::{Attempts, verdict};

/// A job that has ended.
#[derive(Debug)]
pub struct Ran {
    end: RunEnd,
    attempts: Vec<Attempt>,
    seen: Seen,
    infos: Vec<FileInfo>,
    sent: Sent,
}

#[derive(Debug)]
struct Attempt {
    outcome: &'static str,
    error: Option<JobError>,
    /// The delay before the next one.
    delay: Option<Duration>,
}

/// Stops the run when nobody waits for it any more.
struct StopOnDrop(StopSignal);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(StopReason::Cancelled);
    }
}

/// Runs a job until it has ended for good; `until` is when the test's time is over.
pub async fn run(stage: Arc<Stage>, script: Arc<Script>, payload: String, until: Instant) -> HostResult<Ran> {
    let spec = &script.job_type.spec;
    let first = info(&script, 1, stage.now());
    let memory = Arc::new(MemoryPorts::new(first.id, None));
    stage.take_sent();
    let mut attempts = Vec::new();
    let mut attempt = 1;
    let end = loop {
        let stop = StopSignal::new();
        let (done, ended) = oneshot::channel();
        let request = RunRequest {
            job: crate::script::context::JobInfo { attempt, ..first.clone() },
            script: Arc::clone(&script),
            payload: RawValue::from_string(payload.clone())
                .map_err(|error| HostError::new(ErrorKind::Script, format!("run_job: {error}"), false))?,
            timeout: spec.timeout,
            ports: Arc::new(TestPorts::of_job(Arc::clone(&memory), Arc::clone(&stage))),
            stop: stop.clone(),
            done: Box::new(move |report| {
                let _ = done.send(report); // nobody waits any more: the test is over
            }),
        };
        let report = on_time(&stage, request, stop, ended, until).await?;
        // Without jitter: what a test sees is the same each time.
        let end = verdict(report.end, spec, Attempts { attempt, max: spec.max_attempts }, 0.0)
            .ok_or_else(|| HostError::new(ErrorKind::Panic, "run_job: the run was taken away", false))?;
        let outcome = end.outcome().as_str();
        match end {
            RunEnd::Retry { error, delay } => {
                attempts.push(Attempt { outcome, error: Some(error), delay: Some(delay) });
                stage.advance(delay);
                attempt += 1;
            }
            end => {
                let error = if let RunEnd::Failed { error } = &end { Some(error.clone()) } else { None };
                attempts.push(Attempt { outcome, error, delay: None });
                break end;
            }
        }
    };
    let infos = memory.list_files().await?;
    let seen = std::mem::take(&mut *memory.seen());
    Ok(Ran { end, attempts, seen, infos, sent: stage.take_sent() })
}

/// One attempt, and no longer than the test may take.
async fn on_time(
    stage: &Stage,
    request: RunRequest,
    stop: StopSignal,
    ended: oneshot::Receiver<RunReport>,
    until: Instant,
) -> HostResult<RunReport> {
    let name = request.job.name.clone();
    let died = |_| HostError::new(ErrorKind::Panic, "run_job: the job's thread has died", false);
    stage.with_jobs(|pool| pool.run(request))?;
    let guard = StopOnDrop(stop);
    tokio::pin!(ended);
    if let Ok(report) = tokio::time::timeout_at(until.into(), &mut ended).await {
        return report.map_err(died);
    }
    guard.0.stop(StopReason::TimeUp);
    let report = ended.await.map_err(died)?;
    let place = match report.end {
        crate::script::fiber::ScriptEnd::Failed(error) => error
            .file
            .map(|file| {
                let line = error.line.map_or(String::new(), |line| format!(":{line}"));
                let snippet = error.snippet.map_or(String::new(), |snippet| format!("\n{snippet}"));
                format!(", at {file}{line}{snippet}")
            })
            .unwrap_or_default(),
        _ => String::new(),
    };
    let message = format!("run_job: the job `{name}` still ran when the time of the test was over{place}");
    Err(HostError::new(ErrorKind::Script, message, false))
}

impl Ran {
    /// What the test sees.
    pub fn into_map(self) -> Map {
        let Self { end, attempts, seen, infos, sent } = self;
        let mut map = Map::new();
        let (state, result, error) = match end {
            RunEnd::Succeeded { result } => ("succeeded", json(Some(&result)), None),
            RunEnd::Failed { error } => ("failed", Dynamic::UNIT, Some(error)),
            RunEnd::Cancelled => ("cancelled", Dynamic::UNIT, None),
            RunEnd::Released { reason, .. } => {
                ("queued", Dynamic::UNIT, Some(JobError::new(ErrorKind::Panic, reason, true)))
            }
            RunEnd::Retry { error, .. } => ("scheduled", Dynamic::UNIT, Some(error)),
        };
        map.insert("state".into(), state.into());
        map.insert("result".into(), result);
        map.insert("error".into(), error.as_ref().map_or(Dynamic::UNIT, said));
        map.insert(
            "attempts".into(),
            list(attempts.into_iter().enumerate(), |(index, attempt)| {
                vec![
                    ("number", i64::try_from(index + 1).unwrap_or(i64::MAX).into()),
                    ("outcome", attempt.outcome.into()),
                    ("error", attempt.error.as_ref().map_or(Dynamic::UNIT, said)),
                    ("delay", attempt.delay.map_or(Dynamic::UNIT, shown)),
                ]
            }),
        );
        map.insert(
            "logs".into(),
            list(seen.logs, |(level, message, fields)| {
                vec![("level", level.as_str().into()), ("message", message.into()), ("fields", json(fields.as_ref()))]
            }),
        );
        map.insert(
            "progress".into(),
            list(seen.progress, |(percent, message)| vec![("percent", percent.into()), ("message", message.into())]),
        );
        let mut files = seen.files;
        map.insert(
            "files".into(),
            list(infos, |info| {
                let content = files.remove(&info.name).unwrap_or_default();
                vec![
                    ("size", i64::try_from(info.size).unwrap_or(i64::MAX).into()),
                    ("name", info.name.into()),
                    ("content_type", info.content_type.into()),
                    ("content", text_or_blob(content)),
                ]
            }),
        );
        map.insert(
            "jobs".into(),
            list(seen.children, |(id, child)| {
                vec![
                    ("id", id.to_string().into()),
                    ("name", child.name.to_string().into()),
                    ("payload", RawValue::from_string(child.payload).map_or(Dynamic::UNIT, |text| json(Some(&text)))),
                    ("delay", shown(child.delay)),
                    ("priority", child.priority.map_or(Dynamic::UNIT, |priority| i64::from(priority.get()).into())),
                    ("tags", texts(child.tags)),
                ]
            }),
        );
        map.insert("emails".into(), list(sent.letters, letter));
        map.insert("requests".into(), list(sent.requests, request));
        map
    }
}

fn list<T>(items: impl IntoIterator<Item = T>, fields: impl FnMut(T) -> Vec<(&'static str, Dynamic)>) -> Dynamic {
    let map = |fields: Vec<(&'static str, Dynamic)>| -> Dynamic {
        fields.into_iter().map(|(name, value)| (name.into(), value)).collect::<Map>().into()
    };
    items.into_iter().map(fields).map(map).collect::<Array>().into()
}

fn json(text: Option<&Json>) -> Dynamic {
    text.and_then(|text| convert::from_json(text.get()).ok()).unwrap_or_default()
}

fn said(error: &JobError) -> Dynamic {
    serde_json::value::to_raw_value(error).map_or(Dynamic::UNIT, |text| json(Some(&text)))
}

fn shown(duration: Duration) -> Dynamic {
    crate::job::units::format_duration(duration).into()
}

fn texts(texts: Vec<String>) -> Dynamic {
    texts.into_iter().map(Dynamic::from).collect::<Array>().into()
}

fn letter(letter: Letter) -> Vec<(&'static str, Dynamic)> {
    let optional = |text: Option<String>| text.map_or(Dynamic::UNIT, Dynamic::from);
    let attachments = list(letter.attachments, |file| {
        vec![
            ("name", file.name.into()),
            ("content_type", file.content_type.into()),
            ("content", text_or_blob(file.content)),
        ]
    });
    vec![
        ("id", format!("<{}@ryemill>", letter.id).into()),
        ("from", optional(letter.from)),
        ("reply_to", texts(letter.reply_to)),
        ("to", texts(letter.to)),
        ("cc", texts(letter.cc)),
        ("bcc", texts(letter.bcc)),
        ("subject", letter.subject.into()),
        ("text", optional(letter.text)),
        ("html", optional(letter.html)),
        ("attachments", attachments),
    ]
}

fn request(asked: Asked) -> Vec<(&'static str, Dynamic)> {
    let headers: Map = asked.headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    vec![
        ("method", asked.method.into()),
        ("url", asked.url.into()),
        ("headers", headers.into()),
        ("body", text_or_blob(asked.body)),
    ]
}
