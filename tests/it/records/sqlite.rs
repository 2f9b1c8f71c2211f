//! Damage in the file of the embedded broker.

use std::sync::Arc;

use rusqlite::Connection;
use ryemill::broker::sqlite::{SqliteBroker, SyncMode};
use ryemill::job::JobId;
use ryemill::job::time::ManualClock;

use super::{Expected, Scene, is_found_and_mended};
use crate::contract::START;
use crate::contract::harness::Harness;

struct Place {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::at(START)) }
    }

    fn open(&self) -> Harness {
        let path = self.folder.path().join("broker.db");
        let broker = SqliteBroker::open_with_clock(&path, SyncMode::Normal, self.clock.clone()).unwrap();
        Harness::new(Arc::new(broker), Some(self.clock.clone()), ())
    }

    fn db(&self) -> Connection {
        Connection::open(self.folder.path().join("broker.db")).unwrap()
    }
}

/// `ID` in the statement is the job that `of` picks.
async fn damage(sql: &str, of: fn(&Scene) -> JobId, place: &str, names_job: bool, what: &str, goes_aside: bool) {
    let held = Place::new();
    let h = held.open();
    let scene = Scene::set(&h).await;
    let id = of(&scene);
    let hex = data_encoding_upper(id.as_bytes());
    held.db().execute_batch(&sql.replace("ID", &format!("X'{hex}'"))).unwrap();
    let expected: Expected = (place, names_job.then_some(id), what);
    let aside = if goes_aside { vec![id] } else { Vec::new() };
    is_found_and_mended(&h, sql, &scene, &[expected], &aside).await;
    let count: i64 = held.db().query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0)).unwrap();
    assert_eq!(count, i64::from(goes_aside), "{sql}");
}

fn data_encoding_upper(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

const SEQ: &str = "(SELECT seq FROM jobs WHERE id = ID)";

#[tokio::test]
async fn jobs_that_cannot_be_read_are_moved_aside() {
    for (sql, what) in [
        ("UPDATE jobs SET state = 9 WHERE id = ID", "no state 9"),
        ("UPDATE jobs SET v = 77 WHERE id = ID", "a record of version 77"),
        ("UPDATE jobs SET name = 777 WHERE id = ID", "no name 777"),
        ("UPDATE jobs SET error = '{' WHERE id = ID", "EOF"),
        (&format!("DELETE FROM inputs WHERE seq = {SEQ}"), "its input is missing"),
        (&format!("UPDATE inputs SET tags = '7' WHERE seq = {SEQ}"), "invalid type"),
    ] {
        damage(sql, |scene| scene.fresh, "jobs", true, what, true).await;
        damage(sql, |scene| scene.ended, "jobs", true, what, true).await;
    }
}

#[tokio::test]
async fn a_job_without_a_row_leaves_nothing_behind() {
    damage("DELETE FROM jobs WHERE id = ID", |scene| scene.back, "inputs", false, "which is not there", true).await;
}

#[tokio::test]
async fn fields_that_contradict_others_are_set_right() {
    damage(
        "UPDATE jobs SET expires = 1 WHERE id = ID",
        |s| s.fresh,
        "jobs.expires",
        true,
        "before it has ended",
        false,
    )
    .await;
    damage("UPDATE jobs SET expires = NULL WHERE id = ID", |s| s.ended, "jobs.expires", true, "never expires", false)
        .await;
    damage("UPDATE jobs SET score = 0 WHERE id = ID", |s| s.back, "jobs.score", true, "place in line", false).await;
    let logs = format!("UPDATE log_heads SET bytes = 1 WHERE job = {SEQ}");
    damage(&logs, |s| s.running, "log_heads", true, "not those of the log", false).await;
}

#[tokio::test]
async fn counts_are_made_anew() {
    let any = |scene: &Scene| scene.fresh;
    damage("UPDATE counts SET n = n + 5 WHERE state = 1", any, "counts", false, "counted 7, there are 2", false).await;
    damage("DELETE FROM counts", any, "counts", false, "counted 0, there are 1", false).await;
    damage("UPDATE queues SET ended_bytes = 1", any, "queues.ended_bytes", false, "1 bytes counted", false).await;
}

#[tokio::test]
async fn types_of_nobody_go() {
    let sql = "INSERT INTO loaded VALUES ('ghost', 1, 'v1', 1)";
    damage(sql, |scene| scene.fresh, "loaded", false, "the worker ghost", false).await;
}

#[tokio::test]
async fn an_index_is_made_anew_from_its_table() {
    let held = Place::new();
    let scene = Scene::set(&held.open()).await;
    // An index that leaves out what it should have: made under another condition than it then shows.
    for (from, to) in [("state = 1", "state = 7"), ("state = 7", "state = 1")] {
        let db = held.db();
        let version: i64 = db.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
        db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
        db.execute_batch(&format!(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = 'queued';
             PRAGMA schema_version = {};",
            version + 1
        ))
        .unwrap();
        drop(db);
        if to == "state = 7" {
            held.db().execute_batch("REINDEX queued").unwrap();
        }
    }
    is_found_and_mended(&held.open(), "index", &scene, &[("the file", None, "index queued")], &[]).await;
}
