//! What a running script reaches outside: its job's log, progress and files, and new jobs, all over the broker and
//! under the run's token. Knows nothing of how the script runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tracing::error;

use super::finish::RunInfo;
use super::output::Output;
use super::publish::Types;
use super::retry::while_held;
use super::{Shared, WorkerOptions};
use crate::broker::{BrokerError, NewJob};
use crate::broker::{FileError, FileName};
use crate::job::{ErrorKind, FileInfo, JobId, Json, LogLevel, Timestamp};
use crate::script::account::uncharged;
use crate::script::ports::{ChildJob, HostError, HostResult, RunPorts};

/// The ports of one run.
pub struct Ports {
    run: Arc<OneRun>,
    output: Arc<Output>,
}

/// What the futures of a run hold.
struct OneRun {
    info: Arc<RunInfo>,
    types: Arc<Types>,
    /// The job's files by name, read when first asked for: only this run changes them.
    files: Mutex<Option<BTreeMap<String, FileInfo>>>,
}

impl Ports {
    #[must_use]
    pub fn new(types: Arc<Types>, output: Arc<Output>) -> Self {
        let run = OneRun { info: Arc::clone(&output.info), types, files: Mutex::default() };
        Self { run: Arc::new(run), output }
    }
}

impl RunPorts for Ports {
    fn started(&self, at: Timestamp) {
        let info = &self.output.info;
        let latency = at.since(info.ready_at);
        self.run.shared().metrics.run_started(info.name.as_str(), info.run.queue.as_str(), latency);
    }

    fn log(&self, level: LogLevel, message: String, fields: Option<Json>) {
        uncharged(|| self.output.log(level, message, fields));
    }

    fn progress(&self, percent: f64, message: String) {
        uncharged(|| self.output.progress(percent, message));
    }

    fn submit(&self, child: ChildJob) -> BoxFuture<'static, HostResult<JobId>> {
        let run = Arc::clone(&self.run);
        async move { run.submit(child).await }.boxed()
    }

    fn save_file(&self, name: String, content: Vec<u8>) -> BoxFuture<'static, HostResult<FileInfo>> {
        let run = Arc::clone(&self.run);
        // On its own: between the record and the rename nothing may stop it, least of all the script's deadline.
        let saving = self.run.shared().runtime.spawn(async move { run.save(&name, content).await });
        async move { saving.await.unwrap_or_else(|fault| Err(panicked(&fault))) }.boxed()
    }

    fn read_file(&self, name: String) -> BoxFuture<'static, HostResult<Vec<u8>>> {
        let run = Arc::clone(&self.run);
        async move { run.read(&name).await }.boxed()
    }

    fn list_files(&self) -> BoxFuture<'static, HostResult<Vec<FileInfo>>> {
        let run = Arc::clone(&self.run);
        async move {
            let mut files = run.files.lock().await;
            Ok(run.listed(&mut files).await?.values().cloned().collect())
        }
        .boxed()
    }
}

impl OneRun {
    fn shared(&self) -> &Shared {
        self.types.shared()
    }

    async fn submit(&self, child: ChildJob) -> HostResult<JobId> {
        let Shared { broker, lease, options: WorkerOptions { limits, .. }, .. } = self.shared();
        let parent = &self.info;
        let depth = parent.depth + 1;
        if depth > limits.max_tree_depth {
            let limit = limits.max_tree_depth;
            return Err(HostError::denied(format!(
                "this job is {} generations below the one that a client submitted; {limit} are allowed",
                parent.depth
            )));
        }
        let known = self.types.find(&child.name).await.map_err(|fault| broker_error(&fault))?;
        let Some(live) = known.types.get(&child.name) else {
            return Err(child.unknown(known.types.keys().map(crate::job::JobName::as_str)));
        };
        if child.payload.len() > limits.max_payload {
            return Err(HostError::new(
                ErrorKind::InvalidPayload,
                format!("the payload has {} bytes, {} are allowed", child.payload.len(), limits.max_payload),
                false,
            ));
        }
        let invalid = |why: String| HostError::unfit(&child.name, &why);
        let payload: Value = serde_json::from_str(&child.payload).map_err(|fault| invalid(fault.to_string()))?;
        let schema = self.types.schema_of(live).map_err(invalid)?;
        let faults = schema.faults(&payload);
        if !faults.is_empty() {
            return Err(invalid(crate::job::schema::list(&faults)));
        }
        let spec = &live.job_type.spec;
        let id = JobId::derived(parent.run.job, &child.call, &child.name, &child.payload, &spec.queue);
        let job = NewJob {
            id,
            name: child.name.clone(),
            queue: spec.queue.clone(),
            payload: RawValue::from_string(child.payload).map_err(|fault| invalid(fault.to_string()))?,
            priority: child.priority.unwrap_or(spec.priority),
            delay: child.delay,
            timeout: spec.timeout,
            max_attempts: spec.max_attempts,
            tags: child.tags,
            request_id: parent.request_id.clone(),
            checked_with: Some(live.job_type.version.clone()),
            parent_id: Some(parent.run.job),
            depth,
        };
        while_held(lease, "a child job is not stored", |_| broker.enqueue(vec![job.clone()]))
            .await
            .map_err(|fault| broker_error(&fault))?;
        Ok(id)
    }

