//! Random sequences of calls, held against a plain model in memory: the broker answers every call as the model does, and
//! every job stands where the model says.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::contract::harness::*;
use crate::contract::{START, open_redis, open_sqlite};
use proptest::prelude::*;
use ryemill::broker::{BrokerError, Claim, Filter, Finish, NewJob, Run, Sweep};
use ryemill::job::{ClaimTicket, Event, JobId, Outcome, Priority, RunEnd, State, Timestamp, WorkerId};

const QUEUES: [&str; 2] = ["default", "mail"];
const NAMES: [&str; 3] = ["email", "report", "rare"];
const WORKERS: usize = 3;
const LEASED: Duration = Duration::from_secs(10);
const KEPT: Duration = Duration::from_secs(30);
/// For jobs that end without a worker's word and whose type nobody has published.
const KEPT_BY_DEFAULT: Duration = Duration::from_hours(14 * 24);
const PLENTY: u64 = 1 << 40;

#[derive(Clone, Debug)]
enum Call {
    Enqueue { queue: usize, name: usize, priority: i64, delay: u64, timeout: u64 },
    EnqueueAgain(usize),
    Claim { worker: usize, limit: usize, swapped: bool, lacking: Option<usize>, suspect: bool },
    Finish { run: usize, end: End },
    Extend(usize),
    Cancel(usize),
    Retry(usize),
    Delete(usize),
    Pause(usize, bool),
    Pass(u64),
    Renew(usize),
    Replace(usize),
    Retire(usize),
    Sweep { blamed: Option<usize>, overdue: u64 },
    Prune { bytes: bool, limit: usize },
}

#[derive(Clone, Copy, Debug)]
enum End {
    Succeeded,
    Failed,
    Retry(u64),
    Released(u64),
    Cancelled,
}

fn call() -> impl Strategy<Value = Call> {
    let end = prop_oneof![
        3 => Just(End::Succeeded),
        1 => Just(End::Failed),
        2 => (0..8u64).prop_map(End::Retry),
        2 => (0..8u64).prop_map(End::Released),
        1 => Just(End::Cancelled),
    ];
    let enqueue = (0..QUEUES.len(), 0..NAMES.len(), 0..10i64, prop_oneof![3 => Just(0), 1 => 1..20u64], 5..60u64);
    let claim = (0..WORKERS, 0..4usize, any::<bool>(), proptest::option::weighted(0.3, 0..NAMES.len()), any::<bool>());
    prop_oneof![
        10 => enqueue.prop_map(|(queue, name, priority, delay, timeout)| Call::Enqueue { queue, name, priority, delay, timeout }),
        1 => (0..64usize).prop_map(Call::EnqueueAgain),
        12 => claim.prop_map(|(worker, limit, swapped, lacking, suspect)| Call::Claim { worker, limit, swapped, lacking, suspect }),
        10 => ((0..64usize), end).prop_map(|(run, end)| Call::Finish { run, end }),
        1 => (0..64usize).prop_map(Call::Extend),
        3 => (0..64usize).prop_map(Call::Cancel),
        3 => (0..64usize).prop_map(Call::Retry),
        1 => (0..64usize).prop_map(Call::Delete),
        1 => (0..QUEUES.len(), any::<bool>()).prop_map(|(queue, paused)| Call::Pause(queue, paused)),
        5 => (0..15u64).prop_map(Call::Pass),
        4 => (0..WORKERS).prop_map(Call::Renew),
        4 => (0..WORKERS).prop_map(Call::Replace),
        1 => (0..WORKERS).prop_map(Call::Retire),
        5 => (proptest::option::of(0..64usize), 0..30u64).prop_map(|(blamed, overdue)| Call::Sweep { blamed, overdue }),
        1 => (any::<bool>(), 0..4usize).prop_map(|(bytes, limit)| Call::Prune { bytes, limit }),
    ]
}

