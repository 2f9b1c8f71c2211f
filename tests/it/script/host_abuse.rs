//! The host functions beside those of `abuse.rs` and `sql_abuse.rs`: the largest, the deepest, the endless, and ends in
//! the middle. Each ends its own job with an error that says why, and a neighbour that sleeps goes on meanwhile.

use std::fs;
use std::sync::Arc;

use ryemill::config::Mailer;
use ryemill::job::ErrorKind::{self, Denied, FailedByScript, HostEmail, HostFile, HostHttp, Memory, Script, Timeout};
use ryemill::job::JobName;
use ryemill::script::fiber::ScriptEnd;
use ryemill::script::library::Library;
use ryemill::script::services::ServicesOptions;

use super::harness::{Harness, timeout_for};

/// What it is, the body of `run`, and the kinds of error that may end it; none: it returns.
type Abuse = (&'static str, &'static str, &'static [ErrorKind]);

const ABUSES: &[Abuse] = &[
    // email
    (
        "a letter of a large text",
        r#"let s = ""; s.pad(9000000, "x"); email::send(#{ to: "a@b.cc", subject: "x", text: s + s + s })"#,
        &[HostEmail, Memory, Script],
    ),
    (
        "a subject without end",
        r#"let s = ""; s.pad(9000000, "x"); email::send(#{ to: "a@b.cc", subject: s, text: "x" })"#,
        &[HostEmail, Memory, Script],
    ),
    (
        "a subject that carries a header",
        r#"email::send(#{ to: "a@b.cc", subject: "x\r\nBcc: c@d.ee", text: "x" })"#,
        &[HostEmail, Script],
    ),
    (
        "an address that carries a header",
        r#"email::send(#{ to: "a@b.cc\r\nBcc: c@d.ee", subject: "x", text: "x" })"#,
        &[HostEmail, Script],
    ),
    (
        "a name that carries a header",
        r#"email::send(#{ to: "a\r\nBcc: c@d.ee <a@b.cc>", subject: "x", text: "x" })"#,
        &[HostEmail, Script],
    ),
    (
        "a sender that carries a header",
        r#"email::send(#{ to: "a@b.cc", from: "x@y.zz\nBcc: c@d.ee", subject: "x", text: "x" })"#,
        &[HostEmail, Script],
    ),
    (
        "recipients without end",
        r#"let a = []; a.pad(100000, "a@b.cc"); email::send(#{ to: a, subject: "x", text: "x" })"#,
        &[HostEmail, Script],
    ),
    (
        "an address of a megabyte",
        r#"let s = ""; s.pad(1000000, "a"); email::send(#{ to: s + "@b.cc", subject: "x", text: "x" })"#,
        &[HostEmail, Script],
    ),
    (
        "attachments without end",
        r#"file::save("a.txt", "x"); let a = []; a.pad(100000, "a.txt"); email::send(#{ to: "a@b.cc", subject: "x", text: "x", attachments: a })"#,
        &[HostEmail, HostFile, Denied, Script, Memory, Timeout],
    ),
    (
        "an attachment from elsewhere",
        r#"email::send(#{ to: "a@b.cc", subject: "x", text: "x", attachments: ["../../etc/passwd"] })"#,
        &[HostEmail, HostFile, Script],
    ),
    (
        "large attachments",
        r#"let b = blob(9000000); file::save("a.bin", b); email::send(#{ to: "a@b.cc", subject: "x", text: "x", attachments: ["a.bin", "a.bin", "a.bin"] })"#,
        &[HostEmail, Memory, Script],
    ),
    ("letters without end", r#"loop { email::send(#{ to: "a@b.cc", subject: "x", text: "x" }) }"#, &[Timeout, Denied]),
    // file
    ("a large file again and again", r#"let b = blob(1000000); loop { file::save("a.bin", b) }"#, &[Timeout, Denied]),
    (
        "what was saved, kept",
        r#"file::save("a.bin", blob(1000000)); let a = []; loop { a.push(file::read("a.bin")) }"#,
        &[Memory, Timeout],
    ),
    ("a name of a megabyte", r#"let s = ""; s.pad(1000000, "a"); file::save(s, "x")"#, &[Script, HostFile]),
    ("a name with NUL", r#"file::save("a\x00b", "x")"#, &[Script, HostFile]),
    ("a way out", r#"file::read("..")"#, &[Script, HostFile]),
    ("a device", r#"file::read("/dev/zero")"#, &[Script, HostFile]),
    (
        "a list kept",
        r#"for i in 0..50 { file::save(`f${i}`, "x") } let a = []; loop { a.push(file::list()) }"#,
        &[Memory, Timeout],
    ),
    // template
    ("a template without end", r#"template::render("endless.txt", #{})"#, &[Script]),
    ("a template within itself", r#"template::render("self.txt", #{})"#, &[Script]),
    ("a macro within itself", r#"template::render("macro.txt", #{})"#, &[Script]),
    ("a template that doubles", r#"template::render("double.txt", #{})"#, &[Script, Memory]),
    ("a template that repeats", r#"template::render("repeat.txt", #{})"#, &[Script, Memory]),
    (
        "a template of a large value",
        r#"let s = ""; s.pad(9000000, "<"); template::render("value.html", #{ v: s })"#,
        &[Script, Memory],
    ),
    (
        "a template of a value that grows when escaped",
        r#"let s = ""; s.pad(4000000, "<"); template::render("value.html", #{ v: s }).len()"#,
        &[Script, Memory],
    ),
    (
        "a template of a deep value",
        r#"let a = []; for i in 0..500 { a = [a]; } template::render("value.html", #{ v: a })"#,
        &[Script],
    ),
    ("templates without end", r#"loop { template::render("value.html", #{ v: 1 }) }"#, &[Timeout]),
    ("a template from elsewhere", r#"template::render("../probe.rhai", #{})"#, &[Script]),
    // csv and json
    ("CSV of commas", r#"let s = ""; s.pad(9000000, ","); csv::parse(s).len()"#, &[Script, Memory]),
    ("CSV of lines", r#"let s = "a\n"; s.pad(9000000, "1\n"); csv::parse(s).len()"#, &[Memory, Timeout]),
    ("CSV of a quote", r#"let s = "\""; s.pad(9000000, "x"); csv::parse(s).len()"#, &[]),
    (
        "CSV of columns",
        r#"let s = ""; for i in 0..20000 { s += `c${i},`; } s += "z\n"; for i in 0..50 { let t = ""; t.pad(20000, ","); s += t + "\n"; } csv::parse(s).len()"#,
        &[Memory, Timeout, Script],
    ),
    ("CSV of a deep value", "csv::format([[[[[]]]]])", &[Script]),
    ("JSON of a key without end", r#"let s = ""; s.pad(9000000, "k"); json::parse(`{"${s}": 1}`).len()"#, &[]),
    (
        "JSON of many keys",
        r#"let s = "{"; for i in 0..200000 { s += `"${i}":0,`; } json::parse(s + `"z":0}`).len()"#,
        &[],
    ),
    ("JSON of a long number", r#"let s = ""; s.pad(1000000, "9"); json::parse(s)"#, &[Script]),
    ("JSON of a deep map", r#"let s = ""; for i in 0..10000 { s += `{"a":`; } json::parse(s)"#, &[Script]),
    ("JSON again and again", r#"loop { json::parse("[1,2,3]") }"#, &[Timeout]),
    ("a deep value as JSON", "let a = []; for i in 0..500 { a = [a]; } json::format(a)", &[Script]),
    // xlsx
    ("a sheet of a deep value", "xlsx::format(#{ a: [[[[1]]]] })", &[Script]),
    ("sheets without end", "let m = #{}; for i in 0..1000 { m[`s${i}`] = [[1]]; } xlsx::format(m)", &[Script]),
    ("a cell of a megabyte", r#"let s = ""; s.pad(1000000, "x"); xlsx::format(#{ a: [[s]] })"#, &[Script]),
    ("sheets again and again", "loop { xlsx::format(#{ a: [[1]] }) }", &[Timeout]),
    // time, random, crypto, url
    ("a sleep without end", r#"sleep("100000000d")"#, &[Script, Timeout]),
    ("a sleep backwards", r#"sleep("-1s")"#, &[Script]),
    ("sleeps without end", r#"loop { sleep("0ms") }"#, &[Timeout]),
    ("seconds beyond time", "time::from_unix(9223372036854775807)", &[Script]),
    ("a range upside down", "random::int(5, 1)", &[Script]),
    ("the widest range", "random::int(-9223372036854775808, 9223372036854775807); 1", &[]),
    ("random bytes beyond measure", "random::bytes(9223372036854775807)", &[Script]),
    ("random bytes below nothing", "random::bytes(-1)", &[Script]),
    ("a choice of nothing", "random::choice([])", &[Script]),
    ("random numbers without end", "loop { random::int(1, 6) }", &[Timeout]),
    ("a key of a megabyte", r#"let s = ""; s.pad(1000000, "k"); crypto::hmac_sha256(s, "x")"#, &[Script]),
    ("a comparison of large texts", r#"let s = ""; s.pad(4000000, "x"); loop { crypto::equal(s, s) }"#, &[Timeout]),
    ("a base of nonsense", r#"let s = ""; s.pad(4000000, "*"); crypto::base64_decode(s)"#, &[Script]),
    (
        "a relative address of a megabyte",
        r#"let s = ""; s.pad(1000000, "../"); url::join("https://a.bb/", s)"#,
        &[Script],
    ),
    ("an escape of nothing", r#"let s = ""; s.pad(3000000, "%"); url::decode(s).len()"#, &[]),
    // log, progress, children, ends
    ("log without end", r#"loop { log::info("x") }"#, &[Timeout]),
    (
        "a large line again and again",
        r#"let s = ""; s.pad(4000000, "x"); loop { log::info(s, #{ s: s }) }"#,
        &[Timeout, Memory, Script],
    ),
    ("a line of a deep value", "let a = []; for i in 0..500 { a = [a]; } log::info(a)", &[Script]),
    ("progress without end", r#"loop { progress(1, "x") }"#, &[Timeout]),
    ("progress beyond numbers", "progress(0.0 / 0.0)", &[Script]),
    ("a large message of progress", r#"let s = ""; s.pad(9000000, "x"); progress(1, s); 1"#, &[]),
    (
        "children of a large payload",
        r#"let s = ""; s.pad(9000000, "x"); submit("probe", #{ s: s })"#,
        &[Script, Denied, Memory],
    ),
    ("a child of a deep payload", r#"let a = []; for i in 0..500 { a = [a]; } submit("probe", #{ a: a })"#, &[Script]),
    ("a child of many tags", r#"let a = []; a.pad(1000, "t"); submit("probe", #{}, #{ tags: a })"#, &[Script]),
    ("an end of a large reason", r#"let s = ""; s.pad(9000000, "x"); fail(s)"#, &[FailedByScript]),
    ("a secret of no name", r#"let s = ""; s.pad(9000000, "x"); secret(s)"#, &[Script, Denied]),
    // http, before it leaves
    ("an address of many megabytes", r#"let s = "http://"; s.pad(9000000, "a"); http::get(s)"#, &[HostHttp]),
    ("a body of many megabytes", r#"let s = ""; s.pad(9000000, "a"); http::post("http://127.0.0.1/", s)"#, &[Script]),
    (
        "a body of a deep value",
        r#"let a = []; for i in 0..500 { a = [a]; } http::post("http://127.0.0.1/", a)"#,
        &[Script],
    ),
    (
        "headers without end",
        r#"let m = #{}; for i in 0..100000 { m[`h${i}`] = "x"; } http::request(#{ url: "http://127.0.0.1/", headers: m })"#,
        &[HostHttp, Timeout],
    ),
    (
        "a header of many megabytes",
        r#"let s = ""; s.pad(9000000, "a"); http::request(#{ url: "http://127.0.0.1/", headers: #{ a: s } })"#,
        &[HostHttp],
    ),
    ("requests without end", r#"loop { try { http::get("http://127.0.0.1/") } catch {} }"#, &[Timeout]),
];

const TEMPLATES: &[(&str, &str)] = &[
    ("endless.txt", "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}"),
    ("self.txt", "{% include \"self.txt\" %}"),
    ("macro.txt", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
    (
        "double.txt",
        "{% set ns = namespace(s=\"xxxxxxxxxxxxxxxx\") %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    ),
    ("repeat.txt", "{{ (\"x\" * 100000000) ~ (\"x\" * 100000000) }}"),
    ("value.html", "{{ v }}"),
];

#[test]
fn no_host_function_takes_the_worker_or_a_neighbour_down() {
    let outbox = tempfile::tempdir().unwrap();
    let mailer = Mailer::File(outbox.path().to_owned());
    let harness = Harness::with(2, ServicesOptions { mailer, ..ServicesOptions::default() });
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("templates")).unwrap();
    for (name, text) in TEMPLATES {
        fs::write(place.path().join("templates").join(name), text).unwrap();
    }
    let mut wrong = Vec::new();
    for (what, body, kinds) in ABUSES {
        let text = format!(
            "const JOB = #{{ timeout: \"{}\", memory: \"32MiB\", allow: #{{ hosts: [\"127.0.0.1\"] }} }};\nfn run(job) {{ {body} }}",
            timeout_for(kinds)
        );
        fs::write(place.path().join("probe.rhai"), text).unwrap();
        let snapshot = Library::load(place.path()).unwrap().snapshot();
        let Some(probe) = snapshot.scripts.get(&JobName::new("probe").unwrap()) else {
            wrong.push(format!("{what}: {:?}", snapshot.faults));
            continue;
        };
        let end = harness.beside_a_neighbour(what, &Arc::clone(probe));
        let fits = match &end {
            ScriptEnd::Failed(error) => {
                kinds.contains(&error.kind) && !error.message.is_empty() && error.message.len() <= 64 << 10
            }
            ScriptEnd::Returned(_) => kinds.is_empty(),
            _ => false,
        };
        if !fits {
            wrong.push(format!("{what}: {}", format!("{end:?}").chars().take(400).collect::<String>()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
