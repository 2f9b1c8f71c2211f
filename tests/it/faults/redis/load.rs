//! A server, two workers, and a client that submits so many jobs a second. What was accepted is held against what the
//! API and the ledger say in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use crate::faults::api::{list, outcomes, reply, text, time};
use crate::faults::site::Server;
use crate::faults::{Ledger, Process, Site, eventually};

/// Submits on the way at once, at most.
const AT_ONCE: usize = 256;

/// Enters in the ledger that it runs.
const NOTED: &str = r#"
const JOB = #{ timeout: "30s", allow: #{ hosts: ["127.0.0.1"] } };
fn run(job) { http::post(`${job.payload}/enter/${job.id}`, "").body }
"#;

/// How long a fault test may go on: the jobs a second and the number of faults, of `FAULT_RATE` and `FAULT_TIMES` or these.
pub fn extent(rate: usize, times: usize) -> (usize, usize) {
    let number = |name, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    (number("FAULT_RATE", rate), number("FAULT_TIMES", times))
}

/// How much later than it was sent an acceptance may be noted here, in milliseconds.
pub const NOTED_LATE: i64 = 1000;

pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

pub struct Load {
    pub server: Server,
    pub workers: [Process; 2],
    pub ledger: Ledger,
    /// Ids and when their acceptance came, in milliseconds since 1970.
    accepted: Mutex<BTreeMap<String, i64>>,
    refused: AtomicUsize,
    _site: Site,
}

impl Load {
    /// On the broker of this URL.
    pub async fn on(broker: &str) -> Self {
        let site = Site::new(&[("noted", NOTED)])
            .set("LEASE", "3s")
            .set("BROKER_URL", broker)
            .set("LOG_LEVEL", "warn,ryemill::cli=info");
        let (ledger, server) = (Ledger::open().await, site.server().await);
        let workers = [site.worker(), site.worker()];
        let load =
            Self { server, workers, ledger, accepted: Mutex::default(), refused: AtomicUsize::new(0), _site: site };
        let first = load.server.api.submit("noted", &json!(load.ledger.url)).await;
        load.server.api.ended(&first).await;
        eventually("both workers are there", async || {
            let workers = load.server.api.get("/v1/workers").await;
            (list(&workers, "workers").len() == 2).then_some(())
        })
        .await;
        load.note(first);
        load
    }

    fn note(&self, id: String) {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(id, now());
    }

    pub fn accepted(&self) -> BTreeMap<String, i64> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Submits that were not accepted.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Submits `rate` jobs a second until `faults` is through.
    pub async fn during(&self, rate: usize, faults: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (began, mut sent, mut under_way) = (Instant::now(), 0, FuturesUnordered::new());
        tokio::pin!(faults);
        loop {
            tokio::select! {
                () = &mut faults => break,
                Some(()) = under_way.next() => {}
                _ = ticks.tick() => {
                    let due = usize::try_from(began.elapsed().as_millis()).unwrap() * rate / 1000;
                    while sent < due && under_way.len() < AT_ONCE {
                        under_way.push(self.submit());
                        sent += 1;
                    }
                    // What could not be sent is not caught up with.
                    sent = due;
                }
            }
        }
        while under_way.next().await.is_some() {}
    }

    async fn submit(&self) {
        let request = self.server.api.submission("noted", &json!(self.ledger.url)).timeout(Duration::from_secs(20));
        let answer = request.send().await.expect("the server answers");
        if answer.status() == 202 {
            let job: Value = answer.json().await.unwrap();
            self.note(text(&job, "id").to_owned());
        } else {
            assert_eq!(answer.status(), 503);
            assert!(answer.headers().contains_key("retry-after"));
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until each of the two workers has begun a new run.
    pub async fn goes_on(&self) {
        let from = now();
        eventually("new jobs are run by both workers", async || {
            let newest = reply(self.server.api.request(Method::GET, "/v1/jobs?limit=100")).await;
            if newest.status != 200 {
                return None;
            }
            let newest = newest.json();
            let jobs = list(&newest, "jobs").iter();
            let jobs = jobs.map(|job| (text(job, "id").to_owned(), job.clone())).collect();
            (Self::resumed(&jobs, from).len() >= 2).then_some(())
        })
        .await;
    }

    /// Waits until the broker knows again what both workers have loaded.
    pub async fn known_again(&self) {
        eventually("both workers have told their types", async || {
            let known = reply(self.server.api.request(Method::GET, "/v1/job-types/noted")).await;
            (known.status == 200 && list(&known.json(), "workers").len() == 2).then_some(())
        })
        .await;
    }

    /// Every job when all have ended, by id.
    pub async fn ended(&mut self) -> BTreeMap<String, Value> {
        let api = &self.server.api;
        eventually("every job ends", async || {
            let queues = api.get("/v1/queues").await;
            let open = |queue: &Value| ["scheduled", "queued", "running"].iter().any(|state| queue[state] != 0);
            (!list(&queues, "queues").iter().any(open)).then_some(())
        })
        .await;
        let (mut jobs, mut cursor) = (BTreeMap::new(), String::new());
        loop {
            let page = api.get(&format!("/v1/jobs?limit=1000{cursor}")).await;
            for job in list(&page, "jobs") {
                assert!(jobs.insert(text(job, "id").to_owned(), job.clone()).is_none(), "listed twice: {job:#}");
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        for worker in &mut self.workers {
            assert!(worker.is_running());
        }
        assert!(self.server.process.is_running());
        jobs
    }

    /// What must be so after all: each job has succeeded, once, and has told the ledger so. Answers the accepted ids that
    /// are not there, with when they were accepted.
    pub async fn settle(&mut self) -> BTreeMap<String, i64> {
        let (jobs, counts) = (self.ended().await, self.ledger.counts());
        for (id, job) in &jobs {
            assert_eq!(job["state"], "succeeded", "{job:#}");
            let runs = outcomes(job);
            assert_eq!(runs.iter().filter(|outcome| **outcome == "succeeded").count(), 1, "{job:#}");
            assert_eq!(runs.last(), Some(&"succeeded"), "{job:#}");
            let entered = counts.get(id).copied().unwrap_or_default();
            assert!(entered >= 1, "never ran: {job:#}");
        }
        let states = self.server.api.states().await;
        assert_eq!(states.keys().collect::<BTreeSet<_>>(), jobs.keys().collect::<BTreeSet<_>>());
        assert!(states.values().all(|states| *states == ["succeeded"]));
        self.accepted().into_iter().filter(|(id, _)| !jobs.contains_key(id)).collect()
    }

    /// How long after `from` each of the two workers has begun a run.
    pub fn resumed(jobs: &BTreeMap<String, Value>, from: i64) -> Vec<i64> {
        let mut first: BTreeMap<&str, i64> = BTreeMap::new();
        for run in jobs.values().flat_map(|job| list(job, "attempts")) {
            let began = time(run, "started_at") - from;
            if began >= 0 {
                let best = first.entry(text(run, "worker_id")).or_insert(began);
                *best = began.min(*best);
            }
        }
        first.into_values().collect()
    }
}
