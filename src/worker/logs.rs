//! Ships what runs say to the broker, in batches over all runs: what was said while the last call was under way goes in
//! the next one. Everything a run has said is stored before its end is, so whoever sees a job ended sees all of it; a
//! run that said nothing costs nothing. Knows no scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tracing::warn;

use super::Shared;
use super::finish::Finisher;
use super::output::Output;
use super::retry::while_held;
use crate::broker::{BrokerError, LogBatch};
use crate::shutdown::Shutdown;

/// Runs that one round takes.
const ROUND: usize = 256;
/// Bytes of lines in one call to the broker, about.
const CALL: usize = 4 << 20;
/// Bytes of lines that wait in this process, over all runs.
const WAITING: usize = 64 << 20;

/// What the outputs of all runs share.
pub struct Shipping {
    pub shared: Arc<Shared>,
    pub finisher: Finisher,
    queue: mpsc::UnboundedSender<Arc<Output>>,
    /// Bytes of lines that wait.
    waiting: AtomicUsize,
}

impl Shipping {
    #[must_use]
    pub fn channel(shared: Arc<Shared>, finisher: Finisher) -> (Arc<Self>, mpsc::UnboundedReceiver<Arc<Output>>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { shared, finisher, queue, waiting: AtomicUsize::new(0) }), receiver)
    }

    /// Each output is in the queue at most once, so it is no longer than there are runs.
    pub fn queue(&self, output: Arc<Output>) {
        if self.queue.send(output).is_err() {
            warn!("a run said something after its worker had stopped");
        }
    }

    /// Whether there is room for `bytes` more to wait; takes it.
    pub fn make_room(&self, bytes: usize) -> bool {
        let fits = |waiting: usize| (waiting + bytes <= WAITING).then_some(waiting + bytes);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub fn give_room(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The loop behind the outputs.
pub struct ShipLoop(pub Arc<Shipping>);

impl ShipLoop {
    /// Runs until `stop`, and then until nothing waits.
    pub async fn run(self, mut outputs: mpsc::UnboundedReceiver<Arc<Output>>, stop: Shutdown) {
        loop {
            let mut round = Vec::with_capacity(ROUND);
            tokio::select! {
                biased;
                count = outputs.recv_many(&mut round, ROUND) => if count == 0 { return },
                () = stop.requested() => {
                    outputs.close();
                    continue;
                }
            }
            self.run_once(round).await;
        }
    }

    /// Sends what these runs have said, then passes on those that have ended.
    pub async fn run_once(&self, round: Vec<Arc<Output>>) {
        let Shared { broker, options, .. } = &*self.0.shared;
        let every = Duration::from_secs(1) / options.limits.progress_rate.max(1);
        let now = Instant::now();
        let mut calls: Vec<Call> = vec![Call::default()];
        let mut progress = Vec::new();
        let mut ended = Vec::new();
        for output in round {
            let taken = output.take(now, every);
            if let Some(again) = taken.again {
                let output = Arc::clone(&output);
                tokio::spawn(async move {
                    tokio::time::sleep_until(again.into()).await;
                    output.timer_fired();
                });
            }
            ended.extend(taken.ended);
            if let Some(report) = taken.progress {
                progress.push((output.info.run.clone(), report));
            }
            if !taken.lines.is_empty() || taken.dropped > 0 {
                if calls.last().is_none_or(|call| call.bytes > CALL) {
                    calls.push(Call::default());
                }
                if let Some(call) = calls.last_mut() {
                    call.bytes += taken.bytes;
                    call.batches.push(LogBatch {
                        run: output.info.run.clone(),
                        attempt: output.info.attempt,
                        first: taken.first,
                        lines: taken.lines,
                        dropped: taken.dropped,
                    });
                    call.outputs.push(output);
                }
            }
        }
        let progress = join_all(progress.iter().map(|(run, report)| broker.progress(run, report)));
        let lines = async {
            for call in calls {
                self.send(call).await;
            }
        };
        let (reports, ()) = tokio::join!(progress, lines);
        for problem in reports.into_iter().filter_map(Result::err) {
            // The next one says more; a stale run is told of by its finish.
            if !matches!(problem, BrokerError::LeaseLost) {
                warn!("the progress of a run is not stored: {problem}");
            }
        }
        for ended in ended {
            self.0.finisher.finish(ended);
        }
    }

    async fn send(&self, call: Call) {
        if call.batches.is_empty() {
            return;
        }
        let Shared { broker, lease, options, metrics, .. } = &*self.0.shared;
        let max_bytes = u64::try_from(options.limits.log_bytes).unwrap_or(u64::MAX);
        // A call whose answer was lost is made again as it was: the broker knows what it has.
        let answers =
            while_held(lease, "log lines are not stored", |_| broker.log(call.batches.clone(), max_bytes)).await;
        self.0.give_room(call.bytes);
        if let Err(problem) = answers {
            warn!("log lines are dropped: {problem}");
            for (output, batch) in call.outputs.iter().zip(&call.batches) {
                let lines = u64::try_from(batch.lines.len()).unwrap_or(u64::MAX);
                metrics.job_log_dropped(lines);
                output.lost(lines + batch.dropped);
            }
        }
    }
}

/// One call to the broker.
#[derive(Default)]
struct Call {
    batches: Vec<LogBatch>,
    outputs: Vec<Arc<Output>>,
    bytes: usize,
}
