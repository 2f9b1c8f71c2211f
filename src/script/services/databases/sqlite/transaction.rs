//! A transaction on SQLite: a blocking thread owns the connection and takes commands, until it is committed or nobody can
//! command any more.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;

use super::super::sql_error;
use super::super::transaction::{Command, UNCOMMITTED};
use super::{Database, Session};
use crate::script::ports::HostResult;
use crate::script::services::StopOnDrop;

impl Database {
    /// Begins a transaction and serves it on a thread of its own, until it is committed or nobody can command any more.
    pub async fn serve(self: Arc<Self>, commands: mpsc::UnboundedReceiver<Command>) -> HostResult<()> {
        let slot = self.slot().await?;
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        let (begun, ready) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _slot = slot;
            // The lock at once: a transaction that reads first could not be tried again when it comes to write.
            let session = self.session().and_then(|session| {
                session
                    .patiently(&stopped, |connection| session.ours(|| connection.execute_batch("BEGIN IMMEDIATE")))?;
                Ok(session)
            });
            match session {
                Err(refusal) => drop(begun.send(Err(self.told(refusal)))),
                Ok(session) if begun.send(Ok(())).is_err() => self.give_back(session),
                Ok(session) => self.transact(session, commands),
            }
        });
        ready.await.unwrap_or_else(|_| Err(sql_error("the process is shutting down".to_owned(), true)))
    }

    fn transact(&self, mut session: Session, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut failed = false;
        while let Some(command) = commands.blocking_recv() {
            match command {
                Command::Run { asked, stopped, reply } => {
                    let result = session.answer(&stopped, &asked).map_err(|refusal| self.told(refusal));
                    failed |= result.is_err();
                    let _ = reply.send(result);
                }
                Command::Commit { reply } if failed => {
                    let _ = reply.send(Err(sql_error(format!("database `{}`: {UNCOMMITTED}", self.name), false)));
                    break;
                }
                Command::Commit { reply } => {
                    let never = AtomicBool::new(false);
                    let done =
                        session.patiently(&never, |connection| session.ours(|| connection.execute_batch("COMMIT")));
                    let _ = reply.send(done.map_err(|refusal| self.told(refusal)));
                    break;
                }
            }
        }
        self.give_back(session);
    }
}
