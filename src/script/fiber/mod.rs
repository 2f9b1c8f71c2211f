//! A fiber: one run of one script on its own stack, suspended whenever it waits or has used up its slice.
//!
//! [`Fiber::step`] is the one way in: it sets the context, resumes, and restores. A run is ended by resuming it with its
//! end noted in the context; every operation and host call then fails uncatchably until the script has returned.
//! Dropping a suspended fiber unwinds its stack, which is only the backstop at the end of the process.

pub mod context;
pub mod metronome;
mod stack;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use corosensei::{Coroutine, CoroutineResult};
use rhai::{Dynamic, Engine};
use serde_json::value::RawValue;
use tokio::time::Sleep;

use self::context::{End, JobInfo, Pause, RunContext, SLICE, StopReason, StopSignal, enter};
use self::stack::FiberStack;
pub use self::stack::{StackPool, size_for};
use super::account::Account;
use super::convert;
use super::engine::Compiled;
use super::failure;
use super::library::Script;
use super::ports::RunPorts;
use super::services::Services;
use crate::job::{Clock, ErrorKind, JobError, Json, Limits, Timestamp, time::SystemClock};

/// More than this still charged when everything of a run is dropped is worth a word: its result and error, which are, take
/// less. Bytes.
const LEAK: usize = 4 << 20;

/// What a run is made of.
pub struct Start {
    /// The version it runs on to its end.
    pub script: Arc<Script>,
    pub job: JobInfo,
    pub payload: Json,
    /// From the first statement.
    pub timeout: Duration,
    pub ports: Arc<dyn RunPorts>,
    pub services: Arc<Services>,
    pub limits: Limits,
    pub stop: StopSignal,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum ScriptEnd {
    Returned(Json),
    Failed(JobError),
    /// The script asked for its own delay.
    RetryIn {
        error: JobError,
        delay: Duration,
    },
    Stopped(StopReason),
    /// There was no stack to be had: no statement was run.
    NotStarted(String),
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Operations of the script engine.
    pub operations: u64,
    /// Bytes.
    pub peak_memory: u64,
    /// From the first statement to the end, waits included.
    pub run_time: Duration,
}

#[derive(Clone, Debug)]
pub struct RunReport {
    pub end: ScriptEnd,
    pub usage: Usage,
    /// When the first statement ran; absent when none did.
    pub started_at: Option<Timestamp>,
}

/// What a step came to.
pub enum Step {
    /// A host call is under way; the waker is called when it is worth another step.
    Waiting,
    /// The slice is used up; another step goes on.
    Sliced,
    Done(Box<RunReport>),
}

type Routine = Coroutine<(), Pause, ScriptEnd, FiberStack>;

pub struct Fiber {
    run: Rc<RunContext>,
    // Dropped before the coroutine: a host call never outlives the script that made it.
    pending: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Fires at the deadline; made when the run first waits.
    timer: Option<Pin<Box<Sleep>>>,
    coroutine: Option<Routine>,
    stacks: StackPool,
    started_at: Timestamp,
}

impl Fiber {
    /// Makes the fiber of one run; nothing of the script has run yet.
    ///
    /// # Errors
    /// When there is no stack to be had.
    pub fn new(
        start: Start,
        engine: &Rc<Engine>,
        compiled: &Rc<Compiled>,
        stacks: &StackPool,
        now: Instant,
    ) -> io::Result<Self> {
        let memory = start.script.job_type.spec.memory;
        let stack = stacks.take(memory)?;
        let run = Rc::new(RunContext {
            job: start.job,
            script: start.script,
            compiled: Rc::clone(compiled),
            ports: start.ports,
            services: start.services,
            limits: start.limits,
            account: Account::new(usize::try_from(memory).unwrap_or(usize::MAX)),
            occurrences: RefCell::default(),
            children: Cell::new(0),
            argument: Cell::default(),
            stop: start.stop,
            started: now,
            deadline: Cell::new(
                now.checked_add(start.timeout).unwrap_or(now + Duration::from_secs(u64::from(u32::MAX))),
            ),
            timeout: start.timeout,
            slice_end: Cell::new(now + SLICE),
            beat: Cell::new(None),
            stack_limit: stack.script_limit(),
            yielder: Cell::new(std::ptr::null()),
            end: RefCell::new(None),
            ended: Cell::new(false),
            end_place: RefCell::new(None),
        });
        let (engine, context, payload) = (Rc::clone(engine), Rc::clone(&run), start.payload);
        let coroutine = Coroutine::with_stack(stack, move |yielder, ()| {
            context.yielder.set(yielder);
            // The only catch below which scripts run: a fault of a host function fails this job, not the worker.
            catch_unwind(AssertUnwindSafe(|| execute(&engine, &context, payload)))
                .unwrap_or_else(|fault| ScriptEnd::Failed(panicked(&*fault)))
        });
        Ok(Self {
            run,
            pending: None,
            timer: None,
            coroutine: Some(coroutine),
            stacks: stacks.clone(),
            started_at: SystemClock.now(),
        })
    }

    /// When the first statement runs.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Goes on with the run, from `now` on, until it waits, has used up its slice, or is done.
    pub fn step(&mut self, now: Instant, task: &mut Context<'_>) -> Step {
        self.run.slice_end.set(now + SLICE);
        loop {
            if !self.poll_pending(task) {
                return Step::Waiting;
            }
            let run = Rc::clone(&self.run);
            let Some(coroutine) = self.coroutine.as_mut() else {
                return Step::Done(Box::new(self.report(ScriptEnd::Failed(JobError::new(
                    ErrorKind::Panic,
                    "the run was resumed after its end",
                    false,
                )))));
            };
            match enter(&run, || coroutine.resume(())) {
                CoroutineResult::Yield(Pause::Slice) => return Step::Sliced,
                CoroutineResult::Yield(Pause::Wait(call)) => self.pending = Some(call),
                CoroutineResult::Return(end) => {
                    let report = self.report(end);
                    self.look_for_leaks();
                    self.recycle();
                    return Step::Done(Box::new(report));
                }
            }
        }
    }

