//! Scripts that call the host library, run on real fibers against real peers.

mod arguments;
mod data;
mod memory;
mod neighbours;
mod reference;
mod web;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::runtime::{Handle, Runtime};

use crate::config::{DatabaseUrl, Mailer, Secret};
use crate::job::{JobId, JobName, Limits, Priority, QueueName, RequestId, RunToken, Timestamp};
use crate::script::context::{JobInfo, StopReason, StopSignal};
use crate::script::fiber::{RunReport, ScriptEnd};
use crate::script::library::{Library, Script};
use crate::script::memory::MemoryPorts;
use crate::script::pool::{Pool, PoolOptions, RunRequest};
use crate::script::services::{Services, ServicesOptions};

const SECRET: &str = "hunter2-and-more";

/// A process with one executor thread, an outbox, a database `sales` and a secret `api_key`.
struct Host {
    pool: Option<Pool>,
    folder: tempfile::TempDir,
}

/// A run under way.
struct Running {
    report: mpsc::Receiver<RunReport>,
    ports: Arc<MemoryPorts>,
    stop: StopSignal,
}

/// What came of a run.
struct Ran {
    end: ScriptEnd,
    ports: Arc<MemoryPorts>,
}

fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap()).handle()
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sales = folder.path().join("sales.db");
        let setup = "CREATE TABLE sale (id INTEGER PRIMARY KEY, item TEXT, price REAL);
            INSERT INTO sale VALUES (1, 'tea', 2.5), (2, 'jam', NULL);";
        rusqlite::Connection::open(&sales).unwrap().execute_batch(setup).unwrap();
        let options = ServicesOptions {
            mailer: Mailer::File(folder.path().join("outbox")),
            databases: BTreeMap::from([("sales".to_owned(), DatabaseUrl::Sqlite { path: sales })]),
            secrets: BTreeMap::from([("api_key".to_owned(), Secret::new(SECRET.to_owned()))]),
            http_allow_private: vec!["127.0.0.1/32".parse().unwrap()],
            ..ServicesOptions::default()
        };
        let services = Arc::new(Services::new(options, runtime()).unwrap());
        let pool = Pool::start(PoolOptions { threads: 1, limits: Limits::default(), services }).unwrap();
        Self { pool: Some(pool), folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `fn run(job)` with this body, which may reach everything.
    fn run(&self, body: &str) -> Ran {
        self.run_as(JobId::new(&queue()), ALLOW_ALL, body)
    }

    fn run_as(&self, id: JobId, allow: &str, body: &str) -> Ran {
        let text = format!("const JOB = #{{ timeout: \"20s\", allow: {allow} }};\nfn run(job) {{\n{body}\n}}");
        self.run_script(id, &text)
    }

    fn run_script(&self, id: JobId, text: &str) -> Ran {
        self.start(id, text).wait()
    }

    fn start(&self, id: JobId, text: &str) -> Running {
        let script = self.script(text);
        let job = JobInfo {
            id,
            name: script.job_type.name.clone(),
            queue: queue(),
            token: RunToken::random(),
            attempt: 1,
            max_attempts: 3,
            request_id: RequestId::new("request-7").unwrap(),
            created_at: Timestamp(0),
            tags: vec![],
            priority: Priority::default(),
            depth: 0,
        };
        let ports = Arc::new(MemoryPorts::new(job.id, None));
        let stop = StopSignal::new();
        let (done, report) = mpsc::channel::<RunReport>();
        self.pool.as_ref().unwrap().run(RunRequest {
            timeout: script.job_type.spec.timeout,
            script,
            job,
            payload: RawValue::from_string("{}".to_owned()).unwrap(),
            ports: ports.clone(),
            stop: stop.clone(),
            done: Box::new(move |report| {
                let _ = done.send(report);
            }),
        });
        Running { report, ports, stop }
    }

    fn script(&self, text: &str) -> Arc<Script> {
        let jobs = tempfile::tempdir_in(self.path()).unwrap();
        fs::write(jobs.path().join("probe.rhai"), text).unwrap();
        fs::create_dir(jobs.path().join("templates")).unwrap();
        fs::write(jobs.path().join("templates/hello.html"), "<p>{{ name }}: {{ items | length }}</p>\n").unwrap();
        let snapshot = Library::load(jobs.path()).unwrap().snapshot();
        let probe = JobName::new("probe").unwrap();
        let script = snapshot.scripts.get(&probe).unwrap_or_else(|| panic!("{:#?}", snapshot.faults));
        Arc::clone(script)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.shut_down();
        }
    }
}

const ALLOW_ALL: &str = r#"#{ hosts: ["127.0.0.1", "localhost"], secrets: ["api_key"], databases: ["sales"] }"#;

fn queue() -> QueueName {
    QueueName::new("default").unwrap()
}

impl Drop for Running {
    fn drop(&mut self) {
        // The host waits for all runs, also when a test has failed.
        self.stop.stop(StopReason::Cancelled);
    }
}

impl Running {
    fn wait(&self) -> Ran {
        let report = self.report.recv_timeout(Duration::from_mins(1)).expect("the run has ended");
        Ran { end: report.end, ports: Arc::clone(&self.ports) }
    }
}

impl Ran {
    fn value(&self) -> Value {
        match &self.end {
            ScriptEnd::Returned(value) => serde_json::from_str(value.get()).unwrap(),
            other => panic!("the run did not return: {other:?}"),
        }
    }

    /// Kind and message.
    fn failure(&self) -> (String, String) {
        match &self.end {
            ScriptEnd::Failed(error) => (error.kind.to_string(), error.message.clone()),
            other => panic!("the run did not fail: {other:?}"),
        }
    }
}
