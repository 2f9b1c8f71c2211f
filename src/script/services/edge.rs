//! Where calls would leave the process: the tests of scripts answer there, in place of web servers, databases and mail
//! servers. Everything before it (arguments, `allow`, limits, redirects) is the same as for a worker.

use std::fmt;

use serde_json::{Map, Value};

use super::mail::Letter;
use crate::script::ports::HostResult;

/// Answers in place of the outside.
pub trait Edge: Send + Sync + fmt::Debug {
    /// One request; redirects come as requests of their own.
    ///
    /// # Errors
    /// As if the other side could not be reached.
    fn http(&self, request: &reqwest::Request) -> HostResult<reqwest::Response>;

    /// One statement.
    ///
    /// # Errors
    /// As if the database had refused it.
    fn sql(&self, database: &str, statement: &str) -> HostResult<SqlReply>;

    /// Takes a letter that was found good.
    fn mail(&self, letter: Letter);
}

/// What a statement comes to.
#[derive(Clone, Debug)]
pub enum SqlReply {
    Rows(Vec<Map<String, Value>>),
    Changed(u64),
}
