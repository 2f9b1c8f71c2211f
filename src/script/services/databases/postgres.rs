//! A database on a PostgreSQL server: a few connections, taken in turn, cleaned after each use.
//!
//! A statement ends with the run that asked for it: dropping the call sends a cancel request to the server, and the
//! server has the run's deadline as its own time limit in case this process dies first.

use std::fmt;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, pin_mut};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Error, NoTls};

use super::pg_connect::{MAX_MESSAGE, Target};
use super::pg_params::Param;
use super::pg_values::{self, Raw};
use super::transaction::{Command, UNCOMMITTED};
use super::{Asked, CELL_BYTES, Found, ROW_BYTES, Rows, SqlValue, distinct, sql_error, too_large};
use crate::script::ports::{HostError, HostResult};

/// Connections of one database in this process, and how long a call waits for one.
const CONNECTIONS: usize = 8;
const WAIT: Duration = Duration::from_secs(10);

/// An idle connection is not kept longer: a firewall may have forgotten it.
const KEPT: Duration = Duration::from_mins(1);
const CLEANING: Duration = Duration::from_secs(5);
const MAX_STATEMENT: usize = 1 << 20;

/// What DISCARD ALL does, but for the prepared statements, of which the client keeps some. Without a transaction ROLLBACK
/// is a warning.
const CLEAN: &str = "ROLLBACK; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
    SELECT pg_advisory_unlock_all(); DISCARD PLANS; DISCARD SEQUENCES; DISCARD TEMP";

pub struct Database {
    name: String,
    target: Arc<Target>,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<(Client, Arc<AtomicBool>, Instant)>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A connection in use.
struct Session {
    client: Client,
    /// Set when the server sent more than is read.
    flooded: Arc<AtomicBool>,
    /// Set when a request to end a statement may still arrive: it would end whatever runs then.
    haunted: AtomicBool,
    target: Arc<Target>,
    runtime: Handle,
    _slot: OwnedSemaphorePermit,
}

/// Asks the server to end a statement when it is dropped before its time.
struct CancelOnDrop<'s> {
    session: &'s Session,
    token: Option<CancelToken>,
}

impl CancelOnDrop<'_> {
    /// The token stays: dropped while it waits, this asks once more.
    async fn now(&self) {
        let Some(token) = self.token.clone() else { return };
        let cancelled = tokio::time::timeout(CLEANING, cancelled(Arc::clone(&self.session.target), token)).await;
        if cancelled != Ok(true) {
            self.session.haunted.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else { return };
        self.session.runtime.spawn(cancelled(Arc::clone(&self.session.target), token));
    }
}

/// Whether the server has taken the request. It says so by closing the connection, and that is after the signal to the
/// process that runs the statement.
async fn cancelled(target: Arc<Target>, token: CancelToken) -> bool {
    let Ok(mut stream) = target.stream().await else { return false };
    if token.cancel_query_raw(&mut stream, NoTls).await.is_err() {
        return false;
    }
    match stream.read(&mut [0]).await {
        Ok(read) => read == 0,
        // With TLS, it closes without having read our goodbye.
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof),
    }
}

impl Database {
    /// # Errors
    /// When the URL cannot be understood.
    pub fn new(name: String, url: &str) -> Result<Self, String> {
        let target = Arc::new(Target::parse(url)?);
        Ok(Self { name, target, slots: Arc::new(Semaphore::new(CONNECTIONS)), idle: Mutex::default() })
    }

    pub async fn run(self: Arc<Self>, asked: Asked, runtime: &Handle) -> HostResult<Found> {
        let session = self.session(runtime).await?;
        let found = session.answer(&asked).await;
        self.give_back(session);
        found.map_err(|refusal| self.told(&refusal))
    }

