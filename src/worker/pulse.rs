//! The thread that shows that this process is alive: it renews the lease and watches the executor threads, on a small
//! runtime of its own that nothing else can hold up.

use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::oneshot;

use super::lease::Renewal;
use super::watchdog::Watchdog;
use crate::shutdown::Shutdown;

/// The running thread.
pub struct Pulse {
    thread: JoinHandle<()>,
    /// Ends it.
    pub stop: Shutdown,
    /// Done when the thread has ended, whatever ended it.
    pub ended: oneshot::Receiver<()>,
}

impl Pulse {
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn start(renewal: Renewal, watchdog: Watchdog) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the runtime of the lease thread cannot be made")?;
        let (alive, ended) = oneshot::channel();
        let stop = Shutdown::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("lease".into())
            .spawn(move || {
                let _alive: oneshot::Sender<()> = alive;
                runtime.block_on(async { tokio::join!(renewal.run(stopped.clone()), watchdog.run(stopped)) });
            })
            .context("the lease thread cannot be started")?;
        Ok(Self { thread, stop, ended })
    }

    /// Waits for the thread; blocks.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the lease thread had panicked");
        }
    }
}
