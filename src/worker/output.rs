//! What one run says: log lines and progress, held to their limits, waiting to be shipped (`logs.rs`).
//! Nothing here waits: a script says something on an executor thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::finish::{Ended, RunInfo};
use super::logs::Shipping;
use super::{Shared, WorkerOptions, mask};
use crate::broker::NewLogLine;
use crate::job::time::SystemClock;
use crate::job::{Clock, Json, LogLevel, Progress, Version};

/// What a line takes besides its text. Bytes.
const LINE: usize = 64;

/// The output of one run.
pub struct Output {
    pub info: Arc<RunInfo>,
    shipping: Arc<Shipping>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<NewLogLine>,
    /// Of `lines`.
    bytes: usize,
    /// Lines thrown away that the broker does not know of.
    dropped: u64,
    /// Lines that the shipper has taken so far, thrown away ones included.
    taken: u64,
    allowance: Option<Allowance>,
    progress: Option<Progress>,
    /// The next progress is not stored before this.
    progress_from: Option<Instant>,
    ended: Option<Ended>,
    /// In the shipper's queue, or a timer will put it there.
    queued: bool,
    timer: bool,
    /// Whether the run ever said anything.
    spoke: bool,
}

/// What the shipper takes in one go.
pub struct Taken {
    /// Lines that were taken before.
    pub first: u64,
    pub lines: Vec<NewLogLine>,
    /// Of `lines`.
    pub bytes: usize,
    pub dropped: u64,
    pub progress: Option<Progress>,
    /// When to come back for progress that is early.
    pub again: Option<Instant>,
    pub ended: Option<Ended>,
}

impl Output {
    #[must_use]
    pub fn new(info: Arc<RunInfo>, shipping: Arc<Shipping>) -> Arc<Self> {
        Arc::new(Self { info, shipping, state: Mutex::default() })
    }

    /// One line. Over the rate it is dropped and counted.
    pub fn log(self: &Arc<Self>, level: LogLevel, message: String, fields: Option<Json>) {
        let Shared { options: WorkerOptions { limits, .. }, services, metrics, .. } = &*self.shipping.shared;
        let message = mask::text(services, message);
        let fields = fields.map(|fields| mask::json(services, fields));
        let mut line = NewLogLine { time: SystemClock.now(), level, message, fields };
        fit(&mut line, limits.log_line);
        let size = size(&line);
        let mut state = self.lock();
        state.spoke = true;
        if !Allowance::take(&mut state.allowance, limits.log_rate, Instant::now()) || !self.shipping.make_room(size) {
            if state.dropped == 0 {
                line.level = LogLevel::Warn;
                line.message = format!("log lines are dropped, a run may write {} a second", limits.log_rate);
                line.fields = None;
                self.trace(&line);
            }
            state.dropped += 1;
            metrics.job_log_dropped(1);
            return;
        }
        self.trace(&line);
        state.bytes += size;
        state.lines.push_back(line);
        // More than the broker keeps of a whole job need not wait here.
        while state.bytes > limits.log_bytes {
            let Some(oldest) = state.lines.pop_front() else { break };
            let freed = self::size(&oldest);
            state.bytes -= freed;
            state.dropped += 1;
            self.shipping.give_room(freed);
            metrics.job_log_dropped(1);
        }
        self.queue(&mut state);
    }

    /// How far the run is. The last one wins.
    pub fn progress(self: &Arc<Self>, percent: f64, message: String) {
        let message = mask::text(&self.shipping.shared.services, message);
        let mut state = self.lock();
        state.spoke = true;
        state.progress = Some(Progress { percent, message });
        if !state.timer {
            self.queue(&mut state);
        }
    }

    /// The run is over: its end is stored after everything that it said.
    pub fn end(self: &Arc<Self>, ended: Ended) {
        let mut state = self.lock();
        if state.spoke {
            state.ended = Some(ended);
            self.queue(&mut state);
        } else {
            self.shipping.finisher.finish(ended);
        }
    }

