//! Ryemill runs background jobs that are Rhai scripts.

pub mod job;
