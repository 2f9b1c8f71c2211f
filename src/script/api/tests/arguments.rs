//! Wrong arguments, and what the script's `allow` does not name.

use super::{Host, JobId, queue};

/// Calls with a wrong argument, and what the error must say.
const WRONG: &[(&str, &str)] = &[
    ("http::get(5)", "http::get: `url` must be a string, not an integer"),
    ("http::get(\"nonsense\")", "http::get: `url`: `nonsense` is not a URL such as https://example.com/path"),
    (
        "http::post(\"http://127.0.0.1\", 5)",
        "http::post: `body` must be a map, an array, a string, a blob or (), not an integer",
    ),
    ("http::request(\"x\")", "http::request: `request` must be a map, not a string"),
    ("http::request(#{})", "http::request: `url` is missing"),
    (
        "http::request(#{ url: \"http://127.0.0.1\", hedaers: #{} })",
        "`request` has no key `hedaers`: did you mean `headers`?",
    ),
    ("http::request(#{ url: \"http://127.0.0.1\", method: \"BREW\" })", "`method` must be one of GET, HEAD"),
    ("http::request(#{ url: \"http://127.0.0.1\", timeout: 5 })", "`timeout` must be a duration such as"),
    ("http::request(#{ url: \"http://127.0.0.1\", timeout: \"5\" })", "`5` is not a duration"),
    (
        "http::request(#{ url: \"http://127.0.0.1\", headers: #{ a: [] , b: #{} } })",
        "`headers.b` must be a string, a number or a bool, not a map",
    ),
    ("http::request(#{ url: \"http://127.0.0.1\", body: \"a\", form: #{} })", "`body` and `form` exclude each other"),
    ("http::post(\"http://127.0.0.1\", #{ a: || 1 })", "http::post: `body.a` is a function"),
    ("email::send(5)", "email::send: `mail` must be a map, not an integer"),
    ("email::send(#{ to: \"a@b.c\" })", "email::send: `subject` is missing"),
    (
        "email::send(#{ to: 5, subject: \"\" })",
        "email::send: `to` must be a string or an array of strings, not an integer",
    ),
    ("email::send(#{ to: [\"a@b.c\", 5], subject: \"\" })", "email::send: `to[1]` must be a string, not an integer"),
    ("email::send(#{ To: \"a@b.c\", subject: \"\" })", "`mail` has no key `To`: did you mean `to`?"),
    ("sql::query(5, \"\")", "sql::query: `db` must be a string, not an integer"),
    ("sql::query(\"sales\", #{})", "sql::query: `sql` must be a string, not a map"),
    ("sql::query(\"sales\", \"SELECT 1\", 5)", "sql::query: `params` must be an array, not an integer"),
    (
        "sql::execute(\"sales\", \"SELECT ?\", [#{}])",
        "sql::execute: `params[0]` must be a string, a number, a bool, a blob or (), not a map",
    ),
    ("template::render(5)", "template::render: `name` must be a string, not an integer"),
    ("template::render(\"hello.html\", [])", "template::render: `values` must be a map, not an array"),
    ("file::save(5, \"\")", "file::save: `name` must be a string, not an integer"),
    ("file::save(\"../a\", \"\")", "file::save: `name` must be 1 to 128 characters of A-Z a-z 0-9"),
    ("file::save(\"/etc/x\", \"\")", "file::save: `name` must be 1 to 128 characters"),
    ("file::save(\".hidden\", \"\")", "and begin with a letter or digit"),
    ("file::read(\"a/b\")", "file::read: `name` must be 1 to 128 characters"),
    ("file::save(\"a\", 5)", "file::save: `content` must be a string or a blob, not an integer"),
    ("file::read(())", "file::read: `name` must be a string, not ()"),
    ("csv::format(5)", "csv::format: `rows` must be an array of maps or of arrays, not an integer"),
    ("csv::format([5])", "csv::format: `rows[0]` must be a map or an array, not an integer"),
    ("csv::format([[[]]])", "csv::format: `rows[0][0]` must be a string, a number, a bool or (), not an array"),
    ("csv::format([#{ a: 1 }, []])", "csv::format: `rows[1]` must be a map, as the first row is, not an array"),
    ("csv::format([#{ a: 1 }, #{ a: 1, b: 2 }])", "`rows[1]` has `b`, which the first row has not"),
    ("csv::parse(5)", "csv::parse: `text` must be a string, not an integer"),
    ("csv::parse(\"a,b\\n1\\n\")", "csv::parse: CSV error: record 1 (line: 2"),
    ("csv::parse(\"a,a\\n\")", "csv::parse: two columns are named `a`"),
    ("json::parse(5)", "json::parse: `text` must be a string, not an integer"),
    ("json::parse(\"{\")", "json::parse: the text is not valid JSON: EOF while parsing an object at line 1"),
    ("json::format([1, || 1])", "json::format: `value[1]` is a function"),
    ("#{}.json()", "json(): the map has no `body`"),
    ("log::info(\"x\", 5)", "log::info: `fields` must be a map, not an integer"),
    ("progress(\"5\")", "progress: `percent` must be a number from 0 to 100, not a string"),
    ("progress(0.0 / 0.0)", "progress: `percent` must be a number from 0 to 100, not a float"),
    ("progress(5, 5)", "progress: `message` must be a string, not an integer"),
    ("sleep(2)", "sleep: `duration` must be a duration such as \"250ms\", \"2s\" or \"5m\", not an integer"),
    ("sleep(0.5)", "sleep: `duration` must be a duration such as \"250ms\", \"2s\" or \"5m\", not a float"),
    ("sleep(\"soon\")", "sleep: `duration`: `soon` is not a duration"),
    ("submit(5, 5)", "submit: `name` must be a string, not an integer"),
    ("submit(\"Bad Name\", 5)", "submit: job name \"Bad Name\" is not valid"),
    ("submit(\"email\", || 1)", "submit: `payload` is a function"),
    ("submit(\"email\", #{}, 5)", "submit: `options` must be a map, not an integer"),
    ("submit(\"email\", #{}, #{ dealy: \"1s\" })", "submit: `options` has no key `dealy`: did you mean `delay`?"),
    ("submit(\"email\", #{}, #{ delay: 5 })", "submit: `delay` must be a duration"),
    ("submit(\"email\", #{}, #{ priority: 12 })", "submit: priority 12 is not valid"),
    ("submit(\"email\", #{}, #{ tags: [1] })", "submit: `tags[0]` must be a string, not an integer"),
    ("submit(\"email\", #{}, #{ unique_key: \"\" })", "submit: `unique_key` must have 1 to 256 bytes, not 0"),
    ("time::parse(5)", "time::parse: `text` must be a string, not an integer"),
    ("time::parse(\"soon\")", "time::parse: `soon` is no time such as 2026-03-01T12:00:00Z"),
    ("time::parse(\"2026-03-01\")", "has no offset such as Z or +01:00: say in which zone"),
    ("time::now(\"Middle/Earth\")", "time::now: there is no time zone `Middle/Earth`"),
    ("time::format(5, \"%Y\")", "time::format: `time` must be a time, or a text such as"),
    ("time::format(time::now(), 5)", "time::format: `format` must be a string, not an integer"),
    ("time::add(time::now(), 5)", "time::add: `duration` must be a duration such as"),
    ("time::add(time::now(), #{ days: 1.5 })", "time::add: `duration.days` must be an integer, not a float"),
    ("time::add(time::now(), #{ moons: 1 })", "time::add: there is no unit `moons`: use years, months"),
    ("time::add(time::now(), #{ years: 9223372036854775807 })", "are too many"),
    ("time::sub(time::now(), #{ years: 90000 })", "time::sub: "),
    ("time::between(time::now(), \"x\", \"days\")", "time::between: `to`: `x` is no time"),
    ("time::start_of(time::now(), \"decade\")", "time::start_of: there is no unit `decade`"),
    ("time::from_unix(\"1\")", "time::from_unix: `seconds` must be a number of seconds, not a string"),
    ("time::from_unix(0.0 / 0.0)", "`seconds` must be a number of seconds, not a float"),
    ("time::from_unix(9223372036854775807)", "time::from_unix: "),
    ("crypto::sha256(5)", "crypto::sha256: `data` must be a string or a blob, not an integer"),
    ("crypto::hmac_sha256(5, \"\")", "crypto::hmac_sha256: `key` must be a string or a blob, not an integer"),
    ("crypto::hmac_sha256(blob(5000), \"\")", "`key` has 5000 bytes, at most 4096 are allowed"),
    ("crypto::equal(\"\", 5)", "crypto::equal: `b` must be a string or a blob, not an integer"),
    ("crypto::base64_decode(\"a\")", "crypto::base64_decode: `text` is not valid: invalid length at 0"),
    ("crypto::base64_decode(blob())", "crypto::base64_decode: `text` must be a string, not a blob"),
    ("crypto::hex_decode(\"0g\")", "crypto::hex_decode: `text` is not valid: invalid symbol at 1"),
    ("crypto::base64url_decode(\"a+/=\")", "crypto::base64url_decode: `text` is not valid"),
    ("random::int(2, 1)", "random::int: there is no integer from 2 to 1"),
    ("random::int(1, 2.0)", "random::int: `to` must be an integer, not a float"),
    ("random::bytes(-1)", "random::bytes: `count` must be an integer from 0 to 1048576"),
    ("random::hex(2000000)", "random::hex: `bytes` must be an integer from 0 to 1048576"),
    ("random::choice([])", "random::choice: `values` is empty"),
    ("random::shuffle(#{})", "random::shuffle: `values` must be an array, not a map"),
    ("regex::is_match(\"a(\", \"\")", "regex::is_match: `pattern` is not a regular expression: regex parse error"),
    ("regex::find(\"(?=a)\", \"\")", "look-around"),
    ("regex::find(5, \"\")", "regex::find: `pattern` must be a string, not an integer"),
    ("regex::find(\"\", 5)", "regex::find: `text` must be a string, not an integer"),
    ("regex::replace(\"\", \"\", 5)", "regex::replace: `by` must be a string, not an integer"),
    ("url::parse(\"a/b\")", "url::parse: `url` is no address: relative URL without a base"),
    ("url::join(\"https://a\", 5)", "url::join: `relative` must be a string, not an integer"),
    ("url::decode(\"%ff\")", "url::decode: `text` is not UTF-8 when it is decoded"),
    ("url::query(5)", "url::query: `values` must be a map, not an integer"),
    ("url::query(#{ a: #{} })", "url::query: `values.a` must be a string, a number or a bool, not a map"),
    ("url::parse_query(5)", "url::parse_query: `text` must be a string, not an integer"),
    ("xlsx::format([])", "xlsx::format: `sheets` must be a map of arrays, not an array"),
    ("xlsx::format(#{})", "`sheets` must name 1 to 100 sheets, not 0"),
    ("xlsx::format(#{ a: 5 })", "`sheets.a` must be an array of maps or of arrays, not an integer"),
    ("xlsx::format(#{ a: [[1], #{}] })", "`sheets.a[1]` must be a map or an array, as the first row is, not a map"),
    (
        "xlsx::format(#{ a: [#{ b: [] }] })",
        "`sheets.a[0].b` must be a string, a number, a bool, a time or (), not an array",
    ),
    ("xlsx::format(#{ a: [#{ b: 1 }, #{ c: 1 }] })", "`sheets.a[1]` has `c`, which the first row has not"),
    ("xlsx::format(#{ \"a/b\": [] })", "xlsx::format: sheet `a/b`"),
    ("fail(5)", "fail: `why` must be a string, not an integer"),
    ("retry_in(5)", "retry_in: `delay` must be a duration"),
    ("secret(5)", "secret: `name` must be a string, not an integer"),
];

