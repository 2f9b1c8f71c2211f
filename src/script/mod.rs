//! Scripts: loading, running, and what they may call. Knows the domain; knows neither broker nor HTTP server.
//!
//! [`library`] holds the sources, [`pool`] runs them on [`fiber`]s, `api` is what they can call, [`ports`] is what that
//! needs from outside.

pub mod account;
mod api;
mod brackets;
mod calls;
mod checked;
pub mod convert;
pub mod definitions;
pub mod diagnostics;
pub mod engine;
mod failure;
pub mod fiber;
mod habits;
mod hints;
pub mod library;
pub mod memory;
mod metadata;
mod moment;
pub mod notes;
pub mod pool;
pub mod ports;
pub mod services;
pub mod testing;
pub mod verdict;

pub use api::reference;
pub use fiber::context;
