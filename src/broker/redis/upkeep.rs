//! Upkeep: the runs of dead workers go back, ended jobs go in the end. Every step is bounded.

use std::collections::HashSet;
use std::time::Duration;

use super::Inner;
use super::codec::{damaged, job_id, micros};
use super::reply::{bytes, list, number, parts, text};
use super::runs::token;
use super::script::SCRIPTS;
use crate::broker::{Result, Run, Sweep, Swept};
use crate::job::{JobId, Keep, QueueName, RunToken, WorkerId};

/// Runs that one sweep gives back.
const RUNS: usize = 1000;
/// Running jobs that one script looks at.
const LOOK: usize = 300;
/// Runs that one script gives back, due jobs that one moves, ended jobs that one removes.
const AT_ONCE: usize = 100;
const DUE: usize = 100;
/// How long the id of a worker that is gone is remembered. Whoever wakes up after that finds its runs gone anyway.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);

/// A run that may be lost.
struct Candidate {
    run: Run,
    worker: String,
    overdue: bool,
}

impl Inner {
    pub(super) async fn do_sweep(&self, sweep: &Sweep) -> Result<Swept> {
        let mut swept = Swept::default();
        let (_, alive) = self.bury("").await?;
        for run in &sweep.blamed {
            self.lose(&run.queue, &[(run.clone(), true)], "lost", micros(sweep.keep), &mut swept).await?;
        }
        for queue in self.all_queues().await? {
            let (found, quarantined, more) = self.walk(&queue, &alive, micros(sweep.overdue)).await?;
            swept.quarantined += quarantined;
            swept.more |= more;
            // A worker that came after the list was made is alive; one that is not on it now never comes back.
            let unknown: HashSet<&str> =
                found.iter().filter(|found| !found.overdue).map(|found| found.worker.as_str()).collect();
            let alive_now = if unknown.is_empty() { Vec::new() } else { self.live_workers().await? };
            let lost: Vec<(Run, bool)> = found
                .iter()
                .filter(|found| found.overdue || !alive_now.contains(&found.worker))
                .map(|found| (found.run.clone(), false))
                .collect();
            let room = RUNS.saturating_sub(swept.lost.len());
            for runs in lost[..lost.len().min(room)].chunks(AT_ONCE) {
                self.lose(&queue, runs, "lost", micros(sweep.keep), &mut swept).await?;
            }
            swept.more |= lost.len() > room;
            let mut due = SCRIPTS.due.on(&self.names.queue(&queue));
            due.arg(self.now()).arg(DUE);
            for worker in &alive {
                due.arg(worker);
            }
            swept.more |= number(&due.run(&self.link).await?)? == 1;
        }
        swept.more |= swept.lost.len() >= RUNS;
        Ok(swept)
    }

    pub(super) async fn do_retire(&self, worker: &WorkerId) -> Result<()> {
        self.leases.forget(worker);
        let (gone, _) = self.bury(worker.as_str()).await?;
        if gone.is_empty() {
            return Ok(());
        }
        // Who goes by itself loses nothing; whatever this leaves out, a sweep finds.
        let mut left = Swept::default();
        for queue in self.all_queues().await? {
            let others = self.live_workers().await?;
            let (found, _, _) = self.walk(&queue, &others, micros(Duration::MAX)).await?;
            let runs: Vec<(Run, bool)> = found
                .into_iter()
                .filter(|found| found.worker == worker.as_str())
                .map(|found| (found.run, false))
                .collect();
            for runs in runs.chunks(AT_ONCE) {
                self.lose(&queue, runs, "retired", micros(Keep::default().failed), &mut left).await?;
            }
        }
        Ok(())
    }

    /// Takes dead workers off the list (or one that stops). Answers who went, and who lives.
    async fn bury(&self, worker: &str) -> Result<(Vec<String>, Vec<String>)> {
        let mut call = SCRIPTS.bury.on(&self.names.registry());
        let [gone, alive] = parts(call.arg(self.now()).arg(worker).arg(micros(REMEMBERED)).run(&self.link).await?)?;
        let names = |value| -> Result<Vec<String>> { list(value)?.iter().map(|name| Ok(text(name)?.into())).collect() };
        Ok((names(gone)?, names(alive)?))
    }

    async fn live_workers(&self) -> Result<Vec<String>> {
        let mut range = redis::Cmd::new();
        range.arg("ZRANGE").arg(format!("{}:leases", self.names.registry())).arg(0).arg(-1);
        let workers = list(self.link.command(&range, "ZRANGE").await?)?;
        workers.iter().map(|worker| Ok(text(worker)?.to_owned())).collect()
    }

    /// Every running job of a queue that has no live worker or is over its time; how many were quarantined; whether there may be
    /// more.
    async fn walk(&self, queue: &QueueName, alive: &[String], overdue: u64) -> Result<(Vec<Candidate>, u64, bool)> {
        let (mut found, mut quarantined, mut after) = (Vec::new(), 0, "-inf".to_owned());
        loop {
            let mut call = SCRIPTS.walk.on(&self.names.queue(queue));
            call.arg(self.now()).arg(&after).arg(LOOK).arg(overdue);
            for worker in alive {
                call.arg(worker);
            }
            let [last, candidates, aside] = parts(call.run(&self.link).await?)?;
            for candidate in list(candidates)? {
                let [id, token, worker, over] = parts(candidate)?;
                let token = bytes(&token)?.try_into().map_err(|_| damaged("a token of another length"))?;
                found.push(Candidate {
                    run: Run {
                        job: job_id(bytes(&id)?)?,
                        queue: queue.clone(),
                        token: RunToken(i64::from_be_bytes(token)),
                    },
                    worker: text(&worker)?.to_owned(),
                    overdue: number(&over)? == 1,
                });
            }
            quarantined += number(&aside)?.unsigned_abs();
            text(&last)?.clone_into(&mut after);
            if after.is_empty() || found.len() > RUNS {
                let more = !after.is_empty();
                return Ok((found, quarantined, more));
            }
        }
    }

    async fn lose(
        &self,
        queue: &QueueName,
        runs: &[(Run, bool)],
        mode: &str,
        keep: u64,
        swept: &mut Swept,
    ) -> Result<()> {
        let mut call = SCRIPTS.lose.on(&self.names.queue(queue));
        call.arg(self.now()).arg(keep).arg(mode);
        for (run, charged) in runs {
            call.arg(run.job.as_bytes().as_slice()).arg(&token(run)[..]).arg(i32::from(*charged));
        }
        for ((run, _), answer) in runs.iter().zip(list(call.run(&self.link).await?)?) {
            match number(&answer)? {
                0 => {}
                3 => swept.quarantined += 1,
                answer => {
                    swept.lost.push(run.clone());
                    if answer == 2 {
                        swept.failed.push(run.job);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn do_prune(&self, retain_bytes: u64, limit: usize) -> Result<Vec<JobId>> {
        let mut removed = Vec::new();
        let queues = self.all_queues().await?;
        for mode in ["age", "bytes"] {
            for queue in &queues {
                loop {
                    let wanted = (limit - removed.len()).min(AT_ONCE);
                    if wanted == 0 {
                        return Ok(removed);
                    }
                    let mut call = SCRIPTS.prune.on(&self.names.queue(queue));
                    call.arg(self.now()).arg(mode).arg(retain_bytes.min(1 << 50)).arg(wanted);
                    let gone = list(call.run(&self.link).await?)?;
                    for id in &gone {
                        removed.push(job_id(bytes(id)?)?);
                    }
                    if gone.len() < wanted {
                        break;
                    }
                }
            }
        }
        Ok(removed)
    }
}
