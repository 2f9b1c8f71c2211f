//! What only the embedded broker can show: several processes on one file, a process killed in the middle of a write, a
//! file that is damaged, foreign or newer; and what needs a clock that a test can move by minutes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::contract::START;
use crate::contract::harness::*;
use rusqlite::Connection;
use ryemill::broker::sqlite::{SqliteBroker, SyncMode};
use ryemill::broker::{Broker, BrokerError, Filter, NewJob, QueueInfo, SharedBroker, Topic};
use ryemill::job::time::ManualClock;
use ryemill::job::{JobId, Priority, State};
use tempfile::TempDir;

/// Two brokers on one file: for SQLite the same as two processes.
fn two() -> (TempDir, SharedBroker, SharedBroker) {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SqliteBroker::open(&folder.path().join("broker.db"), SyncMode::Normal).unwrap());
    let (one, other) = (open(), open());
    (folder, one, other)
}

fn harness(broker: &SharedBroker) -> Harness {
    Harness::new(Arc::clone(broker), None, ())
}

/// A broker on a file that the test changes behind its back.
fn beside() -> (TempDir, Harness, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let clock = Arc::new(ManualClock::at(START));
    let broker = SqliteBroker::open_with_clock(&path, SyncMode::Normal, clock.clone()).unwrap();
    let db = Connection::open(&path).unwrap();
    (folder, Harness::new(Arc::new(broker), Some(clock), ()), db)
}

fn refusal(path: &Path) -> String {
    SqliteBroker::open(path, SyncMode::Full).unwrap_err().to_string()
}

// ---- several processes ------------------------------------------------------------------------------------------

#[tokio::test]
async fn two_processes_share_jobs_leases_and_names() {
    let (_folder, one, other) = two();
    let (one, other) = (harness(&one), harness(&other));
    let id = one.enqueue(job_of("email", "default")).await;
    assert_eq!(other.state(id).await, State::Queued);
    let worker = other.worker().await;
    let run = other.claim_one(&worker).await.run;
    assert_eq!(one.state(id).await, State::Running);
    one.broker.cancel(id).await.unwrap();
    assert_eq!(other.broker.renew(&beat(&worker, LONG)).await.unwrap().cancelled, [run]);
    // Names that each made known on its own.
    one.enqueue(job_of("report", "slow")).await;
    other.enqueue(job_of("report", "slow")).await;
    one.counts_are_right().await;
    let names = |queues: Vec<QueueInfo>| queues.into_iter().map(|queue| queue.name).collect::<Vec<_>>();
    assert_eq!(names(one.broker.queues().await.unwrap()), names(other.broker.queues().await.unwrap()));
}

#[tokio::test]
async fn a_change_wakes_other_processes_soon() {
    let (_folder, one, other) = two();
    let mut work = other.changes(Topic::Work);
    let mut took = Vec::new();
    for _ in 0..21 {
        work.mark_unchanged();
        let started = Instant::now();
        one.enqueue(vec![job("email")]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), work.changed()).await.expect("a wake-up").unwrap();
        took.push(started.elapsed());
        // What is still on its way from this change must not pass for the next one.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort_unstable();
    // Looking now and then, which stays as a fallback, would need 125 ms on average.
    assert!(took[took.len() / 2] < Duration::from_millis(60), "{took:?}");
}

#[tokio::test]
async fn without_the_wake_file_changes_are_still_seen() {
    let (folder, one, other) = two();
    std::fs::remove_file(folder.path().join("broker.db-wake")).unwrap();
    let mut work = other.changes(Topic::Work);
    work.mark_unchanged();
    one.enqueue(vec![job("email")]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), work.changed()).await.expect("a wake-up").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_on_two_processes_never_see_a_locked_file() {
    let (_folder, one, other) = two();
    let mut tasks = Vec::new();
    for n in 0..16 {
        let h = harness(if n % 2 == 0 { &one } else { &other });
        tasks.push(tokio::spawn(async move {
            let worker = h.worker().await;
            let mut done = Vec::new();
            for _ in 0..30 {
                h.broker.enqueue(vec![job("email"), job("report")]).await.unwrap();
                for claimed in h.claim(&worker, 2).await {
                    h.finish(&claimed.run, succeeded()).await;
                    done.push(claimed.run.job);
                }
                h.broker.queues().await.unwrap();
            }
            done
        }));
    }
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.unwrap());
    }
    let h = harness(&one);
    let worker = h.worker().await;
    for claimed in h.claim(&worker, 1000).await {
        h.finish(&claimed.run, succeeded()).await;
        done.push(claimed.run.job);
    }
    assert_eq!(done.len(), 16 * 30 * 2);
    assert_eq!(done.iter().collect::<HashSet<_>>().len(), done.len(), "each ran once");
    h.counts_are_right().await;
}

