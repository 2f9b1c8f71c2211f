//! Statements that would take a worker, its databases or its neighbours down: each ends its own job with an error that
//! says why, and a neighbour that sleeps goes on meanwhile.

use ryemill::job::ErrorKind::{self, HostSql, Memory, Script, Timeout};
use ryemill::script::context::StopReason;
use ryemill::script::fiber::ScriptEnd;
use serde_json::json;

use super::harness::{Harness, returned, script, timeout_for};
use super::{postgres, sqlite};

/// What it is, the body of `run`, the kinds of error that may end it (none: it returns), and what the error says.
type Abuse = (&'static str, &'static str, &'static [ErrorKind], &'static str);

/// On both databases. `P` stands for the placeholder of a parameter.
const BOTH: &[Abuse] = &[
    (
        "endless rows",
        "sql::query(\"shop\", \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n\")",
        &[HostSql],
        "the rows take more than",
    ),
    (
        "endless work",
        "sql::query(\"shop\", \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) AS c FROM n\")",
        &[Timeout],
        "1s",
    ),
    (
        "endless work within try",
        "loop { try { sql::query(\"shop\", \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) AS c FROM n\") } catch {} }",
        &[Timeout],
        "1s",
    ),
    (
        "endless work in a transaction",
        "sql::transaction(\"shop\", |tx| sql::query(tx, \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) AS c FROM n\"))",
        &[Timeout],
        "1s",
    ),
    ("statements without end", "loop { sql::query(\"shop\", \"SELECT 1 AS one\"); }", &[Timeout], "1s"),
    ("errors without end", "loop { try { sql::query(\"shop\", \"SELEC\") } catch {} }", &[Timeout], "1s"),
    (
        "different statements without end",
        "let i = 0; loop { sql::query(\"shop\", `SELECT ${i} AS n${i}`); i += 1; }",
        &[Timeout],
        "1s",
    ),
    ("rows kept", "let a = []; loop { a.push(sql::query(\"shop\", \"SELECT 1 AS one\")); }", &[Memory, Timeout], ""),
    (
        "a large text there and back, kept",
        "let s = \"\"; s.pad(1000000, \"x\"); let a = []; loop { a.push(sql::query(\"shop\", \"SELECT CAST(P AS TEXT) AS s\", [s])); }",
        &[Memory, HostSql, Timeout],
        "",
    ),
    (
        "parameters beyond measure",
        "let s = \"\"; s.pad(3000000, \"x\"); let a = []; a.pad(100, s); sql::query(\"shop\", \"SELECT 1\", a)",
        &[Script],
        "the parameters have more than 33554432 bytes",
    ),
    (
        "a hundred thousand parameters",
        "let a = []; a.pad(100000, 1); sql::query(\"shop\", \"SELECT P AS a\", a)",
        &[HostSql],
        "the statement has 1 parameters, 100000 were given",
    ),
    (
        "a hundred thousand placeholders",
        "let s = \"SELECT P\"; for i in 1..100000 { s += `,P`; } let a = []; a.pad(100000, 1); sql::query(\"shop\", s, a)",
        &[HostSql],
        "",
    ),
    (
        "a statement of two megabytes",
        "let s = \"SELECT 1 -- \"; s.pad(2000000, \"x\"); sql::query(\"shop\", s)",
        &[HostSql],
        "",
    ),
    (
        "deep brackets",
        "let s = \"\"; s.pad(200000, \"(\"); let t = \"\"; t.pad(200000, \")\"); sql::query(\"shop\", `SELECT ${s}1${t} AS n`)",
        &[HostSql],
        "",
    ),
    ("a long sum", "let s = \"1\"; s.pad(400001, \"+1\"); sql::query(\"shop\", `SELECT ${s} AS n`)", &[HostSql], ""),
    (
        "deep negation",
        "let s = \"\"; s.pad(400000, \"NOT \"); sql::query(\"shop\", `SELECT ${s} (1 = 1) AS n`)",
        &[HostSql],
        "",
    ),
    (
        "queries within queries",
        "let s = \"\"; let t = \"\"; for i in 0..20000 { s += \"SELECT * FROM (\"; t += `) AS q${i}`; } sql::query(\"shop\", `${s}SELECT 1 AS n${t}`)",
        &[HostSql],
        "",
    ),
    ("several statements", "sql::execute(\"shop\", \"DELETE FROM t; DELETE FROM t\")", &[HostSql], ""),
    ("several statements with rows", "sql::query(\"shop\", \"SELECT 1 AS a; DROP TABLE t\")", &[HostSql], ""),
    ("a NUL in the statement", "sql::query(\"shop\", \"SELECT 1 AS a \\x00; DROP TABLE t\")", &[HostSql], "NUL"),
    ("a NUL at its end", "sql::execute(\"shop\", \"DELETE FROM t\\x00\")", &[HostSql], "NUL"),
    ("transactions without end", "loop { sql::transaction(\"shop\", |tx| 1); }", &[Timeout], "1s"),
    (
        "a transaction within itself",
        "fn_of(|f| f) } fn fn_of(g) { sql::transaction(\"shop\", |tx| fn_of(g))",
        &[Script],
        "is open already",
    ),
    (
        "a change beside its own transaction",
        "sql::transaction(\"shop\", |tx| { sql::execute(tx, \"INSERT INTO t VALUES (5)\"); sql::execute(\"Shop\", \"DELETE FROM t WHERE id = 5\") })",
        &[Script],
        "sql::execute: a transaction on `shop` is open already: use its `tx`",
    ),
    (
        "a change after a transaction",
        "sql::transaction(\"shop\", |tx| 1); try { sql::transaction(\"shop\", |tx| throw 1) } catch {} sql::execute(\"shop\", \"DELETE FROM t\")",
        &[],
        "",
    ),
    (
        "a list nested without end",
        "let a = []; for i in 0..500 { a = [a]; } sql::query(\"shop\", \"SELECT P AS a\", [a])",
        &[Script],
        "",
    ),
];