#[derive(Clone, Debug)]
struct ModelJob {
    given: NewJob,
    created: Timestamp,
    state: State,
    attempt: u32,
    lost: u32,
    charged: u32,
    uncharged: u32,
    suspect: bool,
    cancel: bool,
    run: Option<(Run, usize)>,
    run_at: Timestamp,
    deadline: Timestamp,
    finished: Timestamp,
    expires: Timestamp,
    /// Outcomes, oldest first.
    ended: Vec<Outcome>,
    /// Whether the last of `ended` is of an ended job.
    deleted: bool,
}

struct ModelWorker {
    id: WorkerId,
    lease_until: Timestamp,
    gone: bool,
}

struct Model {
    now: Timestamp,
    jobs: Vec<ModelJob>,
    runs: Vec<Run>,
    workers: Vec<ModelWorker>,
    /// The worker that stands for a number now.
    slots: [Option<usize>; WORKERS],
    paused: [bool; QUEUES.len()],
}

impl ModelJob {
    fn order(&self) -> i64 {
        self.given.priority.score(self.created)
    }

    fn is_current(&self, run: &Run) -> bool {
        self.state == State::Running && self.run.as_ref().is_some_and(|(current, _)| current == run)
    }

    fn end(&mut self, event: Event, outcome: Option<Outcome>, now: Timestamp, keep: Duration) {
        self.state = self.state.on(event).unwrap();
        self.ended.extend(outcome);
        self.finished = now;
        self.expires = now.plus(keep);
        self.run = None;
        self.cancel = false;
    }

    fn back(&mut self, event: Event, outcome: Outcome, run_at: Timestamp) {
        self.state = self.state.on(event).unwrap();
        self.ended.push(outcome);
        self.run_at = run_at;
        self.run = None;
        self.cancel = false;
        if outcome != Outcome::Retried {
            self.attempt -= 1;
        }
    }

    fn lose(&mut self, blamed: bool, now: Timestamp) -> bool {
        let charge = blamed || self.suspect;
        self.lost += 1;
        self.charged += u32::from(charge);
        self.uncharged += u32::from(!charge);
        self.suspect |= self.uncharged >= 5;
        if self.cancel {
            self.end(Event::Cancel, Some(Outcome::Lost), now, KEPT);
        } else if self.charged >= 3 {
            self.end(Event::Abandon, Some(Outcome::Lost), now, KEPT);
            return true;
        } else {
            self.back(Event::Lose, Outcome::Lost, now);
        }
        false
    }
}

impl Model {
    /// A scheduled job whose time has come is as good as queued: a claim or a sweep that comes to its queue moves it on.
    fn seen(&self, state: State, run_at: Timestamp) -> State {
        if state == State::Scheduled && run_at <= self.now { State::Queued } else { state }
    }

    fn new() -> Self {
        let now = START;
        Self {
            now,
            jobs: Vec::new(),
            runs: Vec::new(),
            workers: Vec::new(),
            slots: [None; WORKERS],
            paused: [false; 2],
        }
    }

    fn live(&mut self) -> impl Iterator<Item = &mut ModelJob> {
        self.jobs.iter_mut().filter(|job| !job.deleted)
    }

    /// The `n`th job, wherever it stands; none when there are none.
    fn pick(&self, n: usize) -> Option<usize> {
        (!self.jobs.is_empty()).then(|| n % self.jobs.len())
    }

    fn make_due(&mut self, queue: Option<usize>) {
        let now = self.now;
        for job in self.live() {
            let asked = queue.is_none_or(|queue| job.given.queue.as_str() == QUEUES[queue]);
            if asked && job.state == State::Scheduled && job.run_at <= now {
                job.state = State::Queued;
            }
        }
    }