    /// Begins a transaction and serves it in a task, until it is committed or nobody can command any more.
    pub async fn serve(
        self: Arc<Self>,
        mut commands: mpsc::UnboundedReceiver<Command>,
        until: Instant,
        runtime: &Handle,
    ) -> HostResult<()> {
        let session = self.session(runtime).await?;
        let left = millis_to(until);
        let begin = format!("BEGIN; SET LOCAL idle_in_transaction_session_timeout = {left}");
        session.client.batch_execute(&begin).await.map_err(|error| self.told(&session.refusal(&error)))?;
        runtime.spawn(async move {
            let mut failed = false;
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Run { asked, mut reply, .. } => {
                        let answer = tokio::select! {
                            answer = session.answer(&asked) => answer,
                            // The statement is cancelled, and closing the connection undoes the rest.
                            () = reply.closed() => return,
                        };
                        failed |= answer.is_err();
                        let _ = reply.send(answer.map_err(|refusal| self.told(&refusal)));
                    }
                    Command::Commit { reply } if failed => {
                        let _ = reply.send(Err(sql_error(format!("database `{}`: {UNCOMMITTED}", self.name), false)));
                        break;
                    }
                    Command::Commit { reply } => {
                        let done = session.client.batch_execute("COMMIT").await;
                        let _ = reply.send(done.map_err(|error| self.told(&session.refusal(&error))));
                        break;
                    }
                }
            }
            self.give_back(session);
        });
        Ok(())
    }

    async fn session(&self, runtime: &Handle) -> HostResult<Session> {
        let slot = tokio::time::timeout(WAIT, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(slot)) = slot else {
            let message = format!("all {CONNECTIONS} connections were busy for {} s", WAIT.as_secs());
            return Err(self.told(&Refusal { message, retryable: true }));
        };
        let session = |client, flooded| Session {
            client,
            flooded,
            haunted: AtomicBool::new(false),
            target: Arc::clone(&self.target),
            runtime: runtime.clone(),
            _slot: slot,
        };
        if let Some((client, flooded)) = self.idle_connection() {
            return Ok(session(client, flooded));
        }
        let (client, flooded) =
            self.target.connect(runtime).await.map_err(|message| self.told(&Refusal { message, retryable: true }))?;
        Ok(session(client, flooded))
    }

    fn idle_connection(&self) -> Option<(Client, Arc<AtomicBool>)> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(client, _, since)| !client.is_closed() && since.elapsed() < KEPT);
        idle.pop().map(|(client, flooded, _)| (client, flooded))
    }

    /// Keeps the connection without what the script left on it: an open transaction, settings, temporary tables, locks.
    fn give_back(self: &Arc<Self>, session: Session) {
        if session.client.is_closed() || session.haunted.load(Ordering::Relaxed) {
            return;
        }
        let database = Arc::clone(self);
        let runtime = session.runtime.clone();
        runtime.spawn(async move {
            let Session { client, flooded, _slot: slot, .. } = session;
            let clean = client.batch_execute(CLEAN);
            if matches!(tokio::time::timeout(CLEANING, clean).await, Ok(Ok(()))) {
                let mut idle = database.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.push((client, flooded, Instant::now()));
            }
            drop(slot);
        });
    }

    fn told(&self, refusal: &Refusal) -> HostError {
        sql_error(format!("database `{}`: {}", self.name, refusal.message), refusal.retryable)
    }
}

impl Session {
    async fn answer(&self, asked: &Asked) -> Result<Found, Refusal> {
        allowed(&asked.sql)?;
        let mut cancel = CancelOnDrop { session: self, token: Some(self.client.cancel_token()) };
        let found = self.answer_whole(asked).await;
        // With an answer half read, the statement still runs. The server takes the request to end it before the
        // connection is used again, or it would end the next statement in its place.
        if matches!(&found, Err(refusal) if refusal.message.starts_with(HALF_READ)) {
            cancel.now().await;
        }
        cancel.token = None;
        found
    }

    async fn answer_whole(&self, asked: &Asked) -> Result<Found, Refusal> {
        let limit = format!("SET statement_timeout = {}", millis_to(asked.until));
        // Sent together, so that the second does not wait for the answer of the first.
        let (limited, prepared) = tokio::join!(self.client.batch_execute(&limit), self.client.prepare(&asked.sql));
        limited.map_err(|error| self.refusal(&error))?;
        let statement = prepared.map_err(|error| self.refusal(&error))?;
        let (needed, given) = (statement.params().len(), asked.params.len());
        if needed != given {
            return Err(said(format!("the statement has {needed} parameters, {given} were given")));
        }
        let params: Vec<Param<'_>> = asked.params.iter().map(Param).collect();
        let Some(most) = asked.rows else {
            if !statement.columns().is_empty() {
                return Err(said("the statement returns rows: use sql::query"));
            }
            return self.client.execute_raw(&statement, params).await.map(Found::Changed).map_err(|e| self.refusal(&e));
        };
        if statement.columns().is_empty() {
            return Err(said("the statement returns no rows: use sql::execute"));
        }
        let columns: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        distinct(&columns).map_err(said)?;
        let stream = self.client.query_raw(&statement, params).await.map_err(|error| self.refusal(&error))?;
        pin_mut!(stream);
        let (mut rows, mut left) = (Vec::new(), most);
        while let Some(row) = stream.try_next().await.map_err(|error| self.refusal(&error))? {
            let mut values = Vec::with_capacity(columns.len());
            let mut size = ROW_BYTES;
            for (index, column) in row.columns().iter().enumerate() {
                let Raw(bytes) = row.try_get::<_, Raw<'_>>(index).map_err(|error| self.refusal(&error))?;
                let value = pg_values::value(column.type_(), bytes).map_err(|why| {
                    said(format!("{HALF_READ}: column `{}` {why}: select it as text, {0}::text", column.name()))
                })?;
                size += column.name().len() + CELL_BYTES + length(&value);
                values.push(value);
            }
            left =
                left.checked_sub(size).ok_or_else(|| said(format!("{HALF_READ}: {}", too_large(most, rows.len()))))?;
            rows.push(values);
        }
        Ok(Found::Rows(Rows { columns, rows }))
    }

