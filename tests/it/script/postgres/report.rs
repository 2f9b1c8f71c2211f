//! The shipped `report` on a real PostgreSQL server, by `ryemill run`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

const TABLES: &[&str] = &[
    "DROP TABLE IF EXISTS orders",
    "DROP TABLE IF EXISTS products",
    "CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL UNIQUE)",
    "CREATE TABLE orders (id int PRIMARY KEY, ordered_on date NOT NULL, region text NOT NULL, product_id int NOT NULL, \
     quantity int NOT NULL, unit_cents int NOT NULL)",
    "INSERT INTO products VALUES (1, 'Tea'), (2, 'Jam')",
    "INSERT INTO orders VALUES (1, '2026-01-31', 'north', 1, 2, 500), (2, '2026-03-01', 'south', 2, 1, 2000000000), \
     (3, '2026-03-31', 'north', 2, 1, 2000000000), (4, '2026-04-01', 'north', 1, 9, 900)",
];

fn report(url: &str, group_by: &str) -> Value {
    let place = tempfile::tempdir().unwrap();
    let payload = json!({ "from": "2026-01-01", "to": "2026-03-31", "group_by": group_by, "database": "orders" });
    let output = Command::new(env!("CARGO_BIN_EXE_ryemill"))
        .args(["run", "report", "--json", "--payload", &payload.to_string()])
        .current_dir(place.path())
        .env_clear()
        .env("JOBS_DIR", Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs"))
        .env("DATA_DIR", place.path())
        .env("DATABASE_ORDERS_URL", url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_report_reads_postgresql_too() {
    let shop = super::shop();
    for statement in TABLES {
        shop.run(&format!("sql::execute(\"shop\", \"{statement}\")"));
    }
    for (group_by, groups) in [("region", 2), ("product", 2), ("month", 3)] {
        let ran = report(&shop.server.url(), group_by);
        let result = &ran["result"];
        let seen = json!([result["groups"], result["orders"], result["quantity"], result["revenue_cents"]]);
        assert_eq!(seen, json!([groups, 3, 4, 4_000_001_000_i64]), "by {group_by}: {ran}");
    }
}
