//! How a run ends, and what a failed one says.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::Json;

/// What kind of failure it was; a closed list, so that clients can branch on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The script threw a value.
    #[serde(rename = "thrown")]
    Thrown,
    /// The script itself is wrong: unknown function, type mismatch, division by zero …
    #[serde(rename = "script")]
    Script,
    /// The script called `fail(…)`.
    #[serde(rename = "failed_by_script")]
    FailedByScript,
    /// The run outlived its `timeout`.
    #[serde(rename = "timeout")]
    Timeout,
    /// The run needed more than its `memory`.
    #[serde(rename = "memory")]
    Memory,
    /// The script recursed too deeply.
    #[serde(rename = "stack")]
    Stack,
    /// The payload does not fit the schema of the version that was to run it.
    #[serde(rename = "invalid_payload")]
    InvalidPayload,
    /// The result is not JSON, too deep or too large.
    #[serde(rename = "invalid_result")]
    InvalidResult,
    /// The worker died with the job on it too often.
    #[serde(rename = "worker_lost")]
    WorkerLost,
    /// A host function panicked: a fault of Ryemill, not of the script.
    #[serde(rename = "panic")]
    Panic,
    #[serde(rename = "host.http")]
    HostHttp,
    #[serde(rename = "host.sql")]
    HostSql,
    #[serde(rename = "host.email")]
    HostEmail,
    #[serde(rename = "host.file")]
    HostFile,
    /// The script reached for something that its `allow` does not name, or went over a limit of its run.
    #[serde(rename = "denied")]
    Denied,
}

impl ErrorKind {
    pub const ALL: [ErrorKind; 15] = [
        Self::Thrown,
        Self::Script,
        Self::FailedByScript,
        Self::Timeout,
        Self::Memory,
        Self::Stack,
        Self::InvalidPayload,
        Self::InvalidResult,
        Self::WorkerLost,
        Self::Panic,
        Self::HostHttp,
        Self::HostSql,
        Self::HostEmail,
        Self::HostFile,
        Self::Denied,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Thrown => "thrown",
            Self::Script => "script",
            Self::FailedByScript => "failed_by_script",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::InvalidPayload => "invalid_payload",
            Self::InvalidResult => "invalid_result",
            Self::WorkerLost => "worker_lost",
            Self::Panic => "panic",
            Self::HostHttp => "host.http",
            Self::HostSql => "host.sql",
            Self::HostEmail => "host.email",
            Self::HostFile => "host.file",
            Self::Denied => "denied",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One call on the script's stack, innermost first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frame {
    pub function: String,
    pub file: String,
    /// 1-based; absent where the engine does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// Why an attempt failed, as callers see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct JobError {
    pub kind: ErrorKind,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// 1-based.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<usize>,
    /// 1-based.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<usize>,
    /// The source line with a caret under the column.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snippet: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stack: Vec<Frame>,
    /// What helps, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// Whether another attempt could end otherwise.
    pub retryable: bool,
}

impl JobError {
    /// An error without a place in a script.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>, retryable: bool) -> Self {
        Self {
            kind,
            message: message.into(),
            file: None,
            line: None,
            column: None,
            snippet: None,
            stack: Vec::new(),
            hint: None,
            retryable,
        }
    }
}

/// How one attempt ended, in the job's history.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Succeeded,
    Failed,
    Retried,
    Released,
    Lost,
    Cancelled,
}

impl Outcome {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Released => "released",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a worker tells the broker at the end of a run.
#[derive(Clone, Debug)]
pub enum RunEnd {
    /// → `succeeded`.
    Succeeded { result: Json },
    /// → `failed`, whatever attempts are left.
    Failed { error: JobError },
    /// → `scheduled`, due after `delay` by the broker's clock. The attempt counts.
    Retry { error: JobError, delay: Duration },
    /// Handed back; the attempt does not count. → `queued`, or `scheduled` when `delay` is not zero.
    Released { reason: String, delay: Duration },
    /// The run stopped because its job was cancelled. → `cancelled`.
    Cancelled,
}

impl RunEnd {
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Succeeded { .. } => Outcome::Succeeded,
            Self::Failed { .. } => Outcome::Failed,
            Self::Retry { .. } => Outcome::Retried,
            Self::Released { .. } => Outcome::Released,
            Self::Cancelled => Outcome::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_kind_is_its_json() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
