//! Databases, files, templates, CSV, JSON, mail, children and the functions without a namespace.

use serde_json::json;

use super::{Host, JobId, SECRET, queue};
use crate::job::LogLevel;
use crate::script::fiber::ScriptEnd;

#[test]
fn rows_are_maps_with_their_types() {
    let host = Host::new();
    let rows = host.run(r#"sql::query("SALES", "SELECT id, item, price FROM sale WHERE id <> ? ORDER BY id", [99])"#);
    assert_eq!(
        rows.value(),
        json!([{ "id": 1, "item": "tea", "price": 2.5 }, { "id": 2, "item": "jam", "price": null }])
    );
    let body = r#"
        let n = sql::execute("sales", "INSERT INTO sale (item, price) VALUES (?, ?), ('x', ?)", ["o'neil", 1.5, ()]);
        let blob = sql::query("sales", "SELECT ? AS b, ? AS t", [blob(2, 7), true])[0];
        [n, sql::query("sales", "SELECT item FROM sale WHERE item = ?", ["o'neil"]), blob.b.len(), blob.t]"#;
    assert_eq!(host.run(body).value(), json!([2, [{ "item": "o'neil" }], 2, 1]));
    let error = host.run(r#"sql::query("sales", "SELECT nope FROM sale")"#).failure();
    assert_eq!(error, ("host.sql".to_owned(), "database `sales`: no such column: nope, at: nope FROM sale".to_owned()));
}

#[test]
fn files_are_saved_listed_and_read() {
    let host = Host::new();
    let ran = host.run(
        r#"
        let saved = file::save("a.txt", "grüße");
        file::save("b.bin", blob(3, 255));
        let names = file::list().map(|f| f.name);
        let b = file::read("b.bin");
        [saved, names, file::read("a.txt"), type_of(b), b.len()]"#,
    );
    let value = ran.value();
    assert_eq!(value[0]["name"], "a.txt");
    assert_eq!(value[0]["size"], 7);
    assert_eq!(value[0]["content_type"], "text/plain; charset=utf-8");
    assert_eq!(value[0]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(
        (&value[1], &value[2], &value[3], &value[4]),
        (&json!(["a.txt", "b.bin"]), &json!("grüße"), &json!("blob"), &json!(3))
    );
    assert_eq!(host.run(r#"file::read("none")"#).failure().0, "host.file");
}

#[test]
fn templates_are_filled_and_escaped() {
    let host = Host::new();
    let page = host.run(r#"template::render("hello.html", #{ name: "<Ada>", items: [1, 2] })"#);
    assert_eq!(page.value(), "<p>&lt;Ada&gt;: 2</p>\n");
    let (kind, message) = host.run(r#"template::render("hello.html", #{ items: [] })"#).failure();
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("script", "template `hello.html`, line 1: `name` is not among the values given")
    );
    assert!(host.run(r#"template::render("helo.html")"#).failure().1.contains("did you mean `hello.html`?"));
}

#[test]
fn csv_goes_both_ways() {
    let host = Host::new();
    let body = r#"
        let rows = [#{ b: 1, a: "x,\"y\"\n" }, #{ a: (), b: 2.5 }];
        [csv::format(rows), csv::format(rows, ["b"]), csv::format([["h", 1], [true, 'c']]), csv::format([]),
         csv::format([], ["a"]), csv::parse("\ufeffa,b\r\n1,\"2,\n3\"\r\n"), csv::parse("")]"#;
    assert_eq!(
        host.run(body).value(),
        json!([
            "a,b\n\"x,\"\"y\"\"\n\",1\n,2.5\n",
            "b\n1\n2.5\n",
            "h,1\ntrue,c\n",
            "",
            "a\n",
            [{ "a": "1", "b": "2,\n3" }],
            []
        ])
    );
}

#[test]
fn json_goes_both_ways() {
    let host = Host::new();
    let body = r#"let v = json::parse("{\"b\":[1,2.0,null],\"a\":\"é\"}"); [v.b[0], json::format(v)]"#;
    assert_eq!(host.run(body).value(), json!([1, "{\"a\":\"é\",\"b\":[1,2.0,null]}"]));
}

#[test]
fn mail_goes_out_with_the_jobs_files_and_keeps_its_id() {
    let host = Host::new();
    let id = JobId::new(&queue());
    let body = r#"
        file::save("r.csv", "a,b\n");
        let mail = #{ to: ["Ada <ada@example.com>"], subject: "Grüße", text: "Hi", html: "<p>Hi</p>", attachments: ["r.csv"] };
        [email::send(mail), email::send(mail)]"#;
    let first = host.run_as(id, "#{}", body).value();
    assert_ne!(first[0], first[1], "two calls are two letters");
    let again = host.run_as(id, "#{}", &format!("try {{ throw \"no\" }} catch {{}} {body}")).value();
    assert_eq!(first, again, "another attempt sends the same letters");
    assert_ne!(host.run(body).value(), first, "another job sends others");

    let name = first[0].as_str().unwrap().trim_matches(['<', '>']).strip_suffix("@ryemill").unwrap().to_owned();
    let letter = std::fs::read_to_string(host.path().join("outbox").join(format!("{name}.eml"))).unwrap();
    for part in ["To: Ada <ada@example.com>", "From: ryemill@localhost", "multipart/alternative", "r.csv", "a,b"] {
        assert!(letter.contains(part), "{part} is not in\n{letter}");
    }
    let (kind, message) = host.run(r#"email::send(#{ to: "nobody", subject: "x" })"#).failure();
    assert_eq!(kind, "host.email");
    assert!(message.contains("`to`: `nobody` is not one address"), "{message}");
    let (_, message) = host.run(r#"email::send(#{ to: "a@b.c", subject: "x", attachments: ["no.txt"] })"#).failure();
    assert!(message.contains("there is no file `no.txt` of this job"), "{message}");
}

#[test]
fn children_are_submitted_once_whatever_else_an_attempt_does() {
    let host = Host::new();
    let id = JobId::new(&queue());
    let submits = r#"[submit("email", #{ n: 1 }), submit("email", #{ n: 2 }), submit("email", #{ n: 1 }),
        submit("email", #{ n: 3 }, #{ delay: "5m", priority: 9, tags: ["a"], unique_key: "k" })]"#;
    let first = host.run_as(id, "#{}", submits);
    let ids = first.value();
    let all: std::collections::BTreeSet<_> = ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(all.len(), 4);
    let again = host.run_as(
        id,
        "#{}",
        &format!(r#"file::save("a", ""); email::send(#{{ to: "a@b.c", subject: "" }}); {submits}"#),
    );
    assert_eq!(again.value(), ids);

    let seen = first.ports.seen();
    let (_, last) = &seen.children[3];
    assert_eq!(last.payload, r#"{"n":3}"#);
    assert_eq!(
        (last.delay.as_secs(), last.priority.unwrap().get(), last.tags.as_slice()),
        (300, 9, &["a".to_owned()][..])
    );
}

#[test]
fn a_run_has_at_most_a_thousand_children() {
    let host = Host::new();
    let ran = host.run(r#"for i in 0..2000 { submit("email", i) }"#);
    assert_eq!(
        ran.failure(),
        ("denied".to_owned(), "submit: a run may submit 1000 jobs, this would be one more".to_owned())
    );
    assert_eq!(ran.ports.seen().children.len(), 1000);
}

#[test]
fn log_and_progress_reach_the_job() {
    let host = Host::new();
    let ran = host.run(
        r#"log::warn("hello", #{ n: 1 }); log::debug(["x", 1]); debug(1); let debug_level = 2; progress(12.5, "half"); progress(900); progress(-1)"#,
    );
    let seen = ran.ports.seen();
    let logs: Vec<_> = seen
        .logs
        .iter()
        .map(|(level, text, fields)| (*level, text.as_str(), fields.as_ref().map(|f| f.get())))
        .collect();
    assert_eq!(
        logs,
        [
            (LogLevel::Warn, "hello", Some("{\"n\":1}")),
            (LogLevel::Debug, "[\"x\",1]", None),
            (LogLevel::Debug, "1", None)
        ]
    );
    assert_eq!(seen.progress, [(12.5, "half".to_owned()), (100.0, String::new()), (0.0, String::new())]);
}

#[test]
fn fail_and_retry_in_end_the_run_whatever_catches() {
    let host = Host::new();
    let ran = host.run(r#"try { fail("no stock") } catch { log::info("caught") } log::info("after")"#);
    assert_eq!(ran.failure(), ("failed_by_script".to_owned(), "no stock".to_owned()));
    assert!(ran.ports.seen().logs.is_empty());
    let ran = host.run(r#"try { retry_in("30s", "busy") } catch { } file::save("a", "b")"#);
    assert!(ran.ports.seen().files.is_empty());
    match ran.end {
        ScriptEnd::RetryIn { error, delay } => assert_eq!((error.message.as_str(), delay.as_secs()), ("busy", 30)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sleep_lasts_as_long_as_it_says() {
    let host = Host::new();
    let begun = std::time::Instant::now();
    host.run(r#"sleep("30ms")"#).value();
    assert!(begun.elapsed() >= std::time::Duration::from_millis(30));
}

#[test]
fn a_secret_is_read_and_leaves_no_run_in_the_clear() {
    let host = Host::new();
    assert_eq!(host.run(r#"secret("API_key").len()"#).value(), SECRET.len());
    let ran = host.run(
        r#"let s = secret("api_key"); print(s); log::info(`k=${s}`, #{ k: s }); progress(1, s); #{ a: [s], b: `x${s}y` }"#,
    );
    assert_eq!(ran.value(), json!({ "a": ["***"], "b": "x***y" }));
    let seen = ran.ports.seen();
    let all = format!("{:?} {:?}", seen.logs, seen.progress);
    assert!(!all.contains(SECRET) && all.matches("***").count() == 4, "{all}");
    drop(seen);
    for thrown in [r#"throw secret("api_key")"#, r#"throw #{ k: secret("api_key") }"#, r#"fail(secret("api_key"))"#] {
        let (_, message) = host.run(thrown).failure();
        assert!(message.contains("***") && !message.contains(SECRET), "{thrown}: {message}");
    }
}
