//! The names of all keys, in one place: what the scripts know them by, what is appended, what they hold. `docs/redis.md`
//! shows this table, and a test holds the two equal.
//!
//! Everything of one queue is in one slot of a cluster (its name is the hash tag), and so is the registry of workers and
//! types; a script never touches two slots.

use crate::job::QueueName;

/// One kind of key: the name in the scripts, the suffix behind the queue's or registry's own key, what it holds.
pub(super) struct Key {
    pub name: &'static str,
    pub suffix: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "for people, and for the page that shows it"))]
    pub holds: &'static str,
}

const fn key(name: &'static str, suffix: &'static str, holds: &'static str) -> Key {
    Key { name, suffix, holds }
}

/// Keys of a queue, behind `NAMESPACE:{QUEUE}`.
pub(super) const OF_QUEUE: &[Key] = &[
    key("JOBS", ":jobs", "hash: job id (16 bytes) → input record, never changed"),
    key("STATES", ":states", "hash: job id → state record; none while a job is queued and was never claimed"),
    key("PAST", ":past", "hash: job id → ended runs, the last 100"),
    key("PROGRESS", ":progress", "hash: job id → progress as JSON"),
    key("HEADS", ":heads", "sorted set: line → score of its first job; a line is priority, kind and job name"),
    key(
        "LINE",
        ":line:",
        "+ line: the queued jobs of one priority, kind and name. Kind `f` (fresh): list of rank (8 bytes) and id; \
         `b` (came back) and `s` (suspects): sorted set of ids by rank",
    ),
    key("DUE", ":due", "sorted set: id of a scheduled job → when it is due, µs"),
    key("ACTIVE", ":running", "sorted set: id of a running job → rank"),
    key(
        "INDEX",
        ":index:",
        "+ state and job name: sorted set of ids by rank; states are 0 scheduled, 3 succeeded, 4 failed, 5 cancelled",
    ),
    key("COUNTS", ":counts", "hash: state and job name → number of jobs; 1 is queued, 2 running"),
    key("ENDED", ":ended:", "+ keep in µs: list of finished_at (8 bytes) and id, the order in which ended jobs expire"),
    key("KEEPS", ":keeps", "set: the `keep`s that there are lists of"),
    key("CLAIMS", ":claims", "hash: worker → ticket and ids of its last claim, for when the answer is lost"),
    key("BUSY", ":busy", "hash: worker → number of its runs"),
    key("LOG", ":log:", "+ job id: list of log lines"),
    key("LOGS", ":logs", "hash: job id → number of its last line, bytes, lines dropped, the last run and its lines"),
    key("FILES", ":files:", "+ job id: hash of file name → card as JSON"),
    key("BAD", ":quarantine", "hash: id → record that could not be read, with when and why (MessagePack)"),
];

/// Keys of the registry, behind `NAMESPACE:{:registry}`.
pub(super) const OF_REGISTRY: &[Key] = &[
    key("QUEUES", ":queues", "set: every queue that has or had jobs"),
    key("LEASES", ":leases", "sorted set: worker → when its lease ends, µs"),
    key("WORKERS", ":workers", "hash: worker → its card"),
    key("GONE", ":gone", "sorted set: worker whose id never comes back → when it went, µs"),
    key("MARKS", ":marks:", "+ worker: hash of job id → run that is to be cancelled"),
    key("TYPES", ":types", "hash: job name → keep of failed jobs, live version"),
    key("VERSIONS", ":versions", "hash: job name and version → the type as JSON"),
    key("LOADED", ":loaded:", "+ worker: hash of job name → loaded_at, version"),
    key("PINGED", ":pinged", "string: when somebody last tried whether Redis can be written to, µs"),
    key("RELOADS", ":reloads", "hash: worker → the request to reload that it has done; '' → the last request"),
    key("REFUSED", ":refused:", "+ worker: hash of job name → the refused version's card"),
];

/// What all keys of one Ryemill begin with.
#[derive(Clone, Debug)]
pub struct Namespace(pub(super) String);

impl Default for Namespace {
    fn default() -> Self {
        Self("ryemill".into())
    }
}

impl Namespace {
    /// Another one than `ryemill`, so that several can share a server. Letters, digits, `-`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The queue's own hash: paused, rank (of the newest job), bytes (of ended jobs), quiet (topics), quarantined.
    pub(super) fn queue(&self, queue: &QueueName) -> String {
        format!("{}:{{{queue}}}", self.0)
    }

    pub(super) fn registry(&self) -> String {
        // No queue's name has a colon.
        format!("{}:{{:registry}}", self.0)
    }

    pub(super) fn queues(&self) -> String {
        format!("{}:queues", self.registry())
    }

    pub(super) fn marks(&self, worker: &str) -> String {
        format!("{}:marks:{worker}", self.registry())
    }

    /// An idempotency key, in a slot of its own.
    pub(super) fn idempotency(&self, key: &str) -> String {
        format!("{}:key:{key}", self.0)
    }

    /// The channel of the wake-ups.
    pub(super) fn wake(&self) -> String {
        format!("{}:wake", self.0)
    }
}

/// The lines of Lua that name the keys which `source` uses.
pub(super) fn prelude(source: &str, keys: &[Key], own: &str) -> String {
    let uses = |name: &str| {
        source.match_indices(name).any(|(at, _)| {
            let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            !word(source[..at].chars().next_back()) && !word(source[at + name.len()..].chars().next())
        })
    };
    let mut lines = format!("local {own} = KEYS[1]\n");
    if uses("NAME") {
        lines += "local NAME = KEYS[1]:match('{(.*)}')\n";
    }
    if uses("WAKE") {
        lines += "local WAKE = KEYS[1]:match('^(.-):{') .. ':wake'\n";
    }
    for key in keys.iter().filter(|key| uses(key.name)) {
        lines += &format!("local {} = {own} .. '{}'\n", key.name, key.suffix);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_show_every_key() {
        let docs = include_str!("../../../docs/redis.md");
        let shown: Vec<&str> = docs.lines().filter(|line| line.starts_with("| `:")).collect();
        let row = |key: &Key| format!("| `{}` | {} |", key.suffix, key.holds);
        let table: Vec<String> = OF_QUEUE.iter().chain(OF_REGISTRY).map(row).collect();
        assert_eq!(shown, table);
    }
}
