//! The lease: who this worker is to the broker, and the loop that keeps it so.
//!
//! One lease covers all runs of the process. It is renewed on a thread of its own (`pulse.rs`), so that neither a busy
//! runtime nor a script can lose it. A lease that is lost is lost for good: the runs under it are stopped, since another
//! worker may have them by now, and this worker comes back under a new id. Knows nothing of claims or scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use super::Shared;
use crate::broker::{BrokerError, Topic, WorkerBeat};
use crate::job::WorkerId;
use crate::script::context::StopReason;
use crate::shutdown::Shutdown;

/// A wake-up for cancel marks makes for a renewal, but no two closer than this: a busy broker wakes all the time.
const CANCEL_SPACING: Duration = Duration::from_millis(100);

/// Who this worker is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: WorkerId,
    /// Grows by one with each new id: what was claimed in an older epoch is lost.
    pub epoch: u64,
}

/// The state of the lease, shared by everything that acts under it.
pub struct Lease {
    length: Duration,
    member: watch::Sender<Member>,
    born: Instant,
    /// When the last renewal that went through was *asked* for, in microseconds after `born`, plus one; 0 before the
    /// first. The broker counts from later than that, so this side always gives up first.
    renewed: AtomicU64,
    doubt: Notify,
}

impl Lease {
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            member: watch::Sender::new(Member { id: WorkerId::random(), epoch: 0 }),
            born: Instant::now(),
            renewed: AtomicU64::new(0),
            doubt: Notify::new(),
        }
    }

    #[must_use]
    pub fn member(&self) -> Member {
        self.member.borrow().clone()
    }

    /// Changes when the worker comes back under a new id.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Member> {
        self.member.subscribe()
    }

    /// Whether the lease is certainly still held, by this machine's clock.
    #[must_use]
    pub fn held(&self) -> bool {
        self.age().is_some_and(|age| age < self.length)
    }

    /// Someone was told that the lease is gone: have it renewed, or lost, at once.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Since the last renewal was asked for; none before the first.
    fn age(&self) -> Option<Duration> {
        let renewed = self.renewed.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.born.elapsed().saturating_sub(Duration::from_micros(renewed)))
    }

    fn renewed(&self, asked: Instant) {
        let after = asked.saturating_duration_since(self.born).as_micros();
        self.renewed.store(u64::try_from(after).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
    }

    fn rejoin(&self) -> Member {
        self.renewed.store(0, Ordering::Release);
        self.member.send_modify(|member| *member = Member { id: WorkerId::random(), epoch: member.epoch + 1 });
        self.member()
    }
}

/// Renews the lease each third of it, and at once when jobs were cancelled.
pub struct Renewal {
    pub shared: Arc<Shared>,
    /// The name of this machine.
    pub host: String,
}

impl Renewal {
    /// Runs until `stop`; the lease is then still held.
    pub async fn run(self, stop: Shutdown) {
        let mut cancels = self.shared.broker.changes(Topic::Cancel);
        let mut last = Instant::now();
        let mut next = last;
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.shared.lease.doubt.notified() => {}
                Ok(()) = cancels.changed() => {
                    next = next.min(last + CANCEL_SPACING);
                    continue;
                }
            }
            last = Instant::now();
            let again = self.run_once().await;
            next = Instant::now() + again;
        }
    }

    /// One renewal. Answers when the next one is due.
    pub async fn run_once(&self) -> Duration {
        let Shared { broker, lease, runs, options, .. } = &*self.shared;
        let third = lease.length / 3;
        let beat = WorkerBeat {
            worker: lease.member().id,
            lease: lease.length,
            host: self.host.clone(),
            pid: std::process::id(),
            concurrency: options.concurrency,
        };
        let asked = Instant::now();
        // A broker that hangs is as good as one that is away. The last try must end before the lease does; and a process
        // that was stopped for longer than that gets one short try, since its runs may be somebody else's by now.
        let patience = third.saturating_sub(third / 8).max(Duration::from_millis(100));
        let answer = tokio::time::timeout(patience, broker.renew(&beat)).await;
        let problem = match answer {
            Ok(Ok(renewed)) => {
                lease.renewed(asked);
                for run in renewed.cancelled {
                    runs.stop(run.token, StopReason::Cancelled);
                }
                return third.saturating_sub(asked.elapsed());
            }
            Ok(Err(BrokerError::LeaseLost)) => {
                self.lose("the broker says that it is over");
                return Duration::ZERO;
            }
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => format!("no answer within {patience:?}"),
        };
        warn!(worker_id = %beat.worker, "the lease was not renewed: {problem}");
        if lease.age().is_some_and(|age| age >= lease.length) {
            // Without a new id the broker could still take this one for alive later, and its runs for running.
            self.lose("it could not be renewed in time");
        }
        (third / 4).min(Duration::from_secs(1))
    }

    fn lose(&self, why: &str) {
        let Shared { lease, runs, .. } = &*self.shared;
        let old = lease.member();
        let new = lease.rejoin();
        let stopped = runs.lose_all(new.epoch);
        error!(
            worker_id = %old.id, stopped,
            "the lease is lost ({why}): its runs are stopped, this worker comes back as {}", new.id,
        );
    }
}

/// Registers a worker before anything else is done in its name; tries again until the broker is there or `stop`.
/// Answers whether it is registered.
pub async fn register(renewal: &Renewal, stop: &Shutdown) -> bool {
    let lease = &renewal.shared.lease;
    loop {
        let again = renewal.run_once().await;
        if lease.held() {
            info!(worker_id = %lease.member().id, "the worker is registered");
            return true;
        }
        tokio::select! {
            () = stop.requested() => return false,
            () = tokio::time::sleep(again) => {}
        }
    }
}
