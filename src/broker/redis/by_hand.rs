//! What people do to jobs and queues: cancel, retry, delete, pause.

use redis::Cmd;

use super::codec::{damaged, micros, text};
use super::reply::{bytes, list, number};
use super::script::SCRIPTS;
use super::{Inner, codec};
use crate::broker::{BrokerError, Result, Run};
use crate::job::state::IllegalTransition;
use crate::job::{Event, JobId, JobName, Keep, QueueName, RunToken, State, WorkerId};

/// How a verb went.
struct Done {
    was: State,
    changed: bool,
    /// Of a running job: who is to be told.
    marked: Option<(String, RunToken)>,
}

impl Inner {
    pub(super) async fn do_cancel(&self, id: JobId) -> Result<State> {
        let (queue, name) = self.find(id).await?;
        let keep = self.keep_of(&name).await?;
        let done = self.by_hand(&queue, id, "cancel", keep).await?;
        if let Some((worker, token)) = done.marked {
            let mut mark = SCRIPTS.mark.on(&self.names.registry());
            let run = [token.0.to_be_bytes().as_slice(), queue.as_str().as_bytes()].concat();
            mark.arg(self.now()).arg(worker).arg(id.as_bytes().as_slice()).arg(run).run(&self.link).await?;
            return Ok(State::Running);
        }
        match done.was {
            State::Cancelled => Ok(State::Cancelled),
            _ if done.changed => Ok(State::Cancelled),
            was => Err(IllegalTransition { from: was, event: Event::Cancel }.into()),
        }
    }

    pub(super) async fn do_retry(&self, id: JobId) -> Result<()> {
        self.simply(id, "retry", Event::Requeue).await
    }

    pub(super) async fn do_delete(&self, id: JobId) -> Result<()> {
        self.simply(id, "delete", Event::Delete).await
    }

    async fn simply(&self, id: JobId, verb: &str, event: Event) -> Result<()> {
        let (queue, _) = self.find(id).await?;
        let done = self.by_hand(&queue, id, verb, 0).await?;
        if done.changed { Ok(()) } else { Err(IllegalTransition { from: done.was, event }.into()) }
    }

    async fn by_hand(&self, queue: &QueueName, id: JobId, verb: &str, keep: u64) -> Result<Done> {
        let mut call = SCRIPTS.by_hand.on(&self.names.queue(queue));
        call.arg(self.now()).arg(id.as_bytes().as_slice()).arg(verb).arg(keep);
        let answer = list(call.run(&self.link).await?)?;
        let [was, done, marked @ ..] = answer.as_slice() else { return Err(damaged("an answer of another length")) };
        let was = match number(was)? {
            -1 => return Err(BrokerError::NotFound(id)),
            -2 => return Err(damaged("the record of this job")),
            was => usize::try_from(was).ok().and_then(|was| State::ALL.get(was).copied()),
        };
        let marked = match marked {
            [worker, token] => {
                let token = bytes(token)?.try_into().map_err(|_| damaged("a token of another length"))?;
                Some((text(bytes(worker)?)?.to_owned(), RunToken(i64::from_be_bytes(token))))
            }
            _ => None,
        };
        Ok(Done { was: was.ok_or_else(|| damaged("an unknown state"))?, changed: number(done)? == 1, marked })
    }

    /// How long a job of this type is kept that ends without a worker's word: as its live version says. µs.
    pub(super) async fn keep_of(&self, name: &JobName) -> Result<u64> {
        let mut get = Cmd::new();
        get.arg("HGET").arg(format!("{}:types", self.names.registry())).arg(name.as_str());
        Ok(match self.link.command(&get, "HGET").await? {
            redis::Value::BulkString(card) if card.len() >= 8 => {
                card[..8].iter().fold(0, |keep, byte| keep << 8 | u64::from(*byte))
            }
            _ => micros(Keep::default().failed),
        })
    }

    pub(super) async fn do_set_paused(&self, queue: &QueueName, paused: bool) -> Result<()> {
        self.register(queue).await?;
        let mut call = SCRIPTS.pause.on(&self.names.queue(queue));
        call.arg(self.now()).arg(i32::from(paused)).run(&self.link).await.map(drop)
    }

    /// The runs of a worker that are marked, as far as they are still current. The rest is forgotten.
    pub(super) async fn still_marked(&self, worker: &WorkerId, marks: Vec<redis::Value>) -> Result<Vec<Run>> {
        let mut current = Vec::new();
        for mark in marks.chunks_exact(2) {
            let (id, run) = (codec::job_id(bytes(&mark[0])?)?, bytes(&mark[1])?);
            let (token, queue) = run.split_at_checked(8).ok_or_else(|| damaged("a cancel mark"))?;
            let token = token.try_into().map(i64::from_be_bytes).map_err(|_| damaged("a cancel mark"))?;
            let run = Run { job: id, queue: codec::named(text(queue)?)?, token: RunToken(token) };
            let mut call = SCRIPTS.current.on(&self.names.queue(&run.queue));
            call.arg(self.now()).arg(run.job.as_bytes().as_slice()).arg(&super::runs::token(&run)[..]);
            if number(&call.run(&self.link).await?)? == 1 {
                current.push(run);
                continue;
            }
            let mut forget = Cmd::new();
            forget.arg("HDEL").arg(self.names.marks(worker.as_str())).arg(id.as_bytes().as_slice());
            self.link.command(&forget, "HDEL").await?;
        }
        Ok(current)
    }
}
