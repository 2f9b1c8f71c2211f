//! The worker, in this process: the real embedded broker, real scripts in a folder of the test's own.

mod blame;
mod ends;
mod lease;
mod life;
mod talk;
mod trouble;
mod types;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ryemill::broker::sqlite::{SqliteBroker, SyncMode};
use ryemill::broker::{FileStore, NewJob, SharedBroker, Topic};
use ryemill::config::Secret;
use ryemill::job::time::ManualClock;
use ryemill::job::{Job, JobId, JobName, Json, Limits, LogLine, QueueName};
use ryemill::script::library::Library;
use ryemill::script::services::{Services, ServicesOptions};
use ryemill::shutdown::Shutdown;
use ryemill::telemetry::metrics::Metrics;
use ryemill::worker::{Queues, Worker, WorkerOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Far longer than anything here takes; a test that waits for it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker and a jobs folder.
pub struct Site {
    pub dir: TempDir,
    pub broker: SharedBroker,
    pub library: Arc<Library>,
    pub options: WorkerOptions,
}

/// A worker in this process.
pub struct Hand {
    pub metrics: Arc<Metrics>,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Site {
    pub fn new(scripts: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let jobs = dir.path().join("jobs");
        std::fs::create_dir(&jobs).unwrap();
        for (name, source) in scripts {
            write_script(&jobs, name, source);
        }
        let broker = Arc::new(SqliteBroker::open(&dir.path().join("jobs.db"), SyncMode::Normal).unwrap());
        let library = Library::load(&jobs).unwrap();
        assert!(library.snapshot().faults.is_empty(), "{:?}", library.snapshot().faults);
        let options = WorkerOptions {
            concurrency: 100,
            threads: 2,
            queues: Queues::All,
            lease: Duration::from_secs(3),
            shutdown_grace: Duration::from_millis(300),
            retain_bytes: 1 << 30,
            limits: Limits::default(),
        };
        Self { dir, broker, library, options }
    }

    /// The same on a broker whose time a test moves.
    pub fn with_clock(scripts: &[(&str, &str)], clock: Arc<ManualClock>) -> Self {
        let mut site = Self::new(scripts);
        let path = site.dir.path().join("other.db");
        site.broker = Arc::new(SqliteBroker::open_with_clock(&path, SyncMode::Normal, clock).unwrap());
        site
    }

    pub fn jobs(&self) -> PathBuf {
        self.dir.path().join("jobs")
    }

    /// Another library, of these scripts only.
    pub fn library_of(&self, scripts: &[(&str, &str)]) -> Arc<Library> {
        let jobs = self.dir.path().join("other-jobs");
        std::fs::create_dir(&jobs).unwrap();
        for (name, source) in scripts {
            write_script(&jobs, name, source);
        }
        Library::load(&jobs).unwrap()
    }

    /// Starts a worker on the site's own broker and library.
    pub fn work(&self) -> Hand {
        self.work_with(Arc::clone(&self.broker), Arc::clone(&self.library))
    }

    pub fn work_with(&self, broker: SharedBroker, library: Arc<Library>) -> Hand {
        let metrics = Arc::new(Metrics::new());
        let options = self.options.clone();
        let worker = Worker {
            broker,
            library,
            files: FileStore::open(self.dir.path().join("files")).unwrap(),
            data_dir: self.dir.path().to_owned(),
            services: services(),
            metrics: Arc::clone(&metrics),
            options,
            health: None,
        };
        let shutdown = Shutdown::new();
        Hand { metrics, task: tokio::spawn(worker.run(shutdown.clone())), shutdown }
    }

    /// Stores jobs as the server would once their type is known.
    pub async fn submit_all(&self, jobs: Vec<NewJob>) -> Vec<JobId> {
        self.broker.enqueue(jobs).await.unwrap().into_iter().map(|job| job.id).collect()
    }

    pub async fn submit(&self, name: &str, payload: &Value) -> JobId {
        self.submit_all(vec![new_job(name, payload)]).await[0]
    }

    pub async fn get(&self, id: JobId) -> Job {
        self.broker.get(id).await.unwrap().expect("the job is there")
    }

    /// Waits until the job satisfies `test`.
    pub async fn until(&self, id: JobId, test: impl Fn(&Job) -> bool) -> Job {
        let mut changes = self.broker.changes(Topic::Jobs);
        let look = async {
            loop {
                changes.borrow_and_update();
                let job = self.get(id).await;
                if test(&job) {
                    return job;
                }
                let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
            }
        };
        if let Ok(job) = tokio::time::timeout(PATIENCE, look).await {
            return job;
        }
        panic!("not in {PATIENCE:?}: {:#?}", self.get(id).await)
    }

    pub async fn ended(&self, id: JobId) -> Job {
        self.until(id, |job| job.state.is_terminal()).await
    }

    pub async fn lines(&self, id: JobId) -> Vec<LogLine> {
        self.broker.logs(id, 0, 10_000).await.unwrap().expect("the job is there").lines
    }

    /// Waits until the job has logged a line with this text.
    pub async fn said(&self, id: JobId, text: &str) {
        let mut changes = self.broker.changes(Topic::Jobs);
        let look = async {
            loop {
                changes.borrow_and_update();
                if self.lines(id).await.iter().any(|line| line.message.contains(text)) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("the job never said {text:?}"));
    }
}

impl Hand {
    /// Asks for the stop and waits for it.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.request();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the worker stops").expect("it does not panic")
    }
}

/// With the secret `swordfish-1234`.
pub fn services() -> Arc<Services> {
    let secrets = [("token".to_owned(), Secret::new("swordfish-1234".to_owned()))].into();
    let options = ServicesOptions { secrets, ..ServicesOptions::default() };
    Arc::new(Services::new(options, &Handle::current()).unwrap())
}

pub fn write_script(jobs: &Path, name: &str, source: &str) {
    // By rename, so that no half file is ever seen.
    let aside = jobs.with_extension("new");
    std::fs::write(&aside, source).unwrap();
    std::fs::rename(&aside, jobs.join(format!("{name}.rhai"))).unwrap();
}

pub fn new_job(name: &str, payload: &Value) -> NewJob {
    let queue = QueueName::new("default").unwrap();
    let job = NewJob::new(JobName::new(name).unwrap(), queue, json(payload));
    NewJob { timeout: Duration::from_mins(1), ..job }
}

pub fn json(value: &Value) -> Json {
    serde_json::value::to_raw_value(value).unwrap()
}
