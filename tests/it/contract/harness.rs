//! What every contract test starts from: a fresh broker, a way to let its time pass, and short ways to make jobs.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use ryemill::broker::{
    Claim, ClaimedJob, Filter, Finish, LoadedType, NewJob, NewLogLine, Run, SharedBroker, Sweep, WorkerBeat,
};
use ryemill::job::time::ManualClock;
use ryemill::job::{
    ClaimTicket, ErrorKind, Job, JobError, JobId, JobName, JobSpec, JobType, Json, LogLevel, QueueName, RunEnd,
    RunToken, State, Timestamp, Version, WorkerId,
};
use serde_json::value::RawValue;

/// Long enough not to end by itself in a test, short enough to be waited for on a real clock.
pub const LEASE: Duration = Duration::from_millis(300);
/// A lease that does not matter in the test.
pub const LONG: Duration = Duration::from_hours(1);
pub const KEEP: Duration = Duration::from_hours(24);

/// A broker under test.
pub struct Harness {
    pub broker: SharedBroker,
    /// The broker's clock, when a test can move it. None: it is a server's, and tests wait.
    pub clock: Option<Arc<ManualClock>>,
    /// What the broker needs to live: a folder, a server.
    _keep: Box<dyn Any + Send + Sync>,
}

impl Harness {
    pub fn new(broker: SharedBroker, clock: Option<Arc<ManualClock>>, keep: impl Any + Send + Sync) -> Self {
        Self { broker, clock, _keep: Box::new(keep) }
    }

    /// Lets `by` pass on the broker's clock.
    pub async fn advance(&self, by: Duration) {
        match &self.clock {
            Some(clock) => clock.advance(by),
            None => tokio::time::sleep(by).await,
        }
    }

    /// Registers a worker whose lease does not end in the test.
    pub async fn worker(&self) -> WorkerId {
        self.worker_with(LONG).await
    }

    pub async fn worker_with(&self, lease: Duration) -> WorkerId {
        let worker = WorkerId::random();
        self.broker.renew(&beat(&worker, lease)).await.unwrap();
        worker
    }

    pub async fn enqueue(&self, job: NewJob) -> JobId {
        let id = job.id;
        let answers = self.broker.enqueue(vec![job]).await.unwrap();
        assert!(answers[0].created);
        id
    }

    /// Up to `limit` jobs of the queue `default`.
    pub async fn claim(&self, worker: &WorkerId, limit: usize) -> Vec<ClaimedJob> {
        self.broker.claim(&claim(worker, limit)).await.unwrap().jobs
    }

    /// The one job that a claim gives.
    pub async fn claim_one(&self, worker: &WorkerId) -> ClaimedJob {
        let mut jobs = self.claim(worker, 2).await;
        assert_eq!(jobs.len(), 1, "one job was expected");
        jobs.remove(0)
    }

    /// Ends one run, which must be current.
    pub async fn finish(&self, run: &Run, end: RunEnd) {
        let answers = self.broker.finish(vec![finish(run, end)]).await.unwrap();
        assert!(answers[0].is_ok(), "{answers:?}");
    }

    pub async fn get(&self, id: JobId) -> Job {
        self.broker.get(id).await.unwrap().expect("the job is there")
    }

    pub async fn state(&self, id: JobId) -> State {
        self.get(id).await.state
    }

    /// A job that stands in `state`, alone in a queue of its own.
    pub async fn job_in(&self, state: State, queue: &str) -> JobId {
        let mut job = NewJob { queue: queue_name(queue), ..job("email") };
        job.id = JobId::new(&job.queue);
        if state == State::Scheduled {
            job.delay = LONG;
        }
        let id = self.enqueue(job).await;
        if matches!(state, State::Scheduled | State::Queued) {
            return id;
        }
        let worker = self.worker().await;
        let wanted = Claim { queues: vec![queue_name(queue)], ..claim(&worker, 1) };
        let run = self.broker.claim(&wanted).await.unwrap().jobs.remove(0).run;
        assert_eq!(run.job, id);
        match state {
            State::Succeeded => self.finish(&run, succeeded()).await,
            State::Failed => self.finish(&run, failed()).await,
            State::Cancelled => self.finish(&run, RunEnd::Cancelled).await,
            _ => {}
        }
        assert_eq!(self.state(id).await, state);
        id
    }

