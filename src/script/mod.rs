//! The script runtime.

pub mod account;
pub mod checked;
