//! The functions beside SQLite's own: the same values, for the same values.

use proptest::prelude::*;
use rusqlite::limits::Limit;
use rusqlite::params;
use rusqlite::types::Value;

use super::*;

/// SQLite as it is, and with our functions.
fn both() -> [Connection; 2] {
    [false, true].map(|ours| {
        let connection = Connection::open_in_memory().unwrap();
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE).unwrap();
        if ours {
            register(&connection).unwrap();
        }
        connection
    })
}

/// What it comes to, with the kind of value and its bytes.
fn told(connection: &Connection, call: &str, values: &[&Value]) -> String {
    let sql = format!("SELECT typeof({call}), hex({call}), quote({call})");
    let row = connection.prepare_cached(&sql).and_then(|mut statement| {
        statement.query_row(rusqlite::params_from_iter(values), |row| {
            let (kind, hex): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(format!("{kind} {hex} {:?}", row.get_ref(2)?))
        })
    });
    row.unwrap_or_else(|error| error.to_string())
}

const ONE: [&str; 2] = ["unhex(?1, ' -')", "trim(?1)"];
const TWO: [&str; 6] =
    ["instr(?1, ?2)", "trim(?1, ?2)", "ltrim(?1, ?2)", "rtrim(?1, ?2)", "unhex(?1, ?2)", "replace(?1, ?2, 'é')"];
const THREE: [&str; 2] = ["replace(?1, ?2, ?3)", "instr(trim(?1, ?2), ?3)"];

fn values() -> Vec<Value> {
    let mut values = vec![Value::Null];
    values.extend([0, 1, -1, 12, 21, 120, i64::MAX, i64::MIN].map(Value::Integer));
    values.extend([0.0, -0.0, 1.0, 0.1, -1.5, 1.2e1, 1e15, 1e16, 123_456_789.125, 2.5e-7, f64::MAX].map(Value::Real));
    values.extend([f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NEG_INFINITY, 1.0 / 3.0, 1e100].map(Value::Real));
    let texts =
        ["", "a", "aa", "ab", "ba", "abab", " a ", "1", "12", "1.0", "é", "éa", "aé", "日本", "本", "😀é😀", "e+"];
    values.extend(texts.map(|text| Value::Text(text.to_owned())));
    values.extend(
        ["a\0b", "\0", "\0a", "b\0", "616 2", "61-62", "6", "\u{301}e\u{301}"].map(|text| Value::Text(text.to_owned())),
    );
    let blobs: [&[u8]; 15] = [
        b"",
        b"a",
        b"ab",
        b"\0",
        b"a\0b",
        b"\xc3",
        b"\xc3\xa9",
        b"\xa9",
        b"\xa9\xa9",
        b"\xa9\xc3",
        b"\xc3\xa9\xa9",
        b"a\xff\x80",
        b"\xff",
        b"\xf0\x9f\x98\x80",
        b"\xf0\x9f\x98",
    ];
    values.extend(blobs.map(|bytes| Value::Blob(bytes.to_vec())));
    values
}

#[test]
fn all_pairs_of_values_come_to_what_sqlite_makes_of_them() {
    let [own, ours] = both();
    let values = values();
    for a in &values {
        for call in ONE {
            assert_eq!(told(&ours, call, &[a]), told(&own, call, &[a]), "{call} of {a:?}");
        }
        for b in &values {
            for call in TWO {
                assert_eq!(told(&ours, call, &[a, b]), told(&own, call, &[a, b]), "{call} of {a:?}, {b:?}");
            }
        }
    }
}

