//! The one thread that writes. It takes every call that waits, makes one transaction of them and answers after the
//! commit, so that many callers share one flush to the disk. Knows no verb.
//!
//! Locking: this thread holds SQLite's write lock (`BEGIN IMMEDIATE`) from the first call of a group to the commit, at most
//! about [`GROUP_TIME`]; other processes wait for it, and it waits for them, inside SQLite's busy handler.
//!
//! The flush of `synchronous=FULL` is part of the commit, under the lock, so a process that is stopped (SIGSTOP) in it holds
//! up the others until it goes on. To commit with NORMAL and flush the log file (`-wal`) after it, without the lock, lost: others
//! would then see, and tell clients of, what a power cut can still take back; and a flush that fails (EIO) could not be undone any more,
//! while later commits that were flushed and answered would lie behind the hole in the log and be lost with it.
//!
//! A call checks before it writes. One that fails after it has written (a full disk, a panic) undoes the whole group,
//! whose calls then run again, each in a transaction of its own: no savepoint on the usual way.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::db::Db;
use super::schema;
use super::wakeups::Wakeups;
use crate::broker::{BrokerError, Result, Topic};
use crate::job::{Clock, State, Timestamp};

/// A group takes no further call after this, so that no caller and no other process waits long.
const GROUP_TIME: Duration = Duration::from_millis(10);
/// How often to look for changes of other processes when no wake-up comes.
const LOOK: Duration = Duration::from_millis(250);

/// The transaction that a call runs in, and what is noted along the way for its end.
pub(super) struct Tx<'a> {
    pub db: &'a Db,
    pub now: Timestamp,
    counts: HashMap<(i64, i64, i64), i64>,
    ended_bytes: HashMap<i64, i64>,
    recount: bool,
    topics: Vec<Topic>,
}

impl Tx<'_> {
    /// Counts a job that appears, moves on or disappears.
    pub fn count(&mut self, queue: i64, name: i64, from: Option<State>, to: Option<State>) {
        for (state, by) in [(from, -1), (to, 1)] {
            if let Some(state) = state {
                *self.counts.entry((queue, name, state as i64)).or_default() += by;
            }
        }
    }

    /// Adds to the bytes that a queue's ended jobs need.
    pub fn count_ended_bytes(&mut self, queue: i64, by: i64) {
        *self.ended_bytes.entry(queue).or_default() += by;
    }

    /// What this transaction has added so far to a queue's ended bytes.
    pub fn ended_bytes_so_far(&self, queue: i64) -> i64 {
        self.ended_bytes.get(&queue).copied().unwrap_or_default()
    }

    /// Builds the counts anew at the end: a record was found that they cannot be trusted about.
    pub fn recount(&mut self) {
        self.recount = true;
    }

    /// Wakes who waits for a topic, after the commit.
    pub fn wake(&mut self, topic: Topic) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    fn write_counts(&self) -> Result<()> {
        if self.recount {
            return Ok(self.db.conn.execute_batch(
                "DELETE FROM counts;
                 INSERT INTO counts SELECT queue, name, state, count(*) FROM jobs GROUP BY queue, name, state;
                 UPDATE queues SET ended_bytes =
                     (SELECT coalesce(sum(ended_bytes), 0) FROM jobs WHERE queue = queues.id AND state >= 3);",
            )?);
        }
        for (&(queue, name, state), &by) in self.counts.iter().filter(|(_, by)| **by != 0) {
            self.db.execute(
                "INSERT INTO counts VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET n = n + excluded.n",
                (queue, name, state, by),
            )?;
        }
        for (&queue, &by) in self.ended_bytes.iter().filter(|(_, by)| **by != 0) {
            self.db.execute("UPDATE queues SET ended_bytes = ended_bytes + ?2 WHERE id = ?1", (queue, by))?;
        }
        Ok(())
    }
}

/// A call that waits for its turn.
trait Call: Send {
    /// Does the work and keeps the answer. It may be run again after a rollback.
    fn run(&mut self, tx: &mut Tx<'_>) -> std::result::Result<(), BrokerError>;
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
    /// Gives the answer to the caller, or `fault` instead when the work is not in the file.
    fn answer(self: Box<Self>, fault: Option<BrokerError>);
}

struct Pending<T, F> {
    work: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Result<T> + Send> Call for Pending<T, F> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let outcome = (self.work)(tx);
        let failed = outcome.as_ref().err().cloned();
        self.outcome = Some(outcome);
        failed.map_or(Ok(()), Err)
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn answer(self: Box<Self>, fault: Option<BrokerError>) {
        let outcome = match fault {
            Some(fault) => Err(fault),
            None => self.outcome.unwrap_or_else(|| Err(BrokerError::Unavailable("the call was not made".into()))),
        };
        // A caller that has gone needs no answer.
        drop(self.reply.send(outcome));
    }
}

enum Message {
    Call(Box<dyn Call>),
    /// Another process may have changed the file.
    Look,
    Stop,
}

type Reopen = Box<dyn Fn() -> Result<Db> + Send>;

/// The way to the thread.
pub(super) struct Writer {
    queue: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// Lets others ask the thread to look at the file.
#[derive(Clone)]
pub(super) struct Nudge(Sender<Message>);

impl Nudge {
    pub fn look(&self) {
        // After the end of the thread there is nothing to look for.
        drop(self.0.send(Message::Look));
    }
}

impl Writer {
    /// `reopen` makes a new connection when `db` cannot be used any more.
    pub fn start(db: Db, reopen: Reopen, clock: Arc<dyn Clock>, wakeups: Arc<Wakeups>) -> Result<Self> {
        let (sender, receiver) = channel();
        let seen = data_version(&db)?;
        let thread = Thread { db, reopen, clock, wakeups, queue: receiver, seen, outdated: None };
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || thread.run())
            .map_err(|error| BrokerError::Unavailable(format!("no thread for the broker: {error}")))?;
        Ok(Self { queue: sender, thread: Some(thread) })
    }

