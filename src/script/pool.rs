//! The executor threads: each runs fibers, a thousand waiting ones or a few busy ones, and lets none starve.
//!
//! A thread steps woken fibers and new ones first, for at most one slice in a row, then one fiber that has used up its
//! slice. A new run starts only while few fibers are busy, so that busy scripts share cores and waiting ones do not
//! count. Requests wait in one line for whichever thread has room first, and can be taken back until then. Nothing of
//! a script leaves its thread.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::task::AtomicWaker;
use rhai::Engine;
use tokio::sync::Notify;

use super::account;
use super::engine::{self, Compiled};
use super::fiber::context::{JobInfo, SLICE, StopSignal};
use super::fiber::metronome::Metronome;
use super::fiber::{Fiber, RunReport, ScriptEnd, StackPool, Start, Step, Usage, size_for};
use super::library::Script;
use super::notes::{Note, Notes, Seat};
use super::ports::RunPorts;
use super::services::Services;
use crate::job::{JobId, Json, Limits, Version};

/// A thread starts a new run only while fewer of its fibers than this are busy.
const MAX_BUSY: usize = 4;
/// Bytes that a thread does not keep for later runs, once it has nothing to do.
const MUCH: u64 = 8 << 20;
/// A thread that is on one fiber for longer than this starts nothing soon.
const LONG: Duration = Duration::from_millis(50);
/// How long a thread steps fibers before it lets timers and sockets have their turn.
const TURN: Duration = Duration::from_micros(200);

pub struct PoolOptions {
    pub threads: usize,
    pub limits: Limits,
    pub services: Arc<Services>,
}

/// What is asked of the pool.
pub struct RunRequest {
    pub script: Arc<Script>,
    pub job: JobInfo,
    pub payload: Json,
    /// From the first statement.
    pub timeout: Duration,
    pub ports: Arc<dyn RunPorts>,
    pub stop: StopSignal,
    /// Called once, on the executor thread: it must not block.
    pub done: Box<dyn FnOnce(RunReport) + Send>,
}

/// What a watchdog sees of a thread.
#[derive(Clone, Debug)]
pub struct ThreadState {
    /// When the thread last went on; now, when it has nothing to do.
    pub last_tick: Instant,
    /// The job it is on.
    pub on: Option<JobId>,
    /// Fibers it has.
    pub load: usize,
}

/// Executor threads. Ended by [`Pool::shut_down`], which waits for them.
pub struct Pool {
    threads: Vec<(Arc<Shared>, JoinHandle<()>)>,
    line: Arc<Line>,
    born: Instant,
}

/// Requests that no thread has started yet, oldest first, with the time they came.
#[derive(Default)]
struct Line {
    requests: Mutex<VecDeque<(Instant, RunRequest)>>,
    /// Somebody waits until fewer requests than this are in line; 0 when nobody does.
    wanted: AtomicUsize,
    room: Notify,
}

impl Line {
    /// To be called when the line may be shorter or a thread may have room again.
    fn tell(&self) {
        let wanted = self.wanted.load(Ordering::SeqCst);
        if wanted > 0 && lock(&self.requests).len() < wanted {
            self.room.notify_one();
        }
    }
}

/// What a thread shares with the rest of the process.
struct Shared {
    /// Whether it waits to be woken. It looks at the line once more after it has set this.
    asleep: AtomicBool,
    /// Whether it has as many busy fibers as it may.
    full: AtomicBool,
    /// Fibers whose host call is worth a look.
    woken: Mutex<Vec<Place>>,
    waker: AtomicWaker,
    load: AtomicUsize,
    closing: AtomicBool,
    /// Since when it steps which fiber.
    on: Mutex<Option<(Instant, JobId)>>,
}

impl Shared {
    /// Whether it would start another run soon: it is not full, and not in a native call that takes long.
    fn has_room(&self) -> bool {
        let since = lock(&self.on).map_or(Duration::ZERO, |(since, _)| since.elapsed());
        !self.full.load(Ordering::SeqCst) && since < LONG
    }
}

