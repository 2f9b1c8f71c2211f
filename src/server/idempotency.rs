//! `Idempotency-Key`: the same key and body submit one job, however often they come. The key is reserved for a job id
//! first and the job is stored under that id second, so whoever comes with the same body after a crash between the two
//! completes it.

use std::time::Duration;

use axum::http::HeaderMap;

use super::App;
use super::auth::Caller;
use super::problem::{Answer, Code, Problem};
use crate::broker::Reservation;
use crate::job::{Job, JobId};

/// How long a key stands for its job.
const KEPT: Duration = Duration::from_hours(24);
/// Characters.
const MAX_KEY: usize = 255;

/// The header, checked.
pub fn key(headers: &HeaderMap) -> Answer<Option<String>> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.as_bytes();
    if values.next().is_some() || key.is_empty() || key.len() > MAX_KEY || !key.iter().all(u8::is_ascii_graphic) {
        let detail = "Idempotency-Key must be one value of 1 to 255 visible ASCII characters, without spaces";
        return Err(Problem::malformed(detail));
    }
    Ok(Some(String::from_utf8_lossy(key).into_owned()))
}

/// What a request with a key has to do.
pub enum Turn {
    /// Store the job under this id.
    Store(JobId),
    /// It is stored already.
    Replay(Box<Job>),
}

/// Reserves the key of a caller for `id`, or finds what it was reserved for.
pub async fn take(app: &App, caller: &Caller, key: &str, id: JobId, body_hash: [u8; 32]) -> Answer<Turn> {
    // The id of an API key has no colon, so two callers' keys never meet.
    let key = format!("{}:{key}", caller.0);
    let reserved = app.broker.reserve_key(&key, Reservation { job: id, body_hash }, KEPT).await?;
    if reserved.first {
        return Ok(Turn::Store(id));
    }
    if reserved.reservation.body_hash != body_hash {
        let detail = "this Idempotency-Key came with another body before; use a new key for a new job";
        return Err(Problem::new(Code::IdempotencyKeyReused, detail));
    }
    let id = reserved.reservation.job;
    Ok(app.broker.get(id).await?.map_or(Turn::Store(id), |job| Turn::Replay(Box::new(job))))
}