const ON_SQLITE: &[Abuse] = &[
    ("a huge value", "sql::query(\"shop\", \"SELECT zeroblob(2000000000) AS b\")", &[HostSql], "too big"),
    ("a huge random value", "sql::query(\"shop\", \"SELECT hex(randomblob(15000000)) AS b\")", &[HostSql], "too big"),
    ("a wide number", "sql::query(\"shop\", \"SELECT printf('%2000000000d', 1) AS b\")", &[HostSql], "too big"),
    (
        "a text that grows",
        "sql::query(\"shop\", \"WITH RECURSIVE n(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM n) SELECT count(*) AS c FROM n\")",
        &[HostSql, Timeout],
        "",
    ),
    (
        "a group that grows",
        "sql::query(\"shop\", \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT group_concat(i) AS c FROM n\")",
        &[HostSql, Timeout],
        "",
    ),
    (
        "a sort without end",
        "sql::query(\"shop\", \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n ORDER BY -i\")",
        &[Timeout, HostSql],
        "",
    ),
    (
        "a product of tables",
        "sql::query(\"shop\", \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT count(*) AS c FROM n a, n b, n c, n d, n e\")",
        &[Timeout],
        "1s",
    ),
    (
        "another file",
        "sql::execute(\"shop\", \"ATTACH 'FOLDER/other.db' AS other\")",
        &[HostSql],
        "ATTACH, DETACH and VACUUM are not available",
    ),
    (
        "another file by parameter",
        "sql::execute(\"shop\", \"ATTACH ? AS other\", [\"FOLDER/other.db\"])",
        &[HostSql],
        "not available to scripts",
    ),
    (
        "another file by address",
        "sql::execute(\"shop\", \"ATTACH 'file:FOLDER/other.db?mode=rwc' AS other\")",
        &[HostSql],
        "ATTACH, DETACH and VACUUM are not available",
    ),
    ("a copy", "sql::execute(\"shop\", \"VACUUM INTO 'FOLDER/copy.db'\")", &[HostSql], "VACUUM"),
    ("a vacuum", "sql::execute(\"shop\", \"VACUUM\")", &[HostSql], "VACUUM"),
    ("a setting", "sql::execute(\"shop\", \"PRAGMA journal_mode = DELETE\")", &[HostSql], "only the PRAGMAs"),
    (
        "a setting in a transaction",
        "sql::transaction(\"shop\", |tx| sql::execute(tx, \"PRAGMA writable_schema = 1\"))",
        &[HostSql],
        "only the PRAGMAs",
    ),
    (
        "a folder for files",
        "sql::execute(\"shop\", \"PRAGMA temp_store_directory = 'FOLDER'\")",
        &[HostSql],
        "only the PRAGMAs",
    ),
    ("a heap limit", "sql::execute(\"shop\", \"PRAGMA hard_heap_limit = 1\")", &[HostSql], "only the PRAGMAs"),
    (
        "an extension",
        "sql::query(\"shop\", \"SELECT load_extension('FOLDER/x.so') AS x\")",
        &[HostSql],
        "load_extension is not available",
    ),
    ("a file read", "sql::query(\"shop\", \"SELECT readfile('/etc/passwd') AS x\")", &[HostSql], "no such function"),
    (
        "a file written",
        "sql::query(\"shop\", \"SELECT writefile('FOLDER/w', 'x') AS x\")",
        &[HostSql],
        "no such function",
    ),
    (
        "a file as a table",
        "sql::execute(\"shop\", \"CREATE VIRTUAL TABLE v USING csv(filename = '/etc/passwd')\")",
        &[HostSql],
        "no such module",
    ),
    (
        "a tokenizer by its address",
        "sql::query(\"shop\", \"SELECT fts3_tokenizer('x', x'4141414141414141') AS x\")",
        &[HostSql],
        "disabled",
    ),
    (
        "the schema",
        "sql::execute(\"shop\", \"INSERT INTO sqlite_master VALUES (1, 2, 3, 4, 5)\")",
        &[HostSql],
        "may not be modified",
    ),
    (
        "a pattern that looks everywhere",
        "sql::query(\"shop\", \"SELECT printf('%.*c', 15000000, 'a') LIKE '%' || printf('%.*c', 40000, 'a') || 'b' AS n\")",
        &[HostSql],
        "LIKE or GLOB pattern too complex",
    ),
    // Long within one function, where nothing stops SQLite: hours with its own.
    (
        "a long text in a longer one",
        "sql::query(\"shop\", \"SELECT instr(printf('%.*c', 16000000, 'a'), printf('%.*c', 8000000, 'a') || 'b') AS n\")",
        &[],
        "",
    ),
    (
        "a long blob in a longer one",
        "sql::query(\"shop\", \"SELECT instr(CAST(printf('%.*c', 16000000, 'a') AS BLOB), CAST(printf('%.*c', 8000000, 'a') || 'b' AS BLOB)) AS n\")",
        &[],
        "",
    ),
    (
        "a long pattern replaced",
        "sql::query(\"shop\", \"SELECT length(replace(printf('%.*c', 16000000, 'a'), printf('%.*c', 8000000, 'a') || 'b', 'c')) AS n\")",
        &[],
        "",
    ),
    (
        "a long text replaced bit by bit",
        "sql::query(\"shop\", \"SELECT length(replace(printf('%.*c', 16000000, 'a'), 'a', 'bb')) AS n\")",
        &[HostSql],
        "too big",
    ),
    (
        "many characters trimmed",
        "sql::query(\"shop\", \"SELECT length(trim(printf('%.*c', 16000000, 'a'), printf('%.*c', 8000000, 'é') || 'a')) AS n\")",
        &[],
        "",
    ),
    (
        "many characters trimmed, and none",
        "sql::query(\"shop\", \"SELECT length(trim(printf('%.*c', 16000000, 'a'), printf('%.*c', 8000000, 'b'))) AS n\")",
        &[],
        "",
    ),
    (
        "searches without end",
        "sql::query(\"shop\", \"WITH RECURSIVE v(a, b) AS (SELECT printf('%.*c', 16000000, 'a'), printf('%.*c', 8000000, 'a') || 'b'), n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(instr(a || i, b)) AS n FROM v, n\")",
        &[Timeout],
        "1s",
    ),
    (
        "many characters skipped",
        "sql::query(\"shop\", \"SELECT unhex(printf('%.*c', 16000000, 'a'), printf('%.*c', 8000000, 'z')) AS n\")",
        &[HostSql],
        "at most 64 bytes",
    ),
    (
        "JSON that fills memory",
        "sql::query(\"shop\", \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT length(json_group_array(printf('%.*c', 8000000, 'a'))) AS n FROM n\")",
        &[HostSql],
        "more memory than SQLite has",
    ),
    (
        "JSON that fills memory at once",
        "let s = \"?1\"; for i in 1..127 { s += \", ?1\"; } let t = \"\"; t.pad(15000000, \"x\"); sql::query(\"shop\", `SELECT json_array(${s}) AS n`, [t])",
        &[HostSql],
        "more memory than SQLite has",
    ),
    (
        "JSON patched",
        "sql::query(\"shop\", \"SELECT json_patch('{}', '{}') AS n\")",
        &[HostSql],
        "json_patch is not available",
    ),
    (
        "JSON patched in another form",
        "sql::query(\"shop\", \"SELECT JSONB_PATCH('{}', '{}') AS n\")",
        &[HostSql],
        "jsonb_patch is not available",
    ),
    (
        "JSON made long",
        "sql::query(\"shop\", \"SELECT json_pretty('[]') AS n\")",
        &[HostSql],
        "json_pretty is not available",
    ),
    (
        "paths within JSON",
        "sql::query(\"shop\", \"SELECT t.* FROM json_tree('{}', '$') AS t\")",
        &[HostSql],
        "use fullkey",
    ),
    (
        "many places within JSON",
        "let s = \"\"; for i in 0..100 { s += `, '$[${i}]', 1`; } sql::query(\"shop\", `SELECT json_set('[]'${s}) AS n`)",
        &[HostSql],
        "too many arguments",
    ),
];

