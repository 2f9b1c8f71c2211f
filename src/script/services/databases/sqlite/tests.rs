//! Statements on real files.

use std::collections::BTreeMap;

use tokio::runtime::Handle;

use super::super::{Backend, Databases};
use super::*;
use crate::config::DatabaseUrl;
use crate::job::ErrorKind;
use crate::script::notes::Errand;

struct Sales {
    databases: Databases,
    folder: tempfile::TempDir,
}

const MIB: usize = 1 << 20;

fn sales() -> Sales {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sales.db");
    let setup = Connection::open(&file).unwrap();
    setup
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE sale (id INTEGER PRIMARY KEY, item TEXT UNIQUE, price REAL);
             INSERT INTO sale VALUES (1, 'tea', 2.5), (2, 'jam', NULL);",
        )
        .unwrap();
    let databases = databases(file);
    Sales { databases, folder }
}

fn databases(path: PathBuf) -> Databases {
    let urls = BTreeMap::from([("SALES".to_owned(), DatabaseUrl::Sqlite { path })]);
    Databases::new(urls, Handle::current()).unwrap()
}

fn asked(sql: &str, params: Vec<SqlValue>, rows: Option<usize>) -> Asked {
    Asked { sql: sql.to_owned(), params, rows, until: Instant::now() + Duration::from_mins(1), errand: Errand::here() }
}

impl From<i32> for SqlValue {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<f64> for SqlValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<String> for SqlValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl Sales {
    async fn query(&self, sql: &str, params: Vec<SqlValue>) -> Result<Rows, String> {
        match self.databases.run("sales", asked(sql, params, Some(MIB))).await {
            Ok(Found::Rows(rows)) => Ok(rows),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::HostSql);
                Err(error.message)
            }
        }
    }

    async fn execute(&self, sql: &str, params: Vec<SqlValue>) -> Result<u64, String> {
        match self.databases.run("Sales", asked(sql, params, None)).await {
            Ok(Found::Changed(count)) => Ok(count),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.message),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("sales.db")
    }
}

#[tokio::test]
async fn rows_come_with_their_types() {
    let sales = sales();
    let rows = sales
        .query("SELECT id, item, price, x'00ff' AS raw FROM sale WHERE id <= ?1 ORDER BY id", vec![2.into()])
        .await
        .unwrap();
    assert_eq!(rows.columns, ["id", "item", "price", "raw"]);
    let raw = || SqlValue::Blob(vec![0, 255]);
    assert_eq!(rows.rows[0], [1.into(), "tea".to_owned().into(), 2.5.into(), raw()]);
    assert_eq!(rows.rows[1], [2.into(), "jam".to_owned().into(), SqlValue::Null, raw()]);
    let bytes = sales.query("SELECT CAST(x'ff' AS TEXT) AS t", vec![]).await.unwrap();
    assert_eq!(bytes.rows, [[SqlValue::Blob(vec![255])]]);
}

#[tokio::test]
async fn changes_are_counted_and_stay() {
    let sales = sales();
    assert_eq!(sales.execute("UPDATE sale SET price = ?", vec![3.into()]).await, Ok(2));
    assert_eq!(sales.execute("CREATE TABLE t (a)", vec![]).await, Ok(0));
    assert_eq!(sales.execute("DELETE FROM sale WHERE id = 99", vec![]).await, Ok(0));
    let rows = sales.query("INSERT INTO t VALUES (1), (2) RETURNING a", vec![]).await.unwrap();
    assert_eq!(rows.rows.len(), 2);
    assert_eq!(sales.query("SELECT count(*) AS n FROM t", vec![]).await.unwrap().rows, [[SqlValue::Integer(2)]]);
}

