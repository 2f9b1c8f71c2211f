//! Ryemill runs background jobs that are Rhai scripts.

pub mod job;
pub mod script;

/// Counts what script runs hold; here so that every binary and test has it.
#[global_allocator]
static ALLOCATOR: script::account::CountingAllocator = script::account::CountingAllocator;
