//! New jobs, and the idempotency keys that stand for them.

use std::time::Duration;

use redis::Value;

use super::codec::{damaged, input, micros};
use super::reply::{bytes, list, number};
use super::script::SCRIPTS;
use super::{Inner, by_queue};
use crate::broker::{Enqueued, NewJob, Reservation, Reserved, Result};
use crate::job::{JobId, State, Timestamp};

/// Jobs that one script stores: well under 1 ms, for which nobody else is served.
const AT_ONCE: usize = 100;

impl Inner {
    pub(super) async fn do_enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let mut answers: Vec<Option<Enqueued>> = vec![None; jobs.len()];
        for (queue, places) in by_queue(jobs.iter().map(|job| &job.queue)) {
            self.register(queue).await?;
            for places in places.chunks(AT_ONCE) {
                let mut call = SCRIPTS.enqueue.on(&self.names.queue(queue));
                call.arg(self.now());
                for &place in places {
                    let job = &jobs[place];
                    call.arg(job.id.as_bytes().as_slice()).arg(micros(job.delay)).arg(input(job));
                }
                let stored = list(call.run(&self.link).await?)?;
                for (&place, answer) in places.iter().zip(stored.chunks_exact(4)) {
                    answers[place] = Some(enqueued(jobs[place].id, answer)?);
                }
            }
        }
        answers.into_iter().map(|answer| answer.ok_or_else(|| damaged("an answer is missing"))).collect()
    }

    pub(super) async fn do_reserve_key(&self, key: &str, mine: Reservation, ttl: Duration) -> Result<Reserved> {
        let mut value = mine.job.as_bytes().to_vec();
        value.extend(mine.body_hash);
        let mut call = SCRIPTS.reserve.on(&self.names.idempotency(key));
        let first = call.arg(self.now()).arg(&value).arg(micros(ttl)).run(&self.link).await?;
        let stored = bytes(&first)?;
        let (job, hash) = stored.split_at_checked(16).ok_or_else(|| damaged("an idempotency key's value"))?;
        let job = super::codec::job_id(job)?;
        let body_hash = hash.try_into().map_err(|_| damaged("an idempotency key's value"))?;
        // The caller's own one, whose answer was lost on the way, is a first one still.
        Ok(Reserved { first: job == mine.job, reservation: Reservation { job, body_hash } })
    }
}

fn enqueued(id: JobId, answer: &[Value]) -> Result<Enqueued> {
    let [created, state, created_at, run_at] = answer else { return Err(damaged("an answer of another length")) };
    if number(created)? == 2 {
        return Err(damaged("the record of a job that is there already"));
    }
    let state = usize::try_from(number(state)?).ok().and_then(|state| State::ALL.get(state).copied());
    Ok(Enqueued {
        id,
        created: number(created)? == 1,
        state: state.ok_or_else(|| damaged("an unknown state"))?,
        created_at: Timestamp(number(created_at)?),
        run_at: Timestamp(number(run_at)?),
    })
}
