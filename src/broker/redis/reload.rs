//! Requests to look at the scripts again, and which worker has done so.

use super::Inner;
use super::codec::{damaged, named};
use super::reply::{list, number, parts, text};
use super::script::SCRIPTS;
use crate::broker::{BrokerError, Reloads, Result};
use crate::job::WorkerId;

impl Inner {
    pub(super) async fn do_request_reload(&self) -> Result<u64> {
        let mut call = SCRIPTS.reload.on(&self.names.registry());
        counted(number(&call.arg(self.now()).arg("").arg(0).run(&self.link).await?)?)
    }

    pub(super) async fn do_reloaded(&self, worker: &WorkerId, done: u64) -> Result<()> {
        let mut call = SCRIPTS.reload.on(&self.names.registry());
        match number(&call.arg(self.now()).arg(worker.as_str()).arg(done).run(&self.link).await?)? {
            1 => Ok(()),
            _ => Err(BrokerError::LeaseLost),
        }
    }

    pub(super) async fn do_reloads(&self) -> Result<Reloads> {
        let mut call = SCRIPTS.reloads.on(&self.names.registry());
        let [asked, done] = parts(call.arg(self.now()).run(&self.link).await?)?;
        let mut reloads = Reloads { asked: counted(number(&asked)?)?, ..Reloads::default() };
        for pair in list(done)?.chunks_exact(2) {
            reloads.done.insert(named(text(&pair[0])?)?, counted(number(&pair[1])?)?);
        }
        Ok(reloads)
    }
}

fn counted(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| damaged("a negative count"))
}
