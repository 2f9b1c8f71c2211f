//! What a Redis must be before jobs are given to it.

use redis::{Cmd, Value};

use super::link::Link;
use crate::broker::{BrokerError, Result};

pub(super) const OLDEST: (u32, u32) = (7, 0);

/// Refuses a server that is too old, or that may throw jobs away.
pub(super) async fn server(link: &Link, allow_eviction: bool) -> Result<()> {
    let mut info = Cmd::new();
    info.arg("INFO");
    for info in answers(link.command(&info, "INFO").await?) {
        let version = field(&info, "redis_version");
        if is_too_old(version) {
            return Err(BrokerError::Unavailable(format!(
                "this Redis is version {version}, and Ryemill needs {}.{} or newer",
                OLDEST.0, OLDEST.1
            )));
        }
        let policy = field(&info, "maxmemory_policy");
        if policy != "noeviction" && !allow_eviction {
            return Err(BrokerError::Unavailable(format!(
                "this Redis throws keys away when its memory is full (maxmemory-policy is {policy}), so jobs would be lost: \
                 set `maxmemory-policy noeviction` there, or ALLOW_EVICTION=yes here if that may happen"
            )));
        }
        if policy != "noeviction" {
            tracing::warn!(
                "Redis throws keys away when its memory is full (maxmemory-policy is {policy}): jobs may be lost"
            );
        }
    }
    Ok(())
}

/// One line of an answer to INFO; empty when it is not there.
pub(super) fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
}

pub(super) fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST
}

/// The texts of one server, or of each node of a cluster.
pub(super) fn answers(value: Value) -> Vec<String> {
    match value {
        Value::BulkString(bytes) => vec![String::from_utf8_lossy(&bytes).into_owned()],
        Value::VerbatimString { text, .. } => vec![text],
        Value::Map(nodes) => nodes.into_iter().flat_map(|(_, info)| answers(info)).collect(),
        Value::Array(nodes) => nodes.into_iter().flat_map(answers).collect(),
        _ => Vec::new(),
    }
}
