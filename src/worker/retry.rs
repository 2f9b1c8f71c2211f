//! Tries a broker call again while the broker is away and the lease holds. Every verb may be called again.

use std::future::Future;
use std::time::Duration;

use tracing::warn;

use super::lease::Lease;
use crate::broker::{BrokerError, Result};

const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_secs(1);

/// Calls until the answer is another than `Unavailable`, or the lease is gone: what this worker has to say then counts
/// no more. `call` is told whether an earlier try may have gone through.
///
/// # Errors
/// The last answer of the broker.
pub async fn while_held<T, F>(lease: &Lease, trouble: &str, mut call: impl FnMut(bool) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut pause = FIRST;
    let mut answer = call(false).await;
    while let Err(BrokerError::Unavailable(problem)) = &answer
        && lease.held()
    {
        warn!("{trouble}, trying again in {pause:?}: {problem}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX);
        answer = call(true).await;
    }
    answer
}
