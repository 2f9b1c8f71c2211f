//! The outside of a run kept in memory: for `ryemill run` and for tests, where there is no broker.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use sha2::{Digest, Sha256};

use super::ports::{ChildJob, HostError, HostResult, RunPorts};
use crate::job::{ErrorKind, FileInfo, JobId, Json, LogLevel, QueueName};

/// What a run did to its outside.
#[derive(Debug, Default)]
pub struct Seen {
    pub logs: Vec<(LogLevel, String, Option<Json>)>,
    pub progress: Vec<(f64, String)>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub children: Vec<(JobId, ChildJob)>,
}

/// Called with each log line and progress report, as they come.
pub type Listener = Box<dyn Fn(&Note) + Send + Sync>;

/// Something a run said.
#[derive(Debug)]
pub enum Note<'a> {
    Log(LogLevel, &'a str, Option<&'a Json>),
    Progress(f64, &'a str),
}

/// Ports that remember.
pub struct MemoryPorts {
    job: JobId,
    seen: Mutex<Seen>,
    listener: Option<Listener>,
}

impl MemoryPorts {
    #[must_use]
    pub fn new(job: JobId, listener: Option<Listener>) -> Self {
        Self { job, seen: Mutex::default(), listener }
    }

    /// What the run did so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, note: &Note) {
        if let Some(listener) = &self.listener {
            listener(note);
        }
    }
}

/// The description of a file's content.
fn describe(name: &str, content: &[u8]) -> FileInfo {
    FileInfo {
        name: name.to_owned(),
        size: content.len() as u64,
        content_type: crate::job::record::content_type(name).to_owned(),
        sha256: data_encoding::HEXLOWER.encode(&Sha256::digest(content)),
    }
}

impl RunPorts for MemoryPorts {
    fn log(&self, level: LogLevel, message: String, fields: Option<Json>) {
        self.tell(&Note::Log(level, &message, fields.as_ref()));
        self.seen().logs.push((level, message, fields));
    }

    fn progress(&self, percent: f64, message: String) {
        self.tell(&Note::Progress(percent, &message));
        self.seen().progress.push((percent, message));
    }

    fn submit(&self, child: ChildJob) -> BoxFuture<'static, HostResult<JobId>> {
        // Nobody knows the child's queue here; the id is derived as everywhere.
        let queue = QueueName::new("default").expect("a valid name");
        let id = JobId::derived(self.job, &child.call, &child.name, &child.payload, &queue);
        let mut seen = self.seen();
        if seen.children.iter().all(|(known, _)| *known != id) {
            seen.children.push((id, child));
        }
        ready(Ok(id)).boxed()
    }

    fn save_file(&self, name: String, content: Vec<u8>) -> BoxFuture<'static, HostResult<FileInfo>> {
        let info = describe(&name, &content);
        self.seen().files.insert(name, content);
        ready(Ok(info)).boxed()
    }

    fn read_file(&self, name: String) -> BoxFuture<'static, HostResult<Vec<u8>>> {
        let found = self.seen().files.get(&name).cloned();
        let missing = || HostError::new(ErrorKind::HostFile, format!("this job has no file {name:?}"), false);
        ready(found.ok_or_else(missing)).boxed()
    }

    fn list_files(&self) -> BoxFuture<'static, HostResult<Vec<FileInfo>>> {
        let files = self.seen().files.iter().map(|(name, content)| describe(name, content)).collect();
        ready(Ok(files)).boxed()
    }
}
