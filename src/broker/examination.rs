//! What an operator is told of a broker: notes of what it is and does, and faults that were found in its records.

use serde::Serialize;

use crate::job::{JobId, QueueName};

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// It works, and the operator should know.
    Warning,
    Wrong,
}

/// One thing that was looked at, in plain words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    pub level: Level,
    /// What was looked at, in a word or two.
    pub subject: String,
    pub what: String,
    /// What to do about it; none when there is nothing to do.
    pub advice: Option<String>,
}

impl Note {
    pub fn ok(subject: &str, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), what: what.into(), advice: None }
    }

    pub fn warning(subject: &str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject: subject.into(), what: what.into(), advice: Some(advice.into()) }
    }

    pub fn wrong(subject: &str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Wrong, subject: subject.into(), what: what.into(), advice: Some(advice.into()) }
    }
}

/// What an examination of the records found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Jobs that were looked at.
    pub examined: u64,
    pub faults: Vec<RecordFault>,
    /// Queues that changed all the while, so that their counts could not be compared.
    pub uncounted: Vec<QueueName>,
}

/// One thing in which records disagree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordFault {
    /// The job that it is about, when it is about one.
    pub job: Option<JobId>,
    /// The table or key.
    pub place: String,
    pub what: String,
    pub repaired: bool,
}
