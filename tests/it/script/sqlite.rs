//! `sql::transaction` on a SQLite file: all or nothing, however its run ends, and the file free for others afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use ryemill::config::DatabaseUrl;
use ryemill::job::ErrorKind;
use ryemill::script::context::StopReason;
use ryemill::script::fiber::{RunReport, ScriptEnd};
use ryemill::script::services::ServicesOptions;
use serde_json::{Value, json};

use super::harness::{Harness, failed, returned, script};

/// Rows without end, of which none comes: the statement counts them.
pub const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n";

/// A worker with a file as its database `shop`, which has a table `t`.
pub struct Shop {
    pub harness: Harness,
    folder: tempfile::TempDir,
}

pub fn shop() -> Shop {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    let databases = BTreeMap::from([("shop".to_owned(), DatabaseUrl::Sqlite { path })]);
    let options = ServicesOptions { databases, ..ServicesOptions::default() };
    Shop { harness: Harness::with(2, options), folder }
}

impl Shop {
    pub fn text(limits: &str, body: &str) -> String {
        format!("const JOB = #{{ {limits}, allow: #{{ databases: [\"shop\"] }} }};\nfn run(job) {{\n{body}\n}}")
    }

    fn report(&self, limits: &str, body: &str) -> RunReport {
        self.harness.start(&script(&Self::text(limits, body)), "{}").wait()
    }

