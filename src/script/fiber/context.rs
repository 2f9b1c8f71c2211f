//! The run on this thread's fiber: what host functions and the engine's hooks find when they ask "who is calling?".
//!
//! The thread-local points at the run only while its fiber is resumed ([`enter`]); outside it is null. Everything that
//! ends a run early is noted here once and sticks: a script cannot catch it, and neither can Rhai's `sort`.
#![expect(unsafe_code, reason = "the running context is a raw pointer, so that each operation costs one load")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use corosensei::Yielder;
use futures_util::task::AtomicWaker;
use rhai::{Dynamic, EvalAltResult, Position};
use serde_json::value::RawValue;

use super::metronome;
use super::stack::stack_pointer;
use crate::job::limits::Limits;
use crate::job::{JobId, JobName, JobSpec, Json, LogLevel, Priority, QueueName, RequestId, RunToken, Timestamp};
use crate::script::account::{self, Account, OverMemory};
use crate::script::engine::Compiled;
use crate::script::library::Script;
use crate::script::ports::{HostError, HostResult, RunPorts};
use crate::script::services::Services;

pub type ScriptResult<T> = Result<T, Box<EvalAltResult>>;

/// Work above this many bytes of input leaves the executor thread.
pub const COMPUTE_INLINE: usize = 64 << 10;

/// How long a fiber may run before others get their turn.
pub const SLICE: Duration = Duration::from_millis(2);

/// Who a run is; what a script sees of it is a copy, host calls read this one.
#[derive(Clone, Debug)]
pub struct JobInfo {
    pub id: JobId,
    pub name: JobName,
    pub queue: QueueName,
    pub token: RunToken,
    pub attempt: u32,
    pub max_attempts: u32,
    pub request_id: RequestId,
    pub created_at: Timestamp,
    pub tags: Vec<String>,
    pub priority: Priority,
    /// 0 for a job of a client, 1 for its children, and so on.
    pub depth: u32,
}

/// Why somebody outside ends a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    Cancelled,
    LeaseLost,
    Shutdown,
    /// Whoever asked for the run has no more time: the run ends as with its own timeout.
    TimeUp,
}

/// Asks a run to end, from any thread. The first reason counts.
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<StopShared>);

#[derive(Debug, Default)]
struct StopShared {
    reason: AtomicU8,
    waker: AtomicWaker,
}

impl StopSignal {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn stop(&self, reason: StopReason) {
        let code = match reason {
            StopReason::Cancelled => 1,
            StopReason::LeaseLost => 2,
            StopReason::Shutdown => 3,
            StopReason::TimeUp => 4,
        };
        let _ = self.0.reason.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.0.waker.wake();
    }

    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        match self.0.reason.load(Ordering::Acquire) {
            1 => Some(StopReason::Cancelled),
            2 => Some(StopReason::LeaseLost),
            3 => Some(StopReason::Shutdown),
            4 => Some(StopReason::TimeUp),
            _ => None,
        }
    }

    pub(super) fn wake_on_stop(&self, waker: &std::task::Waker) {
        self.0.waker.register(waker);
    }
}

/// What ends a run besides its own return.
#[derive(Clone, PartialEq, Debug)]
pub enum End {
    FailedByScript(String),
    RetryIn(Duration, String),
    Timeout,
    Memory(OverMemory),
    Stack,
    /// A host call panicked while the fiber waited for it.
    Panicked(String),
    Stopped(StopReason),
}

/// What a suspended fiber waits for.
pub(super) enum Pause {
    /// Its turn: the slice is used up.
    Slice,
    /// A host call.
    Wait(Pin<Box<dyn Future<Output = ()>>>),
}

/// One run, as its host functions see it. Lives on its executor thread.
pub struct RunContext {
    pub job: JobInfo,
    pub script: Arc<Script>,
    pub(in crate::script) compiled: Rc<Compiled>,
    pub ports: Arc<dyn RunPorts>,
    pub services: Arc<Services>,
    pub limits: Limits,
    pub account: Rc<Account>,
    /// How many times each host call with an effect was made, by the digest of what it asks for.
    pub(super) occurrences: RefCell<HashMap<[u8; 16], u32>>,
    /// Jobs submitted so far.
    pub children: Cell<u64>,
    /// What `run` is called with, until it takes it.
    pub(super) argument: Cell<Dynamic>,
    pub(super) stop: StopSignal,
    pub(super) started: Instant,
    pub(super) deadline: Cell<Instant>,
    pub(super) timeout: Duration,
    pub(super) slice_end: Cell<Instant>,
    /// The last one at which the clock was looked at.
    pub(super) beat: Cell<Option<u32>>,
    pub(super) stack_limit: usize,
    pub(super) yielder: Cell<*const Yielder<(), Pause>>,
    pub(super) end: RefCell<Option<End>>,
    pub(super) ended: Cell<bool>,
    /// File and place of the host call that found the run over.
    pub(in crate::script) end_place: RefCell<Option<(String, Position)>>,
}

