//! The integration tests: one binary, one module per subject.

mod arrows;
mod commands;
mod contract;
mod eventually;
mod faults;
mod http;
mod model;
mod outgoing;
mod proxy;
mod records;
mod redis;
mod redis_only;
mod script;
mod sqlite_only;
mod worker;