#[test]
fn eight_openers_of_a_new_file_make_it_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/broker.db");
        let start = Barrier::new(8);
        let brokers: Vec<SqliteBroker> = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                SqliteBroker::open(&path, SyncMode::Full).unwrap()
            };
            let openers: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        assert_eq!(brokers.len(), 8);
        let tables: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'jobs'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(tables, 1);
    }
}

// ---- death ------------------------------------------------------------------------------------------------------

const HELPER_FILE: &str = "RYEMILL_TEST_BROKER_FILE";

/// Enqueues, claims and finishes until it is killed, and says of every job when the broker has acknowledged it.
#[tokio::test]
#[ignore = "a process of its own for `a_killed_process_loses_no_acknowledged_job`"]
async fn a_process_that_writes_until_it_is_killed() {
    let path = std::env::var_os(HELPER_FILE).expect("run by another test");
    let broker: SharedBroker = Arc::new(SqliteBroker::open(Path::new(&path), SyncMode::Full).unwrap());
    let h = harness(&broker);
    let worker = h.worker().await;
    loop {
        let jobs: Vec<NewJob> = (0..20).map(|_| job("email")).collect();
        let answers = h.broker.enqueue(jobs).await.unwrap();
        let mut out = std::io::stdout().lock();
        for answer in answers {
            writeln!(out, "stored {}", answer.id).unwrap();
        }
        drop(out);
        let ends = h.claim(&worker, 10).await.iter().map(|job| finish(&job.run, succeeded())).collect::<Vec<_>>();
        let answers = h.broker.finish(ends.clone()).await.unwrap();
        let mut out = std::io::stdout().lock();
        for (end, answer) in ends.iter().zip(answers) {
            answer.unwrap();
            writeln!(out, "done {}", end.run.job).unwrap();
        }
    }
}

#[tokio::test]
async fn a_killed_process_loses_no_acknowledged_job() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let mut stored: HashSet<JobId> = HashSet::new();
    let mut done: HashSet<JobId> = HashSet::new();
    for round in 1..=4 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["sqlite_only::a_process_that_writes_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(HELPER_FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut take = |line: &str| {
            // A line cut short by the kill has no whole id.
            match line.split_once(' ').and_then(|(what, id)| Some((what, id.parse::<JobId>().ok()?))) {
                Some(("stored", id)) => stored.insert(id),
                Some(("done", id)) => done.insert(id),
                _ => false,
            }
        };
        let mut seen = 0;
        while seen < round * 300 {
            seen += usize::from(take(&lines.next().expect("the process lives").unwrap()));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        lines.map_while(Result::ok).for_each(|line| {
            take(&line);
        });
    }
    let broker: SharedBroker = Arc::new(SqliteBroker::open(&path, SyncMode::Full).unwrap());
    let h = harness(&broker);
    h.counts_are_right().await;
    let jobs = h.all(Filter { limit: 1000, ..Filter::default() }).await;
    let there: HashSet<JobId> = jobs.iter().map(|job| job.id).collect();
    assert_eq!(there.len(), jobs.len());
    assert!(stored.is_subset(&there), "{} lost", stored.difference(&there).count());
    let ended: HashSet<JobId> = jobs.iter().filter(|job| job.state == State::Succeeded).map(|job| job.id).collect();
    assert!(done.is_subset(&ended), "{} ends lost", done.difference(&ended).count());
    assert!(!done.is_empty());
    let sound: String =
        Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[tokio::test]
async fn a_dropped_broker_leaves_the_file_closed_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let broker: SharedBroker = Arc::new(SqliteBroker::open(&path, SyncMode::Full).unwrap());
    let id = harness(&broker).enqueue(job("email")).await;
    assert!(broker.get(id).await.unwrap().is_some());
    drop(broker);
    assert!(!folder.path().join("broker.db-wal").exists(), "the last one to close folds the log file in");
    let again: SharedBroker = Arc::new(SqliteBroker::open(&path, SyncMode::Full).unwrap());
    assert_eq!(harness(&again).state(id).await, State::Queued);
}

// ---- a write that fails -----------------------------------------------------------------------------------------

/// Makes the file refuse one payload, in the middle of a write.
const REFUSE: &str = "CREATE TRIGGER refuse BEFORE INSERT ON inputs WHEN new.payload = '\"bad\"'
                      BEGIN SELECT raise(ABORT, 'refused by the test'); END";