    async fn save(&self, name: &str, content: Vec<u8>) -> HostResult<FileInfo> {
        let Shared { broker, lease, files: store, options: WorkerOptions { limits, .. }, .. } = self.shared();
        let run = &self.info.run;
        let name = FileName::new(name).map_err(|fault| file_error(run.job, &fault))?;
        let mut files = self.files.lock().await;
        let files = self.listed(&mut files).await?;
        let others = || files.values().filter(|file| file.name != name.as_str());
        let count = others().count() + 1;
        if count > limits.max_files as usize {
            return Err(HostError::denied(format!("a job may have {} files", limits.max_files)));
        }
        let bytes = others().map(|file| file.size).sum::<u64>() + content.len() as u64;
        if bytes > limits.max_files_bytes {
            return Err(HostError::denied(format!(
                "the files of the job would have {bytes} bytes, {} are allowed",
                limits.max_files_bytes
            )));
        }
        let staged = store.stage(run.job, &name, content).await.map_err(|fault| file_error(run.job, &fault))?;
        let file = staged.info().clone();
        while_held(lease, "a file is not recorded", |_| broker.record_file(run, &file))
            .await
            .map_err(|fault| broker_error(&fault))?;
        let file = staged.commit().await.map_err(|fault| file_error(run.job, &fault))?;
        files.insert(file.name.clone(), file.clone());
        Ok(file)
    }

    async fn read(&self, name: &str) -> HostResult<Vec<u8>> {
        let job = self.info.run.job;
        let read = async { self.shared().files.read(job, &FileName::new(name)?).await };
        read.await.map_err(|fault| file_error(job, &fault))
    }

    /// The job's files, read when not known yet.
    async fn listed<'a>(
        &self,
        files: &'a mut Option<BTreeMap<String, FileInfo>>,
    ) -> HostResult<&'a mut BTreeMap<String, FileInfo>> {
        if files.is_none() {
            let Shared { broker, lease, .. } = self.shared();
            let job = while_held(lease, "the files of a job are not read", |_| broker.get(self.info.run.job))
                .await
                .map_err(|fault| broker_error(&fault))?;
            let listed = job.map(|job| job.files).unwrap_or_default();
            *files = Some(listed.into_iter().map(|file| (file.name.clone(), file)).collect());
        }
        Ok(files.get_or_insert_default())
    }
}

fn panicked(fault: &tokio::task::JoinError) -> HostError {
    HostError::new(ErrorKind::Panic, format!("saving the file failed: {fault}"), false)
}

/// What a script sees of a broker's refusal. A lost lease ends the run anyway.
fn broker_error(error: &BrokerError) -> HostError {
    HostError::new(ErrorKind::Thrown, error.to_string(), !matches!(error, BrokerError::Invalid(_)))
}

fn file_error(job: JobId, fault: &FileError) -> HostError {
    match fault {
        FileError::BadName { .. } | FileError::NotFound(_) => {
            HostError::new(ErrorKind::HostFile, fault.to_string(), false)
        }
        FileError::Io { source, .. } => {
            // The path is for the operator, not for whoever reads the job's error.
            error!(job_id = %job, "{fault}: {source}");
            HostError::new(ErrorKind::HostFile, format!("the file store failed: {}", source.kind()), true)
        }
    }
}
