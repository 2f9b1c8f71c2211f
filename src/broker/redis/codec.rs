//! What is stored of a job, byte by byte. The scripts read the same layouts: see `lua/lib/state.lua`. The payload and
//! everything behind the name is opaque to them.
//!
//! Input record: version 1, `created_at` (7 bytes, µs), lag (4, rank − `created_at`), priority (1), timeout (6, µs), name (1 + n);
//! then, only read here: attempts at most (LEB128), depth (LEB128), flags (1), request id, version it was checked with,
//! parent, tags, payload (the rest).

use std::time::Duration;

use crate::broker::{BrokerError, ClaimedJob, NewJob, Result, Run};
use crate::job::{
    Attempt, Job, JobError, JobId, JobName, Json, Outcome, Priority, Progress, QueueName, RequestId, RunToken, State,
    Timestamp, Version, WorkerId,
};

/// Times and lengths of time that are stored end here: about 95 years.
const LONGEST: u64 = 3_000_000_000_000_000;

/// Flags of the input record: how what follows is written.
const PLAIN_REQUEST_ID: u8 = 1;
const CHECKED: u8 = 2;
const PLAIN_VERSION: u8 = 4;
const PARENT: u8 = 8;
const TAGS: u8 = 16;

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(LONGEST).min(LONGEST)
}

pub(super) fn damaged(what: &str) -> BrokerError {
    BrokerError::Damaged(what.to_owned())
}

/// Takes a record apart from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| damaged("a record is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn small(&mut self, bytes: usize) -> Result<u32> {
        u32::try_from(self.number(bytes)?).map_err(|_| damaged("a number is too large"))
    }

    fn time(&mut self) -> Result<Timestamp> {
        Ok(Timestamp(self.number(7)?.cast_signed()))
    }

    fn leb128(&mut self) -> Result<u32> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| damaged("a number is too large"));
            }
        }
        Err(damaged("a number is too long"))
    }

    /// A text behind its length.
    fn text(&mut self, length_bytes: usize) -> Result<&'a str> {
        let length = self.number(length_bytes)?;
        let length = usize::try_from(length).map_err(|_| damaged("a text is too long"))?;
        text(self.take(length)?)
    }

    fn named<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self) -> Result<T> {
        named(self.text(1)?)
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged("a text is not UTF-8"))
}

pub(super) fn named<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| BrokerError::Damaged(error.to_string()))
}

pub(super) fn job_id(bytes: &[u8]) -> Result<JobId> {
    bytes.try_into().map(JobId::from_bytes).map_err(|_| damaged("a job id that has not 16 bytes"))
}

fn json(text: &str) -> Result<Json> {
    serde_json::value::RawValue::from_string(text.to_owned()).map_err(|error| BrokerError::Damaged(error.to_string()))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text).map(Some).map_err(|error| BrokerError::Damaged(error.to_string()))
}

/// `count` hex digits in lower case as bytes.
fn packed(text: &str, count: usize) -> Option<Vec<u8>> {
    (text.len() == count).then(|| data_encoding::HEXLOWER.decode(text.as_bytes()).ok()).flatten()
}

fn put_leb128(record: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        record.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    record.push((number & 0x7f) as u8);
}

fn put_text(record: &mut Vec<u8>, text: &str) {
    // Names and ids are 64 bytes at most.
    record.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    record.extend_from_slice(text.as_bytes());
}

/// The input record from the priority on; the script puts the times before it.
pub(super) fn input(job: &NewJob) -> Vec<u8> {
    let payload = job.payload.get();
    let mut record = Vec::with_capacity(payload.len() + 96);
    record.push(job.priority.get());
    record.extend_from_slice(&micros(job.timeout).min((1 << 48) - 1).to_be_bytes()[2..]);
    put_text(&mut record, job.name.as_str());
    put_leb128(&mut record, job.max_attempts);
    put_leb128(&mut record, job.depth);
    let request_id = packed(job.request_id.as_str(), 32);
    let version = job.checked_with.as_ref().map(|version| packed(version.as_str(), 16));
    let mut flags = 0;
    flags |= if request_id.is_none() { PLAIN_REQUEST_ID } else { 0 };
    flags |= if job.checked_with.is_some() { CHECKED } else { 0 };
    flags |= if version == Some(None) { PLAIN_VERSION } else { 0 };
    flags |= if job.parent_id.is_some() { PARENT } else { 0 };
    flags |= if job.tags.is_empty() { 0 } else { TAGS };
    record.push(flags);
    match request_id {
        Some(bytes) => record.extend(bytes),
        None => put_text(&mut record, job.request_id.as_str()),
    }
    match (version, &job.checked_with) {
        (Some(Some(bytes)), _) => record.extend(bytes),
        (Some(None), Some(version)) => put_text(&mut record, version.as_str()),
        _ => {}
    }
    if let Some(parent) = &job.parent_id {
        record.extend_from_slice(parent.as_bytes());
    }
    if !job.tags.is_empty() {
        let tags = serde_json::json!(job.tags).to_string();
        record.extend_from_slice(&u32::try_from(tags.len()).unwrap_or(u32::MAX).to_be_bytes());
        record.extend_from_slice(tags.as_bytes());
    }
    record.extend_from_slice(payload.as_bytes());
    record
}

