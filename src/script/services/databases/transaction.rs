//! A transaction that a script has under way: several statements on one connection, until it is committed or dropped.
//!
//! The connection is owned by a task (a blocking thread for SQLite) that takes commands. However a run ends, the script's
//! end of the channel is dropped with it, and what was not committed is rolled back. A statement that failed leaves
//! nothing to commit, on every kind of database.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::{Asked, Found, answer_of, postgres, sql_error, sqlite};
use crate::script::ports::HostResult;
use crate::script::services::edge::Edge;
use crate::script::services::{Reply, StopOnDrop};

pub const UNCOMMITTED: &str = "a statement of the transaction failed, so that nothing of it was committed";

/// What the owner of the connection is told.
pub enum Command {
    Run { asked: Asked, stopped: Arc<AtomicBool>, reply: oneshot::Sender<HostResult<Found>> },
    Commit { reply: oneshot::Sender<HostResult<()>> },
}

#[derive(Debug)]
pub struct Transaction {
    way: Way,
    runtime: Handle,
}

#[derive(Debug)]
enum Way {
    Connection(mpsc::UnboundedSender<Command>),
    /// A test answers; whether a statement failed.
    Edge {
        edge: Arc<dyn Edge>,
        name: String,
        failed: Mutex<bool>,
    },
}

impl Transaction {
    pub(super) fn staged(edge: Arc<dyn Edge>, name: &str, runtime: Handle) -> Self {
        Self { way: Way::Edge { edge, name: name.to_owned(), failed: Mutex::default() }, runtime }
    }

    pub(super) async fn on_sqlite(database: Arc<sqlite::Database>, runtime: Handle) -> HostResult<Self> {
        let (sender, commands) = mpsc::unbounded_channel();
        database.serve(commands).await?;
        Ok(Self { way: Way::Connection(sender), runtime })
    }

    pub(super) async fn on_postgres(
        database: Arc<postgres::Database>,
        until: Instant,
        runtime: Handle,
    ) -> HostResult<Self> {
        let (sender, commands) = mpsc::unbounded_channel();
        database.serve(commands, until, &runtime).await?;
        Ok(Self { way: Way::Connection(sender), runtime })
    }

    /// Runs a statement in it.
    ///
    /// # Errors
    /// Of kind `host.sql`, through the reply.
    pub fn run(&self, asked: Asked) -> Reply<Found> {
        match &self.way {
            Way::Connection(commands) => {
                let commands = commands.clone();
                Reply::of(&self.runtime, async move {
                    let stop = StopOnDrop::default();
                    let stopped = Arc::clone(&stop.0);
                    tell(&commands, |reply| Command::Run { asked, stopped, reply }).await
                })
            }
            Way::Edge { edge, name, failed } => {
                let answer = answer_of(edge.as_ref(), name, &asked);
                *failed.lock().unwrap_or_else(PoisonError::into_inner) |= answer.is_err();
                Reply::of(&self.runtime, async move { answer })
            }
        }
    }

    /// Commits what was done, and ends it.
    ///
    /// # Errors
    /// Of kind `host.sql`, through the reply; nothing was committed then, unless the connection broke meanwhile.
    pub fn commit(&self) -> Reply<()> {
        match &self.way {
            Way::Connection(commands) => {
                let commands = commands.clone();
                // Not broken off with the run: whoever began to commit wants to have committed.
                Reply::of_all(&self.runtime, async move { tell(&commands, |reply| Command::Commit { reply }).await })
            }
            Way::Edge { name, failed, .. } => {
                let failed = *failed.lock().unwrap_or_else(PoisonError::into_inner);
                let answer =
                    if failed { Err(sql_error(format!("database `{name}`: {UNCOMMITTED}"), false)) } else { Ok(()) };
                Reply::of(&self.runtime, async move { answer })
            }
        }
    }
}

async fn tell<T>(
    commands: &mpsc::UnboundedSender<Command>,
    command: impl FnOnce(oneshot::Sender<HostResult<T>>) -> Command,
) -> HostResult<T> {
    let (reply, answer) = oneshot::channel();
    let over = || sql_error("the transaction is over: its connection is gone".to_owned(), true);
    commands.send(command(reply)).map_err(|_| over())?;
    answer.await.unwrap_or_else(|_| Err(over()))
}
