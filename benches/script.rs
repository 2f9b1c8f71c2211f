//! What Ryemill adds to the script engine: one run that does nothing, and a loop of a million iterations, each beside plain
//! Rhai with the same script.
//!
//! `cargo bench --bench script`. The run is allowed 2 µs above the plain call, the loop 15 %, and 10 % by instructions: those
//! are counted by `benches/instructions`, which runs loops alone (`loop plain BODY`, `loop ours BODY`) under valgrind.

use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rhai::{Dynamic, Engine, Scope};
use ryemill::job::{Clock, Limits, time::SystemClock};
use ryemill::script::context::StopSignal;
use ryemill::script::fiber::{RunReport, ScriptEnd};
use ryemill::script::library::{Library, Script};
use ryemill::script::memory::MemoryPorts;
use ryemill::script::pool::{Pool, PoolOptions, RunRequest};
use ryemill::script::services::{Services, ServicesOptions};
use ryemill::script::testing;
use serde_json::value::RawValue;

const NOOP: &str = "const JOB = #{};\nfn run(job) { () }\n";
const LOOP: &str = "const JOB = #{ timeout: \"5m\" };\nfn run(job) {\n    let sum = 0;\n    for n in 0..1000000 {\n        \
                    sum += n % 7;\n    }\n    sum\n}\n";
/// As many as a worker has claimed at once: a run's request is still warm when its turn comes.
const AT_ONCE: u32 = 256;
const RUNS: u32 = 256 * 80;
const ROUNDS: usize = 15;
const LOOPS: usize = 15;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let services = Arc::new(Services::new(ServicesOptions::default(), runtime.handle()).expect("services"));
    let pool = Pool::start(PoolOptions { threads: 1, limits: Limits::default(), services }).expect("a pool");
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [what, side, body] = &args[..]
        && what == "loop"
    {
        let text = format!("const JOB = #{{ timeout: \"5m\" }};\nfn run(job) {{\n{body}\n}}\n");
        if side == "plain" {
            plain_loop(&text);
        } else {
            one(&pool, &script(&text));
        }
        pool.shut_down();
        return;
    }

    let noop = script(NOOP);
    let (mut plain, mut ours) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        plain = plain.min(plain_runs(NOOP));
        ours = ours.min(runs(&pool, &noop));
    }
    let above = ours.saturating_sub(plain);
    println!("one run of nothing: plain {plain:?}, ours {ours:?}, {above:?} above (2µs are allowed)");

    // Turn by turn, so that a slow moment of the machine is slow for both; the fastest of each counts.
    let looped = script(LOOP);
    let (mut plain, mut ours) = (Duration::MAX, Duration::MAX);
    for _ in 0..LOOPS {
        plain = plain.min(plain_loop(LOOP));
        ours = ours.min(one(&pool, &looped).usage.run_time);
    }
    let ratio = ours.as_secs_f64() / plain.as_secs_f64();
    println!("a loop of a million: plain {plain:?}, ours {ours:?}, {:+.1} % (15 % are allowed)", (ratio - 1.0) * 100.0);
    pool.shut_down();
}

fn script(text: &str) -> Arc<Script> {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("probe.rhai"), text).expect("a script");
    let snapshot = Library::load(dir.path()).expect("a library").snapshot();
    Arc::clone(snapshot.scripts.values().next().expect("a script without faults"))
}

fn plain_runs(text: &str) -> Duration {
    let engine = Engine::new();
    let ast = engine.compile(text).expect("it compiles");
    let call = || {
        let job = Dynamic::from(rhai::Map::new());
        engine.call_fn::<Dynamic>(&mut Scope::new(), &ast, "run", (job,)).expect("it runs")
    };
    let _ = black_box(call());
    let begun = Instant::now();
    for _ in 0..RUNS {
        let _ = black_box(call());
    }
    begun.elapsed() / RUNS
}

fn plain_loop(text: &str) -> Duration {
    let engine = Engine::new();
    let ast = engine.compile(text).expect("it compiles");
    let begun = Instant::now();
    let job = Dynamic::from(rhai::Map::new());
    let _ = black_box(engine.call_fn::<Dynamic>(&mut Scope::new(), &ast, "run", (job,)).expect("it runs"));
    begun.elapsed()
}

/// Many at once: what a run costs the thread, without the way there and back.
fn runs(pool: &Pool, script: &Arc<Script>) -> Duration {
    one(pool, script);
    let mut took = Duration::ZERO;
    for _ in 0..RUNS / AT_ONCE {
        let (left, caller) = (Arc::new(AtomicU32::new(AT_ONCE)), thread::current());
        let requests: Vec<RunRequest> = (0..AT_ONCE)
            .map(|_| {
                let (left, caller) = (Arc::clone(&left), caller.clone());
                request(script, move |report| {
                    black_box(report);
                    if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                        caller.unpark();
                    }
                })
            })
            .collect();
        let begun = Instant::now();
        for request in requests {
            pool.run(request);
        }
        while left.load(Ordering::Acquire) > 0 {
            thread::park();
        }
        took += begun.elapsed();
    }
    took / RUNS
}

fn one(pool: &Pool, script: &Arc<Script>) -> RunReport {
    let (done, ended) = mpsc::channel();
    pool.run(request(script, move |report| {
        let _ = done.send(report);
    }));
    let report = ended.recv().expect("the run ends");
    assert!(matches!(report.end, ScriptEnd::Returned(_)), "{:?}", report.end);
    report
}

fn request(script: &Arc<Script>, done: impl FnOnce(RunReport) + Send + 'static) -> RunRequest {
    let job = testing::info(script, 1, SystemClock.now());
    RunRequest {
        ports: Arc::new(MemoryPorts::new(job.id, None)),
        script: Arc::clone(script),
        job,
        payload: RawValue::from_string("{}".to_owned()).expect("JSON"),
        timeout: script.job_type.spec.timeout,
        stop: StopSignal::new(),
        done: Box::new(done),
    }
}