    /// All that is to be seen of a job, to show that nothing has changed.
    pub async fn snapshot(&self, id: JobId) -> serde_json::Value {
        serde_json::to_value(self.get(id).await).unwrap()
    }

    /// Every job, by walking all pages.
    pub async fn all(&self, filter: Filter) -> Vec<Job> {
        let mut filter = filter;
        let mut found = Vec::new();
        loop {
            let page = self.broker.list(&filter).await.unwrap();
            found.extend(page.jobs);
            filter.cursor = page.next;
            if filter.cursor.is_none() {
                return found;
            }
        }
    }

    /// The counts of every queue are those of the jobs that are there.
    pub async fn counts_are_right(&self) {
        for queue in self.broker.queues().await.unwrap() {
            let jobs = self.all(Filter { queue: Some(queue.name.clone()), limit: 100, ..Filter::default() }).await;
            let counted = State::ALL.map(|state| jobs.iter().filter(|job| job.state == state).count() as u64);
            let shown = [queue.scheduled, queue.queued, queue.running, queue.succeeded, queue.failed, queue.cancelled];
            assert_eq!(shown, counted, "counts of {} (scheduled to cancelled)", queue.name);
        }
    }
}

pub fn queue_name(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub fn job_name(name: &str) -> JobName {
    JobName::new(name).unwrap()
}

pub fn json(text: &str) -> Json {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// A job of type `name` in the queue `default`, ready at once.
pub fn job(name: &str) -> NewJob {
    let queue = queue_name("default");
    let payload = json(r#"{"to":"ada@example.com"}"#);
    NewJob { timeout: LONG, ..NewJob::new(job_name(name), queue, payload) }
}

/// The same in another queue.
pub fn job_of(name: &str, queue: &str) -> NewJob {
    let queue = queue_name(queue);
    NewJob { id: JobId::new(&queue), queue, ..job(name) }
}

pub fn beat(worker: &WorkerId, lease: Duration) -> WorkerBeat {
    WorkerBeat { worker: worker.clone(), lease, host: "here".into(), pid: 7, concurrency: 10 }
}

/// A run of this job that is not its current one.
pub fn stale_run(id: JobId, queue: &str) -> Run {
    Run { job: id, queue: queue_name(queue), token: RunToken::random() }
}

pub fn claim(worker: &WorkerId, limit: usize) -> Claim {
    Claim {
        worker: worker.clone(),
        ticket: ClaimTicket::random(),
        queues: vec![queue_name("default")],
        lacking: Vec::new(),
        limit,
        suspect: false,
    }
}

pub fn finish(run: &Run, end: RunEnd) -> Finish {
    Finish { run: run.clone(), end, script_version: None, keep: KEEP }
}

pub fn succeeded() -> RunEnd {
    RunEnd::Succeeded { result: json("{\"ok\":true}") }
}

pub fn error(message: &str) -> JobError {
    JobError::new(ErrorKind::Thrown, message, true)
}

pub fn failed() -> RunEnd {
    RunEnd::Failed { error: error("no luck") }
}

/// A sweep that blames nobody.
pub fn sweep_with(overdue: Duration) -> Sweep {
    Sweep { overdue, blamed: Vec::new(), keep: KEEP }
}

pub fn line(text: &str) -> NewLogLine {
    NewLogLine { time: Timestamp(1_000_000), level: LogLevel::Info, message: text.into(), fields: None }
}

pub fn loaded(name: &str, version: &str) -> LoadedType {
    let job_type = JobType {
        name: job_name(name),
        version: Version::new(version).unwrap(),
        description: format!("{name} at {version}"),
        spec: JobSpec::default(),
    };
    LoadedType { job_type, replaced: None }
}

pub fn ids(jobs: &[ClaimedJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.run.job).collect()
}
