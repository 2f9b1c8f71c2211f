//! Takes scripts anew when somebody asks for it over the API: whatever process serves it, each worker hears through the
//! broker.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::Shared;
use super::publish::Types;
use crate::broker::Topic;
use crate::shutdown::Shutdown;

/// A request that no wake-up told of is found after this.
const LOOK: Duration = Duration::from_secs(1);

pub struct ReloadLoop {
    pub shared: Arc<Shared>,
    pub types: Arc<Types>,
}

impl ReloadLoop {
    pub async fn run(self, stop: Shutdown) {
        let mut changes = self.shared.broker.changes(Topic::JobTypes);
        // A request from before this worker's start may be one that it has not seen: one look more does no harm.
        let mut last = 0;
        loop {
            last = self.run_once(last).await;
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(LOOK) => {}
                Ok(()) = changes.changed() => {}
            }
        }
    }

    /// Looks if there is a request newer than `last`; answers the newest that was done.
    async fn run_once(&self, last: u64) -> u64 {
        let asked = match self.shared.broker.reloads().await {
            Ok(reloads) => reloads.asked,
            Err(problem) => {
                warn!("requests to reload could not be read: {problem}");
                return last;
            }
        };
        if asked == last {
            return last;
        }
        let library = Arc::clone(&self.shared.library);
        match tokio::task::spawn_blocking(move || library.reload()).await {
            Ok(Ok(())) => info!("scripts were looked at, as the API was asked"),
            // Answered all the same: what is live stays, and the log says why.
            Ok(Err(problem)) => error!("the jobs folder cannot be read, what is live stays: {problem}"),
            Err(fault) => error!("loading scripts failed, what is live stays: {fault}"),
        }
        self.types.has_looked(asked);
        asked
    }
}