impl Pool {
    /// A pool whose notes of who is on a CPU nobody reads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(options: PoolOptions) -> anyhow::Result<Self> {
        Self::start_with(options, engine::build)
    }

    /// A pool whose threads have another engine than jobs have: for the tests of scripts.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start_with(
        options: PoolOptions,
        build: impl Fn() -> Engine + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
        let notes = Notes::in_memory(options.threads.max(1));
        Self::start_all(options, &notes, build)
    }

    /// A pool that notes who is on a CPU. `notes` are of as many threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start_with_notes(options: PoolOptions, notes: &Arc<Notes>) -> anyhow::Result<Self> {
        Self::start_all(options, notes, engine::build)
    }

    fn start_all(
        options: PoolOptions,
        notes: &Arc<Notes>,
        build: impl Fn() -> Engine + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
        let PoolOptions { threads: count, limits, services } = options;
        let metronome = Arc::new(Metronome::start().context("the metronome thread cannot be started")?);
        let line = Arc::new(Line::default());
        let mut threads = Vec::new();
        // Values die on the threads that made them, and dropping a deep one needs as much stack there as on its fiber.
        let stack_size = size_for(64 << 20);
        for number in 0..count.max(1) {
            let shared = Arc::new(Shared {
                asleep: AtomicBool::new(false),
                full: AtomicBool::new(false),
                woken: Mutex::default(),
                waker: AtomicWaker::new(),
                load: AtomicUsize::new(0),
                closing: AtomicBool::new(false),
                on: Mutex::new(None),
            });
            let (mine, line, metronome) = (Arc::clone(&shared), Arc::clone(&line), Arc::clone(&metronome));
            let (services, limits, build) = (Arc::clone(&services), limits.clone(), build.clone());
            let notes = Arc::clone(notes);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .thread_stack_size(stack_size)
                .build()
                .context("the runtime of an executor thread cannot be started")?;
            let thread = thread::Builder::new()
                .name(format!("executor-{number}"))
                .stack_size(stack_size)
                .spawn(move || {
                    let seat = notes.seat(number);
                    runtime.block_on(Executor::new(mine, line, metronome, services, limits, build(), seat).run());
                })
                .context("an executor thread cannot be started")?;
            threads.push((shared, thread));
        }
        Ok(Self { threads, line, born: Instant::now() })
    }

    /// Puts a run in line for the first thread that has room.
    pub fn run(&self, request: RunRequest) {
        lock(&self.line.requests).push_back((Instant::now(), request));
        // A thread that is awake looks at the line before it goes to sleep, unless it is full.
        let sleeping =
            self.threads.iter().map(|(shared, _)| shared).filter(|shared| shared.asleep.load(Ordering::SeqCst));
        if let Some(shared) = sleeping.min_by_key(|shared| shared.load.load(Ordering::Relaxed)) {
            // So that the next request wakes another one.
            shared.asleep.store(false, Ordering::SeqCst);
            shared.waker.wake();
        }
    }

    /// Waits until a thread would start another run soon and at most `most` requests are in line. Answers how many are.
    pub async fn room(&self, most: usize) -> usize {
        loop {
            self.line.wanted.store(most.saturating_add(1), Ordering::SeqCst);
            let waiting = self.waiting();
            if waiting <= most && self.threads.iter().any(|(shared, _)| shared.has_room()) {
                self.line.wanted.store(0, Ordering::SeqCst);
                return waiting;
            }
            self.line.room.notified().await;
        }
    }

    /// Requests in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.line.requests).len()
    }

    /// Takes the requests back that have been in line for `age` or longer.
    #[must_use]
    pub fn take_back(&self, age: Duration) -> Vec<RunRequest> {
        let mut requests = lock(&self.line.requests);
        let count = requests.iter().take_while(|(since, _)| since.elapsed() >= age).count();
        let taken = requests.drain(..count).map(|(_, request)| request).collect();
        drop(requests);
        self.line.tell();
        taken
    }

    /// For the watchdog.
    #[must_use]
    pub fn threads(&self) -> Vec<ThreadState> {
        self.threads
            .iter()
            .map(|(shared, thread)| {
                let on = *lock(&shared.on);
                // A thread that has ended with work left never ticks again.
                let dead = thread.is_finished() && !shared.closing.load(Ordering::SeqCst);
                ThreadState {
                    last_tick: match on {
                        Some((since, _)) => since,
                        None if dead => self.born,
                        None => Instant::now(),
                    },
                    on: on.map(|(_, job)| job),
                    load: shared.load.load(Ordering::Relaxed),
                }
            })
            .collect()
    }

    /// Waits for the runs under way (stop them first) and ends the threads.
    pub fn shut_down(self) {
        for (shared, _) in &self.threads {
            shared.closing.store(true, Ordering::SeqCst);
            shared.waker.wake();
        }
        for (_, thread) in self.threads {
            if thread.join().is_err() {
                tracing::error!("an executor thread had panicked");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a fiber is. Numbers are used again; the generation tells a late wake-up from one for the fiber that is there now.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    number: usize,
    generation: u64,
}

/// Wakes one fiber of a thread.
struct FiberWaker {
    place: Place,
    shared: Arc<Shared>,
    /// Whether it is in the list already.
    listed: AtomicBool,
}

impl Wake for FiberWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            lock(&self.shared.woken).push(self.place);
            self.shared.waker.wake();
        }
    }
}

