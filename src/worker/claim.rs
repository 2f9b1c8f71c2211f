//! Takes jobs from the broker, never more than can start soon: a permit first, then room in the pool, then the claim. The
//! next claim is made while the runs of the one before are going on. Knows nothing of what a job does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::warn;

use super::Shared;
use super::execute::{ALL_BUSY, SHUTTING_DOWN, Starter};
use super::queues::{Queues, Rotation};
use crate::broker::{BrokerError, Claim, Topic};
use crate::job::ClaimTicket;
use crate::shutdown::Shutdown;

/// Most jobs of one claim.
const BATCH: usize = 256;
/// Most requests in the pool's line: one claim's worth while the next is under way.
const LONGEST: usize = 2 * BATCH;
/// How long the requests in the pool's line should keep its threads busy, at the rate at which it has started runs lately:
/// longer than a claim takes, shorter than anybody would mind waiting in the wrong worker's line.
const AHEAD: Duration = Duration::from_millis(20);
/// A look without a wake-up, in case one was missed.
const POLL: Duration = Duration::from_secs(1);
/// A request that no thread has started after this goes back to the broker.
const STUCK: Duration = Duration::from_secs(1);
/// After a claim that failed; doubled each time up to [`POLL`].
const PAUSE: Duration = Duration::from_millis(50);

pub struct ClaimLoop {
    pub shared: Arc<Shared>,
    pub starter: Arc<Starter>,
    /// One for each run that may go on at once.
    pub permits: Arc<Semaphore>,
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// As many as asked for: there may be more.
    All,
    /// All there were. The next scheduled one is due after this.
    Some(Option<Duration>),
    Failed,
}

impl ClaimLoop {
    /// Runs until `stop`. A claim that is under way then is waited for, and its jobs are given back.
    pub async fn run(self, stop: Shutdown) {
        let types = &self.starter.types;
        tokio::select! {
            () = stop.requested() => return,
            () = types.published.notified() => {}
        }
        let mut work = self.shared.broker.changes(Topic::Work);
        let mut known = types.changes();
        let mut rotation = Rotation::new(&self.shared.options.queues);
        let mut pace = Pace::new(self.shared.options.threads);
        let mut pause = PAUSE;
        loop {
            let permits = tokio::select! {
                () = stop.requested() => return,
                permits = self.room(&pace) => permits,
            };
            // Before the look, so that what comes during it is not missed.
            work.borrow_and_update();
            known.borrow_and_update();
            let took = self.run_once(&mut rotation, &mut pace, permits, &stop).await;
            let wait = match took {
                Took::All => continue,
                Took::Some(due) => due.map_or(POLL, |due| due.min(POLL)),
                Took::Failed => pause,
            };
            pause = if took == Took::Failed { (pause * 2).min(POLL) } else { PAUSE };
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(wait) => {}
                () = woken(&mut work), if took != Took::Failed => {}
                () = woken(&mut known), if took != Took::Failed => {}
                () = self.shared.runs.suspect_ended(), if took != Took::Failed => {}
            }
        }
    }

    /// Gives back what no thread will start soon, until `stop`.
    pub async fn watch_line(starter: Arc<Starter>, stop: Shutdown) {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(STUCK / 4) => {}
            }
            let stuck = starter.hand_back(STUCK, ALL_BUSY);
            if stuck > 0 {
                warn!(jobs = stuck, "every executor thread is busy: jobs that could not start were given back");
            }
        }
    }

    /// Waits until at least one more job could start at once. Answers permits for as many as are worth claiming.
    async fn room(&self, pace: &Pace) -> OwnedSemaphorePermit {
        loop {
            // The semaphore is never closed.
            let Ok(mut permits) = Arc::clone(&self.permits).acquire_owned().await else { std::future::pending().await };
            self.starter.shipping.finisher.room().await;
            let waiting = self.starter.pool.room(pace.window / 2).await;
            // A process that was stopped for a while must not start anything before it knows that it still may.
            if !self.shared.lease.held() {
                drop(permits);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let more = (pace.window - waiting).min(BATCH) - 1;
            let more = more.min(self.permits.available_permits());
            if let Ok(count) = u32::try_from(more)
                && let Ok(others) = Arc::clone(&self.permits).try_acquire_many_owned(count)
            {
                permits.merge(others);
            }
            return permits;
        }
    }

    /// One claim.
    async fn run_once(
        &self,
        rotation: &mut Rotation,
        pace: &mut Pace,
        mut permits: OwnedSemaphorePermit,
        stop: &Shutdown,
    ) -> Took {
        let Shared { broker, lease, runs, library, options, .. } = &*self.shared;
        let known = self.starter.types.known();
        if options.queues == Queues::All {
            rotation.set(&known.queues);
        }
        let member = lease.member();
        let claim = Claim {
            worker: member.id.clone(),
            ticket: ClaimTicket::random(),
            queues: rotation.turn(),
            lacking: known.lacking.clone(),
            limit: permits.num_permits(),
            suspect: !runs.has_suspect(),
        };
        if claim.queues.is_empty() {
            return Took::Some(None);
        }
        // The answer of a claim may be lost, and its runs with it: the same claim is made until it is answered.
        let mut pause = PAUSE;
        self.shared.consuming.asked();
        let claimed = loop {
            match broker.claim(&claim).await {
                Ok(claimed) => {
                    self.shared.consuming.answered();
                    break claimed;
                }
                Err(BrokerError::LeaseLost) => {
                    self.shared.consuming.answered();
                    lease.doubt();
                    return Took::Failed;
                }
                Err(problem) => warn!("jobs could not be claimed: {problem}"),
            }
            tokio::select! {
                // Whatever it may have got goes back when the worker retires.
                () = stop.requested() => return Took::Failed,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(POLL),
            }
            if lease.member().id != member.id {
                return Took::Failed;
            }
        };
        let snapshot = library.snapshot();
        let count = claimed.jobs.len();
        for job in claimed.jobs {
            // The broker gives no more than asked for.
            let Some(permit) = permits.split(1) else { break };
            if stop.is_requested() {
                self.starter.refuse(&member, &job, SHUTTING_DOWN);
            } else {
                self.starter.start(&member, &snapshot, job, permit);
            }
        }
        pace.claimed(count, self.starter.pool.waiting(), Instant::now());
        if count == claim.limit { Took::All } else { Took::Some(claimed.next_due) }
    }
}