    /// Whether the script can go on: nothing is pending, or it is done, or the run must end.
    fn poll_pending(&mut self, task: &mut Context<'_>) -> bool {
        let Some(call) = self.pending.as_mut() else { return true };
        let run = &self.run;
        // Registered before the stop is looked for, so that none is missed.
        run.stop.wake_on_stop(task.waker());
        if !run.is_over_at(Instant::now()) {
            // A panic in a host call's future is that call's fault, as it would be on the fiber.
            match catch_unwind(AssertUnwindSafe(|| enter(run, || call.as_mut().poll(task)))) {
                Ok(Poll::Ready(())) => {}
                Err(fault) => run.end_with(End::Panicked(panic_text(&*fault).to_owned())),
                Ok(Poll::Pending) => {
                    let deadline = run.deadline().into();
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                    if timer.deadline() != deadline {
                        timer.as_mut().reset(deadline);
                    }
                    if timer.as_mut().poll(task).is_pending() {
                        return false;
                    }
                    run.end_with(End::Timeout);
                }
            }
        }
        let call = self.pending.take();
        enter(&self.run, || drop(call));
        true
    }

    fn report(&self, end: ScriptEnd) -> RunReport {
        let usage = Usage {
            operations: self.run.account.operations(),
            peak_memory: self.run.account.peak() as u64,
            run_time: self.run.started.elapsed(),
        };
        RunReport { end, usage, started_at: Some(self.started_at) }
    }

    /// A closure that captures itself is never freed: Rhai counts references. Its worker loses that memory for good, so
    /// its author must hear of it.
    fn look_for_leaks(&self) {
        let left = self.run.account.used();
        if left > LEAK {
            tracing::warn!(
                job_name = %self.run.job.name, job_id = %self.run.job.id, request_id = %self.run.job.request_id,
                "the run left {left} bytes behind that can never be freed: does a closure capture the variable it is in?"
            );
        }
    }

    fn recycle(&mut self) {
        if let Some(coroutine) = self.coroutine.take() {
            let stack = coroutine.into_stack();
            let deep = stack::went_deep(&stack, self.run.account.lowest(), self.run.account.peak());
            self.stacks.give_back(stack, deep);
        }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // Only a fiber that is dropped half-way still has these.
        let (call, coroutine) = (self.pending.take(), self.coroutine.take());
        enter(&self.run, || drop((call, coroutine)));
    }
}

/// The whole of a run, on the fiber: values of the script live and die here, where the stack is large enough.
fn execute(engine: &Engine, run: &RunContext, payload: Json) -> ScriptEnd {
    if run.is_over_at(run.started)
        && let Some(end) = run.end.borrow_mut().take()
    {
        return failure::early_end(run, end, None);
    }
    let job = match job_map(run, &payload) {
        Ok(job) => job,
        Err(message) => return ScriptEnd::Failed(JobError::new(ErrorKind::InvalidPayload, message, false)),
    };
    drop(payload);
    run.argument.set(job);
    let value = engine.eval_ast::<Dynamic>(&run.compiled.program);
    if value.is_err() || run.account.verdict().is_some() {
        // A function that was refused memory ends the script by itself, or with a text cut short: the account knows why.
        let _ = run.is_over();
    }
    let end = run.end.borrow_mut().take();
    match (end, value) {
        (Some(end), value) => failure::early_end(run, end, value.err().as_deref()),
        (None, Err(error)) => ScriptEnd::Failed(failure::job_error(run, &error)),
        (None, Ok(value)) => {
            match convert::to_json(&value, "result", run.limits.max_result)
                .map_err(|fault| fault.to_string())
                .map(|text| run.services.masker.mask_json(&text).into_owned())
                .and_then(|text| RawValue::from_string(text).map_err(|fault| fault.to_string()))
            {
                Ok(result) => ScriptEnd::Returned(result),
                Err(message) => ScriptEnd::Failed(failure::invalid_result(run, &message)),
            }
        }
    }
}

/// What `run(job)` is given: a plain map, a copy.
fn job_map(run: &RunContext, payload: &Json) -> Result<Dynamic, String> {
    let job = &run.job;
    let mut payload = convert::from_json(payload.get()).map_err(|fault| fault.to_string())?;
    // Once per version its keys, per run only the values.
    let mut map = run.compiled.job.clone();
    for (key, value) in &mut map {
        *value = match key.as_str() {
            "id" => job.id.to_string().into(),
            "name" => job.name.as_str().into(),
            "queue" => job.queue.as_str().into(),
            "payload" => std::mem::take(&mut payload),
            "attempt" => i64::from(job.attempt).into(),
            "max_attempts" => i64::from(job.max_attempts).into(),
            "request_id" => job.request_id.as_str().into(),
            "created_at" => job.created_at.to_string().into(),
            "tags" => Dynamic::from_array(job.tags.iter().map(Into::into).collect()),
            _ => Dynamic::UNIT,
        };
    }
    Ok(Dynamic::from_map(map))
}

fn panicked(fault: &(dyn Any + Send)) -> JobError {
    JobError::new(ErrorKind::Panic, format!("a host function panicked: {}", panic_text(fault)), false)
}

fn panic_text(fault: &(dyn Any + Send)) -> &str {
    let text = fault.downcast_ref::<&str>().copied();
    text.or_else(|| fault.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
