//! One job on its whole way through the broker: stored, claimed, ended, shown, removed. Nothing is run.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::ms;
use crate::broker::{Broker, BrokerError, Claim, Finish, NewJob, Note, PROBE_QUEUE, Result, WorkerBeat};
use crate::job::{ClaimTicket, JobId, JobName, QueueName, RunEnd, State, WorkerId};

const NAME: &str = "ryemill_doctor";
const LEASE: Duration = Duration::from_secs(60);
/// If this process dies half-way, the probe job goes by itself.
const KEEP: Duration = Duration::from_secs(60);
/// How long a probe job may be somebody else's: another doctor's, or a worker's that is told to serve this queue.
const TAKEN: Duration = Duration::from_secs(10);

pub(super) async fn run(broker: &dyn Broker) -> Result<Note> {
    let worker = WorkerId::random();
    let beat = WorkerBeat {
        worker: worker.clone(),
        lease: LEASE,
        host: "doctor".into(),
        pid: std::process::id(),
        concurrency: 1,
    };
    let started = Instant::now();
    broker.renew(&beat).await?;
    let done = trip(broker, &worker).await;
    // Whatever happened: the worker does not stay on the list.
    broker.retire(&worker).await?;
    done?;
    let took = started.elapsed();
    Ok(Note::ok("round trip", format!("a probe job was stored, claimed, ended, shown and removed in {}", ms(took))))
}

async fn trip(broker: &dyn Broker, worker: &WorkerId) -> Result<()> {
    let invalid = |error: &dyn std::fmt::Display| BrokerError::Invalid(error.to_string());
    let queue = QueueName::new(PROBE_QUEUE).map_err(|error| invalid(&error))?;
    let name = JobName::new(NAME).map_err(|error| invalid(&error))?;
    let payload = RawValue::from_string("{}".into()).map_err(|error| invalid(&error))?;
    let job = NewJob { timeout: LEASE, max_attempts: 1, ..NewJob::new(name, queue.clone(), payload) };
    let id = job.id;
    broker.enqueue(vec![job]).await?;
    let ended = claim_and_end(broker, worker, &queue, id).await;
    if ended.is_err() {
        // Not left in line for ever; what counts is the first error.
        drop(broker.cancel(id).await);
        drop(broker.delete(id).await);
        return ended;
    }
    broker.delete(id).await?;
    match broker.get(id).await? {
        None => Ok(()),
        Some(_) => Err(BrokerError::Damaged(format!("the probe job {id} is still there after it was deleted"))),
    }
}

/// Claims in the probe's queue until the probe has ended. A job of another doctor is ended as well: to that one it is the same
/// who does it.
async fn claim_and_end(broker: &dyn Broker, worker: &WorkerId, queue: &QueueName, id: JobId) -> Result<()> {
    let result = || RawValue::from_string("{}".into()).map_err(|error| BrokerError::Invalid(error.to_string()));
    let since = Instant::now();
    loop {
        let claim = Claim {
            worker: worker.clone(),
            ticket: ClaimTicket::random(),
            queues: vec![queue.clone()],
            lacking: Vec::new(),
            limit: 1,
            suspect: true,
        };
        for claimed in broker.claim(&claim).await?.jobs {
            let end = RunEnd::Succeeded { result: result()? };
            let finish = Finish { run: claimed.run, end, script_version: None, keep: KEEP };
            for answer in broker.finish(vec![finish]).await? {
                answer?;
            }
        }
        let job = broker.get(id).await?.ok_or(BrokerError::NotFound(id))?;
        if job.state == State::Succeeded {
            return Ok(());
        }
        if since.elapsed() > TAKEN {
            let why = job.reason.map_or(String::new(), |reason| format!(": {reason}"));
            return Err(BrokerError::Unavailable(format!(
                "the probe job could not be claimed, it is {}{why}",
                job.state
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
