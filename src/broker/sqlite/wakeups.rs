//! Tells who waits that something has changed: at once within the process, and through a tiny file between processes.
//!
//! After each commit that others may wait for, the writer writes a few bytes into `<file>-wake`, which every process
//! watches. The log file of SQLite itself would not do: its last write comes before the commit can be seen. That a
//! wake-up is real is found by asking SQLite whether another connection has committed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use super::writer::Nudge;
use crate::broker::Topic;

const TOPICS: [Topic; 4] = [Topic::Work, Topic::Jobs, Topic::Cancel, Topic::JobTypes];

pub(super) struct Wakeups {
    topics: [watch::Sender<u64>; 4],
    /// None when it cannot be written; the others then find out by looking now and then.
    file: Option<File>,
    written: AtomicU64,
}

impl Wakeups {
    pub fn new(database: &Path) -> Self {
        let path = wake_path(database);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        if let Err(error) = &file {
            tracing::warn!(%error, path = %path.display(), "other processes will see changes late");
        }
        Self { topics: TOPICS.map(|_| watch::Sender::new(0)), file: file.ok(), written: AtomicU64::new(0) }
    }

    pub fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.topics[topic as usize].subscribe()
    }

    /// This process has committed.
    pub fn committed(&self, topics: &[Topic]) {
        if topics.is_empty() {
            return;
        }
        for topic in topics {
            self.topics[*topic as usize].send_modify(|n| *n += 1);
        }
        if let Some(mut file) = self.file.as_ref() {
            let n = self.written.fetch_add(1, Ordering::Relaxed);
            // A wake-up that is lost is made good by the others' own looking.
            drop(file.rewind().and_then(|()| file.write_all(&n.to_le_bytes())));
        }
    }

    /// Another process has committed, nobody knows what.
    pub fn changed_outside(&self) {
        for topic in &self.topics {
            topic.send_modify(|n| *n += 1);
        }
    }
}

fn wake_path(database: &Path) -> PathBuf {
    let mut path = OsString::from(database);
    path.push("-wake");
    path.into()
}

/// Watches the file for as long as it lives. None, with a warning, when the system cannot: changes of other
/// processes are then seen by looking now and then.
pub(super) fn watch(database: &Path, nudge: Nudge) -> Option<RecommendedWatcher> {
    let path = wake_path(database);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| event.kind.is_modify()) {
            nudge.look();
        }
    })
    .and_then(|mut watcher| watcher.watch(&path, RecursiveMode::NonRecursive).map(|()| watcher));
    watcher
        .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "changes of other processes come late"))
        .ok()
}
