//! A live process with a wedged thread is not alive: when an executor thread does not go on for too long, this ends the
//! process, after it has handed back what it can. Runs on the thread that renews the lease, which no script can hold up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use super::Shared;
use crate::broker::Finish;
use crate::job::spec::Keep;
use crate::job::{JobId, RunEnd};
use crate::script::context::StopReason;
use crate::script::pool::{Pool, ThreadState};
use crate::shutdown::Shutdown;

/// No thread is taken for wedged sooner: a native call on a slow machine may well take seconds.
const SHORTEST: Duration = Duration::from_secs(10);
/// How long the runs of healthy threads have to end, and the broker to take back the rest.
const HAND_BACK: Duration = Duration::from_secs(2);

pub struct Watchdog {
    pub shared: Arc<Shared>,
    pub pool: Arc<Pool>,
    /// Stops the claims.
    pub claims: Shutdown,
    /// Asked for when the process has to end as it is.
    pub wedged: Shutdown,
}

impl Watchdog {
    /// Watches until `stop`. When a thread is wedged it hands back what it can and ends the process.
    pub async fn run(self, stop: Shutdown) {
        let patience = self.shared.options.lease.max(SHORTEST);
        let mut sightings = Sightings::default();
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(patience / 20) => {}
            }
            let wedged = sightings.look(&self.pool.threads(), Instant::now(), patience);
            if !wedged.is_empty() {
                self.give_up(&wedged).await;
            }
        }
    }

    async fn give_up(&self, wedged: &[Option<JobId>]) -> ! {
        let Shared { broker, runs, .. } = &*self.shared;
        for job in wedged {
            let info = job.and_then(|job| runs.info(job));
            let request_id = info.as_ref().map(|info| info.request_id.as_str());
            let job_name = info.as_ref().map(|info| info.name.as_str());
            let job_id = job.map(|job| job.to_string());
            error!(
                request_id,
                job_id,
                job_name,
                "an executor thread has stopped going on: the worker hands back its other runs and exits",
            );
        }
        self.claims.request();
        // Those on healthy threads end by themselves and are told of as usual.
        runs.stop_all(StopReason::Shutdown);
        runs.ended_within(HAND_BACK).await;
        // The rest share a thread with a wedged run and cannot go on; that run itself must be lost, not handed back, or it
        // would take down one worker after the other.
        let rest: Vec<Finish> = runs
            .left()
            .into_iter()
            .filter(|run| !wedged.contains(&Some(run.job)))
            .map(|run| Finish {
                run,
                end: RunEnd::Released { reason: "its worker had to stop".to_owned(), delay: Duration::ZERO },
                script_version: None,
                keep: Keep::default().failed,
            })
            .collect();
        if !rest.is_empty() {
            match tokio::time::timeout(HAND_BACK, broker.finish(rest)).await {
                Ok(Ok(_)) => {}
                Ok(Err(problem)) => error!("runs could not be handed back: {problem}"),
                Err(_) => error!("runs could not be handed back: no answer from the broker"),
            }
        }
        self.wedged.request();
        // A wedged thread cannot be joined. The process ends when its main thread does, or, should that hang too, here.
        tokio::time::sleep(HAND_BACK).await;
        std::process::exit(1);
    }
}

/// How long each thread has been seen standing still. Only time in which this was awake counts: after the process was
/// stopped as a whole (SIGSTOP, a frozen container) every thread looks old, and none is wedged.
#[derive(Default)]
struct Sightings {
    last_look: Option<Instant>,
    still: Vec<Duration>,
}

impl Sightings {
    /// Answers the jobs that wedged threads are on.
    fn look(&mut self, threads: &[ThreadState], now: Instant, patience: Duration) -> Vec<Option<JobId>> {
        self.still.resize(threads.len(), Duration::ZERO);
        let Some(last) = self.last_look.replace(now) else { return Vec::new() };
        let awake = now.saturating_duration_since(last).min(patience / 10);
        for (thread, still) in threads.iter().zip(&mut self.still) {
            *still = if thread.last_tick <= last { *still + awake } else { Duration::ZERO };
        }
        let stands = |(thread, still): (&ThreadState, &Duration)| (*still >= patience).then_some(thread.on);
        threads.iter().zip(&self.still).filter_map(stands).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn thread(last_tick: Instant) -> ThreadState {
        ThreadState { last_tick, on: None, load: 1 }
    }

    #[test]
    fn a_thread_that_stands_still_is_found_and_one_that_goes_on_is_not() {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        for step in 0..=25 {
            let now = start + Duration::from_millis(500) * step;
            let wedged = sightings.look(&[thread(start), thread(now)], now, PATIENCE);
            assert_eq!(wedged.len(), usize::from(step >= 20), "step {step}");
        }
    }

    #[test]
    fn a_process_that_was_stopped_is_not_wedged() {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        sightings.look(&[thread(start)], start, PATIENCE);
        let woken = start + Duration::from_secs(90);
        assert!(sightings.look(&[thread(start)], woken, PATIENCE).is_empty());
        assert!(sightings.look(&[thread(woken)], woken + Duration::from_secs(1), PATIENCE).is_empty());
    }
}