    fn run(&self, body: &str) -> Value {
        returned(&self.report("timeout: \"60s\"", body))
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn ids(&self) -> Vec<i64> {
        let connection = Connection::open(self.folder().join("shop.db")).unwrap();
        let mut statement = connection.prepare("SELECT id FROM t ORDER BY id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Another process' write, which has to wait only until the transaction that just ended is undone.
    fn is_free(&self) {
        let connection = Connection::open(self.folder().join("shop.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
            .execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (99); DELETE FROM t WHERE id = 99; COMMIT")
            .unwrap();
    }
}

const INSERT: &str = "sql::execute(tx, \"INSERT INTO t VALUES (?)\", [7]);";

#[test]
fn a_transaction_that_returns_is_kept_and_seen_by_all() {
    let shop = shop();
    let body = format!(
        "let seen = sql::transaction(\"shop\", |tx| {{ {INSERT} sql::query(tx, \"SELECT id FROM t\")[0].id }});
         [seen, sql::query(\"shop\", \"SELECT id FROM t\")[0].id]"
    );
    assert_eq!(shop.run(&body), json!([7, 7]));
    assert_eq!(shop.ids(), [7]);
    shop.is_free();
    // Before the end nobody else sees it.
    let early = "sql::transaction(\"shop\", |tx| {
        sql::execute(tx, \"DELETE FROM t\");
        sql::query(\"shop\", \"SELECT count(*) AS n FROM t\")[0].n
    })";
    assert_eq!(shop.run(early), json!(1));
    assert_eq!(shop.ids(), Vec::<i64>::new());
}

#[test]
fn a_transaction_that_ends_otherwise_leaves_nothing() {
    let shop = shop();
    let nested = "sql::transaction(\"shop\", |other| sql::execute(other, \"INSERT INTO t VALUES (8)\"))";
    let caught = format!("try {{ {nested} }} catch (e) {{ log::info(e.message) }} throw \"after\"");
    for (end, limits, kind) in [
        ("throw \"no\"", "", ErrorKind::Thrown),
        ("fail(\"no\")", "", ErrorKind::FailedByScript),
        ("1 / 0", "", ErrorKind::Script),
        ("sql::query(tx, \"SELECT nope\")", "", ErrorKind::HostSql),
        // A caught error leaves nothing to commit.
        ("try { sql::query(tx, \"SELECT nope\") } catch {}", "", ErrorKind::HostSql),
        ("try { sql::execute(tx, \"INSERT INTO t VALUES (7)\") } catch {}", "", ErrorKind::HostSql),
        (nested, "", ErrorKind::Script),
        (&caught, "", ErrorKind::Thrown),
        ("let a = []; loop { a.push(1); }", "memory: \"4MiB\"", ErrorKind::Memory),
        ("let f = |f| f.call(f) + 1; f.call(f)", "", ErrorKind::Stack),
        ("loop {}", "timeout: \"300ms\"", ErrorKind::Timeout),
        ("try { loop {} } catch {}", "timeout: \"300ms\"", ErrorKind::Timeout),
        ("sleep(\"1h\")", "timeout: \"300ms\"", ErrorKind::Timeout),
        (&format!("sql::query(tx, \"{ENDLESS}\")"), "timeout: \"300ms\"", ErrorKind::Timeout),
        (&format!("try {{ sql::query(tx, \"{ENDLESS}\") }} catch {{}}"), "timeout: \"300ms\"", ErrorKind::Timeout),
    ] {
        let limits =
            if limits.starts_with("timeout") { limits.to_owned() } else { format!("timeout: \"60s\", {limits}") };
        let body = format!("sql::transaction(\"shop\", |tx| {{ {INSERT} {end} }})");
        let report = shop.report(limits.trim_end_matches(", "), &body);
        assert_eq!(failed(&report).kind, kind, "{end}: {:?}", report.end);
        shop.is_free();
        assert_eq!(shop.ids(), Vec::<i64>::new(), "{end}");
    }
    let report = shop.report("timeout: \"60s\"", &format!("sql::transaction(\"shop\", |tx| {{ {nested} }})"));
    assert!(
        failed(&report).message.contains("a transaction on `shop` is open already: use its `tx`"),
        "{:?}",
        report.end
    );
    // One after the other is none within another.
    let two = format!("sql::transaction(\"shop\", |tx| 1); sql::transaction(\"shop\", |tx| {{ {INSERT} }})");
    assert_eq!(shop.run(&two), json!(1));
    assert_eq!(shop.ids(), [7]);
}

#[test]
fn a_stop_in_the_middle_undoes_a_transaction() {
    let shop = shop();
    for wait in ["sleep(\"10m\")", "loop {}", &format!("sql::query(tx, \"{ENDLESS}\")")] {
        for reason in [StopReason::Cancelled, StopReason::Shutdown] {
            let body = format!("sql::transaction(\"shop\", |tx| {{ {INSERT} log::info(\"on\"); {wait} }})");
            let running = shop.harness.start(&script(&Shop::text("timeout: \"10m\"", &body)), "{}");
            while running.ports.seen().logs.is_empty() {
                std::thread::yield_now();
            }
            running.stop.stop(reason);
            let end = running.wait().end;
            assert!(matches!(end, ScriptEnd::Stopped(found) if found == reason), "{wait}: {end:?}");
            shop.is_free();
            assert_eq!(shop.ids(), Vec::<i64>::new(), "{wait}");
        }
    }
}

#[test]
fn waiting_for_a_transaction_of_another_ends_with_the_run_or_with_a_reason() {
    let shop = shop();
    let holder = "sql::transaction(\"shop\", |tx| { log::info(\"on\"); sleep(\"10m\") })";
    let held = shop.harness.start(&script(&Shop::text("timeout: \"20m\"", holder)), "{}");
    while held.ports.seen().logs.is_empty() {
        std::thread::yield_now();
    }
    let begun = Instant::now();
    let report = shop.report("timeout: \"300ms\"", "sql::transaction(\"shop\", |tx| 1)");
    assert_eq!(failed(&report).kind, ErrorKind::Timeout, "{:?}", report.end);
    assert!(begun.elapsed() < Duration::from_secs(40), "it waited for {:?}", begun.elapsed());
    let report = shop.report("timeout: \"60s\"", "sql::transaction(\"shop\", |tx| 1)");
    let error = failed(&report);
    assert!(error.retryable && error.message.contains("others held the database for more than 5 s"), "{error:?}");
    // Those who only read go on.
    assert_eq!(shop.run("sql::query(\"shop\", \"SELECT count(*) AS n FROM t\")[0].n"), json!(0));
    held.stop.stop(StopReason::Cancelled);
    held.wait();
    assert_eq!(shop.run(&format!("sql::transaction(\"shop\", |tx| {{ {INSERT} }})")), json!(1));
}
