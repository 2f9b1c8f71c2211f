//! `ryemill doctor`.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Said, fixture};
use crate::contract::harness::job_of;
use crate::eventually::eventually;
use crate::redis::RedisServer;
use ryemill::broker::Broker;
use ryemill::broker::sqlite::{SqliteBroker, SyncMode};
use ryemill::job::State;

/// Runs it with these variables, data in `data`.
fn doctor(data: &Path, args: &[&str], variables: &[(&str, &str)]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_ryemill"))
        .arg("doctor")
        .args(args)
        .current_dir(data)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("JOBS_DIR", fixture("tests"))
        .env("DATA_DIR", "data")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn levels(said: &Said, subject: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(&said.out).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let of = checks.iter().filter(|check| check["subject"] == subject);
    of.map(|check| check["level"].as_str().unwrap().to_owned()).collect()
}

/// What differs from run to run.
fn assert_told(name: &str, data: &Path, said: &Said) {
    let filters = [
        (regex(data), "[data]"),
        (regex(&fixture("tests")), "[jobs]"),
        (r"version [0-9.]+".to_owned(), "version [version]"),
        (r"\d+(\.\d+)? (ms|MiB)".to_owned(), "[n] $2"),
        (r"(ahead of|behind)".to_owned(), "[beside]"),
        (r"127\.0\.0\.1:\d+".to_owned(), "[address]"),
        (r"save [0-9 ]+".to_owned(), "save [points]"),
    ];
    let filters: Vec<(&str, &str)> = filters.iter().map(|(from, to)| (from.as_str(), *to)).collect();
    insta::with_settings!({ filters => filters }, {
        insta::assert_snapshot!(name, said.out);
    });
}

fn regex(path: &Path) -> String {
    path.canonicalize().unwrap().display().to_string().replace('.', r"\.")
}

#[test]
fn the_embedded_broker_is_looked_at_and_left_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let said = doctor(place.path(), &[], &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_told("sqlite", place.path(), &said);
    let db = rusqlite::Connection::open(place.path().join("data/ryemill.db")).unwrap();
    let left = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(left("SELECT count(*) FROM jobs"), 0);
    assert_eq!(left("SELECT count(*) FROM workers WHERE gone IS NULL"), 0);
    assert_eq!(left("SELECT coalesce(sum(n), 0) FROM counts"), 0);
    let said = doctor(place.path(), &["--json"], &[("BROKER_URL", "sqlite:data/ryemill.db?sync=normal")]);
    assert_eq!((said.code, levels(&said, "persistence")), (0, vec!["warning".to_owned()]), "{said:?}");
}

#[tokio::test]
async fn redis_is_looked_at() {
    let place = tempfile::tempdir().unwrap();
    let settings = [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory", "64mb")];
    let server = RedisServer::start(&settings).await;
    let said = doctor(place.path(), &[], &[("BROKER_URL", &server.url())]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_told("redis", place.path(), &said);
    assert_eq!(server.ask::<u64>("HLEN ryemill:{ryemill-doctor}:jobs").await, 0);
    assert_eq!(server.ask::<u64>("ZCARD ryemill:{:registry}:leases").await, 0);
}

#[tokio::test]
async fn what_an_accepted_job_survives_is_said_by_the_settings_of_redis() {
    let place = tempfile::tempdir().unwrap();
    for (settings, level, words) in [
        (&[("appendonly", "yes"), ("appendfsync", "everysec")][..], "ok", "may take the last two seconds"),
        (&[("appendonly", "yes"), ("appendfsync", "no")], "warning", "half a minute"),
        (&[("save", "60 1")], "warning", "snapshots only (`save 60 1`)"),
        (&[("save", "\"\"")], "warning", "every job is lost when Redis ends"),
    ] {
        let server = RedisServer::start(settings).await;
        let said = doctor(place.path(), &["--json"], &[("BROKER_URL", &server.url())]);
        assert_eq!((said.code, levels(&said, "persistence")), (0, vec![level.to_owned()]), "{said:?}");
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
}

#[tokio::test]
async fn a_redis_that_throws_jobs_away_is_wrong_and_the_rest_is_looked_at() {
    let place = tempfile::tempdir().unwrap();
    let server = RedisServer::start(&[("maxmemory", "64mb"), ("maxmemory-policy", "allkeys-lru")]).await;
    let url = server.url();
    let said = doctor(place.path(), &[], &[("BROKER_URL", &url)]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_told("eviction", place.path(), &said);
    let said = doctor(place.path(), &["--json"], &[("BROKER_URL", &url), ("ALLOW_EVICTION", "yes")]);
    assert_eq!((said.code, levels(&said, "eviction")), (0, vec!["warning".to_owned()]), "{said:?}");
}

#[test]
fn a_redis_that_is_away_is_wrong_and_the_rest_is_looked_at() {
    let place = tempfile::tempdir().unwrap();
    // Bound and not listened to: nobody else gets it, and nobody answers.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://u:s3cret-pass@127.0.0.1:{}", socket.local_addr().unwrap().port());
    let said = doctor(place.path(), &["--json"], &[("BROKER_URL", &url)]);
    assert_eq!(said.code, 1, "{said:?}");
    for (subject, level) in [("clock", "wrong"), ("broker", "wrong"), ("round trip", "wrong"), ("scripts", "ok")] {
        assert_eq!(levels(&said, subject), [level], "{subject}: {}", said.out);
    }
    assert!(!said.out.contains("s3cret-pass"), "{}", said.out);
}

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_live_worker_leaves_the_probe_to_the_doctor() {
    let place = tempfile::tempdir().unwrap();
    let worker = Command::new(env!("CARGO_BIN_EXE_ryemill"))
        .arg("worker")
        .current_dir(place.path())
        .env_clear()
        .env("JOBS_DIR", fixture("tests"))
        .env("DATA_DIR", "data")
        .stderr(Stdio::null())
        .spawn();
    let _worker = Running(worker.unwrap());
    let broker = SqliteBroker::open(&place.path().join("data/ryemill.db"), SyncMode::Full).unwrap();
    // Of a doctor that was killed; then one that the worker tries, and gives back because it has no such script.
    let (left, other) = (job_of("ryemill_doctor", "ryemill-doctor"), job_of("nobody", "other"));
    let (left_id, other_id) = (left.id, other.id);
    broker.enqueue(vec![left, other]).await.unwrap();
    let attempts = async |id| broker.get(id).await.unwrap().unwrap().attempts.len();
    eventually("the worker has looked", async || (attempts(other_id).await > 0).then_some(())).await;
    assert_eq!(attempts(left_id).await, 0);
    let said = doctor(place.path(), &["--fsck"], &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(broker.get(left_id).await.unwrap().unwrap().state, State::Succeeded);
}

#[tokio::test]
async fn records_that_disagree_are_named_and_mended_on_demand() {
    let place = tempfile::tempdir().unwrap();
    assert_eq!(doctor(place.path(), &["--fsck"], &[]).code, 0);
    let db = rusqlite::Connection::open(place.path().join("data/ryemill.db")).unwrap();
    db.execute_batch("INSERT INTO counts VALUES (1, 1, 1, 7) ON CONFLICT DO UPDATE SET n = 7").unwrap();
    let server = RedisServer::start(&[]).await;
    let url = server.url();
    let redis = [("BROKER_URL", url.as_str())];
    assert_eq!(doctor(place.path(), &["--fsck"], &redis).code, 0);
    server.ask::<i64>("HINCRBY ryemill:{ryemill-doctor}:counts 1ryemill_doctor 7").await;
    for variables in [&[][..], &redis] {
        let found = doctor(place.path(), &["--fsck"], variables);
        assert_eq!(found.code, 1, "{found:?}");
        for words in ["counted 7, there are 0", "`ryemill doctor --fsck --repair` mends it", "1 faults, 0 mended"] {
            assert!(found.out.contains(words), "{words}: {}", found.out);
        }
        let mended = doctor(place.path(), &["--fsck", "--repair", "--json"], variables);
        assert_eq!((mended.code, levels(&mended, "records")), (0, vec!["warning".into(), "ok".into()]), "{mended:?}");
        let clean = doctor(place.path(), &["--fsck"], variables);
        assert_eq!(clean.code, 0, "{clean:?}");
        assert!(clean.out.contains("0 jobs examined, nothing disagrees"), "{}", clean.out);
    }
    assert_eq!(doctor(place.path(), &["--repair"], &[]).code, 2);
}

#[test]
fn a_broken_configuration_is_told_fault_by_fault() {
    let place = tempfile::tempdir().unwrap();
    let said = doctor(place.path(), &[], &[("PORT", "many"), ("LEASE", "soon")]);
    assert_eq!(said.code, 2, "{said:?}");
    assert_told("configuration", place.path(), &said);
    let said = doctor(place.path(), &["--json"], &[("PORT", "many"), ("LEASE", "soon")]);
    assert_eq!((said.code, levels(&said, "configuration")), (2, vec!["wrong".to_owned(); 2]), "{said:?}");
    assert_eq!(doctor(place.path(), &["--what"], &[]).code, 2);
}

#[test]
fn scripts_with_faults_and_a_hasty_pm2_are_told() {
    let place = tempfile::tempdir().unwrap();
    let jobs = fixture("broken_tests");
    let variables = [("JOBS_DIR", jobs.to_str().unwrap()), ("pm_id", "0"), ("kill_timeout", "20000")];
    std::fs::create_dir(place.path().join("broken")).unwrap();
    std::fs::write(place.path().join("broken/hello.rhai"), "fn run(job) {").unwrap();
    let said = doctor(place.path(), &["--json"], &variables);
    assert_eq!(
        (levels(&said, "pm2"), levels(&said, "scripts")),
        (vec!["warning".into()], vec!["ok".into()]),
        "{said:?}"
    );
    let said = doctor(place.path(), &["--json"], &[("JOBS_DIR", "broken")]);
    assert_eq!((said.code, levels(&said, "scripts")), (1, vec!["wrong".to_owned()]), "{said:?}");
    assert!(levels(&said, "pm2").is_empty());
    let said = doctor(place.path(), &["--json"], &[("JOBS_DIR", "nowhere")]);
    assert_eq!((said.code, levels(&said, "scripts")), (1, vec!["wrong".to_owned()]), "{said:?}");
}
