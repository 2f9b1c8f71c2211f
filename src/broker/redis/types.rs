//! Job types: which versions exist, which one is live, who has which.

use std::collections::BTreeMap;

use redis::{Cmd, Value};

use super::Inner;
use super::codec::{damaged, micros, named};
use super::reply::{bytes, list, number, parts, text};
use super::script::SCRIPTS;
use crate::broker::{BrokerError, Publication, RefusedType, Result, TypeInfo, TypeWorker};
use crate::job::{JobName, JobType, Timestamp, Version};

impl Inner {
    pub(super) async fn do_publish(&self, publication: &Publication) -> Result<()> {
        let invalid = |error: serde_json::Error| BrokerError::Invalid(error.to_string());
        let mut call = SCRIPTS.publish.on(&self.names.registry());
        call.arg(self.now()).arg(publication.worker.as_str()).arg(publication.types.len());
        for loaded in &publication.types {
            let job_type = &loaded.job_type;
            let replaced = loaded.replaced.as_ref().map_or("", Version::as_str);
            call.arg(job_type.name.as_str()).arg(job_type.version.as_str()).arg(replaced);
            call.arg(micros(job_type.spec.keep.failed)).arg(serde_json::to_string(job_type).map_err(invalid)?);
        }
        for refused in &publication.refused {
            call.arg(refused.name.as_str()).arg(serde_json::to_string(refused).map_err(invalid)?);
        }
        match number(&call.run(&self.link).await?)? {
            1 => Ok(()),
            _ => Err(BrokerError::LeaseLost),
        }
    }

    pub(super) async fn do_job_types(&self) -> Result<Vec<TypeInfo>> {
        let mut call = SCRIPTS.types.on(&self.names.registry());
        let [live, workers] = parts(call.arg(self.now()).run(&self.link).await?)?;
        let mut types = BTreeMap::new();
        for card in list(live)? {
            let job_type = parse(bytes(&card)?)?;
            types.insert(job_type.name.clone(), TypeInfo { job_type, workers: Vec::new(), refused: None });
        }
        for worker in list(workers)? {
            let [id, loaded, refused] = parts(worker)?;
            for pair in list(loaded)?.chunks_exact(2) {
                let name: JobName = named(text(&pair[0])?)?;
                let Some((at, version)) = bytes(&pair[1])?.split_at_checked(8) else {
                    return Err(damaged("what a worker has loaded"));
                };
                let loaded_at = at.iter().fold(0, |at, byte| at << 8 | i64::from(*byte));
                if let Some(info) = types.get_mut(&name) {
                    info.workers.push(TypeWorker {
                        id: named(text(&id)?)?,
                        version: named(super::codec::text(version)?)?,
                        loaded_at: Timestamp(loaded_at),
                    });
                }
            }
            for card in list(refused)? {
                let refused: RefusedType =
                    serde_json::from_slice(bytes(&card)?).map_err(|error| damaged(&error.to_string()))?;
                if let Some(info) = types.get_mut(&refused.name)
                    && info.refused.as_ref().is_none_or(|known| known.at <= refused.at)
                {
                    info.refused = Some(refused);
                }
            }
        }
        for info in types.values_mut() {
            info.workers.sort_by(|a, b| (a.loaded_at, &a.id).cmp(&(b.loaded_at, &b.id)));
        }
        Ok(types.into_values().collect())
    }

    pub(super) async fn do_job_type_version(&self, name: &JobName, version: &Version) -> Result<Option<JobType>> {
        let mut get = Cmd::new();
        get.arg("HGET").arg(format!("{}:versions", self.names.registry())).arg(format!("{name} {version}"));
        match self.link.command(&get, "HGET").await? {
            Value::Nil => Ok(None),
            card => parse(bytes(&card)?).map(Some),
        }
    }
}

fn parse(card: &[u8]) -> Result<JobType> {
    serde_json::from_slice(card).map_err(|error| damaged(&error.to_string()))
}
