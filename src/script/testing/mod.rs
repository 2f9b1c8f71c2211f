//! Runs the tests of scripts: each `fn test_…()` of a `NAME.test.rhai` alone, on a fiber of its own, with mocks where
//! calls would leave the process and a clock on which sleeping costs nothing.
//!
//! Jobs run by a test run on a pool of their own whose engine, limits and host functions are those of a worker.

mod functions;
mod job;
mod same;
mod stage;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::runtime::Handle;

pub use self::functions::REFERENCE;
#[cfg(test)]
pub use self::functions::registered;
use self::stage::Stage;
use super::context::{JobInfo, StopSignal};
use super::fiber::ScriptEnd;
use super::library::{Script, Snapshot, TestFile};
use super::memory::MemoryPorts;
use super::pool::{Pool, PoolOptions, RunRequest};
use super::services::{Services, ServicesOptions};
use crate::config::{Mailer, Secret};
use crate::job::time::SystemClock;
use crate::job::{Clock, ErrorKind, JobError, JobId, Limits, LogLevel, RequestId, RunToken};

/// A test's jobs must be over this long before it, so that it can tell where in the job its time went; or a tenth of its
/// time if that is less.
const GRACE: Duration = Duration::from_millis(500);

/// What tests run with. Nothing in it leads out of the process.
#[derive(Clone, Debug)]
pub struct TestOptions {
    /// Real time for one test, its jobs included.
    pub timeout: Duration,
    pub limits: Limits,
    pub mail_from: String,
    /// Where services do their work.
    pub runtime: Handle,
}

/// How one test ended.
#[derive(Clone, Debug)]
pub struct TestEnd {
    /// `email::test_sends_mail`.
    pub name: String,
    /// None when it passed.
    pub failure: Option<JobError>,
    pub duration: Duration,
    /// What the test itself printed.
    pub logs: Vec<(LogLevel, String)>,
}

/// Runs one test of a file. Blocks.
#[must_use]
pub fn run_test(snapshot: &Arc<Snapshot>, file: &TestFile, test: &str, options: &TestOptions) -> TestEnd {
    let begun = std::time::Instant::now();
    let script = file.script(test, options.timeout);
    let ports = Arc::new(MemoryPorts::new(JobId::new(&script.job_type.spec.queue), None));
    let failure = run(snapshot, &script, &ports, options).unwrap_or_else(|error| {
        Some(JobError::new(ErrorKind::Panic, format!("the test could not be run: {error:#}"), false))
    });
    let logs = ports.seen().logs.iter().map(|(level, message, _)| (*level, message.clone())).collect();
    TestEnd { name: format!("{}::{test}", file.name), failure, duration: begun.elapsed(), logs }
}

fn run(
    snapshot: &Arc<Snapshot>,
    script: &Arc<Script>,
    ports: &Arc<MemoryPorts>,
    options: &TestOptions,
) -> anyhow::Result<Option<JobError>> {
    let stage = Stage::new(Arc::clone(snapshot), options);
    // The test itself has no secrets: nothing of what it prints is to be hidden.
    let services = |snapshot: &Snapshot| services(snapshot, &stage, options).map_err(anyhow::Error::msg);
    stage.use_services(services(snapshot)?);
    let services = services(&Snapshot::default())?;
    let on_stage = Arc::clone(&stage);
    let pool = PoolOptions { threads: 1, limits: options.limits.clone(), services };
    let pool = Pool::start_with(pool, move || functions::engine(&on_stage))?;
    let (done, ended) = mpsc::channel();
    pool.run(RunRequest {
        job: JobInfo { max_attempts: 1, ..info(script, 1, SystemClock.now()) },
        script: Arc::clone(script),
        payload: RawValue::from_string("null".to_owned())?,
        timeout: script.job_type.spec.timeout,
        ports: Arc::new(stage::TestPorts::of_test(Arc::clone(ports), Arc::clone(&stage))),
        stop: StopSignal::new(),
        done: Box::new(move |report| {
            let _ = done.send(report); // the receiver waits
        }),
    });
    let report = ended.recv();
    pool.shut_down();
    stage.close();
    Ok(match report?.end {
        ScriptEnd::Returned(_) => None,
        // What a test returns is nobody's business.
        ScriptEnd::Failed(error) if error.kind == ErrorKind::InvalidResult => None,
        ScriptEnd::Failed(error) | ScriptEnd::RetryIn { error, .. } => Some(error),
        ScriptEnd::Stopped(reason) => Some(JobError::new(ErrorKind::Panic, format!("stopped: {reason:?}"), false)),
        ScriptEnd::NotStarted(why) => Some(JobError::new(ErrorKind::Panic, why, false)),
    })
}

/// Who a run is that no broker knows.
#[must_use]
pub fn info(script: &Script, attempt: u32, created_at: crate::job::Timestamp) -> JobInfo {
    let spec = &script.job_type.spec;
    JobInfo {
        id: JobId::new(&spec.queue),
        name: script.job_type.name.clone(),
        queue: spec.queue.clone(),
        token: RunToken::random(),
        attempt,
        max_attempts: spec.max_attempts,
        request_id: RequestId::random(),
        created_at,
        tags: Vec::new(),
        priority: spec.priority,
        depth: 0,
    }
}

/// Services that answer from the stage. Every secret that a script may read has a value that is none.
fn services(snapshot: &Snapshot, stage: &Arc<Stage>, options: &TestOptions) -> Result<Arc<Services>, String> {
    let names = snapshot.scripts.values().flat_map(|script| &script.job_type.spec.allow.secrets);
    let secrets: BTreeMap<_, _> =
        names.map(|name| (name.clone(), Secret::new(format!("test-secret-{name}")))).collect();
    let services = ServicesOptions {
        mailer: Mailer::File("never-written".into()),
        mail_from: options.mail_from.clone(),
        secrets,
        ..ServicesOptions::default()
    };
    let edge: Arc<dyn super::services::edge::Edge> = Arc::clone(stage) as _;
    Ok(Arc::new(Services::new(services, &options.runtime)?.with_edge(&edge)))
}