    fn refusal(&self, error: &Error) -> Refusal {
        if self.flooded.load(Ordering::Relaxed) {
            return said(format!("a row has more than the {MAX_MESSAGE} bytes that are read"));
        }
        worded(error)
    }
}

/// How the refusals begin after which the server would go on sending.
const HALF_READ: &str = "the rows are not read";

/// What a value holds beside its cell.
fn length(value: &SqlValue) -> usize {
    match value {
        SqlValue::Text(text) => text.len(),
        SqlValue::Blob(bytes) => bytes.len(),
        // As values, JSON takes more than as text: `{"":0}` is a map.
        SqlValue::Json(text) => 16 * text.len(),
        SqlValue::List(items) => items.iter().map(|item| CELL_BYTES + length(item)).sum(),
        SqlValue::Null | SqlValue::Bool(_) | SqlValue::Integer(_) | SqlValue::Real(_) => 0,
    }
}

/// How far behind the end of its run the server's own limit for a statement lies. The run's end cancels the statement; the
/// limit is for when nobody is left to do so. Were it first, the script could catch it and go on.
const BEHIND: Duration = Duration::from_secs(2);

fn millis_to(until: Instant) -> u128 {
    // 0 would be "no limit"; the server counts in 32 bits.
    (until.saturating_duration_since(Instant::now()) + BEHIND).as_millis().clamp(1, i32::MAX as u128)
}

/// Refuses what is ours to do, and what makes the connection speak another language.
fn allowed(sql: &str) -> Result<(), Refusal> {
    if sql.len() > MAX_STATEMENT {
        return Err(said(format!("the statement has {} bytes, at most {MAX_STATEMENT} are allowed", sql.len())));
    }
    let word = first_word(sql).to_ascii_uppercase();
    match word.as_str() {
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
            Err(said("BEGIN, COMMIT, ROLLBACK and SAVEPOINT are not available: use sql::transaction"))
        }
        "COPY" | "LISTEN" | "UNLISTEN" | "DISCARD" | "PREPARE" | "EXECUTE" | "DEALLOCATE" => {
            Err(said(format!("{word} is not available to scripts")))
        }
        _ => Ok(()),
    }
}

/// Past spaces and comments.
fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start();
        if let Some(line) = rest.strip_prefix("--") {
            rest = line.split_once('\n').map_or("", |(_, next)| next);
        } else if rest.starts_with("/*") {
            let mut depth = 0;
            let mut end = rest.len();
            let bytes = rest.as_bytes();
            let mut at = 0;
            while at + 1 < bytes.len() {
                match &bytes[at..at + 2] {
                    b"/*" => (depth, at) = (depth + 1, at + 2),
                    b"*/" => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 {
                    end = at;
                    break;
                }
            }
            rest = &rest[end..];
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        }
    }
}

/// Why a call failed.
struct Refusal {
    message: String,
    retryable: bool,
}

fn said(message: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), retryable: false }
}

fn worded(error: &Error) -> Refusal {
    let Some(database) = error.as_db_error() else {
        // A value that has no form for its parameter is the script's fault; the rest is the connection's.
        let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        let retryable = error.is_closed() || !error.to_string().contains("parameter");
        return Refusal { message: cause, retryable };
    };
    let code = database.code();
    let mut message = format!("{} ({})", database.message(), code.code());
    for more in [database.detail(), database.hint()].into_iter().flatten() {
        message.push_str(". ");
        message.push_str(&more.chars().take(500).collect::<String>());
    }
    // Values come in the binary form, which a few types do not have.
    if *code == SqlState::UNDEFINED_FUNCTION && database.message().contains("binary output") {
        message.push_str(": select the column that holds such a value as text, column::text");
    }
    // Connection trouble, serialization failures, deadlocks, no room, locks, shutdowns.
    let retryable = ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.code().starts_with(class));
    Refusal { message, retryable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_found_behind_comments() {
        for sql in ["BEGIN", " -- x\n begin", "/* a /* b */ c */commit;", "Rollback to x", "copy t from stdin", "end"] {
            assert!(allowed(sql).is_err(), "{sql}");
        }
        for sql in ["SELECT 1", "", "/*", "--", "beginning", "/* x */ WITH a AS (SELECT 1) SELECT * FROM a"] {
            assert!(allowed(sql).is_ok(), "{sql}");
        }
    }
}