    /// The jobs that a claim gives, in order.
    fn claim(&mut self, queues: &[usize], limit: usize, lacking: Option<usize>, mut suspect: bool) -> Vec<usize> {
        let mut taken: Vec<usize> = Vec::new();
        for &queue in queues {
            if self.paused[queue] {
                continue;
            }
            self.make_due(Some(queue));
            while taken.len() < limit {
                let first = (0..self.jobs.len())
                    .filter(|&n| {
                        let job = &self.jobs[n];
                        !job.deleted
                            && job.state == State::Queued
                            && !taken.contains(&n)
                            && job.given.queue.as_str() == QUEUES[queue]
                            && lacking.is_none_or(|lacking| job.given.name.as_str() != NAMES[lacking])
                            && (suspect || !job.suspect)
                    })
                    .min_by_key(|&n| (self.jobs[n].order(), n));
                let Some(first) = first else { break };
                suspect &= !self.jobs[first].suspect;
                taken.push(first);
            }
        }
        taken
    }
}

fn is_lost<T: std::fmt::Debug>(answer: &Result<T, BrokerError>) -> bool {
    matches!(answer, Err(BrokerError::LeaseLost))
}

/// Makes one call on both, and compares the answers.
#[expect(clippy::too_many_lines, reason = "one arm per verb, each short")]
async fn make(h: &Harness, model: &mut Model, call: &Call) {
    let now = model.now;
    match *call {
        Call::Enqueue { queue, name, priority, delay, timeout } => {
            let given = NewJob {
                priority: Priority::new(priority).unwrap(),
                delay: Duration::from_secs(delay),
                timeout: Duration::from_secs(timeout),
                ..job_of(NAMES[name], QUEUES[queue])
            };
            h.enqueue(given.clone()).await;
            model.jobs.push(ModelJob {
                created: now,
                state: if delay == 0 { State::Queued } else { State::Scheduled },
                attempt: 0,
                lost: 0,
                charged: 0,
                uncharged: 0,
                suspect: false,
                cancel: false,
                run: None,
                run_at: now.plus(given.delay),
                deadline: now,
                finished: now,
                expires: now,
                ended: Vec::new(),
                deleted: false,
                given,
            });
        }
        Call::EnqueueAgain(n) => {
            let Some(n) = model.pick(n).filter(|&n| !model.jobs[n].deleted) else { return };
            let answer = h.broker.enqueue(vec![model.jobs[n].given.clone()]).await.unwrap().remove(0);
            let job = &model.jobs[n];
            assert!(!answer.created);
            assert_eq!(model.seen(answer.state, answer.run_at), model.seen(job.state, job.run_at));
        }
        Call::Claim { worker, limit, swapped, lacking, suspect } => {
            let Some(worker) = model.slots[worker] else { return };
            let queues: &[usize] = if swapped { &[1, 0] } else { &[0, 1] };
            let wanted = Claim {
                worker: model.workers[worker].id.clone(),
                ticket: ClaimTicket::random(),
                queues: queues.iter().map(|&queue| queue_name(QUEUES[queue])).collect(),
                lacking: lacking.iter().map(|&name| job_name(NAMES[name])).collect(),
                limit,
                suspect,
            };
            let answer = h.broker.claim(&wanted).await;
            if model.workers[worker].gone || model.workers[worker].lease_until <= now {
                assert!(is_lost(&answer), "{answer:?}");
                return;
            }
            let expected = model.claim(queues, limit, lacking, suspect);
            let claimed = answer.unwrap();
            assert_eq!(ids(&claimed.jobs), expected.iter().map(|&n| model.jobs[n].given.id).collect::<Vec<_>>());
            for (&n, claimed) in expected.iter().zip(claimed.jobs.iter().cloned()) {
                let job = &mut model.jobs[n];
                assert_eq!((claimed.suspect, claimed.attempt), (job.suspect, job.attempt + 1));
                assert_eq!(claimed.ready_at, job.run_at);
                job.state = State::Running;
                job.attempt += 1;
                job.deadline = now.plus(job.given.timeout);
                job.run = Some((claimed.run.clone(), worker));
                model.runs.push(claimed.run);
            }
            let due = queues
                .iter()
                .filter(|&&queue| !model.paused[queue])
                .flat_map(|&queue| model.jobs.iter().filter(move |job| job.given.queue.as_str() == QUEUES[queue]))
                .filter(|job| !job.deleted && job.state == State::Scheduled)
                .map(|job| job.run_at.since(now))
                .min();
            if expected.len() < limit {
                assert_eq!(claimed.next_due, due);
            }
        }
        Call::Finish { run, end } => {
            if model.runs.is_empty() {
                return;
            }
            let run = model.runs[run % model.runs.len()].clone();
            let seconds = Duration::from_secs;
            let given = match end {
                End::Succeeded => succeeded(),
                End::Failed => failed(),
                End::Retry(delay) => RunEnd::Retry { error: error("again"), delay: seconds(delay) },
                End::Released(delay) => RunEnd::Released { reason: "back".into(), delay: seconds(delay) },
                End::Cancelled => RunEnd::Cancelled,
            };
            let ends = vec![Finish { keep: KEPT, ..finish(&run, given) }];
            let answer = h.broker.finish(ends).await.unwrap().remove(0);
            let Some(job) = model.live().find(|job| job.is_current(&run)) else {
                assert!(is_lost(&answer), "{answer:?}");
                return;
            };
            answer.unwrap();
            match end {
                End::Succeeded => job.end(Event::Succeed, Some(Outcome::Succeeded), now, KEPT),
                End::Failed => job.end(Event::Fail, Some(Outcome::Failed), now, KEPT),
                End::Retry(delay) if !job.cancel => job.back(Event::Defer, Outcome::Retried, now.plus(seconds(delay))),
                End::Released(0) if !job.cancel => job.back(Event::Release, Outcome::Released, now),
                End::Released(delay) if !job.cancel => {
                    job.back(Event::Defer, Outcome::Released, now.plus(seconds(delay)));
                }
                _ => job.end(Event::Cancel, Some(Outcome::Cancelled), now, KEPT),
            }
        }
        Call::Extend(run) => {
            if model.runs.is_empty() {
                return;
            }
            let run = model.runs[run % model.runs.len()].clone();
            let answer = h.broker.extend(&run, LEASED).await;
            match model.live().find(|job| job.is_current(&run)) {
                Some(job) => {
                    answer.unwrap();
                    job.deadline = now.plus(LEASED);
                }
                None => assert!(is_lost(&answer), "{answer:?}"),
            }
        }
        Call::Cancel(n) => {
            let Some(n) = model.pick(n) else { return };
            let job = &mut model.jobs[n];
            let answer = h.broker.cancel(job.given.id).await;
            if job.deleted {
                assert!(matches!(answer, Err(BrokerError::NotFound(_))), "{answer:?}");
                return;
            }
            match job.state {
                State::Succeeded | State::Failed => {
                    assert!(matches!(answer, Err(BrokerError::IllegalState(_))), "{answer:?}");
                    return;
                }
                State::Running => job.cancel = true,
                State::Cancelled => {}
                State::Scheduled | State::Queued => job.end(Event::Cancel, None, now, KEPT_BY_DEFAULT),
            }
            assert_eq!(answer.unwrap(), job.state);
        }
        Call::Retry(n) => {
            let Some(n) = model.pick(n).filter(|&n| !model.jobs[n].deleted) else { return };
            let job = &mut model.jobs[n];
            let answer = h.broker.retry(job.given.id).await;
            let Ok(next) = job.state.on(Event::Requeue) else {
                assert!(matches!(answer, Err(BrokerError::IllegalState(_))), "{answer:?}");
                return;
            };
            answer.unwrap();
            job.state = next;
            (job.attempt, job.charged, job.uncharged, job.suspect) = (0, 0, 0, false);
            job.run_at = now;
        }
        Call::Delete(n) => {
            let Some(n) = model.pick(n).filter(|&n| !model.jobs[n].deleted) else { return };
            let job = &mut model.jobs[n];
            let answer = h.broker.delete(job.given.id).await;
            if job.state == State::Running {
                assert!(matches!(answer, Err(BrokerError::IllegalState(_))), "{answer:?}");
            } else {
                answer.unwrap();
                job.deleted = true;
            }
        }
        Call::Pause(queue, paused) => {
            h.broker.set_paused(&queue_name(QUEUES[queue]), paused).await.unwrap();
            model.paused[queue] = paused;
        }
        Call::Pass(seconds) => {
            h.advance(Duration::from_secs(seconds)).await;
            model.now = now.plus(Duration::from_secs(seconds));
        }
        Call::Replace(slot) => {
            let id = h.worker_with(LEASED).await;
            model.workers.push(ModelWorker { id, lease_until: now.plus(LEASED), gone: false });
            model.slots[slot] = Some(model.workers.len() - 1);
        }
        Call::Renew(slot) => {
            let Some(n) = model.slots[slot] else { return };
            let worker = &mut model.workers[n];
            let answer = h.broker.renew(&beat(&worker.id, LEASED)).await;
            if worker.gone {
                assert!(is_lost(&answer), "{answer:?}");
                return;
            }
            worker.lease_until = now.plus(LEASED);
            let told: BTreeSet<JobId> = answer.unwrap().cancelled.into_iter().map(|run| run.job).collect();
            let marked = |job: &&mut ModelJob| job.cancel && job.run.as_ref().is_some_and(|(_, worker)| *worker == n);
            let expected = model.live().filter(marked).map(|job| job.given.id).collect();
            assert_eq!(told, expected);
        }
        Call::Retire(slot) => {
            let Some(n) = model.slots[slot] else { return };
            h.broker.retire(&model.workers[n].id).await.unwrap();
            if std::mem::replace(&mut model.workers[n].gone, true) {
                return;
            }
            for job in model.live().filter(|job| job.run.as_ref().is_some_and(|(_, worker)| *worker == n)) {
                if job.cancel {
                    job.end(Event::Cancel, Some(Outcome::Cancelled), now, KEPT_BY_DEFAULT);
                } else {
                    job.back(Event::Release, Outcome::Released, now);
                }
            }
        }
        Call::Sweep { blamed, overdue } => {
            let overdue = Duration::from_secs(overdue);
            let blamed =
                blamed.filter(|_| !model.runs.is_empty()).map(|run| model.runs[run % model.runs.len()].clone());
            let sweep = Sweep { overdue, blamed: blamed.iter().cloned().collect(), keep: KEPT };
            let swept = h.broker.sweep(&sweep).await.unwrap();
            for worker in &mut model.workers {
                worker.gone |= worker.lease_until <= now;
            }
            let gone: Vec<bool> = model.workers.iter().map(|worker| worker.gone).collect();
            let (mut lost, mut failed) = (BTreeSet::new(), BTreeSet::new());
            for job in model.live() {
                let Some((run, worker)) = job.run.clone() else { continue };
                let charged = blamed.as_ref() == Some(&run);
                if charged || gone[worker] || job.deadline.plus(overdue) <= now {
                    lost.insert(job.given.id);
                    if job.lose(charged, now) {
                        failed.insert(job.given.id);
                    }
                }
            }
            assert_eq!(swept.lost.iter().map(|run| run.job).collect::<BTreeSet<_>>(), lost);
            assert_eq!(swept.failed.into_iter().collect::<BTreeSet<_>>(), failed);
            assert!(!swept.more && swept.quarantined == 0);
            model.make_due(None);
        }
        Call::Prune { bytes, limit } => {
            let removed = h.broker.prune(if bytes { 0 } else { PLENTY }, limit).await.unwrap();
            let mut expected: Vec<usize> = Vec::new();
            let mut ended: Vec<usize> = (0..model.jobs.len())
                .filter(|&n| !model.jobs[n].deleted && model.jobs[n].state.is_terminal())
                .collect();
            ended.sort_by_key(|&n| (model.jobs[n].expires, n));
            expected.extend(ended.iter().filter(|&&n| model.jobs[n].expires <= now));
            if bytes {
                for queue in QUEUES {
                    ended.sort_by_key(|&n| (model.jobs[n].finished, n));
                    let of_queue = |&n: &usize| model.jobs[n].given.queue.as_str() == queue && !expected.contains(&n);
                    let more: Vec<usize> = ended.iter().copied().filter(of_queue).collect();
                    expected.extend(more);
                }
            }
            if expected.len() >= limit {
                // Which of several go is not said, only that those whose time is over go first.
                assert_eq!(removed.len(), limit);
                let over = ended.iter().filter(|&&n| model.jobs[n].expires <= now).count();
                let mut gone_over = 0;
                for id in &removed {
                    let job = model.live().find(|job| job.given.id == *id).expect("a job that is there");
                    assert!(job.state.is_terminal());
                    gone_over += usize::from(job.expires <= now);
                    job.deleted = true;
                }
                assert_eq!(gone_over, over.min(limit));
                return;
            }
            let expected_ids: BTreeSet<JobId> = expected.iter().map(|&n| model.jobs[n].given.id).collect();
            assert_eq!(removed.len(), expected_ids.len());
            assert_eq!(removed.into_iter().collect::<BTreeSet<_>>(), expected_ids);
            for n in expected {
                model.jobs[n].deleted = true;
            }
        }
    }
}