/// Since when a claim of this worker waits for its answer; what readiness goes by.
#[derive(Debug, Default)]
pub struct Consuming(Mutex<Option<Instant>>);

impl Consuming {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) {
        self.waiting().get_or_insert_with(Instant::now);
    }

    fn answered(&self) {
        *self.waiting() = None;
    }

    /// How long the broker has not answered; none when it owes no answer.
    pub fn unanswered(&self) -> Option<Duration> {
        self.waiting().map(|since| since.elapsed())
    }
}

/// Waits for a change; for ever when there will be none.
async fn woken<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How many requests may wait in the pool's line: few while runs are slow to start, so that other workers can have them, and
/// many while they start quickly, so that the threads never wait for a claim.
#[derive(Debug)]
struct Pace {
    smallest: usize,
    window: usize,
    /// In the line after the last claim.
    waiting: usize,
    at: Instant,
}

impl Pace {
    fn new(threads: usize) -> Self {
        let smallest = 2 * threads.max(1);
        Self { smallest, window: smallest, waiting: 0, at: Instant::now() }
    }

    /// After a claim of `count` jobs, with `waiting` now in the line.
    fn claimed(&mut self, count: usize, waiting: usize, now: Instant) {
        let started = (self.waiting + count).saturating_sub(waiting);
        let elapsed = now.saturating_duration_since(self.at).as_micros().max(1);
        let ahead = usize::try_from(started as u128 * AHEAD.as_micros() / elapsed).unwrap_or(usize::MAX);
        self.window = ahead.max(self.window * 3 / 4).clamp(self.smallest, LONGEST);
        self.waiting = waiting;
        self.at = now;
    }
}
