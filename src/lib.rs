//! Ryemill runs background jobs that are Rhai scripts.

pub mod broker;
pub mod config;
pub mod job;
pub mod script;
