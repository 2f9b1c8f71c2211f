//! What a running script needs from outside: small traits, implemented over the broker by `worker` and in memory by
//! `run` and `test`. Values that cross are plain Rust: nothing of the script engine leaves its thread.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::diagnostics::near;
use crate::job::time::SystemClock;
use crate::job::{Clock, ErrorKind, FileInfo, JobId, JobName, Json, LogLevel, Priority, Timestamp};

/// A host call that failed. A script that catches it sees `#{ kind, message, retryable, status? }`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct HostError {
    pub kind: ErrorKind,
    pub message: String,
    /// Whether the same call could succeed later.
    pub retryable: bool,
    /// A status code of the other side (HTTP, SMTP), where there was one.
    pub status: Option<u16>,
}

impl HostError {
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>, retryable: bool) -> Self {
        Self { kind, message: message.into(), retryable, status: None }
    }

    /// A payload that another job does not take.
    #[must_use]
    pub fn unfit(name: &JobName, why: &str) -> Self {
        Self::new(ErrorKind::InvalidPayload, format!("the payload does not fit `{name}`: {why}"), false)
    }

    /// Something that the script may not reach, or a limit of its run. Never retryable.
    #[must_use]
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message, false)
    }
}

pub type HostResult<T> = Result<T, HostError>;

/// A job that a script submits.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildJob {
    pub name: JobName,
    /// JSON, as the script gave it.
    pub payload: String,
    pub delay: Duration,
    pub priority: Option<Priority>,
    pub tags: Vec<String>,
    /// The ordinal of the call in this run, or the script's `unique_key`: the child's id is derived from it.
    pub call: String,
}

impl ChildJob {
    /// There is no job type of its name among the known ones.
    pub fn unknown<'a>(&self, known: impl IntoIterator<Item = &'a str>) -> HostError {
        let hint = near(self.name.as_str(), known).map_or_else(String::new, |hint| format!(", {hint}"));
        HostError::denied(format!("there is no job type `{}`{hint}", self.name))
    }
}

/// The outside of one run. Calls that wait are futures, which the fiber bounds by the deadline and drops at a stop; the
/// others return at once.
pub trait RunPorts: Send + Sync + 'static {
    /// The first statement runs now.
    fn started(&self, _at: Timestamp) {}
    /// How far the script's clock is ahead of the real one.
    fn ahead(&self) -> Duration {
        Duration::ZERO
    }
    /// What time it is for the script.
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.ahead())
    }
    /// Asked before a script sleeps: none when it has to wait. Otherwise the time has passed already, on a clock that
    /// is not the real one, and the answer counts towards the run's timeout.
    fn skip(&self, _duration: Duration) -> Option<Duration> {
        None
    }
    /// One log line; `fields` is a JSON object. Rates and sizes are the implementation's to limit.
    fn log(&self, level: LogLevel, message: String, fields: Option<Json>);
    /// `percent` is in 0.0..=100.0.
    fn progress(&self, percent: f64, message: String);
    fn submit(&self, child: ChildJob) -> BoxFuture<'static, HostResult<JobId>>;
    /// Saves one of the job's files, whole or not at all; the same name again replaces it.
    fn save_file(&self, name: String, content: Vec<u8>) -> BoxFuture<'static, HostResult<FileInfo>>;
    fn read_file(&self, name: String) -> BoxFuture<'static, HostResult<Vec<u8>>>;
    fn list_files(&self) -> BoxFuture<'static, HostResult<Vec<FileInfo>>>;
}
