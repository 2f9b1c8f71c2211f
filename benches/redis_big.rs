//! A Redis with a backlog: a million waiting and a million delayed jobs of 100 bytes. What a claim costs then, next to an
//! empty queue, how long the longest script took, how long counts and lists take.
//!
//! `cargo bench --bench redis_big [-- JOBS]`, on a local `redis-server` of its own without persistence. Ends with exit code 1
//! when a target is missed.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::future::Future;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ryemill::broker::redis::{Namespace, RedisBroker, Target};
use ryemill::broker::{Broker, Claim, Filter, Finish, NewJob, Sweep, WorkerBeat};
use ryemill::job::time::{Clock, ManualClock, SystemClock};
use ryemill::job::{ClaimTicket, JobName, QueueName, RunEnd, State, WorkerId};
use serde_json::value::RawValue;

const BATCH: usize = 1000;
const CLAIMS: usize = 3000;
const LONG: Duration = Duration::from_hours(1);
/// Of a script, in the SLOWLOG.
const SLOW: Duration = Duration::from_millis(5);
/// Of a list and of the counts.
const LOOK: Duration = Duration::from_millis(300);

/// Number, when, µs, the command, whose.
type SlowEntry = (u64, u64, u64, Vec<Vec<u8>>, String, String);

/// Ends with this value.
struct RedisServer {
    process: Child,
    url: String,
}