/// A fiber with what its thread needs to know of it.
struct Slot {
    fiber: Fiber,
    job: JobId,
    note: Note,
    done: Box<dyn FnOnce(RunReport) + Send>,
    waker: Arc<FiberWaker>,
}

/// One thread's own.
struct Executor {
    shared: Arc<Shared>,
    line: Arc<Line>,
    metronome: Arc<Metronome>,
    services: Arc<Services>,
    limits: Limits,
    seat: Seat,
    engine: Rc<Engine>,
    /// Compiled scripts; old versions go when no fiber has them.
    compiled: HashMap<Version, Rc<Compiled>>,
    stacks: StackPool,
    /// By number; a free place is none.
    fibers: Vec<Option<Slot>>,
    free: Vec<usize>,
    generation: u64,
    woken: VecDeque<Place>,
    sliced: VecDeque<Place>,
    /// A run held much and has ended since memory was last given back.
    litter: bool,
}

impl Executor {
    fn new(
        shared: Arc<Shared>,
        line: Arc<Line>,
        metronome: Arc<Metronome>,
        services: Arc<Services>,
        limits: Limits,
        engine: Engine,
        seat: Seat,
    ) -> Self {
        metronome.listen();
        Self {
            shared,
            line,
            metronome,
            services,
            limits,
            seat,
            engine: Rc::new(engine),
            compiled: HashMap::new(),
            stacks: StackPool::default(),
            fibers: Vec::new(),
            free: Vec::new(),
            generation: 0,
            woken: VecDeque::new(),
            sliced: VecDeque::new(),
            litter: false,
        }
    }

    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let more = poll_fn(|task| {
                // Registered before the look, so that nothing that comes meanwhile is missed.
                shared.waker.register(task.waker());
                shared.asleep.store(true, Ordering::SeqCst);
                if self.has_work() {
                    shared.asleep.store(false, Ordering::SeqCst);
                    return Poll::Ready(true);
                }
                if std::mem::take(&mut self.litter) {
                    account::give_back();
                }
                let idle = self.free.len() == self.fibers.len();
                if idle && shared.closing.load(Ordering::SeqCst) { Poll::Ready(false) } else { Poll::Pending }
            })
            .await;
            if !more {
                return;
            }
            self.turn();
            // Timers and sockets: without this a busy thread would never hear of them.
            tokio::task::yield_now().await;
        }
    }

    /// Takes in what was woken and answers whether there is anything to step.
    fn has_work(&mut self) -> bool {
        self.take_woken();
        !self.woken.is_empty()
            || !self.sliced.is_empty()
            || (self.sliced.len() < MAX_BUSY && !lock(&self.line.requests).is_empty())
    }

    fn take_woken(&mut self) {
        self.woken.extend(lock(&self.shared.woken).drain(..));
    }

    /// Steps fibers for a short while: woken and new ones, then one that waits for its next slice.
    fn turn(&mut self) {
        let metronome = Arc::clone(&self.metronome);
        let _playing = metronome.playing();
        let start = Instant::now();
        let mut now = start;
        let quick = if self.sliced.is_empty() { TURN } else { SLICE };
        loop {
            if let Some(place) = self.woken.pop_front() {
                self.step(place, now);
            } else if self.sliced.len() < MAX_BUSY && self.start_next(now) {
                // started and stepped
            } else {
                break;
            }
            now = Instant::now();
            if now - start >= quick {
                break;
            }
            self.take_woken();
        }
        if let Some(place) = self.sliced.pop_front() {
            self.step(place, now);
        }
        *lock(&self.shared.on) = None;
        self.seat.clear();
        let full = self.sliced.len() >= MAX_BUSY;
        self.shared.full.store(full, Ordering::SeqCst);
        if !full {
            self.line.tell();
        }
    }

    /// Starts the next requested run, if there is one.
    fn start_next(&mut self, now: Instant) -> bool {
        let Some((_, request)) = lock(&self.line.requests).pop_front() else { return false };
        self.shared.load.fetch_add(1, Ordering::Relaxed);
        let (job, done) = (request.job.id, request.done);
        let note = Note::new(job, &request.job.queue, request.job.token);
        self.seat.set(&note);
        let compiled = match self.compiled(&request.script) {
            Ok(compiled) => compiled,
            Err(why) => {
                self.refuse(done, format!("the script does not compile: {why}"));
                return true;
            }
        };
        let ports = Arc::clone(&request.ports);
        let start = Start {
            script: request.script,
            job: request.job,
            payload: request.payload,
            timeout: request.timeout,
            ports: request.ports,
            services: Arc::clone(&self.services),
            limits: self.limits.clone(),
            stop: request.stop,
        };
        match Fiber::new(start, &self.engine, &compiled, &self.stacks, now) {
            Ok(fiber) => {
                ports.started(fiber.started_at());
                let number = self.free.pop().unwrap_or_else(|| {
                    self.fibers.push(None);
                    self.fibers.len() - 1
                });
                self.generation += 1;
                let place = Place { number, generation: self.generation };
                let shared = Arc::clone(&self.shared);
                let waker = Arc::new(FiberWaker { place, shared, listed: AtomicBool::new(false) });
                self.fibers[number] = Some(Slot { fiber, job, note, done, waker });
                self.step(place, now);
            }
            Err(error) => self.refuse(done, format!("there is no stack for the run: {error}")),
        }
        true
    }

    fn refuse(&mut self, done: Box<dyn FnOnce(RunReport) + Send>, why: String) {
        self.shared.load.fetch_sub(1, Ordering::Relaxed);
        done(RunReport { end: ScriptEnd::NotStarted(why), usage: Usage::default(), started_at: None });
    }

    fn compiled(&mut self, script: &Arc<Script>) -> Result<Rc<Compiled>, rhai::ParseError> {
        if let Some(compiled) = self.compiled.get(&script.job_type.version) {
            return Ok(Rc::clone(compiled));
        }
        let compiled = Rc::new(Compiled::new(&self.engine, script)?);
        // A new version has come: those that nobody runs any more can go.
        self.compiled.retain(|_, old| old.name != script.job_type.name || Rc::strong_count(old) > 1);
        self.compiled.insert(script.job_type.version.clone(), Rc::clone(&compiled));
        Ok(compiled)
    }

    fn step(&mut self, place: Place, now: Instant) {
        // A wake-up may come for a fiber that has ended.
        let slot = self.fibers.get_mut(place.number).and_then(Option::as_mut);
        let Some(slot) = slot.filter(|slot| slot.waker.place == place) else { return };
        *lock(&self.shared.on) = Some((now, slot.job));
        self.seat.set(&slot.note);
        slot.waker.listed.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&slot.waker));
        match slot.fiber.step(now, &mut Context::from_waker(&waker)) {
            Step::Waiting => {}
            Step::Sliced => {
                // Listed: a wake-up while it waits for its turn changes nothing.
                slot.waker.listed.store(true, Ordering::Release);
                self.sliced.push_back(place);
            }
            Step::Done(report) => {
                self.litter |= report.usage.peak_memory > MUCH;
                if let Some(slot) = self.fibers[place.number].take() {
                    self.free.push(place.number);
                    self.shared.load.fetch_sub(1, Ordering::Relaxed);
                    (slot.done)(*report);
                }
            }
        }
        self.seat.clear();
    }
}
