//! The claim: one call per queue, until there is enough.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Inner;
use super::codec::{claimed, job_id};
use super::reply::{bytes, list, number, parts};
use super::script::SCRIPTS;
use crate::broker::{BrokerError, Claim, Claimed, Result};
use crate::job::{QueueName, WorkerId};

/// Most jobs of one call: what a script does in about 2 ms.
const AT_ONCE: usize = 500;

/// Until when this process knows the leases of its workers to last, by its own clock: saves a question per claim. A claim
/// under a lease that ended early (Redis' clock jumped) is swept like any run of a dead worker.
#[derive(Debug, Default)]
pub(super) struct Leases(std::sync::Mutex<HashMap<WorkerId, Instant>>);

impl Leases {
    fn guard(&self) -> std::sync::MutexGuard<'_, HashMap<WorkerId, Instant>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn holds(&self, worker: &WorkerId) -> bool {
        self.guard().get(worker).is_some_and(|until| Instant::now() < *until)
    }

    pub fn set(&self, worker: &WorkerId, until: Instant) {
        self.guard().insert(worker.clone(), until);
    }

    pub fn forget(&self, worker: &WorkerId) {
        self.guard().remove(worker);
    }
}

impl Inner {
    pub(super) async fn do_claim(&self, claim: &Claim) -> Result<Claimed> {
        if self.clock.is_some() || !self.leases.holds(&claim.worker) {
            let mut leased = SCRIPTS.leased.on(&self.names.registry());
            let left = number(&leased.arg(self.now()).arg(claim.worker.as_str()).run(&self.link).await?)?;
            if left == 0 {
                return Err(BrokerError::LeaseLost);
            }
        }
        let mut all = Claimed::default();
        let mut suspect = claim.suspect;
        for queue in &claim.queues {
            // On an error, whoever asks again with the same ticket gets what the queues before have given, too.
            self.claim_from(queue, claim, &mut all, &mut suspect).await?;
            if all.jobs.len() >= claim.limit {
                break;
            }
        }
        Ok(all)
    }

    async fn claim_from(&self, queue: &QueueName, claim: &Claim, all: &mut Claimed, suspect: &mut bool) -> Result<()> {
        let key = self.names.queue(queue);
        // Each call of a claim has a ticket of its own, which is the same when the claim is made again.
        for round in 0.. {
            let wanted = (claim.limit - all.jobs.len()).min(AT_ONCE);
            if wanted == 0 {
                break;
            }
            let ticket = format!("{:016x}{round:04x}", claim.ticket.0);
            let from = all.jobs.len();
            let tokens: Vec<u8> = (from..from + wanted).flat_map(|n| claim.ticket.token(n).0.to_be_bytes()).collect();
            let mut call = SCRIPTS.claim.on(&key);
            call.arg(self.now())
                .arg(claim.worker.as_str())
                .arg(&ticket)
                .arg(wanted)
                .arg(i32::from(*suspect))
                .arg(tokens);
            for name in &claim.lacking {
                call.arg(name.as_str());
            }
            let [runs, due, more] = parts(call.run(&self.link).await?)?;
            let runs = list(runs)?;
            let count = runs.len() / 3;
            for run in runs.chunks_exact(3) {
                let (id, record, state) = (bytes(&run[0])?, bytes(&run[1])?, bytes(&run[2])?);
                match claimed(id, record, state, queue) {
                    Ok(job) => {
                        *suspect &= !job.suspect;
                        all.jobs.push(job);
                    }
                    Err(problem) => self.move_aside(queue, id, &problem).await?,
                }
            }
            let due = number(&due)?;
            if due >= 0 && count < wanted {
                let wait = Duration::from_micros(u64::try_from(due).unwrap_or(0));
                all.next_due = Some(all.next_due.map_or(wait, |first| first.min(wait)));
            }
            if number(&more)? == 0 && (count < wanted || wanted < AT_ONCE) {
                break;
            }
        }
        Ok(())
    }

    /// A job that Lua could pass on but nobody can read.
    async fn move_aside(&self, queue: &QueueName, id: &[u8], problem: &BrokerError) -> Result<()> {
        let name = job_id(id).map_or_else(|_| data_encoding::HEXLOWER.encode(id), |id| id.to_string());
        tracing::error!(job_id = name, %queue, "a job's record cannot be read and was quarantined: {problem}");
        let mut call = SCRIPTS.aside.on(&self.names.queue(queue));
        call.arg(self.now()).arg(id).arg(problem.to_string()).run(&self.link).await.map(drop)
    }
}
