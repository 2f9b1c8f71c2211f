//! The script runtime.

pub mod account;
