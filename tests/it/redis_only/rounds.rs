//! Rounds of faults, each drawn from a seed: a worker behind a link that breaks while it submits, claims and finishes, and
//! a second one, beside it on a good link, that takes over what the first loses. Whatever happens, each accepted job
//! ends exactly once, by the one finish that was accepted, and every other run is refused ever after.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ryemill::broker::redis::RedisBroker;
use ryemill::broker::{Broker, BrokerError, Claim, Filter, Finish, NewJob, Run};
use ryemill::job::{JobId, Outcome, Progress, RunEnd, State, WorkerId};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::{namespace, open};
use crate::contract::harness::{Harness, beat, claim, failed, finish, job, json, sweep_with};
use crate::eventually::eventually;
use crate::proxy::{Fault, Proxy, Way};
use crate::redis;

const ROUNDS: u64 = 500;
/// Rounds at once: nearly all of their time is waiting.
const AT_ONCE: usize = 60;
const LEASE: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_hours(1);
/// About as many bytes as a request has, and an answer.
const REQUEST: u64 = 1000;
const ANSWER: u64 = 150;

/// What a worker was told.
#[derive(Default)]
struct Told {
    runs: Vec<Run>,
    accepted: Vec<Run>,
    refused: usize,
}

impl Told {
    /// Claims as a worker does: the same claim again until it is answered.
    async fn claim(&mut self, broker: &RedisBroker, worker: &WorkerId, limit: usize) {
        let wanted: Claim = claim(worker, limit);
        match until_answered(async || broker.claim(&wanted).await).await {
            Ok(claimed) => self.runs.extend(claimed.jobs.into_iter().map(|job| job.run)),
            Err(BrokerError::LeaseLost) => {}
            Err(fault) => panic!("{fault}"),
        }
    }

    /// Ends all runs that it has had no answer for, each with its own result, again until it is answered.
    async fn finish_all(&mut self, broker: &RedisBroker) {
        let answered = self.accepted.len() + self.refused;
        let open: Vec<Run> = self.runs[answered..].to_vec();
        let ends: Vec<Finish> =
            open.iter().map(|run| finish(run, RunEnd::Succeeded { result: json(&result_of(run)) })).collect();
        let answers = until_answered(async || broker.finish(ends.clone()).await).await.unwrap();
        for (run, answer) in open.into_iter().zip(answers) {
            match answer {
                Ok(()) => self.accepted.push(run),
                Err(BrokerError::LeaseLost) => self.refused += 1,
                Err(fault) => panic!("{fault}"),
            }
        }
    }
}

fn result_of(run: &Run) -> String {
    format!("\"{}\"", run.token.0)
}

/// Calls again and again while Redis cannot be reached.
async fn until_answered<T>(mut call: impl AsyncFnMut() -> Result<T, BrokerError>) -> Result<T, BrokerError> {
    eventually("the call is answered", async || match call().await {
        Err(BrokerError::Unavailable(_)) => None,
        answered => Some(answered),
    })
    .await
}

/// When the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Submit,
    Claim,
    Finish,
}

#[derive(Debug)]
struct Round {
    jobs: usize,
    at: At,
    fault: Fault,
    /// How long the fault lasts, where it is not over at once.
    lasts: Duration,
}

/// What a round has shown.
#[derive(Default)]
struct Shown {
    lost: u32,
    refused: usize,
    unheard: usize,
    connections: u64,
}

impl Round {
    fn of(seed: u64) -> Self {
        let mut draws = SmallRng::seed_from_u64(seed);
        let at = [At::Submit, At::Claim, At::Finish][draws.random_range(0..3)];
        let mut fault = Fault::random(&mut draws, REQUEST);
        // The worst one: it is done, and who asked does not know.
        if draws.random_ratio(1, 5) {
            fault = Fault::Lost(Way::Replies);
        }
        // An answer is shorter.
        if let Fault::Cut(Way::Replies, bytes) = &mut fault {
            *bytes %= ANSWER;
        }
        let lasts = if draws.random() { LEASE * 3 } else { Duration::from_millis(draws.random_range(1..1000)) };
        Self { jobs: draws.random_range(1..6), at, fault, lasts }
    }

    async fn play(&self, server: &str) -> Shown {
        let (proxy, names) = (Proxy::to(server.to_owned()).await, namespace());
        let (weak, good) = (open(&proxy.address().to_string(), &names).await, open(server, &names).await);
        let submitted: Vec<NewJob> = (0..self.jobs).map(|_| job("email")).collect();
        let ids: BTreeSet<JobId> = submitted.iter().map(|job| job.id).collect();
        let (mut first, mut second) = (Told::default(), Told::default());
        let (struck, strikes) = oneshot::channel();
        let tried = AtomicBool::new(false);
        let acts = async {
            let mut struck = Some(struck);
            let mut strike = |at| {
                if self.at == at {
                    proxy.inflict(self.fault);
                    struck.take().unwrap().send(()).unwrap();
                }
            };
            strike(At::Submit);
            until_answered(async || weak.enqueue(submitted.clone()).await).await.unwrap();
            // Its lease begins now, whatever the link has done.
            let worker = WorkerId::random();
            good.renew(&beat(&worker, LEASE)).await.unwrap();
            strike(At::Claim);
            first.claim(&weak, &worker, self.jobs).await;
            strike(At::Finish);
            first.finish_all(&weak).await;
            tried.store(true, Ordering::Relaxed);
        };
        let heals = async {
            strikes.await.unwrap();
            sleep(self.lasts).await;
            proxy.heal();
        };
        let takes_over = async {
            let worker = WorkerId::random();
            eventually("every job ends", async || {
                good.renew(&beat(&worker, LONG)).await.unwrap();
                let lost = good.sweep(&sweep_with(Duration::ZERO)).await.unwrap().lost.len();
                let limit = if tried.load(Ordering::Relaxed) { self.jobs } else { lost };
                second.claim(&good, &worker, limit).await;
                second.finish_all(&good).await;
                let counts = good.queues().await.unwrap();
                let ended = counts.first().map_or(0, |queue| queue.succeeded);
                sleep(Duration::from_millis(20)).await;
                (tried.load(Ordering::Relaxed) && ended >= self.jobs as u64).then_some(())
            })
            .await;
        };
        tokio::join!(acts, heals, takes_over);
        let connections = proxy.connections();
        let mut shown = hold(good, &ids, &[first, second]).await;
        shown.connections = connections;
        shown
    }
}