/// An input record, read.
pub(super) struct Input {
    pub created_at: Timestamp,
    priority: Priority,
    timeout: Duration,
    pub name: JobName,
    max_attempts: u32,
    depth: u32,
    request_id: RequestId,
    checked_with: Option<Version>,
    parent_id: Option<JobId>,
    tags: Vec<String>,
    payload: Json,
}

impl Input {
    pub fn read(record: &[u8]) -> Result<Self> {
        let mut reader = Reader(record);
        if reader.byte()? != 1 {
            return Err(damaged("an input record of an unknown version"));
        }
        let created_at = reader.time()?;
        let _lag = reader.take(4)?;
        let priority = Priority::new(i64::from(reader.byte()?)).map_err(|error| damaged(&error.to_string()))?;
        let timeout = Duration::from_micros(reader.number(6)?);
        let name = reader.named()?;
        let (max_attempts, depth, flags) = (reader.leb128()?, reader.leb128()?, reader.byte()?);
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let request_id = match flags & PLAIN_REQUEST_ID {
            0 => named(&hex(reader.take(16)?))?,
            _ => reader.named()?,
        };
        let checked_with = match (flags & CHECKED, flags & PLAIN_VERSION) {
            (0, _) => None,
            (_, 0) => Some(named(&hex(reader.take(8)?))?),
            _ => Some(reader.named()?),
        };
        let parent_id = if flags & PARENT == 0 { None } else { Some(job_id(reader.take(16)?)?) };
        let tags = if flags & TAGS == 0 { Vec::new() } else { parsed(reader.text(4)?)?.unwrap_or_default() };
        let payload = json(text(reader.0)?)?;
        Ok(Self {
            created_at,
            priority,
            timeout,
            name,
            max_attempts,
            depth,
            request_id,
            checked_with,
            parent_id,
            tags,
            payload,
        })
    }
}

/// A state record, read.
pub(super) struct Stand<'a> {
    pub state: State,
    suspect: bool,
    outcome: Option<Outcome>,
    attempt: u32,
    lost: u32,
    token: RunToken,
    run_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    worker: &'a str,
    version: Option<Version>,
    reason: &'a str,
    text: &'a str,
}

fn state(number: u8) -> Result<State> {
    State::ALL.get(usize::from(number)).copied().ok_or_else(|| damaged("an unknown state"))
}

fn outcome(number: u8) -> Result<Option<Outcome>> {
    const OUTCOMES: [Outcome; 6] =
        [Outcome::Succeeded, Outcome::Failed, Outcome::Retried, Outcome::Released, Outcome::Lost, Outcome::Cancelled];
    match usize::from(number).checked_sub(1) {
        None => Ok(None),
        Some(at) => OUTCOMES.get(at).copied().map(Some).ok_or_else(|| damaged("an unknown outcome")),
    }
}

fn token(bytes: &[u8]) -> Result<RunToken> {
    bytes.try_into().map(|bytes| RunToken(i64::from_be_bytes(bytes))).map_err(|_| damaged("a token of another length"))
}

fn set(time: Timestamp) -> Option<Timestamp> {
    (time.0 != 0).then_some(time)
}

impl<'a> Stand<'a> {
    pub fn read(record: &'a [u8]) -> Result<Self> {
        let mut reader = Reader(record);
        if reader.byte()? != 1 {
            return Err(damaged("a state record of an unknown version"));
        }
        let state = state(reader.byte()?)?;
        let _cancel = reader.byte()?;
        let suspect = reader.byte()? == 1;
        let outcome = outcome(reader.byte()?)?;
        let (attempt, lost) = (reader.small(4)?, reader.small(4)?);
        let _charged_uncharged_past = reader.take(3)?;
        let token = token(reader.take(8)?)?;
        let (run_at, started, _deadline, finished, _rank) =
            (reader.time()?, reader.time()?, reader.time()?, reader.time()?, reader.time()?);
        let _bytes_ended_priority = reader.take(11)?;
        let _name = reader.text(1)?;
        let worker = reader.text(1)?;
        let version = reader.text(1)?;
        let reason = reader.text(2)?;
        Ok(Self {
            state,
            suspect,
            outcome,
            attempt,
            lost,
            token,
            run_at,
            started_at: set(started),
            finished_at: set(finished),
            worker,
            version: if version.is_empty() { None } else { Some(named(version)?) },
            reason,
            text: text(reader.0)?,
        })
    }