#[test]
fn a_wrong_argument_is_named_and_can_be_caught() {
    let host = Host::new();
    for (call, said) in WRONG {
        let (kind, message) = host.run(call).failure();
        assert_eq!(kind, "script", "{call}: {message}");
        assert!(message.contains(said), "{call}: {message}");
        let caught = host
            .run(&format!("let r; try {{ {call}; }} catch (e) {{ r = [e.kind, e.message, e.retryable]; }} r"))
            .value();
        assert_eq!(caught, serde_json::json!(["script", message, false]), "{call}");
    }
}

#[test]
fn an_error_has_the_line_of_its_call() {
    let host = Host::new();
    let ran = host.run("let a = 1;\nlet b = 2;\n  http::get(a)");
    let crate::script::fiber::ScriptEnd::Failed(error) = &ran.end else { panic!("{:?}", ran.end) };
    assert_eq!((error.line, error.file.as_deref()), (Some(5), Some("probe.rhai")), "{error:?}");
}

#[test]
fn what_allow_does_not_name_is_denied() {
    let host = Host::new();
    // Put together when they run: what is written out is refused before.
    for (call, said) in [
        ("http::get(\"http://\" + \"127.0.0.1/\")", "this script may not reach 127.0.0.1"),
        ("http::post(\"https://\" + \"example.com/\", ())", "this script may not reach example.com"),
        ("sql::query(\"\" + \"sales\", \"SELECT 1\")", "this script may not use the database `sales`"),
        ("secret(\"\" + \"API_KEY\")", "this script may not read `api_key`"),
    ] {
        for allow in ["#{}", r#"#{ hosts: ["other"], databases: ["other"], secrets: ["other"] }"#] {
            let caught = format!("let r; try {{ {call}; }} catch (e) {{ r = [e.kind, e.message, e.retryable]; }} r");
            let value = host.run_as(JobId::new(&queue()), allow, &caught).value();
            assert_eq!((&value[0], &value[2]), (&"denied".into(), &false.into()), "{call}: {value}");
            assert!(value[1].as_str().unwrap().contains(said), "{call}: {value}");
        }
    }
}

#[test]
fn what_allow_names_and_nobody_configured_is_said() {
    let host = Host::new();
    let allow = r#"#{ databases: ["prices"], secrets: ["other"] }"#;
    let failure = |body: &str| host.run_as(JobId::new(&queue()), allow, body).failure();
    assert!(failure("secret(\"other\")").1.contains("SECRET_OTHER is not set"));
    assert!(failure("sql::query(\"prices\", \"SELECT 1\")").1.contains("set DATABASE_PRICES_URL"));
}
