//! kill -9, of workers and of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::api::{list, outcomes, reply, text, time};
use super::{Ledger, Site, eventually, heavy};

/// How long workers are killed for. `FAULT_SECONDS` overrides it.
const DURATION: Duration = Duration::from_secs(12);
const LEASE: Duration = Duration::from_secs(3);

/// Enters in the ledger that it runs, then takes a while; every third one is busy for that while.
const SHORT: &str = r#"
const JOB = #{ timeout: "30s", allow: #{ hosts: ["127.0.0.1"] } };
fn run(job) {
    let payload = job.payload;
    http::post(`${payload.ledger}/enter/${job.id}`, "");
    if payload.n % 3 == 0 {
        let began = timestamp();
        while began.elapsed * 1000.0 < payload.ms { }
    } else {
        sleep(`${payload.ms}ms`);
    }
    payload.n
}
"#;

fn duration() -> Duration {
    match std::env::var("FAULT_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse().expect("FAULT_SECONDS is a number of seconds")),
        Err(_) => DURATION,
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_accepted_job_is_lost_and_only_jobs_in_flight_at_a_kill_run_again() {
    let _alone = heavy().await;
    let site = Site::new(&[("short", SHORT)]).set("LEASE", "3s");
    let (ledger, server) = (Ledger::open().await, site.server().await);
    let mut workers = [site.worker(), site.worker()];
    let payload = |n: u64| json!({ "n": n, "ms": 50 + n * 37 % 151, "ledger": ledger.url });
    let mut ids = vec![server.api.submit("short", &payload(0)).await];

    let began = Instant::now();
    let submit = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(25));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while began.elapsed() < duration() {
            ticks.tick().await;
            ids.push(server.api.submit("short", &payload(ids.len() as u64)).await);
        }
    };
    // Ids of killed workers, and when they were dead for certain.
    let mut killed: BTreeMap<String, i64> = BTreeMap::new();
    let kill = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.tick().await;
        for turn in 0.. {
            ticks.tick().await;
            if began.elapsed() >= duration() {
                break;
            }
            let worker = &mut workers[turn % 2];
            worker.kill();
            killed.extend(worker.worker_ids().into_iter().map(|id| (id, now())));
            *worker = site.worker();
        }
    };
    tokio::join!(submit, kill);

    let mut repeated = BTreeSet::new();
    let mut slowest = 0;
    for id in &ids {
        let job = server.api.ended(id).await;
        assert_eq!(job["state"], "succeeded", "{job:#}");
        let runs = list(&job, "attempts");
        let (last, earlier) = runs.split_last().unwrap();
        assert_eq!(last["outcome"], "succeeded", "{job:#}");
        assert_eq!((&job["lost"], &job["attempt"]), (&json!(earlier.len()), &json!(1)), "{job:#}");
        for (run, next) in earlier.iter().zip(&runs[1..]) {
            assert_eq!(run["outcome"], "lost", "{job:#}");
            // In flight at a kill: begun before it, by the worker that was killed.
            let death = killed.get(text(run, "worker_id")).unwrap_or_else(|| panic!("never killed: {job:#}"));
            assert!(time(run, "started_at") <= *death, "begun after the kill at {death}: {job:#}");
            slowest = slowest.max(time(next, "started_at") - death);
            repeated.insert(id);
        }
        // A lost run may have been killed before its entry.
        let entered = ledger.count(id);
        assert!((1..=runs.len()).contains(&entered), "ran {entered} times: {job:#}");
    }
    assert!(!repeated.is_empty(), "no kill hit a run: the test shows nothing");
    let states = server.api.states().await;
    assert_eq!(states.keys().collect::<BTreeSet<_>>(), ids.iter().collect::<BTreeSet<_>>());
    assert!(states.values().all(|states| *states == ["succeeded"]), "{states:?}");
    // Lease and sweep, and then a free slot of a live worker.
    let due = LEASE + LEASE / 6;
    assert!(
        slowest <= i64::try_from((due + Duration::from_secs(5)).as_millis()).unwrap(),
        "started again only after {slowest} ms"
    );
    eprintln!(
        "{} jobs, {} kills, {} ids repeated; started again at most {slowest} ms after the kill (lease and sweep: {due:?})",
        ids.len(),
        killed.len(),
        repeated.len(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_has_lost_nothing_that_it_accepted() {
    const CLIENTS: usize = 8;
    const KILLS: usize = 4;

    let site = Site::new(&[("echo", "const JOB = #{}; fn run(job) { job.payload }")]);
    let mut server = site.server().await;
    let mut worker = site.worker();
    server.api.submit("echo", &json!("first")).await;
    // The type stays known; without a worker, what is accepted stays.
    worker.signal("TERM");
    assert_eq!(worker.exit().await.code(), Some(0));

    // The address changes with each start.
    let (moved, address) = watch::channel(server.api.clone());
    let through = AtomicBool::new(false);
    let client = async |client: usize| {
        let mut accepted = Vec::new();
        while !through.load(Ordering::Relaxed) {
            let key = format!("client-{client}-job-{}", accepted.len());
            // A client that hears nothing asks again under the same key.
            let id = eventually("the submit is answered", async || {
                let api = address.borrow().clone();
                let submission = api.submission("echo", &json!({ "key": key })).header("Idempotency-Key", &key);
                let answer = submission.send().await.ok()?;
                assert!(answer.status() == 202 || answer.status() == 503, "{answer:?}");
                let job: Value = answer.json().await.ok()?;
                job["id"].as_str().map(str::to_owned)
            })
            .await;
            accepted.push((key, id));
        }
        accepted
    };
    let clients = futures_util::future::join_all((0..CLIENTS).map(client));
    let kill = async {
        for _ in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(200)).await;
            server.process.kill();
            server = site.server().await;
            moved.send_replace(server.api.clone());
        }
        through.store(true, Ordering::Relaxed);
    };
    let (accepted, ()) = tokio::join!(clients, kill);
    let accepted: BTreeMap<String, String> = accepted.into_iter().flatten().collect();

    let api = &server.api;
    let states = api.states().await;
    assert_eq!(states.len(), accepted.len() + 1, "one job for each key, and the first");
    for (key, id) in &accepted {
        assert_eq!(states.get(id).map(Vec::as_slice), Some(&["queued"][..]), "{key}");
        assert_eq!(api.job(id).await["payload"]["key"], **key);
    }
    // A key means the same job to another server process.
    let (key, id) = accepted.first_key_value().unwrap();
    let again = reply(api.submission("echo", &json!({ "key": key })).header("Idempotency-Key", key)).await;
    assert_eq!((again.id().as_str(), again.header("idempotency-replayed")), (id.as_str(), "true"));
    let other = reply(api.submission("echo", &json!({ "key": 0 })).header("Idempotency-Key", key)).await;
    assert_eq!(other.problem(422).0, "idempotency_key_reused");

    eprintln!("{} jobs accepted over {KILLS} kills", accepted.len());
    let _worker = site.worker();
    for (key, id) in &accepted {
        let job = api.ended(id).await;
        assert_eq!((outcomes(&job), &job["result"]["key"]), (vec!["succeeded"], &json!(key)), "{job:#}");
    }
}