    /// Of a job without a state record.
    pub fn fresh(input: &Input) -> Self {
        Self {
            state: State::Queued,
            suspect: false,
            outcome: None,
            attempt: 0,
            lost: 0,
            token: RunToken(0),
            run_at: input.created_at,
            started_at: None,
            finished_at: None,
            worker: "",
            version: None,
            reason: "",
            text: "",
        }
    }
}

/// A run, as `claim.lua` answers it.
pub(super) fn claimed(id: &[u8], record: &[u8], state: &[u8], queue: &QueueName) -> Result<ClaimedJob> {
    let (input, stand) = (Input::read(record)?, Stand::read(state)?);
    Ok(ClaimedJob {
        run: Run { job: job_id(id)?, queue: queue.clone(), token: stand.token },
        name: input.name,
        payload: input.payload,
        attempt: stand.attempt,
        max_attempts: input.max_attempts,
        timeout: input.timeout,
        tags: input.tags,
        request_id: input.request_id,
        checked_with: input.checked_with,
        priority: input.priority,
        depth: input.depth,
        created_at: input.created_at,
        ready_at: stand.run_at,
        suspect: stand.suspect,
    })
}

/// The parts of a job, as `read.lua` answers them.
pub(super) struct Parts<'a> {
    pub id: JobId,
    pub state: &'a [u8],
    pub past: &'a [u8],
    pub progress: &'a [u8],
    pub files: Vec<&'a [u8]>,
}

/// A job, whole.
pub(super) fn job(input: Input, parts: &Parts<'_>, queue: &QueueName) -> Result<Job> {
    let stand = if parts.state.is_empty() { Stand::fresh(&input) } else { Stand::read(parts.state)? };
    let (result, error) = match stand.state {
        State::Succeeded => (Some(json(stand.text)?), None),
        _ => (None, parsed::<JobError>(stand.text)?),
    };
    let mut attempts = past(parts.past)?;
    if !stand.worker.is_empty() {
        attempts.push(Attempt {
            number: stand.attempt,
            worker_id: named::<WorkerId>(stand.worker)?,
            script_version: stand.version.clone(),
            started_at: stand.started_at.unwrap_or_default(),
            finished_at: stand.finished_at,
            outcome: stand.outcome,
            error: error.clone(),
        });
    }
    let mut files = Vec::new();
    for card in &parts.files {
        files.extend(parsed::<crate::job::FileInfo>(text(card)?)?);
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Job {
        id: parts.id,
        name: input.name,
        queue: queue.clone(),
        state: stand.state,
        reason: (!stand.reason.is_empty()).then(|| stand.reason.to_owned()),
        payload: input.payload,
        priority: input.priority,
        attempt: stand.attempt,
        max_attempts: input.max_attempts,
        lost: stand.lost,
        tags: input.tags,
        request_id: input.request_id,
        script_version: stand.version,
        progress: parsed::<Progress>(text(parts.progress)?)?,
        result,
        error,
        attempts,
        files,
        created_at: input.created_at,
        run_at: stand.run_at,
        started_at: stand.started_at,
        finished_at: stand.finished_at,
        parent_id: input.parent_id,
    })
}

fn past(bytes: &[u8]) -> Result<Vec<Attempt>> {
    let (mut reader, mut found) = (Reader(bytes), Vec::new());
    while !reader.0.is_empty() {
        let length = reader.small(4)?;
        let mut entry = Reader(reader.take(length as usize)?);
        let outcome = outcome(entry.byte()?)?;
        let number = entry.small(4)?;
        let (started_at, finished_at) = (entry.time()?, entry.time()?);
        let worker_id = entry.named()?;
        let version = entry.text(1)?;
        found.push(Attempt {
            number,
            worker_id,
            script_version: if version.is_empty() { None } else { Some(named(version)?) },
            started_at,
            finished_at: Some(finished_at),
            outcome,
            error: parsed(text(entry.0)?)?,
        });
    }
    Ok(found)
}
