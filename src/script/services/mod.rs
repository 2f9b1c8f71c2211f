//! What the host functions stand on, in plain Rust: HTTP, mail, databases, templates, secrets. Shared by all runs of
//! the process; knows neither engine nor fiber.
//!
//! All of them work on one runtime of their own, not on the executor threads that poll the fibers: connections in a
//! pool outlive the run that opened them, and what they hold is not that run's memory.

pub mod databases;
pub mod http;
pub mod mail;
pub mod net_guard;
pub mod secrets;
pub mod templates;

use tokio::task::JoinError;

use super::ports::{HostError, HostResult};
use crate::job::ErrorKind;

/// The answer of a task on the services' runtime. Its panic goes on here, to end at the root of the fiber that waits.
fn joined<T>(result: Result<HostResult<T>, JoinError>) -> HostResult<T> {
    result.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(HostError::new(ErrorKind::Script, "the process is shutting down", true)),
    })
}