/// What must be so after all of it.
async fn hold(broker: RedisBroker, ids: &BTreeSet<JobId>, told: &[Told]) -> Shown {
    let h = Harness::new(Arc::new(broker), None, ());
    let mut shown = Shown::default();
    let mut found = Vec::new();
    for state in State::ALL {
        let jobs = h.all(Filter { state: Some(state), limit: 100, ..Filter::default() }).await;
        assert!(state == State::Succeeded || jobs.is_empty(), "{state:?}: {jobs:?}");
        found.extend(jobs.into_iter().map(|job| job.id));
    }
    assert_eq!(found.len(), ids.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), *ids);
    h.counts_are_right().await;
    for &id in ids {
        let job = h.get(id).await;
        let of_job = |run: &&Run| run.job == id;
        let runs: Vec<&Run> = told.iter().flat_map(|told| &told.runs).filter(of_job).collect();
        let accepted: Vec<&Run> = told.iter().flat_map(|told| &told.accepted).filter(of_job).collect();
        assert!(accepted.len() <= 1, "accepted twice: {job:?}");
        let result = job.result.as_ref().unwrap().get();
        // Only who gave up asking may not have heard that its finish was accepted.
        let ender = runs.iter().find(|run| result_of(run) == result).expect("one of the runs has ended it");
        assert!(accepted.iter().all(|run| run == ender), "{job:?}");
        shown.unheard += usize::from(accepted.is_empty());
        let outcomes: Vec<Option<Outcome>> = job.attempts.iter().map(|attempt| attempt.outcome).collect();
        let (last, earlier) = outcomes.split_last().unwrap();
        assert_eq!(*last, Some(Outcome::Succeeded));
        assert!(earlier.iter().all(|outcome| *outcome == Some(Outcome::Lost)), "{job:?}");
        assert_eq!((job.lost as usize, job.attempt), (earlier.len(), 1), "{job:?}");
        shown.lost += job.lost;
        let before = h.snapshot(id).await;
        for run in runs {
            let progress = Progress { percent: 1.0, message: "late".into() };
            assert!(matches!(h.broker.progress(run, &progress).await, Err(BrokerError::LeaseLost)));
            let late = h.broker.finish(vec![finish(run, failed())]).await.unwrap();
            assert!(matches!(late[0], Err(BrokerError::LeaseLost)), "{late:?}");
        }
        assert_eq!(h.snapshot(id).await, before);
    }
    shown.refused = told.iter().map(|told| told.refused).sum();
    shown
}

/// `FAULT_SEED` plays one round of that seed.
#[tokio::test]
async fn whatever_a_link_does_each_job_ends_once() {
    let server = redis::shared().await.address();
    if let Ok(seed) = std::env::var("FAULT_SEED") {
        let round = Round::of(seed.parse().unwrap());
        eprintln!("{round:?}");
        round.play(&server).await;
        return;
    }
    let base: u64 = rand::random_range(0..1 << 40);
    eprintln!("the seeds are {base} and the {ROUNDS} after it");
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let local = LocalSet::new();
    let rounds: Vec<_> = (base..base + ROUNDS)
        .map(|seed| {
            let (server, places) = (server.clone(), Arc::clone(&places));
            let playing = local.spawn_local(async move {
                let _place = places.acquire_owned().await.unwrap();
                Round::of(seed).play(&server).await
            });
            (seed, playing)
        })
        .collect();
    let (mut all, mut failed) = (Shown::default(), Vec::new());
    for (seed, playing) in rounds {
        match local.run_until(playing).await {
            Ok(shown) => {
                all.lost += shown.lost;
                all.refused += shown.refused;
                all.unheard += shown.unheard;
                all.connections += shown.connections;
            }
            Err(_) => failed.push(format!("FAULT_SEED={seed}: {:?}", Round::of(seed))),
        }
    }
    assert!(failed.is_empty(), "{} of {ROUNDS} rounds failed:\n{}", failed.len(), failed.join("\n"));
    eprintln!(
        "{} runs lost, {} finishes refused, {} accepted without the worker's knowing, {} connections",
        all.lost, all.refused, all.unheard, all.connections
    );
    assert!(all.lost > 0 && all.refused > 0, "the faults have done nothing");
    assert!(all.connections > ROUNDS, "no connection was ever made again");
}