#[tokio::test]
async fn a_call_that_fails_midway_leaves_nothing_behind() {
    let (_folder, h, db) = beside();
    db.execute_batch(REFUSE).unwrap();
    let bad = NewJob { payload: json("\"bad\""), ..job_of("new_name", "new-queue") };
    let jobs = vec![job("email"), bad, job("email")];
    let answer = h.broker.enqueue(jobs).await;
    assert!(matches!(&answer, Err(BrokerError::Unavailable(why)) if why.contains("refused")), "{answer:?}");
    assert!(h.all(Filter { limit: 10, ..Filter::default() }).await.is_empty());
    assert!(h.broker.queues().await.unwrap().is_empty());
    // The names of the undone call were forgotten with it.
    h.enqueue(job_of("new_name", "new-queue")).await;
    h.counts_are_right().await;
}

#[tokio::test]
async fn a_call_that_fails_spoils_no_other_of_its_group() {
    let (_folder, h, db) = beside();
    db.execute_batch(REFUSE).unwrap();
    let calls = (0..50).map(|n| {
        let payload = json(if n % 10 == 3 { "\"bad\"" } else { "\"good\"" });
        h.broker.enqueue(vec![NewJob { payload, ..job("email") }, job("report")])
    });
    let answers = futures_util::future::join_all(calls).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_err(), n % 10 == 3, "{n}: {answer:?}");
    }
    assert_eq!(h.all(Filter { limit: 100, ..Filter::default() }).await.len(), 90);
    h.counts_are_right().await;
}

// ---- damage -----------------------------------------------------------------------------------------------------

fn quarantined(db: &Connection) -> Vec<(String, String)> {
    let mut rows = db.prepare("SELECT why, record FROM quarantine").unwrap();
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

fn damage(db: &Connection, sql: &str, id: JobId) {
    assert_eq!(db.execute(sql, [id.as_bytes().as_slice()]).unwrap(), 1, "{sql}");
}

#[tokio::test]
async fn a_queued_record_that_cannot_be_read_is_moved_aside_by_a_claim() {
    let damages = [
        "UPDATE inputs SET payload = '{\"cut' WHERE seq = (SELECT seq FROM jobs WHERE id = ?1)",
        "UPDATE inputs SET request_id = 'no spaces allowed' WHERE seq = (SELECT seq FROM jobs WHERE id = ?1)",
        "UPDATE inputs SET tags = '[1' WHERE seq = (SELECT seq FROM jobs WHERE id = ?1)",
        "DELETE FROM inputs WHERE seq = (SELECT seq FROM jobs WHERE id = ?1)",
        "UPDATE jobs SET v = 99 WHERE id = ?1",
        "UPDATE jobs SET name = 99 WHERE id = ?1",
        "UPDATE jobs SET priority = 77 WHERE id = ?1",
        "UPDATE jobs SET max_attempts = -1 WHERE id = ?1",
        "UPDATE jobs SET timeout = -1 WHERE id = ?1",
        "UPDATE jobs SET id = x'00' WHERE id = ?1",
    ];
    for sql in damages {
        let (_folder, h, db) = beside();
        let first = h.enqueue(job("email")).await;
        let bad = h.enqueue(job("email")).await;
        let last = h.enqueue(job("email")).await;
        damage(&db, sql, bad);
        let worker = h.worker().await;
        assert_eq!(ids(&h.claim(&worker, 10).await), [first, last], "{sql}");
        let aside = quarantined(&db);
        assert_eq!(aside.len(), 1, "{sql}");
        assert!(aside[0].1.contains("\"created_at\""), "the record is kept: {aside:?}");
        assert!(h.broker.get(bad).await.unwrap().is_none());
        h.counts_are_right().await;
    }
}

#[tokio::test]
async fn a_running_record_that_cannot_be_read_never_stops_a_sweep() {
    let damages = [
        "UPDATE jobs SET id = x'0102' WHERE id = ?1",
        "UPDATE jobs SET v = 2 WHERE id = ?1",
        "UPDATE jobs SET queue = 99 WHERE id = ?1",
    ];
    for sql in damages {
        let (_folder, h, db) = beside();
        let jobs: Vec<NewJob> = (0..3).map(|_| job("email")).collect();
        let given: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        h.broker.enqueue(jobs).await.unwrap();
        let worker = h.worker_with(LEASE).await;
        assert_eq!(h.claim(&worker, 10).await.len(), 3);
        damage(&db, sql, given[1]);
        h.advance(LEASE).await;
        let swept = h.broker.sweep(&sweep_with(LONG)).await.unwrap();
        assert_eq!((swept.lost.len(), swept.quarantined, swept.more), (2, 1, false), "{sql}");
        assert_eq!(quarantined(&db).len(), 1);
        assert_eq!(h.state(given[0]).await, State::Queued);
        assert_eq!(h.state(given[2]).await, State::Queued);
        h.counts_are_right().await;
    }
}

#[tokio::test]
async fn a_run_of_a_worker_that_nobody_knows_is_lost() {
    let (_folder, h, db) = beside();
    let id = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    h.claim_one(&worker).await;
    db.execute("DELETE FROM workers", []).unwrap();
    assert_eq!(h.broker.sweep(&sweep_with(LONG)).await.unwrap().lost.len(), 1);
    assert_eq!(h.state(id).await, State::Queued);
}

#[tokio::test]
async fn a_damaged_record_is_said_to_be_one_and_hides_no_other() {
    let (_folder, h, db) = beside();
    let good = h.enqueue(job("email")).await;
    let bad = h.enqueue(job("email")).await;
    damage(&db, "UPDATE jobs SET error = '{' WHERE id = ?1", bad);
    assert!(matches!(h.broker.get(bad).await, Err(BrokerError::Damaged(_))));
    let listed = h.all(Filter { limit: 10, ..Filter::default() }).await;
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [good]);
}