    /// What is to be sent now. The shipper sends it before it takes again.
    pub fn take(&self, now: Instant, progress_every: Duration) -> Taken {
        let mut state = self.lock();
        state.queued = false;
        let early = state.progress_from.filter(|from| *from > now && state.ended.is_none());
        let progress = if early.is_none() { state.progress.take() } else { None };
        if progress.is_some() {
            state.progress_from = Some(now + progress_every);
        }
        let again = early.filter(|_| state.progress.is_some() && !state.timer);
        state.timer |= again.is_some();
        let first = state.taken;
        state.taken += state.lines.len() as u64 + state.dropped;
        Taken {
            first,
            lines: std::mem::take(&mut state.lines).into(),
            bytes: std::mem::take(&mut state.bytes),
            dropped: std::mem::take(&mut state.dropped),
            progress,
            again,
            ended: state.ended.take(),
        }
    }

    /// Lines that were taken and could not be sent.
    pub fn lost(&self, lines: u64) {
        self.lock().dropped += lines;
    }

    /// The time for early progress has come.
    pub fn timer_fired(self: &Arc<Self>) {
        let mut state = self.lock();
        state.timer = false;
        if state.progress.is_some() {
            self.queue(&mut state);
        }
    }

    fn queue(self: &Arc<Self>, state: &mut State) {
        if !state.queued {
            state.queued = true;
            self.shipping.queue(Arc::clone(self));
        }
    }

    /// The line in the process log.
    fn trace(&self, line: &NewLogLine) {
        let info = &self.info;
        let version = info.version.as_ref().map(Version::as_str);
        let fields = line.fields.as_ref().map(|fields| fields.get());
        macro_rules! trace_at {
            ($level:ident) => {
                $level!(
                    target: "script", request_id = %info.request_id, job_id = %info.run.job, job_name = %info.name,
                    queue = %info.run.queue, attempt = info.attempt, worker_id = %info.worker, script_version = version,
                    fields, "{}", line.message
                )
            };
        }
        match line.level {
            LogLevel::Debug => trace_at!(debug),
            LogLevel::Info => trace_at!(info),
            LogLevel::Warn => trace_at!(warn),
            LogLevel::Error => trace_at!(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it is held can at worst lose a line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many lines may follow: a second's worth at once, refilled steadily.
struct Allowance {
    lines: f64,
    at: Instant,
}

impl Allowance {
    fn take(allowance: &mut Option<Self>, rate: u32, now: Instant) -> bool {
        let rate = f64::from(rate);
        let this = allowance.get_or_insert(Self { lines: rate, at: now });
        let since = now.saturating_duration_since(this.at).as_secs_f64();
        this.lines = (this.lines + since * rate).min(rate);
        this.at = now;
        let allowed = this.lines >= 1.0;
        if allowed {
            this.lines -= 1.0;
        }
        allowed
    }
}

fn size(line: &NewLogLine) -> usize {
    LINE + line.message.len() + fields_len(line)
}

fn fields_len(line: &NewLogLine) -> usize {
    line.fields.as_ref().map_or(0, |fields| fields.get().len())
}

/// Cuts a line to `limit` bytes of message and fields, and says so in it.
fn fit(line: &mut NewLogLine, limit: usize) {
    let total = line.message.len() + fields_len(line);
    if total <= limit {
        return;
    }
    let mark = format!("… (cut, the line had {total} bytes)");
    // Half a JSON object is none: the fields go whole, and first.
    line.fields = None;
    let end = line.message.floor_char_boundary(limit.saturating_sub(mark.len()));
    line.message.truncate(end);
    line.message.push_str(&mark);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let mut line = NewLogLine {
            time: crate::job::Timestamp(0),
            level: LogLevel::Info,
            message: "é".repeat(100),
            fields: serde_json::value::to_raw_value(&1).ok(),
        };
        fit(&mut line, 201);
        assert_eq!(line.message.len(), 200);
        assert!(line.fields.is_some());
        fit(&mut line, 100);
        assert!(line.message.len() <= 100, "{}", line.message);
        assert!(line.message.ends_with("é… (cut, the line had 201 bytes)"), "{}", line.message);
        assert!(line.fields.is_none());
    }

    #[test]
    fn a_run_may_say_a_seconds_worth_at_once_and_then_steadily() {
        let mut allowance = None;
        let start = Instant::now();
        let taken = |allowance: &mut Option<Allowance>, at| {
            (0..100).filter(|_| Allowance::take(allowance, 10, start + Duration::from_millis(at))).count()
        };
        assert_eq!(taken(&mut allowance, 0), 10);
        assert_eq!(taken(&mut allowance, 350), 3);
        assert_eq!(taken(&mut allowance, 60_000), 10);
    }
}
