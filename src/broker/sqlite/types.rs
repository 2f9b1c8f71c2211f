//! Job types: which versions exist, which one is live, who has which.

use std::collections::BTreeMap;

use rusqlite::params;

use super::db::{Db, damaged};
use super::ends::stored_keep;
use super::writer::Tx;
use crate::broker::{BrokerError, LoadedType, Publication, RefusedType, Result, Topic, TypeInfo, TypeWorker};
use crate::job::{JobName, JobType, Timestamp, Version, WorkerId};

pub(super) fn publish(tx: &mut Tx<'_>, publication: &Publication) -> Result<()> {
    let worker = publication.worker.as_str();
    tx.db
        .first("SELECT 1 FROM workers WHERE id = ?1 AND gone IS NULL", [worker], |_| Ok(()))?
        .ok_or(BrokerError::LeaseLost)?;
    let mut before: BTreeMap<i64, String> = tx
        .db
        .all("SELECT name, version FROM loaded WHERE worker = ?1", [worker], |row| Ok((row.get(0)?, row.get(1)?)))?
        .into_iter()
        .collect();
    let mut changed = false;
    for loaded in &publication.types {
        let name = tx.db.name_id(&loaded.job_type.name)?;
        let had = before.remove(&name);
        if had.as_deref() == Some(loaded.job_type.version.as_str()) {
            continue;
        }
        changed = true;
        publish_one(tx, name, loaded)?;
        tx.db.execute(
            "INSERT OR REPLACE INTO loaded VALUES (?1, ?2, ?3, ?4)",
            params![worker, name, loaded.job_type.version.as_str(), tx.now.0],
        )?;
    }
    for (name, _) in before {
        changed = true;
        tx.db.execute("DELETE FROM loaded WHERE worker = ?1 AND name = ?2", params![worker, name])?;
    }
    changed |= publish_refused(tx, publication)?;
    if changed {
        tx.wake(Topic::JobTypes);
        // A job may wait for its type.
        tx.wake(Topic::Work);
        tx.wake(Topic::Jobs);
    }
    Ok(())
}

/// A version that this worker had not: is it new, or does it bring an older one back?
fn publish_one(tx: &Tx<'_>, name: i64, loaded: &LoadedType) -> Result<()> {
    let job_type = &loaded.job_type;
    let text = serde_json::to_string(job_type).map_err(|error| BrokerError::Invalid(error.to_string()))?;
    let new = tx.db.execute(
        "INSERT INTO type_versions VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![name, job_type.version.as_str(), text],
    )? == 1;
    let replaces_live = match &loaded.replaced {
        None => false,
        Some(replaced) => tx
            .db
            .first("SELECT 1 FROM types WHERE name = ?1 AND live = ?2", params![name, replaced.as_str()], |_| Ok(()))?
            .is_some(),
    };
    if new || replaces_live {
        tx.db.execute(
            "INSERT OR REPLACE INTO types VALUES (?1, ?2, ?3)",
            params![name, job_type.version.as_str(), stored_keep(&job_type.spec.keep)],
        )?;
    }
    Ok(())
}

fn publish_refused(tx: &Tx<'_>, publication: &Publication) -> Result<bool> {
    let worker = publication.worker.as_str();
    let before: BTreeMap<String, String> = tx
        .db
        .all("SELECT name, info FROM refused WHERE worker = ?1", [worker], |row| Ok((row.get(0)?, row.get(1)?)))?
        .into_iter()
        .collect();
    let mut now = BTreeMap::new();
    for refused in &publication.refused {
        let info = serde_json::to_string(refused).map_err(|error| BrokerError::Invalid(error.to_string()))?;
        now.insert(refused.name.to_string(), info);
    }
    if before == now {
        return Ok(false);
    }
    tx.db.execute("DELETE FROM refused WHERE worker = ?1", [worker])?;
    for (name, info) in now {
        tx.db.execute("INSERT INTO refused VALUES (?1, ?2, ?3)", params![worker, name, info])?;
    }
    Ok(true)
}

pub(super) fn job_types(db: &Db, now: Timestamp) -> Result<Vec<TypeInfo>> {
    let mut types = BTreeMap::new();
    let live: Vec<String> = db.all(
        "SELECT v.job_type FROM types t JOIN type_versions v ON v.name = t.name AND v.version = t.live",
        [],
        |row| row.get(0),
    )?;
    for text in live {
        let job_type = parse(&text)?;
        types.insert(job_type.name.clone(), TypeInfo { job_type, workers: Vec::new(), refused: None });
    }
    let mut statement = db.prepare(
        "SELECT l.name, l.worker, l.version, l.loaded_at FROM loaded l JOIN workers w ON w.id = l.worker
         WHERE w.gone IS NULL AND w.lease_until > ?1 ORDER BY l.loaded_at, l.worker",
    )?;
    let mut rows = statement.query([now.0])?;
    while let Some(row) = rows.next()? {
        let name = db.name(row.get(0)?)?;
        let worker: String = row.get(1)?;
        let version: String = row.get(2)?;
        if let Some(info) = types.get_mut(&name) {
            info.workers.push(TypeWorker {
                id: WorkerId::new(&worker).map_err(|error| damaged(error.to_string()))?,
                version: Version::new(&version).map_err(|error| damaged(error.to_string()))?,
                loaded_at: Timestamp(row.get(3)?),
            });
        }
    }
    let refused: Vec<String> = db.all(
        "SELECT r.info FROM refused r JOIN workers w ON w.id = r.worker WHERE w.gone IS NULL AND w.lease_until > ?1",
        [now.0],
        |row| row.get(0),
    )?;
    for text in refused {
        let refused: RefusedType = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if let Some(info) = types.get_mut(&refused.name)
            && info.refused.as_ref().is_none_or(|known| known.at <= refused.at)
        {
            info.refused = Some(refused);
        }
    }
    Ok(types.into_values().collect())
}

pub(super) fn job_type_version(db: &Db, name: &JobName, version: &Version) -> Result<Option<JobType>> {
    let Some(name) = db.find_name(name)? else { return Ok(None) };
    let text: Option<String> = db.first(
        "SELECT job_type FROM type_versions WHERE name = ?1 AND version = ?2",
        params![name, version.as_str()],
        |row| row.get(0),
    )?;
    text.as_deref().map(parse).transpose()
}

fn parse(text: &str) -> Result<JobType> {
    serde_json::from_str(text).map_err(|error| damaged(error.to_string()))
}
