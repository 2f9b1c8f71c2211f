//! A pool of executor threads and scripts given as text.

use std::fs;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use ryemill::job::{ErrorKind, JobError, JobId, JobName, Limits, Priority, QueueName, RequestId, RunToken, Timestamp};
use ryemill::script::context::{JobInfo, StopSignal};
use ryemill::script::fiber::{RunReport, ScriptEnd};
use ryemill::script::library::{Library, Script};
use ryemill::script::memory::MemoryPorts;
use ryemill::script::pool::{Pool, PoolOptions, RunRequest};
use ryemill::script::services::{Services, ServicesOptions};
use serde_json::Value;

pub struct Harness {
    pub pool: Pool,
}

/// A run under way.
pub struct Running {
    pub ports: Arc<MemoryPorts>,
    pub stop: StopSignal,
    report: mpsc::Receiver<RunReport>,
}

impl Harness {
    pub fn new(threads: usize) -> Self {
        Self::with(threads, ServicesOptions::default())
    }

    pub fn with(threads: usize, options: ServicesOptions) -> Self {
        let options = PoolOptions { threads, limits: Limits::default(), services: services(options) };
        Self { pool: Pool::start(options).unwrap() }
    }

    pub fn start(&self, script: &Arc<Script>, payload: &str) -> Running {
        let queue = QueueName::new("default").unwrap();
        let job = JobInfo {
            id: JobId::new(&queue),
            name: script.job_type.name.clone(),
            queue,
            token: RunToken::random(),
            attempt: 1,
            max_attempts: 3,
            request_id: RequestId::random(),
            created_at: Timestamp(0),
            tags: vec![],
            priority: Priority::default(),
            depth: 0,
        };
        let ports = Arc::new(MemoryPorts::new(job.id, None));
        let stop = StopSignal::new();
        let (done, report) = mpsc::channel();
        self.pool.run(RunRequest {
            timeout: script.job_type.spec.timeout,
            script: Arc::clone(script),
            job,
            payload: serde_json::value::RawValue::from_string(payload.to_owned()).unwrap(),
            ports: ports.clone(),
            stop: stop.clone(),
            done: Box::new(move |report| {
                let _ = done.send(report);
            }),
        });
        Running { ports, stop, report }
    }

    /// Runs the script beside another that sleeps, 20 times 10 ms, and has to come to its end. An abuse that is stopped
    /// takes a second and all others end by themselves: the bound is far beyond what a busy machine makes of that.
    pub fn beside_a_neighbour(&self, what: &str, abuse: &Arc<Script>) -> ScriptEnd {
        let sleeps = "const JOB = #{ timeout: \"60s\" };\nfn run(job) { for i in 0..20 { sleep(\"10ms\"); } 42 }";
        let begun = Instant::now();
        let neighbour = self.start(&script(sleeps), "{}");
        let end = self.start(abuse, "{}").wait().end;
        assert_eq!(returned(&neighbour.wait()), 42, "beside {what}");
        assert!(begun.elapsed() < Duration::from_secs(50), "{what}: {:?}", begun.elapsed());
        end
    }

    /// Runs `fn run(job)` with this body.
    pub fn body(&self, body: &str) -> RunReport {
        self.start(&script(&format!("const JOB = #{{ timeout: \"60s\" }};\nfn run(job) {{\n{body}\n}}")), "{}").wait()
    }
}

impl Running {
    pub fn wait(&self) -> RunReport {
        self.report.recv_timeout(Duration::from_mins(3)).expect("the run has ended")
    }

    pub fn has_ended(&self) -> bool {
        !matches!(self.report.try_recv(), Err(mpsc::TryRecvError::Empty))
    }
}

pub fn services(options: ServicesOptions) -> Arc<Services> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap());
    Arc::new(Services::new(options, runtime.handle()).unwrap())
}

/// The timeout of a script that is to end with one of these kinds of error: short where that is the timeout, and else so
/// long that no busy machine reaches it.
pub fn timeout_for(kinds: &[ErrorKind]) -> &'static str {
    if kinds.contains(&ErrorKind::Timeout) { "1s" } else { "60s" }
}

/// A whole script from its text.
pub fn script(text: &str) -> Arc<Script> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("probe.rhai"), text).unwrap();
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    let probe = JobName::new("probe").unwrap();
    match snapshot.scripts.get(&probe) {
        Some(script) => Arc::clone(script),
        None => panic!("the script has faults:\n{:#?}", snapshot.faults),
    }
}

pub fn returned(report: &RunReport) -> Value {
    match &report.end {
        ScriptEnd::Returned(value) => serde_json::from_str(value.get()).unwrap(),
        other => panic!("the run did not return: {other:?}"),
    }
}

pub fn failed(report: &RunReport) -> &JobError {
    match &report.end {
        ScriptEnd::Failed(error) => error,
        other => panic!("the run did not fail: {other:?}"),
    }
}