impl RedisServer {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let slow = SLOW.as_micros().to_string();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--slowlog-log-slower-than", &slow, "--slowlog-max-len", "100000"])
            .stdout(Stdio::null())
            .spawn()
            .expect("a redis-server");
        let server = Self { process, url: format!("redis://127.0.0.1:{port}") };
        while redis::Client::open(server.url.as_str()).and_then(|client| client.get_connection()).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection =
            redis::Client::open(self.url.as_str()).and_then(|client| client.get_connection()).expect("a connection");
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).expect("an answer")
    }

    fn used_memory(&self) -> u64 {
        self.ask::<redis::InfoDict>(&["INFO", "memory"]).get("used_memory").expect("its memory")
    }

    /// Scripts called so far, and the processor time of all that Redis did, in µs: unlike the SLOWLOG it does not count
    /// the time in which others had the processor.
    fn work(&self) -> (f64, f64) {
        let info: redis::InfoDict = self.ask(&["INFO", "everything"]);
        let seconds = |name: &str| info.get::<f64>(name).unwrap_or_default();
        let cpu = seconds("used_cpu_user_main_thread") + seconds("used_cpu_sys_main_thread");
        let calls: Option<String> = info.get("cmdstat_evalsha");
        let calls = calls.and_then(|text| text.strip_prefix("calls=")?.split(',').next()?.parse().ok());
        (calls.unwrap_or_default(), cpu * 1e6)
    }

    /// Commands since the last call that took longer than [`SLOW`]: how long, and what they were.
    fn slow(&self) -> Vec<(u64, String)> {
        let entries: Vec<SlowEntry> = self.ask(&["SLOWLOG", "GET", "-1"]);
        self.ask::<()>(&["SLOWLOG", "RESET"]);
        entries
            .into_iter()
            .map(|(_, _, micros, words, _, _)| {
                (micros, String::from_utf8_lossy(&words.join(&b' ')).chars().take(60).collect())
            })
            .collect()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

struct Bench {
    server: RedisServer,
    broker: Arc<RedisBroker>,
    worker: WorkerId,
    /// At the end of the part before.
    work: (f64, f64),
    missed: bool,
}

fn main() {
    let jobs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let missed = runtime.block_on(async {
        let server = RedisServer::start();
        let target = Target::one(&server.url).expect("a URL");
        let broker = RedisBroker::open(target, Namespace::default(), false).await.expect("a broker");
        let mut bench =
            Bench { server, broker: Arc::new(broker), worker: WorkerId::random(), work: (0.0, 0.0), missed: false };
        bench.run(jobs).await;
        bench.missed
    });
    std::process::exit(i32::from(missed));
}

impl Bench {
    async fn run(&mut self, jobs: usize) {
        let beat =
            WorkerBeat { worker: self.worker.clone(), lease: 10 * LONG, host: String::new(), pid: 1, concurrency: 1 };
        self.broker.renew(&beat).await.expect("a lease");
        let empty = self.claims("empty queue").await;
        self.scripts("empty queue");

        let before = self.server.used_memory();
        for (what, delay) in [("waiting", Duration::ZERO), ("delayed", LONG)] {
            let (began, memory) = (Instant::now(), self.server.used_memory());
            self.fill(jobs, delay).await;
            let each = (self.server.used_memory() - memory) / jobs as u64;
            println!("{jobs} {what}: {:.0} jobs/s, {each} bytes each", jobs as f64 / began.elapsed().as_secs_f64());
        }
        println!("{} MB in all", (self.server.used_memory() - before) >> 20);
        self.scripts("submit in batches of 1000");

        let full = self.claims("backlog").await;
        self.scripts("claim and finish");
        self.held("claim p99 against the empty queue", full.as_secs_f64() / empty.as_secs_f64(), 2.0);

        self.looks().await;
        self.scripts("look");

        // All at once are due.
        let clock = Arc::new(ManualClock::at(SystemClock.now().plus(2 * LONG)));
        let later = RedisBroker::with_clock(Target::one(&self.server.url).expect("a URL"), Namespace::default(), clock);
        let (began, mut sweeps) = (Instant::now(), 0);
        while later.sweep(&Sweep { overdue: 10 * LONG, ..Sweep::default() }).await.expect("a sweep").more {
            sweeps += 1;
        }
        println!("{jobs} due at once: {:.1} s, {sweeps} sweeps", began.elapsed().as_secs_f64());
        self.scripts("all due at once");
    }

    /// Claims one job at a time and ends it; where none waits, one is submitted before. Answers the claims' p99.
    async fn claims(&self, what: &str) -> Duration {
        let mut took = Vec::new();
        for _ in 0..CLAIMS {
            self.broker.enqueue(vec![job(Duration::ZERO)]).await.expect("a place");
            let (runs, time) = timed(self.broker.claim(&self.claim(1))).await;
            let runs = runs.expect("a claim").jobs;
            assert_eq!(runs.len(), 1);
            took.push(time);
            let ends = runs.into_iter().map(|job| Finish {
                run: job.run,
                end: RunEnd::Succeeded { result: raw("null") },
                script_version: None,
                keep: LONG,
            });
            self.broker.finish(ends.collect()).await.expect("an end");
        }
        took.sort_unstable();
        let at = |percent: usize| took[took.len() * percent / 100];
        println!("claim of one, {what}: p50 {:?}, p99 {:?}, longest {:?}", at(50), at(99), took[took.len() - 1]);
        at(99)
    }

    fn claim(&self, limit: usize) -> Claim {
        Claim {
            worker: self.worker.clone(),
            ticket: ClaimTicket::random(),
            queues: vec![queue()],
            lacking: Vec::new(),
            limit,
            suspect: false,
        }
    }

    async fn fill(&self, jobs: usize, delay: Duration) {
        let mut filling = tokio::task::JoinSet::new();
        for _ in 0..jobs / BATCH {
            let broker = Arc::clone(&self.broker);
            filling.spawn(async move {
                broker.enqueue((0..BATCH).map(|_| job(delay)).collect()).await.expect("a place");
            });
            if filling.len() >= 4 {
                filling.join_next().await;
            }
        }
        filling.join_all().await;
    }

    async fn looks(&mut self) {
        let state = |state| Filter { state: Some(state), ..Filter::default() };
        let name = Some(JobName::new("noop").expect("a name"));
        let filters = [
            ("all", Filter::default()),
            ("queued", state(State::Queued)),
            ("scheduled", state(State::Scheduled)),
            ("succeeded", state(State::Succeeded)),
            ("of a name and state", Filter { name, ..state(State::Queued) }),
            ("with a tag that none has", Filter { tag: Some("none".into()), ..Filter::default() }),
        ];
        for (what, filter) in filters {
            let filter = Filter { limit: 100, ..filter };
            let (page, time) = timed(self.broker.list(&filter)).await;
            page.expect("a page");
            self.held(&format!("list, {what}, s"), time.as_secs_f64(), LOOK.as_secs_f64());
        }
        let (counts, time) = timed(self.broker.queues()).await;
        println!("{:?}", counts.expect("the counts").first());
        self.held("counts, s", time.as_secs_f64(), LOOK.as_secs_f64());
    }

    fn scripts(&mut self, what: &str) {
        let (calls, cpu) = self.server.work();
        let (calls_before, cpu_before) = std::mem::replace(&mut self.work, (calls, cpu));
        let each = (cpu - cpu_before) / (calls - calls_before).max(1.0);
        println!("  {} scripts, {each:.0} µs of processor time each", calls - calls_before);
        let mut slow = self.server.slow();
        slow.sort_unstable_by(|a, b| b.cmp(a));
        for (micros, command) in slow.iter().take(3) {
            println!("  {micros} µs: {}", command.escape_debug());
        }
        self.held(&format!("scripts over 5 ms, {what}"), slow.len() as f64, 0.0);
    }

    fn held(&mut self, what: &str, found: f64, most: f64) {
        let missed = found > most;
        self.missed |= missed;
        println!("{what}: {found:.3} (at most {most}){}", if missed { " MISSED" } else { "" });
    }
}

async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let answer = call.await;
    (answer, began.elapsed())
}

fn queue() -> QueueName {
    QueueName::new("default").expect("a name")
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).expect("JSON")
}

fn job(delay: Duration) -> NewJob {
    let payload = raw(&format!("\"{}\"", "x".repeat(98)));
    let job = NewJob::new(JobName::new("noop").expect("a name"), queue(), payload);
    NewJob { delay, timeout: LONG, ..job }
}
