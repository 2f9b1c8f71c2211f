//! The job as everybody sees it: the record that brokers return and the HTTP API shows.

use serde::{Deserialize, Serialize};

use super::id::{JobId, JobName, QueueName, RequestId, Version, WorkerId};
use super::outcome::{JobError, Outcome};
use super::state::State;
use super::time::Timestamp;

/// JSON text that is passed on as it is; brokers never look inside.
pub type Json = Box<serde_json::value::RawValue>;

/// 0 to 9; 9 goes first, 5 is usual.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u8")]
pub struct Priority(u8);

/// A priority outside 0 to 9.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("priority {0} is not valid: it must be a whole number from 0 to 9 (9 goes first)")]
pub struct InvalidPriority(pub i64);

impl Priority {
    /// # Errors
    /// When `value` is not in 0..=9.
    pub fn new(value: i64) -> Result<Self, InvalidPriority> {
        u8::try_from(value).ok().filter(|value| *value <= 9).map(Self).ok_or(InvalidPriority(value))
    }

    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// The order within a queue: the smallest goes first. One step of priority is worth a minute of age, so a
    /// burst is strict by priority and nothing starves. `queued_at` is when the job was created.
    #[must_use]
    pub fn score(self, created_at: Timestamp) -> i64 {
        created_at.0.saturating_sub(60_000_000 * i64::from(self.0))
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl TryFrom<i64> for Priority {
    type Error = InvalidPriority;
    fn try_from(value: i64) -> Result<Self, InvalidPriority> {
        Self::new(value)
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> u8 {
        priority.0
    }
}

/// How far a run is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// 0.0 to 100.0.
    pub percent: f64,
    pub message: String,
}

/// One run of the job, in the job's history.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// 1-based. A released or lost run has the number of the attempt that it did not burn.
    pub number: u32,
    pub worker_id: WorkerId,
    pub script_version: Option<Version>,
    pub started_at: Timestamp,
    /// Absent while it runs.
    pub finished_at: Option<Timestamp>,
    /// Absent while it runs.
    pub outcome: Option<Outcome>,
    pub error: Option<JobError>,
}

/// A file that the job saved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub content_type: String,
    /// Lower-case hex.
    pub sha256: String,
}

/// The media type of a file, by the ending of its name.
#[must_use]
pub fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase().as_str() {
        "csv" => "text/csv; charset=utf-8",
        "txt" | "log" | "md" => "text/plain; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "eml" => "message/rfc822",
        _ => "application/octet-stream",
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line of a job's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Grows by one from line to line of a job, over all its attempts; the broker gives it.
    pub seq: u64,
    pub time: Timestamp,
    pub level: LogLevel,
    pub message: String,
    /// A JSON object; absent when the script gave none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fields: Option<Json>,
    pub attempt: u32,
}

/// A job, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub name: JobName,
    pub queue: QueueName,
    pub state: State,
    /// Why a job waits, where there is more to say than its state.
    pub reason: Option<String>,
    pub payload: Json,
    pub priority: Priority,
    /// The number of the attempt that runs or ran last; 0 before the first.
    pub attempt: u32,
    /// The total, the first one included.
    pub max_attempts: u32,
    /// How often a worker died with this job running.
    pub lost: u32,
    pub tags: Vec<String>,
    pub request_id: RequestId,
    /// The script version of the last run.
    pub script_version: Option<Version>,
    pub progress: Option<Progress>,
    pub result: Option<Json>,
    pub error: Option<JobError>,
    /// Oldest first; the last one is the current run while the job is running.
    pub attempts: Vec<Attempt>,
    pub files: Vec<FileInfo>,
    pub created_at: Timestamp,
    /// When it is or was due.
    pub run_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// The job whose script submitted this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent_id: Option<JobId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_orders_a_burst_and_age_wins_in_the_end() {
        let now = Timestamp(1_000_000_000);
        let high = Priority::new(9).unwrap();
        let low = Priority::new(0).unwrap();
        assert!(high.score(now) < low.score(now));
        let much_later = now.plus(std::time::Duration::from_secs(9 * 60 + 1));
        assert!(low.score(now) < high.score(much_later));
    }

    #[test]
    fn priority_is_checked() {
        assert!(Priority::new(10).is_err() && Priority::new(-1).is_err());
        assert!(serde_json::from_str::<Priority>("12").unwrap_err().to_string().contains("0 to 9"));
    }
}
