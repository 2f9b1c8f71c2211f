//! `sql` on a real PostgreSQL server: every type there and back, transactions, limits, and ends in the middle.

mod cancel;
mod report;
mod server;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ryemill::config::DatabaseUrl;
use ryemill::job::ErrorKind;
use ryemill::script::context::StopReason;
use ryemill::script::services::ServicesOptions;
use serde_json::{Value, json};

use super::harness::{Harness, failed, returned, script};
use server::{PASSWORD, Server};

/// A worker with the server as its database `shop`.
pub struct Shop {
    pub harness: Harness,
    server: Arc<Server>,
}

fn shop() -> Shop {
    let server = server::shared();
    shop_at(&server.url(), &server)
}

fn shop_at(url: &str, server: &Arc<Server>) -> Shop {
    let url = DatabaseUrl::parse(url).unwrap();
    let options =
        ServicesOptions { databases: BTreeMap::from([("shop".to_owned(), url)]), ..ServicesOptions::default() };
    Shop { harness: Harness::with(2, options), server: Arc::clone(server) }
}

/// The server's database `plain`, with a table `t`, as a role that owns it and may nothing else.
pub fn plain_shop() -> Shop {
    let shop = shop();
    for statement in [
        "DROP DATABASE IF EXISTS plain",
        "DROP ROLE IF EXISTS plain",
        "CREATE ROLE plain LOGIN PASSWORD 'only-for-tests'",
        "CREATE DATABASE plain OWNER plain",
    ] {
        shop.run(&format!("sql::execute(\"shop\", \"{statement}\")"));
    }
    let url = format!("postgres://plain:{PASSWORD}@127.0.0.1:{}/plain", shop.server.port);
    let plain = shop_at(&url, &shop.server);
    plain.run("sql::execute(\"shop\", \"CREATE TABLE t (id int PRIMARY KEY)\")");
    plain
}

impl Shop {
    fn text(timeout: &str, body: &str) -> String {
        format!(
            "const JOB = #{{ timeout: \"{timeout}\", memory: \"32MiB\", allow: #{{ databases: [\"shop\"] }} }};\nfn run(job) {{\n{body}\n}}"
        )
    }

    fn run(&self, body: &str) -> Value {
        returned(&self.harness.start(&script(&Self::text("30s", body)), "{}").wait())
    }

    fn fails(&self, body: &str) -> (ErrorKind, String) {
        let report = self.harness.start(&script(&Self::text("30s", body)), "{}").wait();
        let error = failed(&report);
        (error.kind, error.message.clone())
    }

    /// How many statements with this mark the server runs now.
    fn running(&self, mark: &str) -> i64 {
        let count = self.run(&format!(
            "sql::query(\"shop\", \"SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE \
             $1 AND pid <> pg_backend_pid()\", [\"%{mark}%\"])[0].n"
        ));
        count.as_i64().unwrap()
    }

    /// Waits until that many run.
    fn until_running(&self, mark: &str, count: i64) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.running(mark) != count {
            assert!(Instant::now() < until, "{} statements run, not {count}", self.running(mark));
        }
    }
}

fn rhai_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[test]
fn floats_and_bytes_that_json_cannot_hold_are_exact_too() {
    let shop = shop();
    let body = r#"
        let bytes = blob(3, 255);
        let row = sql::query("shop", `SELECT $1::bytea AS b, $2::float8 AS n, $3::float8 AS i, $4::bytea[] AS l, $5::float8[] AS f`,
            [bytes, 0.0 / 0.0, -1.0 / 0.0, [blob(), bytes], [1.5, 1e300]])[0];
        [row.b == bytes, row.n.is_nan(), `${row.i}` == "-inf", row.l[0].len(), row.l[1] == bytes, row.f]"#;
    assert_eq!(shop.run(body), json!([true, true, true, 0, true, [1.5, 1e300]]));
}

