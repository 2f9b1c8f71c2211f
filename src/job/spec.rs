//! What a script says of itself in `const JOB`, as plain data: made by the script library, published to the broker,
//! read by the server.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::id::{JobName, QueueName, Version};
use super::record::Priority;
use super::retry::Backoff;

/// How long ended jobs are kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Keep {
    pub succeeded: Duration,
    /// For failed and cancelled jobs.
    pub failed: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self { succeeded: Duration::from_secs(DAY), failed: Duration::from_secs(14 * DAY) }
    }
}

/// What a script may reach; empty means nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Allow {
    /// Host names for `http`: exact (`api.example.com`), with a port (`localhost:8080`), or below (`*.example.com`).
    pub hosts: Vec<String>,
    /// Lower-case names for `secret(name)`.
    pub secrets: Vec<String>,
    /// Lower-case names for `sql`.
    pub databases: Vec<String>,
}

/// `const JOB`, with every default filled in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    pub queue: QueueName,
    pub priority: Priority,
    pub timeout: Duration,
    /// The total, the first attempt included; at least 1.
    pub max_attempts: u32,
    pub backoff: Backoff,
    /// Bytes.
    pub memory: u64,
    /// JSON Schema 2020-12; `true` when the script gives none.
    pub schema: Value,
    pub examples: Vec<Value>,
    pub keep: Keep,
    pub allow: Allow,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            queue: QueueName::new("default").expect("a valid name"),
            priority: Priority::default(),
            timeout: Duration::from_secs(300),
            max_attempts: 3,
            backoff: Backoff::default(),
            memory: 64 << 20,
            schema: Value::Bool(true),
            examples: Vec::new(),
            keep: Keep::default(),
            allow: Allow::default(),
        }
    }
}

/// One version of a job type, as published.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct JobType {
    pub name: JobName,
    pub version: Version,
    /// The script's `//!` text.
    pub description: String,
    pub spec: JobSpec,
}