/// Few different bytes, so that much is found: parts of characters, whole ones and what is no text at all. In text as well.
fn value() -> impl Strategy<Value = Value> {
    let part = prop::sample::select(vec![
        &b"a"[..],
        b"b",
        b"1",
        b".",
        b"0",
        b"\0",
        b"\xc3",
        b"\xa9",
        b"\xc3\xa9",
        b"\xf0\x9f\x98\x80",
        b"\xff",
        b"e\xcc\x81",
        b" ",
    ]);
    let bytes = || prop::collection::vec(part.clone(), 0..12).prop_map(|parts| parts.concat());
    prop_oneof![
        1 => Just(Value::Null),
        2 => any::<i64>().prop_map(Value::Integer),
        2 => (-30i64..30).prop_map(Value::Integer),
        4 => any::<u64>().prop_map(f64::from_bits).prop_map(Value::Real),
        2 => (-1e6..1e6).prop_map(Value::Real),
        8 => bytes().prop_map(Value::Blob),
        8 => bytes().prop_map(|bytes| Value::Text(String::from_utf8_lossy(&bytes).into_owned())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn any_values_come_to_what_sqlite_makes_of_them(a in value(), b in value(), c in value()) {
        thread_local!(static BOTH: [Connection; 2] = both());
        BOTH.with(|[own, ours]| {
            for call in TWO {
                // As they are, and as text of the same bytes, which need not be UTF-8.
                let texts = call.replace("?1", "CAST(?1 AS TEXT)").replace("?2", "CAST(?2 AS TEXT)");
                for call in [call, &texts] {
                    let wanted = told(own, call, &[&a, &b]);
                    let found = told(ours, call, &[&a, &b]);
                    // Refused with a reason: no text has such a character.
                    if !(call.contains("trim") && found == "the characters to trim are not UTF-8") {
                        prop_assert_eq!(found, wanted, "{}", call);
                    }
                }
            }
            for call in THREE {
                let (wanted, found) = (told(own, call, &[&a, &b, &c]), told(ours, call, &[&a, &b, &c]));
                if !(call.contains("trim") && found == "the characters to trim are not UTF-8") {
                    prop_assert_eq!(found, wanted, "{}", call);
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn only_a_character_that_is_none_is_refused() {
    let [_, ours] = both();
    for (set, refused) in
        [(&b"\xf0\x9f\x98\x80\x80"[..], true), (b"\xf0\x9f\x98\x80", false), (b"\x80\x80\x80\x80\x80", false)]
    {
        let found = told(&ours, "trim('aba', ?1)", &[&Value::Blob(set.to_vec())]);
        assert_eq!(found == "the characters to trim are not UTF-8", refused, "{found}");
    }
}

#[test]
fn the_longest_value_that_sqlite_makes_is_the_longest_here() {
    let [own, ours] = both();
    let most = MAX_VALUE;
    for (length, fits) in [(most / 2, true), (most / 2 + 1, false)] {
        let sql = format!("SELECT length(replace(printf('%.*c', {length}, 'a'), 'a', 'bc'))");
        let lengths = [&own, &ours].map(|connection| connection.query_row(&sql, [], |row| row.get::<_, i64>(0)));
        let [own, ours] = lengths.map(|length| length.map_err(|error| error.to_string()));
        assert_eq!(ours, own);
        assert_eq!(ours.is_ok(), fits, "{ours:?}");
    }
}

#[test]
fn a_schema_may_use_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let schema = "CREATE TABLE t (a TEXT CHECK (instr(a, 'x') = 0), b TEXT AS (replace(a, 'a', 'b')) STORED);
                  CREATE INDEX i ON t (trim(a, '-')); CREATE VIEW v AS SELECT rtrim(a, '-') AS r FROM t;
                  INSERT INTO t (a) VALUES ('a-')";
    Connection::open(&file).unwrap().execute_batch(schema).unwrap();
    let ours = Connection::open(&file).unwrap();
    ours.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).unwrap();
    register(&ours).unwrap();
    ours.execute("INSERT INTO t (a) VALUES (?1)", params!["-ca"]).unwrap();
    ours.execute("INSERT INTO t (a) VALUES ('x')", []).unwrap_err();
    let found = |sql: &str| ours.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(found("SELECT group_concat(b) FROM t"), "b-,-cb");
    assert_eq!(found("SELECT a FROM t WHERE trim(a, '-') = 'ca'"), "-ca");
    assert_eq!(found("SELECT group_concat(r) FROM v"), "a,-ca");
    let plan = "EXPLAIN QUERY PLAN SELECT a FROM t WHERE trim(a, '-') = 'ca'";
    let plan: String = ours.query_row(plan, [], |row| row.get(3)).unwrap();
    assert!(plan.contains("USING INDEX i"), "{plan}");
    assert_eq!(found("PRAGMA integrity_check"), "ok");
}
