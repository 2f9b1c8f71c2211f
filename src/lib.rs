//! Ryemill runs background jobs that are Rhai scripts.

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
