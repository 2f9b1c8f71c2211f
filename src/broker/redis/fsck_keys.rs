//! The keys that there are, by SCAN on every master: what no index names is only found so.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Cmd, Value};

use super::reply::{bytes, list, parts, text};
use super::{Inner, check, named_queue};
use crate::broker::Result;
use crate::job::QueueName;

/// Keys that one call looks at.
const AT_ONCE: usize = 1000;

/// The keys of one queue whose names are not fixed, without what they begin with.
#[derive(Default)]
pub(super) struct OfQueue {
    pub lines: BTreeSet<String>,
    pub indexes: BTreeSet<String>,
    pub ended: BTreeSet<String>,
    /// Ids of jobs.
    pub logs: Vec<Vec<u8>>,
    pub files: Vec<Vec<u8>>,
}

impl OfQueue {
    /// The end of each key, and the type that it must have. Of logs and files there is one for each job; their verbs say it.
    pub fn expected(&self) -> Vec<(String, &'static str)> {
        let hashes =
            ["", ":jobs", ":states", ":past", ":progress", ":counts", ":claims", ":busy", ":logs", ":quarantine"];
        let mut all: Vec<(String, &'static str)> = hashes.iter().map(|end| ((*end).to_owned(), "hash")).collect();
        all.extend([":heads", ":due", ":running"].iter().map(|end| ((*end).to_owned(), "zset")));
        all.push((":keeps".into(), "set"));
        all.extend(self.lines.iter().map(|line| {
            (format!(":line:{line}"), if line.as_bytes().get(1) == Some(&b'f') { "list" } else { "zset" })
        }));
        all.extend(self.indexes.iter().map(|index| (format!(":index:{index}"), "zset")));
        all.extend(self.ended.iter().map(|keep| (format!(":ended:{keep}"), "list")));
        all
    }
}

/// The masters of a cluster by their addresses; of one server none is needed.
async fn masters(inner: &Inner) -> Result<Vec<Option<String>>> {
    let mut info = Cmd::new();
    info.arg("INFO");
    let Value::Map(nodes) = inner.link.command(&info, "INFO").await? else { return Ok(vec![None]) };
    let mut found = Vec::new();
    for (address, info) in nodes {
        if check::answers(info).iter().any(|info| check::field(info, "role") == "master") {
            found.push(Some(text(&address)?.to_owned()));
        }
    }
    Ok(found)
}

#[derive(Default)]
pub(super) struct Keys {
    pub queues: BTreeMap<QueueName, OfQueue>,
}

impl Keys {
    pub async fn read(inner: &Inner) -> Result<Self> {
        let mut keys = Self::default();
        let begin = format!("{}:{{", inner.names.0);
        for master in masters(inner).await? {
            let mut cursor = "0".to_owned();
            loop {
                let mut scan = Cmd::new();
                scan.arg("SCAN").arg(&cursor).arg("MATCH").arg(format!("{begin}*")).arg("COUNT").arg(AT_ONCE);
                let [next, found] = parts(inner.link.command_on(master.as_deref(), &scan, "SCAN").await?)?;
                for key in list(found)? {
                    if let Some(rest) = bytes(&key)?.strip_prefix(begin.as_bytes()) {
                        keys.sort_in(rest);
                    }
                }
                text(&next)?.clone_into(&mut cursor);
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(keys)
    }

    /// Takes in one key, from the queue's name on.
    fn sort_in(&mut self, key: &[u8]) {
        let Some(end) = key.iter().position(|byte| *byte == b'}') else { return };
        let Some(queue) = std::str::from_utf8(&key[..end]).ok().and_then(named_queue) else { return };
        let of = self.queues.entry(queue).or_default();
        let rest = &key[end + 1..];
        if let Some(id) = rest.strip_prefix(b":log:") {
            of.logs.push(id.to_owned());
        } else if let Some(id) = rest.strip_prefix(b":files:") {
            of.files.push(id.to_owned());
        }
        let Ok(rest) = std::str::from_utf8(rest) else { return };
        for (begin, set) in [(":line:", &mut of.lines), (":index:", &mut of.indexes), (":ended:", &mut of.ended)] {
            set.extend(rest.strip_prefix(begin).map(str::to_owned));
        }
    }
}
