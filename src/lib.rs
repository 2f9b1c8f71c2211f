//! Ryemill runs background jobs that are Rhai scripts: named jobs come in over HTTP, a broker keeps them, and worker
//! processes run each as a script from `jobs/`.
//!
//! ```text
//! HTTP client ──► server ──► broker ◄── worker ──► fibers running Rhai
//! ```
//!
//! # Modules, in the order to read them
//!
//! - [`job`] is the domain: what a job is, its table of states, ids, retry rules, payload schemas. No I/O.
//! - [`broker`] is the trait behind which every state change is one atomic, durable step, with [`broker::sqlite`] as the
//!   embedded backend and [`broker::redis`] for many machines, and the store of the jobs' files. It never sees a script.
//! - [`script`] loads scripts ([`script::library`]), runs them on fibers ([`script::fiber`]) of executor threads
//!   ([`script::pool`]), and gives them host functions. What those need from outside are the traits of [`script::ports`].
//! - [`worker`] claims jobs, has them run, and tells the broker how they ended; it implements the ports over the broker.
//! - [`server`] is the HTTP API. It validates and stores, and never runs a script.
//! - [`cli`] has one file per command, and is the only place where all this is wired together.
//! - [`config`], [`telemetry`] and [`shutdown`] are leaves: environment, logs and metrics, the wish to stop.
//!
//! Dependencies point one way, `main → cli → {server, worker} → {script, broker} → job`, which a test proves.
//!
//! # A job from POST to done
//!
//! `server::jobs` reads the body, `server::submission` checks the payload against the live schema of its type and makes a
//! [`broker::NewJob`]; [`broker::Broker::enqueue`] stores it, and only then the client gets its `202`. The broker wakes the
//! workers: `worker::claim` takes a permit, then a batch of jobs ([`broker::Broker::claim`]), each under a fresh token;
//! `worker::execute` checks the payload again and hands a [`script::pool::RunRequest`] to the pool. An executor thread makes
//! a [`script::fiber::Fiber`] and steps it: host calls suspend it, time slices share the thread, and its value becomes JSON
//! before it leaves the fiber. `worker::output` and `worker::logs` store what the run said, and `worker::finish` how it ended
//! ([`broker::Broker::finish`]), in batches and fenced by the token. If the worker dies instead, the sweep of another one
//! gives the job back; `worker::blame` tells it, from what [`script::notes`] left in a file, which jobs were on a CPU then and
//! are charged for it.
//!
//! # A script edit goes live
//!
//! `script::library::watch` hears of the edit (or finds it by looking); `folder` waits until the file stands still; the
//! library compiles and checks it, and `worker::gate` runs its tests and looks at the jobs that wait for it; on a fault the
//! version before stays. Otherwise the library swaps the snapshot: the next claim
//! finds the new [`script::library::Script`], executor threads compile it when they first run it, and runs that have begun end on
//! the version they began with. `worker::publish` tells the broker, and the server validates with the new schema from
//! then on.

pub mod broker;
pub mod cli;
pub mod config;
pub mod job;
pub mod script;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod worker;

/// Counts what script runs hold; here, so that every binary and test of the crate has it.
#[global_allocator]
static ALLOCATOR: script::account::CountingAllocator = script::account::CountingAllocator;
