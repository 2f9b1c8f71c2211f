//! The script runtime, with real scripts on real executor threads and no broker.

mod abuse;
mod fairness;
pub mod harness;
mod host_abuse;
mod postgres;
mod running;
mod sql_abuse;
mod sqlite;
mod trial;