#[tokio::test]
async fn a_parameter_is_never_sql() {
    let sales = sales();
    let evil = "x'; DROP TABLE sale; --".to_owned();
    let rows = sales.query("SELECT id FROM sale WHERE item = ?", vec![evil.into()]).await.unwrap();
    assert_eq!(rows.rows.len(), 0);
    assert!(sales.query("SELECT id FROM sale", vec![]).await.is_ok());
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let sales = sales();
    for (sql, said) in [
        ("SELECT nope FROM sale", "no such column: nope, at: nope FROM sale"),
        ("SELEC 1", "near \"SELEC\": syntax error"),
        ("SELECT 1; SELECT 2", "one statement per call"),
        ("", "returns no rows"),
        ("DELETE FROM sale", "returns no rows: use sql::execute"),
        ("SELECT ? + ?", "has 2 parameters, 0 were given"),
        ("SELECT 1 AS a, 2 AS a", "two columns are named `a`"),
        ("ATTACH 'x.db' AS x", "ATTACH, DETACH and VACUUM"),
        ("BEGIN", "use sql::transaction"),
        ("SAVEPOINT a", "use sql::transaction"),
        ("PRAGMA journal_mode = DELETE", "only the PRAGMAs"),
        ("PRAGMA writable_schema = ON", "only the PRAGMAs"),
        ("SELECT * FROM pragma_database_list", "only the PRAGMAs"),
        ("SELECT load_extension('x')", "load_extension is not available"),
        ("CREATE TEMP TABLE t (a)", "temporary tables are not available"),
    ] {
        let error = sales.query(sql, vec![]).await.unwrap_err();
        assert!(error.starts_with("database `sales`: ") && error.contains(said), "{sql}: {error}");
    }
    for (sql, said) in [
        ("SELECT 1", "returns rows: use sql::query"),
        ("VACUUM INTO '/tmp/ryemill-stolen.db'", "VACUUM"),
        ("INSERT INTO sale (item) VALUES ('tea')", "UNIQUE constraint failed"),
        ("UPDATE sqlite_master SET sql = ''", "may not be modified"),
        ("INSERT INTO sale (item) VALUES (zeroblob(20000000))", "too big"),
    ] {
        let error = sales.execute(sql, vec![]).await.unwrap_err();
        assert!(error.contains(said), "{sql}: {error}");
    }
    assert!(sales.query("PRAGMA table_info(sale)", vec![]).await.is_ok());
    let error = sales.databases.run("prices", asked("SELECT 1", vec![], Some(MIB))).await.unwrap_err();
    assert_eq!(error.message, "there is no database `prices`: set DATABASE_PRICES_URL (known: sales)");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing.db");
    let databases = databases(file.clone());
    let error = databases.run("sales", asked("SELECT 1", vec![], Some(MIB))).await.unwrap_err();
    assert!(error.message.contains("there is no file") && error.message.contains("missing.db"), "{error}");
    assert!(!file.exists());
}

#[tokio::test]
async fn rows_beyond_the_limit_are_refused() {
    let sales = sales();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let error = sales.query(endless, vec![]).await.unwrap_err();
    assert!(error.contains("the rows take more than the 1048576 bytes"), "{error}");
}

#[tokio::test]
async fn a_dropped_call_stops_its_statement_and_frees_its_slot() {
    let sales = sales();
    for endless in [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n",
        // Some megabytes within each other, in one instruction, which SQLite's own function would do for an hour.
        "WITH RECURSIVE v(a, b) AS (SELECT printf('%.*c', 4000000, 'a'), printf('%.*c', 2000000, 'a') || 'b'),
            n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(instr(a || i, b)) AS c FROM v, n",
    ] {
        for _ in 0..2 * CONNECTIONS {
            let call = sales.databases.run("sales", asked(endless, vec![], Some(MIB)));
            let timed = tokio::time::timeout(Duration::from_millis(20), call).await;
            assert!(timed.is_err(), "the statement has no end");
        }
    }
    // All slots come back only if all these statements ended.
    let Backend::Sqlite(database) = &sales.databases.by_name["sales"] else { panic!("it is on SQLite") };
    let all = database.slots.acquire_many(u32::try_from(CONNECTIONS).unwrap()).await.unwrap();
    drop(all);
    assert!(sales.query("SELECT 1 AS one", vec![]).await.is_ok());
}

#[tokio::test]
async fn a_writer_waits_for_another_and_gives_up_with_a_retryable_error() {
    let sales = sales();
    let other = Connection::open(sales.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let write = sales.databases.run("sales", asked("DELETE FROM sale", vec![], None));
    let mut write = Box::pin(write);
    let early = tokio::time::timeout(2 * BUSY_STEP, &mut write).await;
    assert!(early.is_err(), "it waits");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(write.await, Ok(Found::Changed(2)));

    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = sales.databases.run("sales", asked("DELETE FROM sale", vec![], None)).await.unwrap_err();
    assert!(error.retryable && error.message.contains("others held the database"), "{error}");
}
