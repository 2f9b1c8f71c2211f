//! Keeps a library live: looks when the file system says that something moved, and regularly in case it did not say.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::Library;
use super::folder::STANDS_STILL;
use crate::shutdown::Shutdown;

/// How often the folder is looked at without being told to: network file systems send no events.
const POLL: Duration = Duration::from_secs(2);

impl Library {
    /// Takes edits live until `shutdown`. Without events (no inotify left, say) the regular look still finds them.
    pub async fn watch(self: Arc<Self>, shutdown: Shutdown) {
        let (events, mut moved) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the folder makes events of its own.
            if !event.as_ref().is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                let _ = events.send(event); // nobody listens any more: shutting down
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(&self.dir, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!("no file events for {}: {error}; edits are found by looking every 2 s", self.dir.display());
        }
        let mut moving = false;
        loop {
            let pause = if moving { STANDS_STILL / 2 } else { POLL };
            let mut renamed = BTreeSet::new();
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(pause) => {}
                Some(event) = moved.recv() => self.note(event, &mut renamed),
            }
            // One save makes several events.
            while let Ok(event) = moved.try_recv() {
                self.note(event, &mut renamed);
            }
            let library = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || library.look(Instant::now(), &renamed));
            moving = match look.await {
                Ok(Ok(moving)) => moving,
                Ok(Err(error)) => {
                    tracing::error!(
                        "the jobs folder {} cannot be read: {error}; what is live stays",
                        self.dir.display()
                    );
                    false
                }
                Err(fault) => {
                    tracing::error!("loading scripts failed: {fault}; what is live stays");
                    false
                }
            };
        }
    }

    /// Notes files that came by rename: those are whole.
    fn note(&self, event: notify::Result<notify::Event>, renamed: &mut BTreeSet<String>) {
        let Ok(event) = event else { return };
        let paths: &[PathBuf] = match event.kind {
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => &event.paths,
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => event.paths.get(1..).unwrap_or_default(),
            _ => return,
        };
        for path in paths {
            let below = path.strip_prefix(&self.dir).ok().and_then(|path| path.to_str());
            renamed.extend(below.map(str::to_owned));
        }
    }
}