/// Every job stands where the model says.
async fn compare(h: &Harness, model: &Model, call: &Call) {
    let listed = h.all(Filter { limit: 1000, ..Filter::default() }).await;
    let there: Vec<&ModelJob> = model.jobs.iter().rev().filter(|job| !job.deleted).collect();
    assert_eq!(listed.len(), there.len(), "after {call:?}");
    // Newest first; of jobs of one instant those of one queue are in order, and nobody can tell between queues.
    assert!(listed.is_sorted_by(|a, b| a.created_at >= b.created_at), "after {call:?}");
    for queue in QUEUES {
        let shown = listed.iter().filter(|job| job.queue.as_str() == queue).map(|job| job.id);
        let expected = there.iter().filter(|job| job.given.queue.as_str() == queue).map(|job| job.given.id);
        assert_eq!(shown.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "after {call:?}");
    }
    for shown in &listed {
        let job = there.iter().find(|job| job.given.id == shown.id).expect("a job that is there");
        let mut outcomes: Vec<Option<Outcome>> = job.ended.iter().copied().map(Some).collect();
        outcomes.extend(job.run.as_ref().map(|_| None));
        assert_eq!(
            (model.seen(shown.state, shown.run_at), shown.attempt, shown.lost, shown.run_at),
            (model.seen(job.state, job.run_at), job.attempt, job.lost, job.run_at),
            "after {call:?}"
        );
        assert_eq!(shown.attempts.iter().map(|attempt| attempt.outcome).collect::<Vec<_>>(), outcomes);
        assert_eq!(shown.finished_at, job.state.is_terminal().then_some(job.finished), "after {call:?}");
    }
}

/// Makes all calls on a fresh broker and on a fresh model.
fn run(open: impl AsyncFnOnce() -> Harness, calls: &[Call]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let h = open().await;
        let mut model = Model::new();
        for (n, call) in calls.iter().enumerate() {
            make(&h, &mut model, call).await;
            if n % 4 == 3 || n + 1 == calls.len() {
                compare(&h, &model, call).await;
            }
        }
        h.counts_are_right().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_does_what_the_model_does(calls in prop::collection::vec(call(), 1..80)) {
        run(open_sqlite, &calls);
    }

    #[test]
    fn redis_does_what_the_model_does(calls in prop::collection::vec(call(), 1..80)) {
        run(open_redis, &calls);
    }
}
