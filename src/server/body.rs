//! Reads a request's body: JSON only, bounded in size, in time, and in memory over all requests.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, Request};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::{Answer, Code, Problem};
use crate::job::units::format_size;

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyPace {
    /// Between two pieces of it.
    pub idle: Duration,
    pub whole: Duration,
}

/// What a body may be at most, and the variable that says so.
#[derive(Clone, Copy)]
pub struct Limit {
    pub bytes: usize,
    pub variable: &'static str,
}

/// A body that has arrived. Its share of the memory for bodies is given back when it is dropped.
pub struct Arrived {
    pub bytes: Vec<u8>,
    /// Held for as long as the bytes are.
    memory: Memory,
}

/// Of the body that is too large, so that a client still writing gets to see the answer, not a reset connection.
const DRAIN_BYTES: usize = 8 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Reads the body as far as `limit`. Not JSON: 415; too large: 413; too slow: 408; no memory left: 503.
pub async fn read(request: Request<Body>, limit: Limit, pace: BodyPace, memory: &Arc<Semaphore>) -> Answer<Arrived> {
    let headers = request.headers();
    refuse_other_than_json(headers)?;
    let too_large = || {
        let detail = format!(
            "the body is over {} bytes ({} is {})",
            limit.bytes,
            limit.variable,
            format_size(limit.bytes as u64)
        );
        Problem::new(Code::TooLarge, detail)
    };
    let asks_first = headers.contains_key(EXPECT);
    let announced: Option<u64> = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let hint = request.body().size_hint().lower();
    let mut stream = request.into_body().into_data_stream();
    if announced.unwrap_or(hint) > limit.bytes as u64 {
        if !asks_first {
            drain(stream).await;
        }
        return Err(too_large());
    }
    let mut arrived = Arrived { bytes: Vec::new(), memory: Memory::of(memory) };
    let end = Instant::now() + pace.whole;
    loop {
        let piece = timeout_at(end, timeout(pace.idle, stream.next())).await;
        let Ok(Ok(piece)) = piece else {
            let detail = format!("the body came too slowly: {} of it arrived", format_size(arrived.bytes.len() as u64));
            return Err(Problem::new(Code::RequestTimeout, detail));
        };
        match piece {
            None => return Ok(arrived),
            Some(Ok(piece)) if arrived.bytes.len() + piece.len() > limit.bytes => {
                drop(arrived);
                drain(stream).await;
                return Err(too_large());
            }
            Some(Ok(piece)) => {
                arrived.memory.grow(piece.len())?;
                arrived.bytes.extend_from_slice(&piece);
            }
            Some(Err(_)) => return Err(Problem::malformed("the body ended early, or its chunks are malformed")),
        }
    }
}

fn refuse_other_than_json(headers: &HeaderMap) -> Answer<()> {
    let unsupported = |detail: &str| Err(Problem::new(Code::UnsupportedMediaType, detail));
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return unsupported("send the body as JSON, with `Content-Type: application/json`");
    }
    let encoding = headers.get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return unsupported("send the body as it is, without Content-Encoding");
    }
    Ok(())
}

async fn drain(mut stream: BodyDataStream) {
    let drained = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(piece)) = stream.next().await {
            let Some(rest) = left.checked_sub(piece.len()) else { return };
            left = rest;
        }
    };
    // What is not drained in time is cut off.
    drop(timeout(DRAIN_TIME, drained).await);
}

/// A share of the memory for bodies, in steps of a KiB.
struct Memory {
    all: Arc<Semaphore>,
    mine: Option<OwnedSemaphorePermit>,
    used: usize,
}

impl Memory {
    fn of(all: &Arc<Semaphore>) -> Self {
        Self { all: all.clone(), mine: None, used: 0 }
    }

    fn grow(&mut self, bytes: usize) -> Answer<()> {
        self.used += bytes;
        let held = self.mine.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.used.div_ceil(1 << 10).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let permit = u32::try_from(more).ok().and_then(|more| self.all.clone().try_acquire_many_owned(more).ok());
        let Some(permit) = permit else {
            return Err(Problem::new(Code::Overloaded, "too many large requests at once; try again"));
        };
        match &mut self.mine {
            Some(mine) => mine.merge(permit),
            None => self.mine = Some(permit),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_bodies_is_bounded_and_given_back() {
        let all = Arc::new(Semaphore::new(4));
        let mut one = Memory::of(&all);
        one.grow(1).unwrap();
        one.grow(1000).unwrap();
        one.grow(2000).unwrap();
        assert_eq!(all.available_permits(), 1);
        assert_eq!(Memory::of(&all).grow(2048).unwrap_err().code, Code::Overloaded);
        drop(one);
        assert_eq!(all.available_permits(), 4);
    }
}
