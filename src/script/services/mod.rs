//! What host functions work with: plain Rust, no script engine.

pub mod templates;

/// Shared by all runs of a process.
#[derive(Debug, Default)]
pub struct Services {}
