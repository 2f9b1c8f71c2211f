//! What must hold whatever dies: the real binary as real processes on one real SQLite file, driven over HTTP and by
//! signals. What ran is told by a ledger outside of Ryemill (`ledger.rs`) that the scripts themselves write to.

mod abused;
mod api;
mod blamed;
mod cancelled;
mod edited;
mod frozen;
mod killed;
mod ledger;
mod lines;
mod neighbours;
mod parked;
mod process;
mod redis;
mod reloaded;
mod settings;
mod site;
mod stopped;

pub use self::api::Api;
pub use self::ledger::Ledger;
pub use self::process::Process;
pub use self::site::Site;

pub use crate::http::eventually;

/// Held by the tests that need the processors most, so that none of them disturbs another.
pub async fn heavy() -> tokio::sync::MutexGuard<'static, ()> {
    static HEAVY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    HEAVY.lock().await
}
