//! Takes the answers of scripts apart. What does not fit is `Damaged`: another program has written here.

use redis::Value;

use super::codec::damaged;
use crate::broker::Result;

pub(super) fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected("a list", &other)),
    }
}

/// A set, whichever protocol it came by.
pub(super) fn members(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Set(values) => Ok(values),
        other => list(other),
    }
}

/// A list of exactly `N`.
pub(super) fn parts<const N: usize>(value: Value) -> Result<[Value; N]> {
    list(value)?.try_into().map_err(|_| damaged("an answer of another length"))
}

pub(super) fn number(value: &Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(bytes) => {
            super::codec::text(bytes)?.parse().map_err(|_| damaged("an answer that is no number"))
        }
        other => Err(unexpected("a number", other)),
    }
}

pub(super) fn bytes(value: &Value) -> Result<&[u8]> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(unexpected("a text", other)),
    }
}

pub(super) fn text(value: &Value) -> Result<&str> {
    super::codec::text(bytes(value)?)
}

fn unexpected(wanted: &str, found: &Value) -> crate::broker::BrokerError {
    let kind = match found {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) => "a text",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    damaged(&format!("Redis answered {kind} instead of {wanted}"))
}
