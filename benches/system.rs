//! The whole of Ryemill at work: how many jobs a second one worker drains, how soon a job starts, and what ten thousand
//! sleeping jobs cost.
//!
//! `cargo bench --bench system [-- [redis] [JOBS]]`. A script that does nothing; payloads of 200 bytes. On the embedded broker with
//! every commit flushed (`synchronous=FULL`), or on a local `redis-server` of its own without persistence; there, what
//! a waiting job needs of its memory, and a plain cycle of list commands as a yardstick.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ryemill::broker::redis::{Namespace, RedisBroker, Target};
use ryemill::broker::sqlite::{SqliteBroker, SyncMode};
use ryemill::broker::{FileStore, NewJob, SharedBroker};
use ryemill::job::{JobName, Limits, QueueName};
use ryemill::script::library::Library;
use ryemill::script::services::{Services, ServicesOptions};
use ryemill::shutdown::Shutdown;
use ryemill::telemetry::metrics::Metrics;
use ryemill::worker::{Queues, Worker, WorkerOptions};
use serde_json::value::RawValue;

const NOOP: &str = "const JOB = #{};\nfn run(job) { () }\n";
const SLEEPER: &str = "const JOB = #{};\nfn run(job) { sleep(\"1s\"); }\n";
const BATCH: usize = 500;
const SLEEPERS: usize = 10_000;
/// Jobs a second, and for how long, when the start latency is measured.
const TRICKLE: (u32, u32) = (200, 5);

fn main() {
    let jobs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let kind = if std::env::args().any(|argument| argument == "redis") { Kind::Redis } else { Kind::Sqlite };
    runtime.block_on(async {
        if kind == Kind::Redis {
            yardstick(jobs).await;
        }
        drain(kind, jobs).await;
        latency_in_one_process(kind).await;
        latency_between_processes(kind).await;
        sleepers(kind).await;
    });
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Sqlite,
    Redis,
}

/// A Redis of this program's own, without persistence. Ends with this value.
struct RedisServer {
    process: Child,
    port: u16,
}

impl RedisServer {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a redis-server");
        let server = Self { process, port };
        while redis::Client::open(server.url()).expect("a URL").get_connection().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn used_memory(&self) -> u64 {
        let mut connection = redis::Client::open(self.url()).and_then(|c| c.get_connection()).expect("a connection");
        let info: redis::InfoDict = redis::cmd("INFO").arg("memory").query(&mut connection).expect("INFO");
        info.get("used_memory").expect("used_memory")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}

/// What Redis does here when nobody keeps any promise: a job pushed, moved to a list of running ones, and removed, pipelined.
async fn yardstick(jobs: usize) {
    let server = RedisServer::start().await;
    let mut connection = redis::Client::open(server.url()).and_then(|c| c.get_connection()).expect("a connection");
    let began = Instant::now();
    for from in (0..jobs).step_by(BATCH) {
        let mut pipe = redis::pipe();
        for n in from..(from + BATCH).min(jobs) {
            let job = format!("{n:0>200}");
            pipe.cmd("LPUSH").arg("waiting").arg(&job).ignore();
            pipe.cmd("RPOPLPUSH").arg("waiting").arg("running").ignore();
            pipe.cmd("LREM").arg("running").arg(1).arg(&job).ignore();
        }
        pipe.exec(&mut connection).expect("a pipeline");
    }
    println!("plain list commands, pipelined: {:.0} jobs/s", per_second(jobs, began.elapsed()));
}

/// A folder with a broker and scripts.
struct Place {
    folder: tempfile::TempDir,
    broker: SharedBroker,
    url: String,
    redis: Option<RedisServer>,
}

impl Place {
    async fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = folder.path().join("jobs");
        fs::create_dir(&jobs).expect("a jobs folder");
        fs::write(jobs.join("noop.rhai"), NOOP).expect("a script");
        fs::write(jobs.join("sleeper.rhai"), SLEEPER).expect("a script");
        if kind == Kind::Redis {
            let server = RedisServer::start().await;
            let url = server.url();
            let target = Target::one(&url).expect("a URL");
            let broker = RedisBroker::open(target, Namespace::default(), false).await.expect("a broker");
            return Self { folder, broker: Arc::new(broker), url, redis: Some(server) };
        }
        let broker = SqliteBroker::open(&folder.path().join("ryemill.db"), SyncMode::Full).expect("a broker");
        Self { folder, broker: Arc::new(broker), url: "sqlite:ryemill.db".into(), redis: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn worker(&self, metrics: &Arc<Metrics>) -> Worker {
        let services = ServicesOptions::default();
        Worker {
            broker: Arc::clone(&self.broker),
            library: Library::load(&self.path("jobs")).expect("a library"),
            files: FileStore::open(self.path("files")).expect("a file store"),
            data_dir: self.folder.path().to_owned(),
            services: Arc::new(Services::new(services, &tokio::runtime::Handle::current()).expect("services")),
            metrics: Arc::clone(metrics),
            options: WorkerOptions {
                concurrency: SLEEPERS,
                threads: std::thread::available_parallelism().map_or(2, usize::from),
                queues: Queues::All,
                lease: Duration::from_secs(30),
                shutdown_grace: Duration::from_secs(20),
                retain_bytes: 1 << 30,
                limits: Limits::default(),
            },
            health: None,
        }
    }

    async fn submit(&self, name: &str, count: usize) {
        let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(189));
        let queue = QueueName::new("default").expect("a name");
        let jobs = (0..count).map(|_| {
            let payload = RawValue::from_string(payload.clone()).expect("JSON");
            NewJob::new(JobName::new(name).expect("a name"), queue.clone(), payload)
        });
        self.broker.enqueue(jobs.collect()).await.expect("the jobs are stored");
    }

