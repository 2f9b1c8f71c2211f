//! The wish to stop, as a value that is passed along; never a global. Knows nothing of what stops, nor in which order.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cloned into everything that has to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop. Idempotent.
    pub fn request(&self) {
        self.0.cancel();
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Done when a stop is asked for; at once when it was already.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// One that is requested with this one, and can be requested alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Requests a stop at SIGTERM or SIGINT. A second signal ends the process at once, for whoever sits at a terminal
    /// and does not want to wait for the grace period.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn on_signals(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = self.clone();
        tokio::spawn(async move {
            let (name, _) = either(&mut terminate, &mut interrupt).await;
            tracing::info!("{name}: stopping");
            shutdown.request();
            let (name, number) = either(&mut terminate, &mut interrupt).await;
            tracing::warn!("{name} again: stopping at once");
            std::process::exit(128 + number);
        });
        Ok(())
    }
}

/// The name and number of the signal that came.
async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 15),
        _ = interrupt.recv() => ("SIGINT", 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_follows_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (child, other) = (parent.child(), parent.child());
        child.request();
        assert!(child.is_requested() && !parent.is_requested() && !other.is_requested());
        parent.request();
        other.requested().await;
        parent.requested().await;
    }
}
