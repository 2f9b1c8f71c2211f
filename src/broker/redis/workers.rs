//! Worker processes and their leases.

use std::time::Instant;

use super::Inner;
use super::codec::{micros, named};
use super::reply::{bytes, list, number, parts, text};
use super::script::SCRIPTS;
use crate::broker::{BrokerError, Renewed, Result, WorkerBeat, WorkerInfo};
use crate::job::Timestamp;

impl Inner {
    pub(super) async fn do_renew(&self, beat: &WorkerBeat) -> Result<Renewed> {
        let sent = Instant::now();
        let mut call = SCRIPTS.renew.on(&self.names.registry());
        call.arg(self.now()).arg(beat.worker.as_str()).arg(micros(beat.lease)).arg(&beat.host).arg(beat.pid);
        call.arg(u32::try_from(beat.concurrency).unwrap_or(u32::MAX));
        let [known, marks] = parts(call.run(&self.link).await?)?;
        if number(&known)? == 0 {
            self.leases.forget(&beat.worker);
            return Err(BrokerError::LeaseLost);
        }
        self.leases.set(&beat.worker, sent + beat.lease);
        Ok(Renewed { cancelled: self.still_marked(&beat.worker, list(marks)?).await? })
    }

    pub(super) async fn do_workers(&self) -> Result<Vec<WorkerInfo>> {
        let mut call = SCRIPTS.workers.on(&self.names.registry());
        let workers = list(call.arg(self.now()).run(&self.link).await?)?;
        let busy = self.busy().await?;
        let mut found = Vec::new();
        for worker in workers {
            let [id, until, card] = parts(worker)?;
            let (id, card) = (text(&id)?, bytes(&card)?);
            // A lease without a worker's card is nobody's; it must not hide the others.
            let Some((numbers, host)) = card.split_at_checked(15) else { continue };
            let part = |from: usize, to: usize| numbers[from..to].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
            found.push(WorkerInfo {
                id: named(id)?,
                host: String::from_utf8_lossy(host).into_owned(),
                pid: u32::try_from(part(7, 11)).unwrap_or_default(),
                concurrency: usize::try_from(part(11, 15)).unwrap_or_default(),
                running: busy.get(id).copied().unwrap_or(0),
                started_at: Timestamp(part(0, 7).cast_signed()),
                lease_until: Timestamp(number(&until)?),
            });
        }
        found.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
        Ok(found)
    }
}