    pub fn nudge(&self) -> Nudge {
        Nudge(self.queue.clone())
    }

    /// Runs `work` in a transaction; answers when it is committed. `work` may run more than once.
    pub async fn call<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let stopped = || BrokerError::Unavailable("the broker's writer has stopped".into());
        let call = Box::new(Pending { work, outcome: None, reply });
        self.queue.send(Message::Call(call)).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Drop for Writer {
    /// Calls that were made before are still done.
    fn drop(&mut self) {
        drop(self.queue.send(Message::Stop));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the broker's writer thread panicked");
        }
    }
}

struct Thread {
    db: Db,
    reopen: Reopen,
    clock: Arc<dyn Clock>,
    wakeups: Arc<Wakeups>,
    queue: Receiver<Message>,
    /// The last [`data_version`].
    seen: i64,
    /// Set when a newer program has changed the tables under us.
    outdated: Option<BrokerError>,
}

impl Thread {
    fn run(mut self) {
        loop {
            match self.queue.recv_timeout(LOOK) {
                Ok(Message::Call(first)) => {
                    if !self.group(first) {
                        return;
                    }
                }
                Ok(Message::Look) | Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.look() {
                        tracing::debug!(%error, "cannot look for changes in the broker file");
                    }
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One transaction of `first` and of what waits behind it. False when the thread is to stop.
    fn group(&mut self, first: Box<dyn Call>) -> bool {
        let mut go_on = true;
        let mut done: Vec<Box<dyn Call>> = Vec::new();
        let mut next = Some(first);
        let result = self.transaction(|thread, tx| {
            let started = Instant::now();
            while let Some(mut call) = next.take() {
                if !call.is_abandoned() {
                    let result = attempt(call.as_mut(), tx);
                    done.push(call);
                    result?;
                }
                while next.is_none() && go_on && started.elapsed() < GROUP_TIME {
                    match thread.queue.try_recv() {
                        Ok(Message::Call(call)) => next = Some(call),
                        Ok(Message::Look) => {} // the transaction has looked
                        Ok(Message::Stop) => go_on = false,
                        Err(_) => break,
                    }
                }
            }
            Ok(())
        });
        // Still there when the transaction could not even begin.
        done.extend(next);
        match result {
            Ok(()) => done.into_iter().for_each(|call| call.answer(None)),
            Err(fault) if done.len() == 1 => done.into_iter().for_each(|call| call.answer(Some(fault.clone()))),
            Err(_) => {
                for mut call in done {
                    let result = self.transaction(|_, tx| attempt(call.as_mut(), tx));
                    call.answer(result.err());
                }
            }
        }
        go_on
    }

    /// Begins, does `work`, writes the counts, commits, wakes. Any error undoes all of it.
    fn transaction(&mut self, work: impl FnOnce(&Self, &mut Tx<'_>) -> Result<()>) -> Result<()> {
        self.begin()?;
        let mut tx = Tx {
            db: &self.db,
            now: self.clock.now(),
            counts: HashMap::new(),
            ended_bytes: HashMap::new(),
            recount: false,
            topics: Vec::new(),
        };
        let result = work(self, &mut tx).and_then(|()| tx.write_counts()).and_then(|()| self.db.execute("COMMIT", []));
        let topics = tx.topics;
        match result {
            Ok(_) => {
                self.wakeups.committed(&topics);
                Ok(())
            }
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        if !self.db.conn.is_autocommit() {
            // A transaction that could not even be rolled back: only a new connection helps.
            self.db = (self.reopen)()?;
            self.seen = data_version(&self.db)?;
            self.wakeups.changed_outside();
        }
        self.db.execute("BEGIN IMMEDIATE", [])?;
        let looked = self.look().and_then(|()| self.outdated.clone().map_or(Ok(()), Err));
        looked.inspect_err(|_| self.roll_back())
    }

    fn roll_back(&self) {
        if !self.db.conn.is_autocommit()
            && let Err(error) = self.db.execute("ROLLBACK", [])
        {
            tracing::error!(%error, "cannot roll back");
        }
        self.db.forget_names();
    }

    /// Wakes everybody when another process has committed since the last look.
    fn look(&mut self) -> Result<()> {
        let version = data_version(&self.db)?;
        if version != self.seen {
            self.seen = version;
            self.outdated = schema::check_version(schema::version(&self.db.conn)?).err();
            self.wakeups.changed_outside();
        }
        Ok(())
    }
}

/// Changes when another connection has committed.
fn data_version(db: &Db) -> Result<i64> {
    Ok(db.prepare("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

/// Runs one call. An error from here undoes the group: the call has failed after it wrote, or panicked.
fn attempt(call: &mut dyn Call, tx: &mut Tx<'_>) -> Result<()> {
    let before = tx.db.conn.total_changes();
    match catch_unwind(AssertUnwindSafe(|| call.run(tx))) {
        Ok(Ok(())) => Ok(()),
        // A plain refusal, which is the call's answer.
        Ok(Err(_)) if tx.db.conn.total_changes() == before => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(panic = text, "a broker call panicked");
            Err(BrokerError::Unavailable(format!("an internal fault: {text}")))
        }
    }
}
