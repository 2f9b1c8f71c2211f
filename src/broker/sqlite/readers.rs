//! Connections that only read, used on threads that may block. Each look is one snapshot.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::db::Db;
use crate::broker::{BrokerError, Result};

/// Looks that run at once; the machine's cores are for the work.
const CONNECTIONS: usize = 2;

pub(super) struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Db>>>,
}

impl Readers {
    pub fn new(path: PathBuf) -> Self {
        Self { path, permits: Arc::new(Semaphore::new(CONNECTIONS)), idle: Arc::default() }
    }

    /// Runs `look` on one of the connections.
    pub async fn call<T, F>(&self, look: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Result<T> + Send + 'static,
    {
        let unavailable = |what: &dyn std::fmt::Display| BrokerError::Unavailable(format!("reading: {what}"));
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|error| unavailable(&error))?;
        let (idle, path) = (Arc::clone(&self.idle), self.path.clone());
        let work = move || {
            let _permit = permit;
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let db = taken.map_or_else(|| Db::open_reader(&path), Ok)?;
            db.execute("BEGIN", [])?;
            let found = look(&db);
            db.execute("COMMIT", [])?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            found
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| unavailable(&error))?
    }
}
