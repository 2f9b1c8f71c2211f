//! The ledger outside: scripts say over HTTP that they run, and it answers how many times it was told so for that job. It
//! also holds runs back until the test lets them go, or tells them whether they may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::eventually;

pub struct Ledger {
    /// Of the entries, to be followed by what is entered.
    pub url: String,
    entries: Arc<Entries>,
    serving: JoinHandle<()>,
}

struct Entries {
    counts: Mutex<BTreeMap<String, usize>>,
    open: watch::Sender<BTreeSet<String>>,
}

impl Ledger {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let entries = Arc::new(Entries { counts: Mutex::default(), open: watch::Sender::default() });
        let router = Router::new()
            .route("/enter/{*what}", post(enter))
            .route("/gate/{name}", post(gate))
            .route("/is-open/{name}", post(is_open))
            .with_state(Arc::clone(&entries));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, entries, serving }
    }

    /// Lets go all that wait at this gate, now and from now on.
    pub fn open_gate(&self, name: &str) {
        self.entries.open.send_if_modified(|open| open.insert(name.to_owned()));
    }

    /// How many times this was entered.
    pub fn count(&self, what: &str) -> usize {
        self.counts().get(what).copied().unwrap_or_default()
    }

    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.entries.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this was entered so many times.
    pub async fn entered(&self, what: &str, times: usize) {
        eventually(what, async || (self.count(what) >= times).then_some(())).await;
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn enter(State(entries): State<Arc<Entries>>, Path(what): Path<String>) -> String {
    let mut counts = entries.counts.lock().unwrap_or_else(PoisonError::into_inner);
    let count = counts.entry(what).or_default();
    *count += 1;
    count.to_string()
}

async fn gate(State(entries): State<Arc<Entries>>, Path(name): Path<String>) -> &'static str {
    let mut open = entries.open.subscribe();
    // The sender lives as long as the ledger.
    drop(open.wait_for(|open| open.contains(&name)).await);
    "open"
}

async fn is_open(State(entries): State<Arc<Entries>>, Path(name): Path<String>) -> String {
    entries.open.borrow().contains(&name).to_string()
}
