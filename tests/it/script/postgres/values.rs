//! Every type of PostgreSQL there and back: exactly, or refused with the column and what to write instead.

use ryemill::script::fiber::ScriptEnd;
use serde_json::{Value, json};

use super::super::harness::script;
use super::{Shop, rhai_text, shop};

/// A type, a literal as SQL, and what a script has of it, as JSON.
const VALUES: &[(&str, &str, &str)] = &[
    ("bool", "true", "true"),
    ("bool", "NULL", "null"),
    ("int2", "-32768", "-32768"),
    ("int4", "2147483647", "2147483647"),
    ("int8", "-9223372036854775808", "-9223372036854775808"),
    ("int8", "9223372036854775807", "9223372036854775807"),
    ("oid", "4294967295", "4294967295"),
    ("float4", "0.1", "0.10000000149011612"),
    ("float8", "0.1", "0.1"),
    ("float8", "1.7976931348623157e308", "1.7976931348623157e308"),
    ("float8", "5e-324", "5e-324"),
    ("numeric", "0", "\"0\""),
    ("numeric", "12.50", "\"12.50\""),
    ("numeric", "-0.0000123400", "\"-0.0000123400\""),
    ("numeric", "10000", "\"10000\""),
    ("numeric", "100000000.00010001", "\"100000000.00010001\""),
    (
        "numeric",
        "123456789012345678901234567890123456789.987654321098765432109876543210",
        "\"123456789012345678901234567890123456789.987654321098765432109876543210\"",
    ),
    ("numeric", "'NaN'", "\"NaN\""),
    ("numeric", "'-Infinity'", "\"-Infinity\""),
    ("text", "''", "\"\""),
    ("text", "E'gr\\u00fc\\u00dfe \\'\"\\\\ \\n'", r#""grüße '\"\\ \n""#),
    ("varchar(10)", "'abc'", "\"abc\""),
    ("char(5)", "'abc'", "\"abc  \""),
    ("name", "'abc'", "\"abc\""),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
    ("json", "'{\"b\": [1, 2.5, null], \"a\": \"x\"}'", r#"{"a": "x", "b": [1, 2.5, null]}"#),
    ("jsonb", "'{\"id\": 9007199254740993}'", r#"{"id": 9007199254740993}"#),
    ("jsonb", "'null'", "null"),
    ("jsonb", "'[]'", "[]"),
    ("date", "'2026-02-28'", "\"2026-02-28\""),
    ("date", "'0044-03-15 BC'", "\"0044-03-15 BC\""),
    ("date", "'infinity'", "\"infinity\""),
    ("date", "'294275-12-31'", "\"294275-12-31\""),
    ("time", "'23:59:59.999999'", "\"23:59:59.999999\""),
    ("time", "'24:00:00'", "\"24:00:00\""),
    ("timetz", "'12:30:00.5+05:30'", "\"12:30:00.5+05:30\""),
    ("timetz", "'12:30:00-08'", "\"12:30:00-08:00\""),
    ("timestamp", "'2026-03-01 08:05:00.123456'", "\"2026-03-01T08:05:00.123456\""),
    ("timestamp", "'1969-12-31 23:59:59.999999'", "\"1969-12-31T23:59:59.999999\""),
    ("timestamp", "'-infinity'", "\"-infinity\""),
    ("timestamp", "'4713-01-01 00:00:00 BC'", "\"4713-01-01T00:00:00 BC\""),
    ("timestamptz", "'2026-03-01 08:05:00.000001+02'", "\"2026-03-01T06:05:00.000001Z\""),
    ("timestamptz", "'0001-01-01 00:00:00Z'", "\"0001-01-01T00:00:00Z\""),
    ("timestamptz", "'0001-12-31 23:59:59Z BC'", "\"0001-12-31T23:59:59Z BC\""),
    ("interval", "'1 year 2 months -3 days 04:05:06.789'", "\"P1Y2M-3DT4H5M6.789S\""),
    ("interval", "'-00:00:00.5'", "\"PT-0.5S\""),
    ("interval", "'-1 year -25:00:00'", "\"P-1YT-25H\""),
    ("interval", "'0'", "\"PT0S\""),
    ("inet", "'192.168.0.1/24'", "\"192.168.0.1/24\""),
    ("inet", "'::1'", "\"::1\""),
    ("cidr", "'10.0.0.0/8'", "\"10.0.0.0/8\""),
    ("mood", "'so so'", "\"so so\""),
    ("price", "12.5", "\"12.50\""),
    ("int4[]", "'{1,NULL,3}'", "[1, null, 3]"),
    ("int4[]", "'{}'", "[]"),
    ("int8[][]", "'{{1,2},{3,4},{5,6}}'", "[[1, 2], [3, 4], [5, 6]]"),
    ("int4[][][]", "'{{{1},{2}},{{3},{4}}}'", "[[[1], [2]], [[3], [4]]]"),
    ("text[]", r#"'{"a \"b\"","c\\d","NULL",NULL,""}'"#, r#"["a \"b\"", "c\\d", "NULL", null, ""]"#),
    ("numeric[]", "'{1.10,2.20}'", r#"["1.10", "2.20"]"#),
    ("bool[]", "'{t,f}'", "[true, false]"),
    ("timestamptz[]", "'{2026-03-01T06:05:00Z}'", r#"["2026-03-01T06:05:00Z"]"#),
    ("jsonb[]", r#"ARRAY['{"a": 1}', '[2]']::jsonb[]"#, r#"[{"a": 1}, [2]]"#),
    ("mood[]", "'{good,\"so so\"}'", r#"["good", "so so"]"#),
    // At the ends of what the server has.
    ("int2", "32767", "32767"),
    ("int4", "-2147483648", "-2147483648"),
    ("oid", "0", "0"),
    ("float4", "3.4028235e38", "3.4028234663852886e38"),
    ("float4", "1e-45", "1.401298464324817e-45"),
    ("float8", "'-0'", "-0.0"),
    ("float8", "0.1::float8 + 0.2::float8", "0.30000000000000004"),
    ("numeric", "'Infinity'", "\"Infinity\""),
    ("numeric", "-1e-20", "\"-0.00000000000000000001\""),
    ("numeric", "1e30", "\"1000000000000000000000000000000\""),
    ("numeric(20, 5)", "-99999.99999", "\"-99999.99999\""),
    ("numeric", "0.000", "\"0.000\""),
    ("text", "chr(1114111) || chr(127) || chr(1)", "\"\u{10ffff}\u{7f}\\u0001\""),
    ("varchar", "'x '", "\"x \""),
    ("\"char\"", "'x'", "\"x\""),
    ("bpchar", "'a  '", "\"a  \""),
    ("xml", "'<a b=\"1\">x</a>'", "\"<a b=\\\"1\\\">x</a>\""),
    ("json", "'7'", "7"),
    ("jsonb", "'[1e2, -9223372036854775808, \"\\u0001\"]'", "[100, -9223372036854775808, \"\\u0001\"]"),
    ("jsonb", "'{}'", "{}"),
    ("date", "'4713-01-01 BC'", "\"4713-01-01 BC\""),
    ("date", "'5874897-12-31'", "\"5874897-12-31\""),
    ("date", "'-infinity'", "\"-infinity\""),
    ("date", "'0001-01-01'", "\"0001-01-01\""),
    ("date", "'2000-02-29'", "\"2000-02-29\""),
    ("time", "'00:00:00'", "\"00:00:00\""),
    ("time(0)", "'12:00:00.4'", "\"12:00:00\""),
    ("timetz", "'12:00:00+01:02:03'", "\"12:00:00+01:02:03\""),
    ("timetz", "'24:00:00-15:59'", "\"24:00:00-15:59\""),
    ("timetz", "'00:00:00Z'", "\"00:00:00+00:00\""),
    ("timestamp", "'infinity'", "\"infinity\""),
    ("timestamp", "'294276-12-31 23:59:59.999999'", "\"294276-12-31T23:59:59.999999\""),
    ("timestamp", "'4714-11-24 00:00:00 BC'", "\"4714-11-24T00:00:00 BC\""),
    ("timestamptz", "'infinity'", "\"infinity\""),
    ("timestamptz", "'-infinity'", "\"-infinity\""),
    ("timestamptz", "'294276-12-31 23:59:59.999999Z'", "\"294276-12-31T23:59:59.999999Z\""),
    ("timestamptz", "'4714-11-24 00:00:00Z BC'", "\"4714-11-24T00:00:00Z BC\""),
    ("timestamptz", "'2026-10-25 02:30:00 Europe/Berlin'", "\"2026-10-25T01:30:00Z\""),
    ("interval", "'178000000 years'", "\"P178000000Y\""),
    ("interval", "'-178000000 years -11 months'", "\"P-178000000Y-11M\""),
    ("interval", "'1 year -1 month'", "\"P11M\""),
    ("interval", "'-2147483648 days'", "\"P-2147483648D\""),
    ("interval", "'2562047788:00:54.775807'", "\"PT2562047788H54.775807S\""),
    ("interval", "'-2562047788:00:54.775807'", "\"PT-2562047788H-54.775807S\""),
    ("interval", "'1 microsecond'", "\"PT0.000001S\""),
    ("inet", "'::ffff:1.2.3.4/64'", "\"::ffff:1.2.3.4/64\""),
    ("inet", "'0.0.0.0/0'", "\"0.0.0.0/0\""),
    ("cidr", "'::/0'", "\"::/0\""),
    ("cidr", "'1.2.3.4/32'", "\"1.2.3.4/32\""),
    ("macaddr", "'08:00:2b:01:02:03'", "\"08:00:2b:01:02:03\""),
    ("macaddr8", "'08:00:2b:01:02:03:04:05'", "\"08:00:2b:01:02:03:04:05\""),
    ("bit(3)", "B'101'", "\"101\""),
    ("bit(9)", "B'000000001'", "\"000000001\""),
    ("varbit", "B''", "\"\""),
    ("bit varying(20)", "B'1111000011'", "\"1111000011\""),
    ("fine_price", "1.5", "\"1.50\""),
    ("prices", "'{1,2.5}'", "[\"1.00\", \"2.50\"]"),
    ("price[]", "'{1,NULL}'", "[\"1.00\", null]"),
    ("uuid[]", "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'", "[\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"]"),
    ("date[]", "'{2026-02-28,infinity,\"0044-03-15 BC\"}'", "[\"2026-02-28\", \"infinity\", \"0044-03-15 BC\"]"),
    ("interval[]", "'{1 day,-1 hour}'", "[\"P1D\", \"PT-1H\"]"),
    ("inet[]", "'{10.0.0.1,::1}'", "[\"10.0.0.1\", \"::1\"]"),
    ("varbit[]", "'{101,0}'", "[\"101\", \"0\"]"),
    ("text[]", "ARRAY['a,b', '{}', ' x ', E'\\n', 'null']", "[\"a,b\", \"{}\", \" x \", \"\\n\", \"null\"]"),
    ("text[][]", "ARRAY[['a', NULL], ['', '\"']]", "[[\"a\", null], [\"\", \"\\\"\"]]"),
    ("int4[]", "'{NULL,NULL}'", "[null, null]"),
    ("json[]", "ARRAY['{\"a\":1}', '[1]']::json[]", "[{\"a\": 1}, [1]]"),
];

#[test]
fn every_type_goes_there_and_back_exactly() {
    let shop = shop();
    shop.run(
        "sql::execute(\"shop\", \"DROP TYPE IF EXISTS mood CASCADE\"); sql::execute(\"shop\", \"DROP DOMAIN IF EXISTS price CASCADE\");
         sql::execute(\"shop\", \"CREATE TYPE mood AS ENUM ('good', 'so so')\");
         sql::execute(\"shop\", \"CREATE DOMAIN price AS numeric(10, 2) CHECK (VALUE >= 0)\");
         sql::execute(\"shop\", \"CREATE DOMAIN fine_price AS price\");
         
         sql::execute(\"shop\", \"CREATE DOMAIN all_prices AS price[]\");
         sql::execute(\"shop\", \"CREATE DOMAIN prices AS all_prices\");",
    );
    let mut wrong = Vec::new();
    for (kind, literal, expected) in VALUES {
        // What was read is given back as a parameter, and the server says whether it is the same.
        // `json` keeps its spaces, which say nothing.
        let by = match *kind {
            "json" => "::jsonb",
            "json[]" => "::jsonb[]",
            _ => "",
        };
        let body = format!(
            "let literal = {};\n let found = sql::query(\"shop\", `SELECT (${{literal}})::{kind} AS v`)[0].v;\n\
             let same = sql::query(\"shop\", `SELECT ($1::{kind}){by}::text IS NOT DISTINCT FROM ((${{literal}})::{kind}){by}::text AS same`, [found])[0].same;\n\
             [found, same]",
            rhai_text(literal)
        );
        let report = shop.harness.start(&script(&Shop::text("30s", &body)), "{}").wait();
        let value = match &report.end {
            ScriptEnd::Returned(value) => serde_json::from_str(value.get()).unwrap(),
            other => json!(format!("{other:?}")),
        };
        let expected: Value = serde_json::from_str(expected).unwrap();
        // JSON null is () to a script, and () is NULL to the server.
        let same = !(*kind == "jsonb" && expected.is_null());
        if value != json!([expected, same]) {
            wrong.push(format!("{kind} {literal}: {value}, expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A type, a literal and what holds of its value `v` in a script: what JSON could not show.
const HELD: &[(&str, &str, &str)] = &[
    ("float8", "'NaN'", "v.is_nan()"),
    ("float8", "'Infinity'", "`${v}` == \"inf\""),
    ("float8", "'-Infinity'", "`${v}` == \"-inf\""),
    ("float8", "'-0'", "`${1.0 / v}` == \"-inf\""),
    ("float4", "'NaN'", "v.is_nan()"),
    ("float4", "'-Infinity'", "`${v}` == \"-inf\""),
    ("float4", "'-0'", "`${1.0 / v}` == \"-inf\""),
    ("float8[]", "'{NaN,Infinity,-0}'", "v[0].is_nan() && `${v[1]}` == \"inf\" && `${1.0 / v[2]}` == \"-inf\""),
    ("bytea", "'\\x'", "type_of(v) == \"blob\" && v.len() == 0"),
    ("bytea", "'\\x00ff5c27'", "v.len() == 4 && v[0] == 0 && v[1] == 255 && v[2] == 92 && v[3] == 39"),
    ("bytea", "decode(repeat('00ff', 100000), 'hex')", "v.len() == 200000"),
    ("bytea[]", "ARRAY['\\x00'::bytea, NULL, '\\x']", "v[0].len() == 1 && v[1] == () && v[2].len() == 0"),
    ("numeric", "repeat('9', 131072)", "v.len() == 131072"),
    ("numeric", "'1e131071'", "v.len() == 131072 && v.starts_with(\"100\")"),
    ("numeric", "'-0.' || repeat('7', 16383)", "v.len() == 16386 && v.ends_with(\"777\")"),
    ("numeric", "repeat('9', 131072) || '.' || repeat('1', 16383)", "v.len() == 147456"),
    ("text", "repeat('ü', 1000000)", "v.len() == 1000000"),
    ("varbit", "repeat('10', 50000)", "v.len() == 100000"),
    ("text[]", "array_fill('x'::text, ARRAY[100000])", "v.len() == 100000 && v[99999] == \"x\""),
    ("int4[]", "array_fill(7, ARRAY[2,2,2,2,2,2])", "v[1][1][1][1][1][1] == 7 && v.len() == 2"),
];

#[test]
fn what_json_cannot_show_goes_there_and_back_too() {
    let shop = shop();
    let mut wrong = Vec::new();
    for (kind, literal, holds) in HELD {
        let body = format!(
            "let literal = {};
             let v = sql::query(\"shop\", `SELECT (${{literal}})::{kind} AS v`)[0].v;
             let same = sql::query(\"shop\", `SELECT ($1::{kind})::text IS NOT DISTINCT FROM ((${{literal}})::{kind})::text AS same`, [v])[0].same;
             [{holds}, same]",
            rhai_text(literal)
        );
        let report = shop.harness.start(&script(&Shop::text("30s", &body)), "{}").wait();
        if !matches!(&report.end, ScriptEnd::Returned(value) if value.get() == "[true,true]") {
            wrong.push(format!("{kind} {literal}: {:?}", report.end));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn null_is_null_in_every_type() {
    let shop = shop();
    let kinds = [
        "bool",
        "int2",
        "int4",
        "int8",
        "oid",
        "float4",
        "float8",
        "numeric",
        "money",
        "text",
        "varchar(3)",
        "char(3)",
        "\"char\"",
        "name",
        "bytea",
        "uuid",
        "json",
        "jsonb",
        "xml",
        "date",
        "time",
        "timetz",
        "timestamp",
        "timestamptz",
        "interval",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "bit(3)",
        "varbit",
        "int4range",
        "tstzrange",
        "nummultirange",
        "point",
        "box",
        "circle",
        "tsvector",
        "tsquery",
        "pg_lsn",
        "jsonpath",
        "regclass",
        "int4[]",
        "text[]",
        "jsonb[]",
        "point[]",
        "int4range[]",
        "pg_class",
    ];
    let columns: Vec<String> = kinds.iter().enumerate().map(|(at, kind)| format!("NULL::{kind} AS c{at}")).collect();
    let given: Vec<String> =
        kinds.iter().enumerate().map(|(at, kind)| format!("${}::{kind} IS NULL", at + 1)).collect();
    let body = format!(
        "let row = sql::query(\"shop\", {})[0];
         let params = []; params.pad({}, ());
         [row.len(), row.values().all(|value| value == ()), sql::query(\"shop\", {}, params)[0].all]",
        rhai_text(&format!("SELECT {}", columns.join(", "))),
        kinds.len(),
        rhai_text(&format!("SELECT {} AS all", given.join(" AND "))),
    );
    assert_eq!(shop.run(&body), json!([kinds.len(), true, true]));
}

#[test]
fn what_has_no_exact_form_names_its_column_and_the_cast() {
    let shop = shop();
    for (literal, said) in [
        ("'12.50'::money", "column `v` is of type money"),
        ("'[1,5)'::int4range", "column `v` is of type int4range"),
        ("'{[1,5)}'::int4multirange", "column `v` is of type int4multirange"),
        ("ROW(1, 'a')", "column `v` is of type record"),
        ("(SELECT c FROM pg_am c LIMIT 1)", "column `v` is of type"),
        ("'(1,2)'::point", "column `v` is of type point"),
        ("'{\"(1,2)\"}'::point[]", "column `v` is of type point"),
        ("'a b'::tsvector", "column `v` is of type tsvector"),
        ("'pg_class'::regclass", "column `v` is of type regclass"),
        ("'$.a'::jsonpath", "column `v` is of type jsonpath"),
        ("'16/B374D848'::pg_lsn", "column `v` is of type pg_lsn"),
        ("'[0:1]={1,2}'::int4[]", "column `v` is an array whose indexes do not begin at 1"),
        ("'[1:1][-2:-1]={{1,2}}'::int4[]", "column `v` is an array whose indexes do not begin at 1"),
        ("'99999999999999999999'::jsonb", "does not fit 64 bits"),
        ("'[1e400]'::json", "out of range"),
        ("'{\"share\": 0.1234567890123456789}'::jsonb", "holds the number 0.1234567890123456789"),
    ] {
        let (_, message) =
            shop.fails(&format!("sql::query(\"shop\", {})", rhai_text(&format!("SELECT {literal} AS v"))));
        assert!(
            message.contains(said) && message.contains("column `v`") && message.contains("v::text"),
            "{literal}: {message}"
        );
        // And so it goes, there and back.
        if !literal.starts_with("ROW") && !literal.starts_with('(') {
            let kind = literal.rsplit("::").next().unwrap();
            let body = format!(
                "let v = sql::query(\"shop\", {})[0].v; sql::query(\"shop\", {}, [v])[0].same",
                rhai_text(&format!("SELECT ({literal})::text AS v")),
                rhai_text(&format!("SELECT $1::{kind}::text = ({literal})::text AS same"))
            );
            assert_eq!(shop.run(&body), json!(true), "{literal}");
        }
    }
    // What the server itself cannot send: then it does not say of which column.
    let (_, message) = shop.fails(r#"sql::query("shop", "SELECT acldefault('r', 10) AS v")"#);
    assert!(message.contains("aclitem") && message.contains("column::text"), "{message}");
}
