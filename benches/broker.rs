//! How many jobs per second the embedded broker does, next to a bare loop of SQLite statements in the same run.
//!
//! `cargo bench --bench broker [-- JOBS]`. Every commit is flushed to the disk (`synchronous=FULL`); the payload has 200
//! bytes; batches have 100 jobs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use rusqlite::{Connection, params};
use ryemill::broker::sqlite::{SqliteBroker, SyncMode};
use ryemill::broker::{Broker, Claim, Filter, Finish, NewJob, Run, Topic, WorkerBeat};
use ryemill::job::{ClaimTicket, JobId, JobName, Json, QueueName, RunEnd, State, WorkerId};
use serde_json::value::RawValue;

const BATCH: usize = 100;
const IN_FLIGHT: usize = 64;

fn main() {
    let jobs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(50_000);
    let folder = tempfile::tempdir().expect("a folder for the files");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");

    println!("{jobs} jobs; jobs/s, and µs of processor time a job (which a busy machine disturbs less)");
    let bare = bare(&folder.path().join("bare.db"), jobs);
    runtime.block_on(async {
        let life = life(&folder.path().join("life.db"), jobs).await;
        println!("whole life: {:.0} % of bare", 100.0 * life / bare);
        mixed(&folder.path().join("mixed.db"), jobs, 1).await;
        mixed(&folder.path().join("types.db"), jobs, 20).await;
        singles(&folder.path().join("singles.db"), jobs).await;
        latency(&folder.path().join("latency.db")).await;
        full(&folder.path().join("full.db"), jobs).await;
    });
}

/// A stretch of work, timed by the clock and by what the process used of the processors.
struct Stretch {
    started: Instant,
    used: Duration,
}

impl Stretch {
    fn start() -> Self {
        Self { used: cpu_used(), started: Instant::now() }
    }

    /// Shows the figures and gives the rate.
    #[expect(clippy::cast_precision_loss, reason = "figures for reading")]
    fn end(&self, what: &str, jobs: usize) -> f64 {
        let rate = jobs as f64 / self.started.elapsed().as_secs_f64();
        let used = cpu_used().saturating_sub(self.used).as_secs_f64() * 1e6 / jobs as f64;
        println!("  {what:<44} {rate:>9.0} {used:>8.1}");
        rate
    }
}

/// Processor time of this process, in steps of 10 ms; zero where the system does not tell.
fn cpu_used() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the name, which is in brackets: utime and stime are the 12th and 13th.
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(10 * fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>())
}

/// The least that a job's life can cost: one insert and two updates of one row.
fn bare(path: &Path, jobs: usize) -> f64 {
    let db = Connection::open(path).expect("a file");
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id BLOB UNIQUE, state INTEGER, score INTEGER, payload TEXT,
                            token INTEGER, result TEXT);
         CREATE INDEX queued ON jobs (score) WHERE state = 1;",
    )
    .expect("a table");
    println!("bare rusqlite");
    let payload = payload();
    let queue = queue();
    let whole = Stretch::start();
    let started = Stretch::start();
    let mut score = 0_i64;
    for _ in 0..jobs / BATCH {
        db.execute_batch("BEGIN IMMEDIATE").expect("begin");
        let mut insert = db
            .prepare_cached("INSERT INTO jobs (id, state, score, payload) VALUES (?1, 1, ?2, ?3)")
            .expect("a statement");
        for _ in 0..BATCH {
            score += 1;
            let id = JobId::new(&queue);
            insert.execute(params![id.as_bytes().as_slice(), score, payload.get()]).expect("insert");
        }
        drop(insert);
        db.execute_batch("COMMIT").expect("commit");
    }
    started.end("insert", jobs);
    let started = Stretch::start();
    let mut claimed = Vec::new();
    for _ in 0..jobs / BATCH {
        db.execute_batch("BEGIN IMMEDIATE").expect("begin");
        let mut first = db
            .prepare_cached("SELECT seq, payload FROM jobs WHERE state = 1 ORDER BY score LIMIT 100")
            .expect("a statement");
        let rows: Vec<(i64, String)> =
            first.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).expect("rows");
        let mut update =
            db.prepare_cached("UPDATE jobs SET state = 2, token = ?2 WHERE seq = ?1").expect("a statement");
        for (seq, _) in rows {
            update.execute([seq, 7]).expect("update");
            claimed.push(seq);
        }
        drop((first, update));
        db.execute_batch("COMMIT").expect("commit");
    }
    started.end("claim", jobs);
    let started = Stretch::start();
    for batch in claimed.chunks(BATCH) {
        db.execute_batch("BEGIN IMMEDIATE").expect("begin");
        let mut update = db
            .prepare_cached("UPDATE jobs SET state = 3, result = '{}' WHERE seq = ?1 AND token = 7")
            .expect("a statement");
        for seq in batch {
            update.execute([seq]).expect("update");
        }
        drop(update);
        db.execute_batch("COMMIT").expect("commit");
    }
    started.end("finish", jobs);
    whole.end("whole life", jobs)
}