// ---- files of others --------------------------------------------------------------------------------------------

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "dear diary, ".repeat(100)).unwrap();
    assert!(refusal(&text).contains("not a database"), "{}", refusal(&text));
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "dear diary, ".repeat(100));

    let other = folder.path().join("other.db");
    let db = Connection::open(&other).unwrap();
    db.execute_batch("CREATE TABLE customers (name TEXT)").unwrap();
    drop(db);
    let before = std::fs::read(&other).unwrap();
    assert!(refusal(&other).contains("another program"), "{}", refusal(&other));

    assert_eq!(std::fs::read(&other).unwrap(), before);

    assert!(refusal(folder.path()).contains(&folder.path().display().to_string()), "{}", refusal(folder.path()));
    assert!(!folder.path().join("other.db-wake").exists());
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date_with_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(include_str!("../../src/broker/sqlite/schema/0001_jobs.sql")).unwrap();
    db.pragma_update(None, "application_id", 0x7279_6531).unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    db.execute_batch("INSERT INTO log_heads VALUES (1, 7, 70, 3)").unwrap();
    let broker = SqliteBroker::open(&path, SyncMode::Full).unwrap();
    let head: (i64, i64, i64) =
        db.query_row("SELECT last, dropped, taken FROM log_heads", [], |row| row.try_into()).unwrap();
    assert_eq!(head, (7, 3, 0));
    broker.enqueue(vec![job("email")]).await.unwrap();
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let broker = SqliteBroker::open(&path, SyncMode::Full).unwrap();
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    // A process that had it open before stops writing, too.
    let answer = broker.enqueue(vec![job("email")]).await;
    assert!(matches!(&answer, Err(BrokerError::Unavailable(why)) if why.contains("99")), "{answer:?}");
    let text = refusal(&path);
    assert!(text.contains("version 99") && text.contains("newer ryemill"), "{text}");
}

// ---- a clock that moves -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_step_of_priority_is_worth_a_minute_of_age() {
    let (_folder, h, _db) = beside();
    let with = |priority| NewJob { priority: Priority::new(priority).unwrap(), ..job("email") };
    let old_low = h.enqueue(with(0)).await;
    h.advance(Duration::from_secs(9 * 60 - 1)).await;
    let early_high = h.enqueue(with(9)).await;
    h.advance(Duration::from_secs(2)).await;
    let late_high = h.enqueue(with(9)).await;
    let late_mid = h.enqueue(with(8)).await;
    let worker = h.worker().await;
    assert_eq!(ids(&h.claim(&worker, 10).await), [early_high, old_low, late_high, late_mid]);
}

#[tokio::test]
async fn a_clock_set_back_loses_and_repeats_nothing() {
    let (_folder, h, _db) = beside();
    let clock = h.clock.clone().unwrap();
    let before = h.enqueue(job("email")).await;
    let worker = h.worker_with(LEASE).await;
    clock.set(ryemill::job::Timestamp(START.0 - 3_600_000_000));
    let after = h.enqueue(job("email")).await;
    let claimed = h.claim(&worker, 10).await;
    assert_eq!(ids(&claimed).into_iter().collect::<HashSet<_>>(), HashSet::from([before, after]));
    assert!(h.broker.sweep(&sweep_with(Duration::ZERO)).await.unwrap().lost.is_empty());
    // From its next renewal the lease is on the new time.
    h.broker.renew(&beat(&worker, LEASE)).await.unwrap();
    h.advance(LEASE).await;
    assert_eq!(h.broker.sweep(&sweep_with(LONG)).await.unwrap().lost.len(), 2);
    h.counts_are_right().await;
}