    async fn succeeded(&self) -> u64 {
        self.broker.queues().await.expect("counts").iter().map(|queue| queue.succeeded).sum()
    }

    /// Waits until so many jobs have succeeded.
    async fn until(&self, count: usize) {
        while self.succeeded().await < count as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A worker in this process.
struct Running {
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(place: &Place, metrics: &Arc<Metrics>) -> Self {
        let shutdown = Shutdown::new();
        let task = tokio::spawn(place.worker(metrics).run(shutdown.clone()));
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.request();
        self.task.await.expect("the worker has not panicked").expect("the worker stops well");
    }
}

fn per_second(count: usize, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for reading")]
    let rate = count as f64 / took.as_secs_f64();
    rate
}

async fn drain(kind: Kind, jobs: usize) {
    let place = Place::new(kind).await;
    let before = place.redis.as_ref().map(RedisServer::used_memory);
    let stored = Instant::now();
    for done in (0..jobs).step_by(BATCH) {
        place.submit("noop", BATCH.min(jobs - done)).await;
    }
    println!("submit in batches of {BATCH}: {:.0} jobs/s", per_second(jobs, stored.elapsed()));
    if let (Some(server), Some(before)) = (&place.redis, before) {
        println!("memory of Redis per waiting job: {} bytes", (server.used_memory() - before) / jobs as u64);
    }
    let began = Instant::now();
    let running = Running::start(&place, &Arc::new(Metrics::new()));
    place.until(jobs).await;
    println!("drain of {jobs} no-op jobs, one worker: {:.0} jobs/s", per_second(jobs, began.elapsed()));
    running.stop().await;
}

async fn trickle(place: &Place) -> usize {
    let (rate, seconds) = TRICKLE;
    let mut beat = tokio::time::interval(Duration::from_secs(1) / rate);
    for _ in 0..rate * seconds {
        beat.tick().await;
        place.submit("noop", 1).await;
    }
    (rate * seconds) as usize
}

async fn latency_in_one_process(kind: Kind) {
    let place = Place::new(kind).await;
    let metrics = Arc::new(Metrics::new());
    let running = Running::start(&place, &metrics);
    let count = trickle(&place).await;
    place.until(count).await;
    show_latency("one process", &metrics.render());
    running.stop().await;
}

async fn latency_between_processes(kind: Kind) {
    let place = Place::new(kind).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let worker = spawn_worker(&place, port, 1000);
    let metrics = format!("http://127.0.0.1:{port}/metrics");
    let client = reqwest::Client::new();
    while client.get(&metrics).send().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let count = trickle(&place).await;
    place.until(count).await;
    let text = client.get(&metrics).send().await.expect("metrics").text().await.expect("text");
    show_latency("two processes", &text);
    drop(worker);
}

/// A worker process, which ends with this value, come what may.
struct WorkerProcess(Child);

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended by itself
        let _ = self.0.wait();
    }
}

fn spawn_worker(place: &Place, port: u16, concurrency: usize) -> WorkerProcess {
    let root: &Path = place.folder.path();
    let worker = Command::new(env!("CARGO_BIN_EXE_ryemill"))
        .arg("worker")
        .current_dir(root)
        .env("BROKER_URL", &place.url)
        .env("WORKER_ADDR", format!("127.0.0.1:{port}"))
        .env("WORKER_CONCURRENCY", concurrency.to_string())
        .env("LOG_LEVEL", "warn")
        .spawn()
        .expect("a worker");
    WorkerProcess(worker)
}

/// The bucket that each percentile falls into, from the worker's own histogram.
fn show_latency(what: &str, metrics: &str) {
    let buckets: Vec<(String, f64)> = metrics
        .lines()
        .filter(|line| {
            line.starts_with("ryemill_start_latency_seconds_bucket")
                || line.starts_with("ryemill_job_start_latency_seconds_bucket")
        })
        .filter_map(|line| {
            let edge = line.split("le=\"").nth(1)?.split('"').next()?;
            Some((edge.to_owned(), line.rsplit(' ').next()?.parse().ok()?))
        })
        .collect();
    let total = buckets.last().map_or(0.0, |(_, count)| *count);
    let at = |share: f64| {
        buckets.iter().find(|(_, count)| *count >= total * share).map_or("?", |(edge, _)| edge.as_str()).to_owned()
    };
    println!(
        "start latency at {} jobs/s, {what}: p50 under {} s, p95 under {} s, p99 under {} s ({total} jobs)",
        TRICKLE.0,
        at(0.5),
        at(0.95),
        at(0.99)
    );
}

/// Ten thousand jobs that sleep a second, in a worker process of its own.
async fn sleepers(kind: Kind) {
    let place = Place::new(kind).await;
    for _ in 0..SLEEPERS / BATCH {
        place.submit("sleeper", BATCH).await;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let began = Instant::now();
    let worker = spawn_worker(&place, port, SLEEPERS);
    let status = format!("/proc/{}/status", worker.0.id());
    let mut all_started = None;
    loop {
        let queues = place.broker.queues().await.expect("counts");
        if all_started.is_none() && queues.iter().all(|queue| queue.queued == 0) {
            all_started = Some(Instant::now());
        }
        if queues.iter().map(|queue| queue.succeeded).sum::<u64>() >= SLEEPERS as u64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let after = all_started.map_or(Duration::ZERO, |at| at.elapsed());
    let peak = fs::read_to_string(status).unwrap_or_default();
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: ?").to_owned();
    println!(
        "{SLEEPERS} jobs of sleep(\"1s\"): all done {:.2} s after the last claim, {:.2} s in all, {}",
        after.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        peak.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    drop(worker);
}