#[test]
fn parameters_are_typed_by_the_statement() {
    let shop = shop();
    let body = r#"
        let at = time::parse("2026-03-01T09:05:00+03:00");
        sql::query("shop", `SELECT $1::jsonb AS map, $2::jsonb AS list, $3::numeric AS n, $4::timestamptz AS t, $5::text AS s,
            $6::int8 AS i, $7::bool AS b, $8::jsonb->>'a' AS j, $9 = 7 AS inferred, $10::int4[] AS empty`,
            [#{ a: [1, ()] }, [#{ b: "x" }, 2.5], 12.25, at, 5, "9223372036854775807", true, "{\"a\": 1}", 7, []])[0]"#;
    assert_eq!(
        shop.run(body),
        json!({
            "map": { "a": [1, null] }, "list": [{ "b": "x" }, 2.5], "n": "12.25", "t": "2026-03-01T06:05:00Z", "s": "5",
            "i": 9_223_372_036_854_775_807_i64, "b": true, "j": "1", "inferred": true, "empty": [],
        })
    );
}

/// A text for `json` is JSON; what is to be a string of it goes by `json::format`.
#[test]
fn a_text_for_json_is_json() {
    let shop = shop();
    let body = r#"
        let text = "say \"hi\"";
        let row = sql::query("shop", "SELECT $1::jsonb AS j, $2::jsonb AS s, $3::jsonb[] AS l", ["[1]", json::format(text), ["[1]", #{ a: text }]])[0];
        [row.j, row.s == text, row.l[0], row.l[1].a == text]"#;
    assert_eq!(shop.run(body), json!([[1], true, [1], true]));
    assert!(
        shop.fails("sql::query(\"shop\", \"SELECT $1::jsonb AS j\", [\"hi\"])")
            .1
            .contains("invalid input syntax for type json")
    );
}

#[test]
fn injection_stays_data() {
    let shop = shop();
    for evil in [
        "'; DROP TABLE x; --",
        "$1",
        "\\'; SELECT 1",
        "{\"",
        "NULL",
        "'}'::int4[]--",
        "\\x41",
        "${name}",
        "%_",
        "{}",
        "{\"a\":1}",
        "?",
        ":a",
        "/*",
        "\u{2019}; --",
    ] {
        let body = format!(
            "let evil = {0};
             let row = sql::query(\"shop\", \"SELECT $1::text AS t, $2::text[] AS l, $3::jsonb AS j\", [evil, [evil], #{{ k: evil }}])[0];
             [row.t == evil, row.l[0] == evil, row.j.k == evil]",
            rhai_text(evil)
        );
        assert_eq!(shop.run(&body), json!([true, true, true]), "{evil}");
        // Inside LIKE, a path of JSON, a composite's text, a range of texts, and as a name.
        let body = format!(
            "let evil = {0};
             sql::query(\"shop\", `SELECT $1::text LIKE '%' || replace(replace(replace($1, '\\', '\\\\'), '%', '\\%'), '_', '\\_') || '%' AS l,
                 jsonb_build_object($1::text, $1::text) ->> $1::text = $1 AS j, $1 = ANY ($2::text[]) AS a,
                 $3::jsonb @> jsonb_build_array($1::text) AS c, format('%I', $1::text) IS NOT NULL AS i`, [evil, [\"x\", evil], [evil]])[0]",
            rhai_text(evil)
        );
        assert_eq!(shop.run(&body), json!({ "l": true, "j": true, "a": true, "c": true, "i": true }), "{evil}");
    }
    assert!(
        shop.fails("sql::query(\"shop\", \"SELECT $1::text AS t\", [\"a\\x00b\"])").1.contains("invalid byte sequence")
    );
}

#[test]
fn what_is_wrong_is_said() {
    let shop = shop();
    for (statement, params, said) in [
        ("SELECT nope", "[]", "column \"nope\" does not exist (42703)"),
        ("SELEC 1", "[]", "syntax error at or near \"SELEC\""),
        ("SELECT 1; SELECT 2", "[]", "cannot insert multiple commands into a prepared statement"),
        ("SELECT $1::int4", "[]", "the statement has 1 parameters, 0 were given"),
        ("SELECT $1::int4", "[\"x\"]", "invalid input syntax for type integer: \"x\""),
        ("SELECT $1::int2", "[70000]", "out of range for type smallint"),
        ("SELECT $1::text", "[blob(2)]", "a blob is for a parameter of type bytea, this one is text"),
        ("SELECT 1 AS a, 2 AS a", "[]", "two columns are named `a`"),
        (
            "SELECT '1'::money AS m",
            "[]",
            "column `m` is of type money, which has no form for scripts: select it as text, m::text",
        ),
        ("SELECT '99999999999999999999'::jsonb AS j", "[]", "does not fit 64 bits"),
        ("BEGIN", "[]", "use sql::transaction"),
        ("/* x */ COMMIT", "[]", "use sql::transaction"),
        ("COPY pg_class TO STDOUT", "[]", "COPY is not available"),
        ("PREPARE x AS SELECT 1", "[]", "PREPARE is not available"),
        ("CREATE TEMP TABLE t (a int)", "[]", "returns no rows: use sql::execute"),
        ("", "[]", "returns no rows"),
    ] {
        let (kind, message) = shop.fails(&format!("sql::query(\"shop\", {}, {params})", rhai_text(statement)));
        assert!(matches!(kind, ErrorKind::HostSql | ErrorKind::Script), "{statement}: {kind:?} {message}");
        assert!(message.contains(said), "{statement}: {message}");
    }
    // The connections are as good as before.
    assert_eq!(shop.run("sql::query(\"shop\", \"SELECT 1 AS one\")"), json!([{ "one": 1 }]));
}

#[test]
fn nothing_stays_on_a_connection() {
    let shop = shop();
    for left in [
        "SET search_path = nowhere",
        "SET statement_timeout = 1",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "CREATE TEMP TABLE left_over (a int)",
    ] {
        shop.run(&format!("sql::execute(\"shop\", \"{left}\")"));
        let body = r#"let all = [];
            for i in 0..12 {
                all.push(sql::query("shop", `SELECT current_setting('search_path') AS p, current_setting('transaction_read_only') AS r,
                    to_regclass('pg_temp.left_over') IS NULL AS t, (SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_over') AS s`)[0]);
            }
            all"#;
        for row in shop.run(body).as_array().unwrap() {
            assert_eq!(*row, json!({ "p": "\"$user\", public", "r": "off", "t": true, "s": 0 }), "{left}");
        }
    }
}

fn table(shop: &Shop, name: &str) {
    shop.run(&format!(
        "sql::execute(\"shop\", \"DROP TABLE IF EXISTS {name}\"); sql::execute(\"shop\", \"CREATE TABLE {name} (id int PRIMARY KEY)\")"
    ));
}

fn ids(shop: &Shop, name: &str) -> Value {
    shop.run(&format!("sql::query(\"shop\", \"SELECT id FROM {name} ORDER BY id\").map(|row| row.id)"))
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let shop = shop();
    table(&shop, "tx");
    let insert = |id: i32| format!("sql::execute(tx, \"INSERT INTO tx VALUES ($1)\", [{id}]);");
    let whole = format!(
        "sql::transaction(\"shop\", |tx| {{ {} {} sql::query(tx, \"SELECT count(*) AS n FROM tx\")[0].n }})",
        insert(1),
        insert(2)
    );
    assert_eq!(shop.run(&whole), json!(2));
    for (end, kind) in [
        ("throw \"no\"", ErrorKind::Thrown),
        ("fail(\"no\")", ErrorKind::FailedByScript),
        ("1 / 0", ErrorKind::Script),
        ("sql::query(tx, \"SELECT nope\")", ErrorKind::HostSql),
        // A caught error leaves nothing to commit.
        ("try { sql::query(tx, \"SELECT nope\") } catch {}", ErrorKind::HostSql),
        ("try { sql::execute(tx, \"INSERT INTO tx VALUES (3)\") } catch {}", ErrorKind::HostSql),
        ("sql::transaction(\"shop\", |other| 1)", ErrorKind::Script),
        ("let a = []; loop { a.push(1); }", ErrorKind::Memory),
        ("let f = |f| f.call(f) + 1; f.call(f)", ErrorKind::Stack),
    ] {
        let (found, message) = shop.fails(&format!("sql::transaction(\"shop\", |tx| {{ {} {end} }})", insert(3)));
        assert_eq!(found, kind, "{end}: {message}");
        assert_eq!(ids(&shop, "tx"), json!([1, 2]), "{end}");
    }
    let kept = format!(
        "let kept = (); sql::transaction(\"shop\", |tx| {{ {} kept = tx; }}); sql::query(kept, \"SELECT 1 AS one\")",
        insert(4)
    );
    assert!(shop.fails(&kept).1.contains("the transaction is over"));
    assert_eq!(ids(&shop, "tx"), json!([1, 2, 4]));
    assert!(shop.fails("sql::transaction(\"shop\", 5)").1.contains("`body` must be a function such as |tx|"));
}

#[test]
fn a_stop_in_the_middle_undoes_a_transaction_and_ends_its_statement() {
    let shop = shop();
    table(&shop, "stopped");
    for (mark, wait) in [
        ("mark_statement", "sql::query(tx, \"SELECT pg_sleep(600), 'mark_statement' AS m\")"),
        ("mark_idle", "log::info(\"on\"); sleep(\"10m\")"),
    ] {
        let body = format!(
            "sql::transaction(\"shop\", |tx| {{ sql::execute(tx, \"INSERT INTO stopped VALUES (1)\"); {wait}; }})"
        );
        let running = shop.harness.start(&script(&Shop::text("10m", &body)), "{}");
        if mark == "mark_idle" {
            while running.ports.seen().logs.is_empty() {
                std::thread::yield_now();
            }
        } else {
            shop.until_running(mark, 1);
        }
        running.stop.stop(StopReason::Cancelled);
        running.wait();
        shop.until_running(mark, 0);
        // The lock on the row is gone as well.
        let again = "sql::execute(\"shop\", \"INSERT INTO stopped VALUES (1)\"); sql::execute(\"shop\", \"DELETE FROM stopped\")";
        assert_eq!(shop.run(again), json!(1), "{mark}");
    }
}

#[test]
fn a_statement_ends_with_its_run() {
    let shop = shop();
    for (end, query) in [
        ("its time", "sql::query(\"shop\", \"SELECT pg_sleep(600), 'mark_time' AS m\")"),
        (
            "within try",
            "try { sql::execute(\"shop\", \"DO 'BEGIN PERFORM pg_sleep(600), ''mark_time''; END'\") } catch {} log::info(\"after\")",
        ),
    ] {
        let report = shop.harness.start(&script(&Shop::text("500ms", query)), "{}").wait();
        assert_eq!(failed(&report).kind, ErrorKind::Timeout, "{end}");
        shop.until_running("mark_time", 0);
    }
    // All connections at once, and they all come back.
    let many: Vec<_> = (0..12)
        .map(|_| {
            shop.harness.start(
                &script(&Shop::text("10m", "sql::query(\"shop\", \"SELECT pg_sleep(600), 'mark_many' AS m\")")),
                "{}",
            )
        })
        .collect();
    let watcher = shop_at(&shop.server.url(), &shop.server);
    watcher.until_running("mark_many", 8);
    for run in &many {
        run.stop.stop(StopReason::Cancelled);
        run.wait();
    }
    watcher.until_running("mark_many", 0);
    assert_eq!(shop.run("sql::query(\"shop\", \"SELECT 1 AS one\")[0].one"), json!(1));
}

#[test]
fn huge_and_endless_answers_are_refused() {
    let shop = shop();
    for (query, said) in [
        ("SELECT generate_series(1, 1000000000) AS i", "the rows take more than"),
        ("SELECT repeat('x', 900000000) AS t", "a row has more than the 33554432 bytes that are read"),
        ("SELECT repeat('x', 1000000) AS t FROM generate_series(1, 1000000)", "the rows take more than"),
        ("SELECT array_agg(i) AS l FROM generate_series(1, 2000000) AS i", "the rows take more than"),
        ("SELECT ('[' || repeat('1,', 3000000) || '1]')::jsonb AS j", "the rows take more than"),
        ("SELECT (repeat('[', 1000) || repeat(']', 1000))::jsonb AS j", "nested deeper than the 64 levels"),
    ] {
        let (kind, message) = shop.fails(&format!("sql::query(\"shop\", {})", rhai_text(query)));
        assert!(matches!(kind, ErrorKind::HostSql | ErrorKind::Script), "{query}: {kind:?} {message}");
        assert!(message.contains(said), "{query}: {message}");
        shop.until_running("generate_series", 0);
    }
    let (_, message) = shop.fails("let s = \"\"; s.pad(2000000, \" \"); sql::query(\"shop\", s)");
    assert!(message.contains("at most 1048576 are allowed"), "{message}");
    let (_, message) =
        shop.fails("let a = []; for i in 0..100 { a = [a]; } sql::query(\"shop\", \"SELECT $1::jsonb AS j\", [a])");
    assert!(message.contains("`params[0]` is nested deeper than 64 levels"), "{message}");
    assert_eq!(shop.run("sql::query(\"shop\", \"SELECT 1 AS one\")[0].one"), json!(1));
}

#[test]
fn sockets_tls_and_passwords() {
    let server = server::shared();
    let login = format!("ryemill:{PASSWORD}");
    let folder = server.folder().display().to_string();
    let (port, at) = (server.port, "SELECT ssl AS s FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    for (url, encrypted) in [
        (format!("postgres://{login}@{}:{port}/postgres", folder.replace('/', "%2F")), false),
        (format!("postgres://{login}@127.0.0.1:{port}/postgres"), false),
        (format!("postgres://{login}@127.0.0.1:{port}/postgres?sslmode=require"), true),
        (
            format!("postgres://{login}@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={folder}/root.crt"),
            true,
        ),
    ] {
        let shop = shop_at(&url, &server);
        assert_eq!(shop.run(&format!("sql::query(\"shop\", \"{at}\")[0].s")), json!(encrypted), "{url}");
    }
    for (url, said) in [
        (format!("postgres://ryemill:wrong-password@127.0.0.1:{port}/postgres"), "password authentication failed"),
        (format!("postgres://{login}@127.0.0.1:{port}/postgres?sslmode=verify-full"), "invalid peer certificate"),
        (format!("postgres://{login}@127.0.0.1:1/postgres"), "refused"),
        (format!("postgres://{login}@127.0.0.1:{port}/nowhere"), "database \"nowhere\" does not exist"),
    ] {
        let (kind, message) = shop_at(&url, &server).fails("sql::query(\"shop\", \"SELECT 1\")");
        assert_eq!(kind, ErrorKind::HostSql, "{message}");
        assert!(message.contains(said) && !message.contains(PASSWORD), "{url}: {message}");
    }
}