const ON_POSTGRES: &[Abuse] = &[
    ("a huge value", "sql::query(\"shop\", \"SELECT repeat('x', 1000000000) AS b\")", &[HostSql, Timeout], ""),
    ("a value beyond the server's", "sql::query(\"shop\", \"SELECT repeat('x', 2000000000) AS b\")", &[HostSql], ""),
    ("a long sleep", "sql::query(\"shop\", \"SELECT pg_sleep(1000)\")", &[Timeout], "1s"),
    (
        "a sleep without the server's limit",
        "sql::query(\"shop\", \"SELECT set_config('statement_timeout', '0', false), pg_sleep(1000)\")",
        &[Timeout],
        "1s",
    ),
    ("a loop at the server", "sql::execute(\"shop\", \"DO 'BEGIN LOOP END LOOP; END'\")", &[Timeout], "1s"),
    (
        "a loop at the server that catches its end",
        "sql::execute(\"shop\", \"DO 'BEGIN LOOP BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN OTHERS THEN END; END LOOP; END'\")",
        &[Timeout],
        "1s",
    ),
    (
        "recursion at the server",
        "sql::query(\"shop\", \"WITH RECURSIVE n(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM n) SELECT count(*) AS c FROM n\")",
        &[HostSql, Timeout],
        "",
    ),
    (
        "a program",
        "sql::execute(\"shop\", \"COPY (SELECT 1) TO PROGRAM 'touch FOLDER/program'\")",
        &[HostSql],
        "COPY is not available",
    ),
    (
        "a program by way of DO",
        "sql::execute(\"shop\", \"DO 'BEGIN EXECUTE ''COPY (SELECT 1) TO PROGRAM ''''touch FOLDER/program''''''; END'\")",
        &[HostSql],
        "pg_execute_server_program",
    ),
    ("a file", "sql::query(\"shop\", \"SELECT pg_read_file('/etc/passwd') AS x\")", &[HostSql], "permission denied"),
    ("a folder", "sql::query(\"shop\", \"SELECT pg_ls_dir('/') AS x\")", &[HostSql], "permission denied"),
    (
        "a large object from a file",
        "sql::query(\"shop\", \"SELECT lo_import('/etc/passwd') AS x\")",
        &[HostSql],
        "permission denied",
    ),
    (
        "a copy from the client",
        "sql::execute(\"shop\", \"/* x */ copy t FROM STDIN\")",
        &[HostSql],
        "COPY is not available",
    ),
    (
        "the passwords",
        "sql::query(\"shop\", \"SELECT rolpassword AS p FROM pg_authid\")",
        &[HostSql],
        "permission denied",
    ),
    ("another role", "sql::execute(\"shop\", \"SET ROLE ryemill\")", &[HostSql], "permission denied"),
    ("a module", "sql::execute(\"shop\", \"LOAD '/tmp/x.so'\")", &[HostSql], ""),
    (
        "all locks",
        "for i in 0..100000 { sql::query(\"shop\", `SELECT pg_advisory_lock(${i})`); }",
        &[Timeout, HostSql],
        "",
    ),
];