fn queue() -> QueueName {
    QueueName::new("default").expect("a name")
}

fn payload() -> Json {
    RawValue::from_string(format!("{{\"text\":\"{}\"}}", "x".repeat(188))).expect("JSON")
}

fn job(name: &str) -> NewJob {
    NewJob::new(JobName::new(name).expect("a name"), queue(), payload())
}

fn claim(worker: &WorkerId) -> Claim {
    Claim {
        worker: worker.clone(),
        ticket: ClaimTicket::random(),
        queues: vec![queue()],
        lacking: Vec::new(),
        limit: BATCH,
        suspect: false,
    }
}

fn finish(run: Run) -> Finish {
    let result = RawValue::from_string("{\"ok\":true}".into()).expect("JSON");
    Finish { run, end: RunEnd::Succeeded { result }, script_version: None, keep: Duration::from_hours(24) }
}

async fn open(path: &Path) -> (Arc<SqliteBroker>, WorkerId) {
    let broker = SqliteBroker::open(path, SyncMode::Full).expect("a broker");
    let worker = WorkerId::random();
    let beat = WorkerBeat {
        worker: worker.clone(),
        lease: Duration::from_hours(1),
        host: "here".into(),
        pid: 1,
        concurrency: BATCH,
    };
    broker.renew(&beat).await.expect("a lease");
    (Arc::new(broker), worker)
}

/// One step after the other.
async fn life(path: &Path, jobs: usize) -> f64 {
    let (broker, worker) = open(path).await;
    println!("broker, one call at a time");
    let whole = Stretch::start();
    let started = Stretch::start();
    for _ in 0..jobs / BATCH {
        broker.enqueue((0..BATCH).map(|_| job("noop")).collect()).await.expect("enqueue");
    }
    started.end("enqueue, batches of 100", jobs);
    let started = Stretch::start();
    let mut runs = Vec::new();
    while runs.len() < jobs {
        runs.extend(broker.claim(&claim(&worker)).await.expect("claim").jobs.into_iter().map(|job| job.run));
    }
    started.end("claim, batches of 100", jobs);
    let started = Stretch::start();
    let mut runs = runs.into_iter();
    loop {
        let ends: Vec<Finish> = runs.by_ref().take(BATCH).map(finish).collect();
        if ends.is_empty() {
            break;
        }
        assert!(broker.finish(ends).await.expect("finish").iter().all(Result::is_ok));
    }
    started.end("finish, batches of 100", jobs);
    whole.end("whole life", jobs)
}