thread_local! {
    static CURRENT: Cell<*const RunContext> = const { Cell::new(ptr::null()) };
}

/// Runs `f` with `run` as the context of this thread and its account charged; restores what was before, also when `f`
/// unwinds. Every resume, poll and drop of a fiber's parts goes through here.
pub(super) fn enter<R>(run: &Rc<RunContext>, f: impl FnOnce() -> R) -> R {
    struct Restore(*const RunContext);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(Rc::as_ptr(run)));
    run.account.charge(f)
}

/// Whether a run is on this thread now.
#[must_use]
pub fn is_running() -> bool {
    !CURRENT.get().is_null()
}

/// The run that calls. Every host function that has an effect, waits or costs starts with it.
///
/// # Errors
/// Uncatchable once the run has ended, so that a stopped script has no further effect.
pub fn current() -> ScriptResult<Rc<RunContext>> {
    let pointer = CURRENT.get();
    if pointer.is_null() {
        return Err("host functions are for running jobs: this code is not run by one".into());
    }
    // SAFETY: `enter` set the pointer from an `Rc` that its caller holds until `CURRENT` is restored, on this thread.
    let run = unsafe {
        Rc::increment_strong_count(pointer);
        Rc::from_raw(pointer)
    };
    if run.is_over() { Err(terminated()) } else { Ok(run) }
}

impl RunContext {
    #[must_use]
    pub fn spec(&self) -> &JobSpec {
        &self.script.job_type.spec
    }