/// Runs each with a neighbour beside it.
fn survives(harness: &Harness, placeholder: &str, folder: &str, abuses: &[Abuse]) {
    let mut wrong = Vec::new();
    for (what, body, kinds, said) in abuses {
        let body = body.replace("CAST(P", &format!("CAST({placeholder}")).replace("FOLDER", folder);
        let body = match placeholder {
            "?" => body.replace("SELECT P", "SELECT ?").replace("`,P`", "`,?`"),
            _ => body
                .replace("SELECT P AS a", "SELECT $1::json AS a")
                .replace("SELECT P", "SELECT $1")
                .replace("`,P`", "`,$${i + 1}`"),
        };
        let limits = format!("timeout: \"{}\", memory: \"48MiB\"", timeout_for(kinds));
        let text = sqlite::Shop::text(&limits, &body);
        let end = harness.beside_a_neighbour(what, &script(&text));
        let fits = match &end {
            ScriptEnd::Failed(error) => kinds.contains(&error.kind) && error.message.contains(said),
            ScriptEnd::Returned(_) => kinds.is_empty(),
            _ => false,
        };
        if !fits {
            wrong.push(format!("{what}: {end:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // All connections are as good as before, all at once.
    let all: Vec<_> = (0..8)
        .map(|_| {
            let text =
                sqlite::Shop::text("timeout: \"60s\"", "sql::query(\"shop\", \"SELECT count(*) AS n FROM t\")[0].n");
            harness.start(&script(&text), "{}")
        })
        .collect();
    for run in all {
        assert_eq!(returned(&run.wait()), json!(0));
    }
}

/// Many statements without end at once, all of them stopped.
fn survives_a_crowd(harness: &Harness) {
    let endless = sqlite::Shop::text(
        "timeout: \"10m\"",
        &format!("log::info(\"on\"); sql::query(\"shop\", \"{}\")", sqlite::ENDLESS),
    );
    let crowd: Vec<_> = (0..20).map(|_| harness.start(&script(&endless), "{}")).collect();
    for run in &crowd {
        while run.ports.seen().logs.is_empty() {
            std::thread::yield_now();
        }
    }
    let neighbour = harness.start(
        &script("const JOB = #{ timeout: \"60s\" };\nfn run(job) { for i in 0..20 { sleep(\"10ms\"); } 42 }"),
        "{}",
    );
    assert_eq!(returned(&neighbour.wait()), json!(42));
    for run in &crowd {
        run.stop.stop(StopReason::Cancelled);
    }
    for run in &crowd {
        let end = run.wait().end;
        // One that waited for a connection in vain has said so.
        assert!(matches!(end, ScriptEnd::Stopped(_) | ScriptEnd::Failed(_)), "{end:?}");
    }
    let text = sqlite::Shop::text("timeout: \"60s\"", "sql::query(\"shop\", \"SELECT 1 AS one\")[0].one");
    assert_eq!(returned(&harness.start(&script(&text), "{}").wait()), json!(1));
}

#[test]
fn no_statement_takes_sqlite_or_the_worker_down() {
    let shop = sqlite::shop();
    let folder = shop.folder();
    let abuses: Vec<Abuse> = BOTH.iter().chain(ON_SQLITE).copied().collect();
    survives(&shop.harness, "?", &folder.display().to_string(), &abuses);
    survives_a_crowd(&shop.harness);
    let names: Vec<String> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with("shop.db")), "{names:?}");
}

/// The role of the URL is a plain one: what the server does not permit it, no script can do.
#[test]
fn no_statement_takes_postgresql_or_the_worker_down() {
    let shop = postgres::plain_shop();
    let folder = tempfile::tempdir().unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), everybody).unwrap();
    let abuses: Vec<Abuse> = BOTH.iter().chain(ON_POSTGRES).copied().collect();
    survives(&shop.harness, "$1", &folder.path().display().to_string(), &abuses);
    survives_a_crowd(&shop.harness);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
