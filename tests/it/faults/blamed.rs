//! Who pays for a crash: only the jobs that were on a CPU when their worker died. The natives that bring a worker down are
//! there for these tests only (`src/script/api/trial.rs`).

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use super::api::{Api, list, outcomes, text};
use super::{Ledger, Process, Site, eventually, heavy};

/// The tests below, on a broker that says where it is.
macro_rules! on {
    ($name:ident, $broker:expr) => {
        mod $name {
            on! { $broker,
                a_job_that_aborts_its_worker_fails_and_takes_none_of_the_others_with_it
                without_the_file_it_is_found_among_the_suspects
                two_workers_share_a_folder_and_charge_for_each_other
                a_native_on_a_blocking_thread_is_charged_to_its_job
                a_job_that_wedges_its_thread_is_charged
                kill_9_is_charged_to_who_was_on_a_cpu
            }
        }
    };
    ($broker:expr, $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let broker = $broker;
                super::$test(&broker.url()).await;
            }
        )*
    };
}

on!(sqlite, super::Embedded("sqlite:data/ryemill.db"));
on!(redis, crate::redis::RedisServer::start(&[]).await);

struct Embedded(&'static str);

impl Embedded {
    fn url(&self) -> String {
        self.0.to_owned()
    }
}

const SLEEPERS: usize = 500;

/// Says that it runs, then sleeps, unless it is told that all is over.
const SLEEPER: &str = r#"
const JOB = #{ timeout: "30m", allow: #{ hosts: ["127.0.0.1"] } };
fn run(job) {
    http::post(`${job.payload}/enter/${job.id}`, "");
    if http::post(`${job.payload}/is-open/end`, "").body == "false" { sleep("20m") }
}
"#;

/// Waits for its turn, then does what the payload says.
const KILLER: &str = r#"
const JOB = #{ timeout: "30m", allow: #{ hosts: ["127.0.0.1"] } };
fn run(job) {
    let payload = job.payload;
    let nth = http::post(`${payload.ledger}/enter/killer`, "").body;
    http::request(#{ method: "POST", url: `${payload.ledger}/gate/${nth}`, timeout: "5m" });
    switch payload.how {
        "abort" => test_abort(),
        "abort computing" => test_abort_computing(),
        "wedge" => test_wedge(),
        "busy" => loop { },
    }
}
"#;

/// A site with a ledger and a server.
struct Scene {
    _server: Process,
    api: Api,
    ledger: Ledger,
    site: Site,
}

impl Scene {
    async fn set(broker_url: &str) -> Self {
        let site = Site::new(&[("sleeper", SLEEPER), ("killer", KILLER)])
            .set("BROKER_URL", broker_url)
            .set("LEASE", "3s")
            .set("SHUTDOWN_GRACE", "1s")
            .set("WORKER_THREADS", "2")
            .set("RYEMILL_TEST_NATIVES", "yes");
        let (ledger, server) = (Ledger::open().await, site.server().await);
        Self { site, ledger, api: server.api, _server: server.process }
    }

    /// Submits the killer, then the sleepers. Their ids.
    async fn submit(&self, how: &str, sleepers: usize) -> (String, Vec<String>) {
        let killer = self.api.submit("killer", &json!({ "ledger": self.ledger.url, "how": how })).await;
        self.api.submit("sleeper", &json!(self.ledger.url)).await;
        let batch: Vec<Value> =
            (1..sleepers).map(|_| json!({ "name": "sleeper", "payload": self.ledger.url })).collect();
        let batch = json!({ "jobs": batch });
        let reply = super::api::reply(self.api.request(reqwest::Method::POST, "/v1/jobs/batch").json(&batch)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let page = self.api.get("/v1/jobs?name=sleeper&limit=1000").await;
        let ids: Vec<String> = list(&page, "jobs").iter().map(|job| text(job, "id").to_owned()).collect();
        assert_eq!(ids.len(), sleepers);
        (killer, ids)
    }

    /// Waits until each of these has started so many times, and the killer, which then is at the gate of that number.
    async fn started(&self, sleepers: &[String], times: usize, killer: usize) {
        self.ledger.entered("killer", killer).await;
        eventually("every sleeper has started", async || {
            let counts = self.ledger.counts();
            sleepers.iter().all(|id| counts.get(id).is_some_and(|count| *count >= times)).then_some(())
        })
        .await;
    }

    fn open(&self, killer: usize) {
        self.ledger.open_gate(&killer.to_string());
    }

    /// Nobody but the killer has paid for anything.
    async fn all_succeed(&self, sleepers: &[String], losses: std::ops::RangeInclusive<u64>) {
        for id in sleepers {
            let job = self.api.ended(id).await;
            let (last, earlier) = list(&job, "attempts").split_last().unwrap();
            assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job:#}");
            assert_eq!(last["outcome"], "succeeded", "{job:#}");
            let unburned = |attempt: &Value| ["lost", "released"].contains(&text(attempt, "outcome"));
            assert!(earlier.iter().all(unburned), "{job:#}");
            assert!(losses.contains(&job["lost"].as_u64().unwrap()), "{job:#}");
        }
    }

    /// The job has failed because of so many losses.
    async fn fails_after(&self, killer: &str, losses: usize) {
        let job = self.api.ended(killer).await;
        assert_eq!((&job["state"], text(&job["error"], "kind")), (&json!("failed"), "worker_lost"), "{job:#}");
        assert_eq!(outcomes(&job), vec!["lost"; losses], "{job:#}");
        let failed = self.api.get("/v1/jobs?state=failed&limit=1000").await;
        assert_eq!(list(&failed, "jobs").len(), 1, "only that one");
    }

    /// The worker ends cleanly, and nothing of it is left.
    async fn ends(&self, worker: &mut Process) {
        assert_eq!(self.site.notes().len(), 1);
        worker.signal("TERM");
        assert_eq!(worker.exit().await.code(), Some(0));
        assert_eq!(self.site.notes(), Vec::<std::path::PathBuf>::new());
    }
}

async fn aborted(worker: &mut Process) {
    assert_eq!(worker.exit().await.signal(), Some(6), "{}", worker.console());
}

async fn a_job_that_aborts_its_worker_fails_and_takes_none_of_the_others_with_it(broker_url: &str) {
    let _alone = heavy().await;
    let scene = Scene::set(broker_url).await;
    let mut worker = scene.site.worker();
    let (killer, sleepers) = scene.submit("abort", SLEEPERS).await;
    for crash in 1..=3 {
        scene.started(&sleepers, crash, crash).await;
        scene.open(crash);
        aborted(&mut worker).await;
        if crash == 3 {
            scene.ledger.open_gate("end");
        }
        worker = scene.site.worker();
    }
    scene.all_succeed(&sleepers, 3..=3).await;
    scene.fails_after(&killer, 3).await;
    scene.ends(&mut worker).await;
}

async fn without_the_file_it_is_found_among_the_suspects(broker_url: &str) {
    let _alone = heavy().await;
    let scene = Scene::set(broker_url).await;
    let mut worker = scene.site.worker();
    let (killer, sleepers) = scene.submit("abort", SLEEPERS).await;
    // Five times nobody knows who it was; then all that were there are suspects, and the oldest is the first to be tried.
    for crash in 1..=8 {
        scene.started(&sleepers, crash.min(5), crash).await;
        scene.open(crash);
        aborted(&mut worker).await;
        for file in scene.site.notes() {
            std::fs::remove_file(file).unwrap();
        }
        if crash == 5 {
            scene.ledger.open_gate("end");
        }
        worker = scene.site.worker();
    }
    scene.all_succeed(&sleepers, 5..=5).await;
    scene.fails_after(&killer, 8).await;
    scene.ends(&mut worker).await;
}

async fn two_workers_share_a_folder_and_charge_for_each_other(broker_url: &str) {
    let _alone = heavy().await;
    let scene = Scene::set(broker_url).await;
    let mut workers = [scene.site.worker(), scene.site.worker()];
    let (killer, sleepers) = scene.submit("abort", SLEEPERS).await;
    for crash in 1..=3 {
        scene.started(&sleepers, 1, crash).await;
        eventually("all of them run on live workers", async || {
            let living: BTreeSet<String> = workers.iter().flat_map(Process::worker_ids).collect();
            let all = scene.api.get("/v1/workers").await;
            let live = list(&all, "workers").iter().filter(|worker| living.contains(text(worker, "id")));
            let running: u64 = live.map(|worker| worker["running"].as_u64().unwrap()).sum();
            (running == SLEEPERS as u64 + 1).then_some(())
        })
        .await;
        scene.open(crash);
        let dead =
            eventually("one of them dies", async || workers.iter_mut().position(|worker| !worker.is_running())).await;
        aborted(&mut workers[dead]).await;
        workers[1 - dead].logged("the worker process ").await;
        if crash == 3 {
            scene.ledger.open_gate("end");
            // What sleeps on the one that lives goes on elsewhere.
            workers[1 - dead].signal("TERM");
            assert_eq!(workers[1 - dead].exit().await.code(), Some(0));
        }
        workers[dead] = scene.site.worker();
    }
    scene.all_succeed(&sleepers, 0..=3).await;
    scene.fails_after(&killer, 3).await;
}

async fn a_native_on_a_blocking_thread_is_charged_to_its_job(broker_url: &str) {
    let scene = Scene::set(broker_url).await;
    let mut worker = scene.site.worker();
    let (killer, _) = scene.submit("abort computing", 3).await;
    for crash in 1..=3 {
        scene.started(&[], 0, crash).await;
        scene.open(crash);
        aborted(&mut worker).await;
        worker = scene.site.worker();
    }
    scene.fails_after(&killer, 3).await;
    scene.ends(&mut worker).await;
}

async fn a_job_that_wedges_its_thread_is_charged(broker_url: &str) {
    let scene = Scene::set(broker_url).await;
    let mut worker = scene.site.worker();
    let (killer, sleepers) = scene.submit("wedge", 3).await;
    scene.started(&sleepers, 1, 1).await;
    scene.open(1);
    assert_eq!(worker.exit().await.code(), Some(1));
    let next = scene.site.worker();
    let charged = next.logged("a run was lost with the process").await;
    assert_eq!(text(&charged, "job_id"), killer);
    for id in &sleepers {
        let job = scene.api.until(id, "it runs again", |job| list(job, "attempts").len() == 2).await;
        assert_eq!((outcomes(&job)[0], &job["lost"]), ("released", &json!(0)), "{job:#}");
    }
}

async fn kill_9_is_charged_to_who_was_on_a_cpu(broker_url: &str) {
    let scene = Scene::set(broker_url).await;
    let mut worker = scene.site.worker();
    let (killer, sleepers) = scene.submit("busy", 3).await;
    for kill in 1..=3 {
        scene.started(&sleepers, kill, kill).await;
        scene.open(kill);
        worker.freeze_when(|| scene.site.notes().iter().any(|file| names(file, &killer))).await;
        worker.kill();
        if kill == 3 {
            scene.ledger.open_gate("end");
        }
        worker = scene.site.worker();
    }
    scene.all_succeed(&sleepers, 3..=3).await;
    scene.fails_after(&killer, 3).await;
}

/// Whether the notes in a file say that the job is on a CPU.
fn names(file: &std::path::Path, job: &str) -> bool {
    // None while the next worker makes it.
    let left = ryemill::script::notes::read(&std::fs::read(file).unwrap());
    left.iter().flat_map(|left| &left.on_cpu).any(|noted| noted.job.to_string() == job)
}