    /// How many times the call with this digest was made in this run, this time included. It makes the ids of calls
    /// with an effect the same from attempt to attempt.
    pub fn occurrence(&self, digest: &[u8]) -> u32 {
        let mut key = [0; 16];
        let length = digest.len().min(key.len());
        key[..length].copy_from_slice(&digest[..length]);
        let mut occurrences = self.occurrences.borrow_mut();
        let count = occurrences.entry(key).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// One line to the job's log, without secrets. What is handed over is no longer the script's memory.
    pub fn log(&self, level: LogLevel, message: &str, fields: Option<&Json>) {
        let masker = &self.services.masker;
        account::uncharged(|| {
            let fields =
                fields.and_then(|fields| RawValue::from_string(masker.mask_json(fields.get()).into_owned()).ok());
            self.ports.log(level, masker.mask(message).into_owned(), fields);
        });
    }

    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When the run must be over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    /// Ends the run; the first end counts.
    pub(super) fn end_with(&self, end: End) {
        if !self.ended.replace(true) {
            *self.end.borrow_mut() = Some(end);
            account::alarm();
        }
    }

    /// Whether the run has ended or must end now, by what does not need the clock.
    pub(super) fn is_over(&self) -> bool {
        if self.ended.get() {
            return true;
        }
        if let Some(reason) = self.stop.reason() {
            self.end_with(End::Stopped(reason));
        } else if let Some(over) = self.account.verdict() {
            self.end_with(End::Memory(over));
        }
        self.ended.get()
    }

    /// Whether the run has ended or must end now.
    pub(super) fn is_over_at(&self, now: Instant) -> bool {
        if !self.is_over() && now >= self.deadline.get() {
            self.end_with(End::Timeout);
        }
        self.ended.get()
    }

    /// Takes a time that passes only on a clock of its own off the run's time.
    pub fn skip(&self, duration: Duration) {
        let deadline = self.deadline.get();
        self.deadline.set(deadline.checked_sub(duration).unwrap_or(self.started));
    }

    fn suspend(&self, pause: Pause) -> ScriptResult<()> {
        let yielder = self.yielder.get();
        if yielder.is_null() {
            return Err("a host call that waits was made outside a fiber".into());
        }
        // SAFETY: the fiber's root sets the pointer to its own yielder, which lives as long as the fiber runs; this code
        // runs on that fiber, since `CURRENT` is only set while it is resumed.
        unsafe { &*yielder }.suspend(pause);
        if self.is_over() { Err(terminated()) } else { Ok(()) }
    }
}

/// Notes where the host call stands that ends the run; the first one counts.
pub fn ended_at(file: Option<&str>, position: Position) {
    let pointer = CURRENT.get();
    // SAFETY: as in `current`; the reference does not outlive this call.
    let Some(run) = (unsafe { pointer.as_ref() }) else { return };
    let mut place = run.end_place.borrow_mut();
    if place.is_none() && !position.is_none() {
        *place = Some((account::uncharged(|| file.unwrap_or_default().to_owned()), position));
    }
}

/// The value that `run` is called with; `()` when it was taken before.
pub fn take_job() -> Dynamic {
    current().map(|run| run.argument.take()).unwrap_or_default()
}

/// The engine's hook, at every operation of a script: whether nothing calls for [`attend`].
#[inline]
pub fn goes_on() -> bool {
    account::goes_on(stack_pointer)
}

/// What an operation does when something calls for it: guards the stack and the memory, looks at the clock at a beat, and
/// gives up the thread when the slice is used up. An answer other than none ends the script.
#[cold]
pub fn attend() -> Option<Dynamic> {
    let pointer = CURRENT.get();
    // SAFETY: as in `current`; the reference does not outlive this call, during which the fiber's owner keeps the run.
    let run = unsafe { pointer.as_ref() }?;
    let depth = stack_pointer();
    run.account.reach(depth);
    if depth < run.stack_limit {
        run.end_with(End::Stack);
    }
    let beat = metronome::beat();
    if !run.is_over() && run.beat.get() == Some(beat) {
        return None;
    }
    let now = Instant::now();
    let over = run.is_over_at(now) || (now >= run.slice_end.get() && run.suspend(Pause::Slice).is_err());
    if over {
        // Rhai may swallow this end: the next operation gets it again.
        account::alarm();
        return Some(Dynamic::UNIT);
    }
    run.beat.set(Some(beat));
    None
}

/// Suspends the fiber until `future` is done. Bounded by the run's deadline; at a stop the future is dropped.
///
/// # Errors
/// What the future says, as a value that the script can catch; uncatchable when the run ended meanwhile.
pub fn wait<T: 'static>(future: impl Future<Output = HostResult<T>> + 'static) -> ScriptResult<T> {
    let run = current()?;
    let slot = Rc::new(Cell::new(None));
    let filled = Rc::clone(&slot);
    run.suspend(Pause::Wait(Box::pin(async move { filled.set(Some(future.await)) })))?;
    match slot.take() {
        Some(result) => result.map_err(throw),
        None => Err(terminated()),
    }
}

/// Does `work` on the blocking pool while the fiber is suspended when its input is large (`usize::MAX` for work that
/// always is), else right here.
///
/// # Errors
/// As [`wait`].
pub fn compute<T: Send + 'static>(
    input_bytes: usize,
    work: impl FnOnce() -> HostResult<T> + Send + 'static,
) -> ScriptResult<T> {
    let run = current()?;
    if input_bytes <= COMPUTE_INLINE {
        return work().map_err(throw);
    }
    wait(account::uncharged(|| run.services.compute(work)))
}

/// A host error as the script sees it: a map it can catch, `#{ kind, message, retryable, status? }`.
#[must_use]
pub fn throw(error: HostError) -> Box<EvalAltResult> {
    let mut map = rhai::Map::new();
    map.insert("kind".into(), error.kind.as_str().into());
    map.insert("message".into(), error.message.into());
    map.insert("retryable".into(), error.retryable.into());
    if let Some(status) = error.status {
        map.insert("status".into(), i64::from(status).into());
    }
    EvalAltResult::ErrorRuntime(map.into(), Position::NONE).into()
}

/// Ends the job without another attempt. Uncatchable.
#[must_use]
pub fn fail_job(message: String) -> Box<EvalAltResult> {
    end_current(End::FailedByScript(message))
}

/// Ends the attempt and asks for the next one after `delay`. Uncatchable.
#[must_use]
pub fn retry_job(delay: Duration, message: String) -> Box<EvalAltResult> {
    end_current(End::RetryIn(delay, message))
}

fn end_current(end: End) -> Box<EvalAltResult> {
    match current() {
        Ok(run) => {
            run.end_with(end);
            terminated()
        }
        Err(error) => error,
    }
}

/// The error that no script can catch.
pub(super) fn terminated() -> Box<EvalAltResult> {
    EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE).into()
}