/// A producer and a worker at the same time, the jobs of `types` types.
async fn mixed(path: &Path, jobs: usize, types: usize) {
    let (broker, worker) = open(path).await;
    println!("broker, a producer and a worker at once, {types} types");
    let started = Stretch::start();
    let producer = {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            for batch in 0..jobs / BATCH {
                let batch = (0..BATCH).map(|n| job(&format!("noop{}", (batch + n) % types))).collect();
                broker.enqueue(batch).await.expect("enqueue");
            }
        })
    };
    let mut work = broker.changes(Topic::Work);
    let mut done = 0;
    let mut ends: Vec<Finish> = Vec::new();
    while done < jobs {
        let ended = ends.len();
        let wanted = claim(&worker);
        let (claimed, finished) = tokio::join!(broker.claim(&wanted), broker.finish(std::mem::take(&mut ends)));
        assert!(finished.expect("finish").iter().all(Result::is_ok));
        done += ended;
        ends = claimed.expect("claim").jobs.into_iter().map(|job| finish(job.run)).collect();
        if ends.is_empty() && ended == 0 && done < jobs {
            work.changed().await.expect("a wake-up");
        }
    }
    producer.await.expect("the producer");
    started.end("whole life, batches of up to 100", jobs);
}

async fn singles(path: &Path, jobs: usize) {
    let (broker, _) = open(path).await;
    println!("broker, single jobs, {IN_FLIGHT} in flight");
    let started = Stretch::start();
    stream::iter(0..jobs)
        .for_each_concurrent(IN_FLIGHT, |_| async {
            broker.enqueue(vec![job("noop")]).await.expect("enqueue");
        })
        .await;
    started.end("enqueue", jobs);
}

/// From a call to its answer, nothing else going on.
async fn latency(path: &Path) {
    let (broker, worker) = open(path).await;
    println!("broker, one job at a time, µs (p50, p99)");
    let mut took: [Vec<u128>; 4] = Default::default();
    for _ in 0..2000 {
        let one = job("noop");
        let id = one.id;
        let started = Instant::now();
        broker.enqueue(vec![one]).await.expect("enqueue");
        took[0].push(started.elapsed().as_micros());
        let started = Instant::now();
        let claimed = broker.claim(&claim(&worker)).await.expect("claim").jobs.remove(0);
        took[1].push(started.elapsed().as_micros());
        let started = Instant::now();
        broker.finish(vec![finish(claimed.run)]).await.expect("finish");
        took[2].push(started.elapsed().as_micros());
        let started = Instant::now();
        broker.get(id).await.expect("get").expect("the job");
        took[3].push(started.elapsed().as_micros());
    }
    for (what, times) in ["enqueue", "claim", "finish", "get"].into_iter().zip(&mut took) {
        times.sort_unstable();
        println!("  {what:<44} {:>5} {:>5}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
}

/// The same work on a file that holds many ended jobs; lists; retention.
async fn full(path: &Path, jobs: usize) {
    let (broker, worker) = open(path).await;
    println!("broker, on a file with {} ended jobs", jobs * 4);
    for _ in 0..jobs * 4 / BATCH {
        broker.enqueue((0..BATCH).map(|_| job("noop")).collect()).await.expect("enqueue");
        let claimed = broker.claim(&claim(&worker)).await.expect("claim").jobs;
        broker.finish(claimed.into_iter().map(|job| finish(job.run)).collect()).await.expect("finish");
    }
    let started = Stretch::start();
    for _ in 0..jobs / BATCH {
        broker.enqueue((0..BATCH).map(|_| job("noop")).collect()).await.expect("enqueue");
        let claimed = broker.claim(&claim(&worker)).await.expect("claim").jobs;
        broker.finish(claimed.into_iter().map(|job| finish(job.run)).collect()).await.expect("finish");
    }
    started.end("whole life", jobs);
    let filters = [
        ("list 100 of all", Filter { limit: 100, ..Filter::default() }),
        ("list 100 succeeded", Filter { limit: 100, state: Some(State::Succeeded), ..Filter::default() }),
        ("list 100 of a tag nobody has", Filter { limit: 100, tag: Some("none".into()), ..Filter::default() }),
    ];
    for (what, filter) in filters {
        let started = Instant::now();
        broker.list(&filter).await.expect("list");
        println!("  {what:<44} {:>9} µs", started.elapsed().as_micros());
    }
    let started = Stretch::start();
    let mut removed = 0;
    while removed < jobs {
        removed += broker.prune(0, 1000).await.expect("prune").len();
    }
    started.end("prune, 1000 at a time", removed);
}
