//! What an operator should know of this file: how safe a commit is, how much room there is, whether records were moved
//! aside. Reads, and changes nothing.

use std::path::Path;
use std::process::Command;

use super::SyncMode;
use super::db::Db;
use crate::broker::{Note, Result};

/// Free space on the disk below which it is worth a word, and below which something is wrong. MiB.
const SCARCE: u64 = 1024;
const NO_ROOM: u64 = 64;

pub(super) fn notes(db: &Db, path: &Path, sync: SyncMode) -> Result<Vec<Note>> {
    let journal: String = db.prepare("PRAGMA journal_mode")?.query_row([], |row| row.get(0))?;
    let version: String = db.prepare("SELECT sqlite_version()")?.query_row([], |row| row.get(0))?;
    let aside: i64 = db.prepare("SELECT count(*) FROM quarantine")?.query_row([], |row| row.get(0))?;
    let jobs: i64 = db.prepare("SELECT coalesce(sum(n), 0) FROM counts")?.query_row([], |row| row.get(0))?;
    Ok(vec![
        Note::ok("sqlite", format!("version {version}, journal mode {journal}, {jobs} jobs in {}", path.display())),
        match sync {
            SyncMode::Full => Note::ok("persistence", "`synchronous=FULL`: an accepted job survives a power cut"),
            SyncMode::Normal => Note::warning(
                "persistence",
                "`sync=normal`: an accepted job survives the end of the process; a power cut may take the last ones",
                "take `?sync=normal` away from BROKER_URL if accepted jobs are to survive that",
            ),
        },
        disk(path),
        match aside {
            0 => Note::ok("quarantine", "empty"),
            count => Note::warning(
                "quarantine",
                format!("{count} records that could not be read were moved aside to the table `quarantine`"),
                "look at them (sqlite3), and delete what is of no more use",
            ),
        },
    ])
}

fn disk(path: &Path) -> Note {
    let size = std::fs::metadata(path).map_or(0, |file| file.len() >> 20);
    let Some(free) = free_mib(path) else {
        return Note::warning(
            "disk",
            "`df` does not say how much room there is",
            "look whether the disk of the file has room",
        );
    };
    let what = format!("the file has {size} MiB, {free} MiB are free on its disk");
    let advice = "make room: when the disk is full new jobs get 503";
    if free < NO_ROOM {
        Note::wrong("disk", what, advice)
    } else if free < SCARCE {
        Note::warning("disk", what, advice)
    } else {
        Note::ok("disk", what)
    }
}

/// As `df` says: the standard library has no call for it.
fn free_mib(path: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(path).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let kib: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib >> 10)
}
