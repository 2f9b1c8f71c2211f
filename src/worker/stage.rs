//! Loops that end together at a shutdown. A shutdown goes through the stages one by one.

use std::future::Future;

use tokio::task::JoinSet;
use tracing::{error, warn};

use super::STEP;
use crate::shutdown::Shutdown;

pub struct Stage {
    name: &'static str,
    stop: Shutdown,
    loops: JoinSet<()>,
}

impl Stage {
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, stop: Shutdown::new(), loops: JoinSet::new() }
    }

    /// Starts a loop that ends at the stop it is given, and not before.
    pub fn spawn<F>(&mut self, start: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.loops.spawn(start(self.stop.clone()));
    }

    /// Stops the loops, from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Shutdown {
        self.stop.clone()
    }

    /// Waits until a loop ends that was not stopped. Answers which stage it is of.
    pub async fn broken(&mut self) -> &'static str {
        loop {
            match self.loops.join_next().await {
                Some(Err(fault)) => error!("the {} has failed: {fault}", self.name),
                Some(Ok(())) if self.stop.is_requested() => continue,
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
            return self.name;
        }
    }

    /// Stops the loops and waits for them, but not for ever.
    pub async fn end(mut self) {
        self.stop.request();
        let all = async { while self.loops.join_next().await.is_some() {} };
        if tokio::time::timeout(STEP, all).await.is_err() {
            warn!("the {} did not end within {STEP:?} and is given up", self.name);
        }
    }
}
