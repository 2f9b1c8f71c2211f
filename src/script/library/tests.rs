use std::fs;
use std::time::Duration;

use super::folder::STANDS_STILL;
use super::*;

const NOOP: &str = "//! Does nothing.\nconst JOB = #{};\nfn run(job) { 1 }\n";

fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// Looks twice, as far apart as a file must stand still.
fn settle(library: &Library) {
    let now = Instant::now();
    library.look(now, &BTreeSet::new()).unwrap();
    library.look(now + STANDS_STILL, &BTreeSet::new()).unwrap();
}

#[test]
fn a_script_in_the_folder_is_a_job_type() {
    let dir = folder(&[("noop.rhai", NOOP), ("noop.test.rhai", "broken ("), ("notes.txt", "x")]);
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    assert_eq!(snapshot.scripts.keys().map(JobName::as_str).collect::<Vec<_>>(), ["noop"]);
    assert_eq!(snapshot.scripts[&name("noop")].job_type.description, "Does nothing.");
    assert!(snapshot.faults.is_empty(), "{:?}", snapshot.faults);
}

#[test]
fn all_keys_of_const_job_are_read() {
    let text = r#"
        const JOB = #{
            queue: "mail", priority: 9, timeout: "30s", max_attempts: 5, memory: "8MiB",
            backoff: #{ kind: "fixed", first: "1s", max: "10m", jitter: 0.5 },
            payload: #{ type: "object", required: ["n"], properties: #{ n: #{ type: "integer", minimum: -3 } } },
            examples: [#{ n: -1 }], keep: #{ succeeded: "1h", failed: "2d" },
            allow: #{ hosts: ["API.example.com"], secrets: ["TOKEN"], databases: ["sales"] },
        };
        fn run(job) { () }
    "#;
    let dir = folder(&[("full.rhai", text)]);
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    let spec = &snapshot.scripts[&name("full")].job_type.spec;
    assert_eq!(spec.queue.as_str(), "mail");
    assert_eq!(spec.priority.get(), 9);
    assert_eq!(spec.timeout, Duration::from_secs(30));
    assert_eq!(spec.max_attempts, 5);
    assert_eq!(spec.memory, 8 << 20);
    assert_eq!(spec.backoff.first, Duration::from_secs(1));
    assert_eq!(spec.examples, [serde_json::json!({ "n": -1 })]);
    assert_eq!(spec.keep.failed, Duration::from_secs(2 * 86_400));
    assert_eq!(spec.allow.hosts, ["api.example.com"]);
    assert_eq!(spec.allow.secrets, ["token"]);
}

#[test]
fn every_fault_is_told_with_its_line() {
    let faulty = [
        ("const JOB = #{ queu: \"a\" };\nfn run(job) {}", 1, "`queu` is no key"),
        ("const JOB = #{\n  timeout: \"5 parsecs\" };\nfn run(job) {}", 2, "timeout"),
        ("const JOB = #{ priority: 12 };\nfn run(job) {}", 1, "0 to 9"),
        ("const JOB = #{ timeout: 5 };\nfn run(job) {}", 1, "duration"),
        ("const N = 1;\nconst JOB = #{ max_attempts: N + 1 };\nfn run(job) {}", 2, "must be literal"),
        ("const JOB = #{};\nlet x = 1;\nfn run(job) {}", 2, "`let` has no use"),
        ("const JOB = #{};\nprint(1);\nfn run(job) {}", 2, "holds only"),
        ("const JOB = #{};\nconst JOB = #{};\nfn run(job) {}", 2, "twice"),
        ("const JOB = #{ unique: true };\nfn run(job) {}", 1, "reserved"),
        ("const JOB = #{\n payload: #{ type: \"objekt\" } };\nfn run(job) {}", 2, "schema"),
        ("const JOB = #{ payload: #{ type: \"object\" },\n examples: [ 1 ] };\nfn run(job) {}", 2, "does not fit"),
        ("const JOB = #{};\nimport \"lib/nope\" as n;\nfn run(job) {}", 2, "no module"),
        ("const JOB = #{};\nimport \"../etc\" as n;\nfn run(job) {}", 2, "no module of this jobs folder"),
        ("const JOB = #{};\nfn run(job) {\n  let x = ;\n}", 3, ""),
        ("const JOB = #{};\nfn run(job) {\n  eval(\"1\")\n}", 3, "eval"),
    ];
    for (text, line, message) in faulty {
        let dir = folder(&[("bad.rhai", text)]);
        let snapshot = Library::load(dir.path()).unwrap().snapshot();
        assert!(snapshot.scripts.is_empty(), "{text}");
        let found = &snapshot.faults;
        assert!(
            found.iter().any(|(fault, _)| fault.line == Some(line) && fault.message.contains(message)),
            "{text}\n{found:#?}"
        );
    }
    for (text, message) in [
        ("fn run(job) {}", "no `const JOB`"),
        ("const JOB = #{};", "no `fn run(job)`"),
        ("const JOB = #{}; fn run() {}", "one parameter"),
        ("  \n", "empty"),
    ] {
        let dir = folder(&[("bad.rhai", text)]);
        let snapshot = Library::load(dir.path()).unwrap().snapshot();
        assert!(snapshot.faults.iter().any(|(fault, _)| fault.message.contains(message)), "{:?}", snapshot.faults);
    }
}

#[test]
fn all_faults_of_a_file_come_at_once() {
    let text = "const JOB = #{ queu: 1, priority: 99, timeout: 3 };\nlet x = 1;\n";
    let dir = folder(&[("bad.rhai", text)]);
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    assert_eq!(snapshot.faults.len(), 5, "{:?}", snapshot.faults);
}

#[test]
fn an_edit_goes_live_when_it_stands_still_and_a_broken_one_never() {
    let dir = folder(&[("noop.rhai", NOOP)]);
    let library = Library::load(dir.path()).unwrap();
    let first = library.snapshot().scripts[&name("noop")].job_type.version.clone();

    fs::write(dir.path().join("noop.rhai"), NOOP.replace('1', "2")).unwrap();
    let now = Instant::now();
    assert!(library.look(now, &BTreeSet::new()).unwrap(), "it moves");
    assert_eq!(library.snapshot().scripts[&name("noop")].job_type.version, first);
    assert!(!library.look(now + STANDS_STILL, &BTreeSet::new()).unwrap());
    let second = library.snapshot().scripts[&name("noop")].job_type.version.clone();
    assert_ne!(second, first);

    for broken in ["const JOB = #{};\nfn run(job) { let = 1 }", "", "\u{0}\u{1}"] {
        fs::write(dir.path().join("noop.rhai"), broken).unwrap();
        settle(&library);
        let snapshot = library.snapshot();
        assert_eq!(snapshot.scripts[&name("noop")].job_type.version, second);
        assert_eq!(snapshot.refused.len(), 1, "{broken:?}");
        assert!(snapshot.refused[0].reason.contains("noop.rhai"), "{}", snapshot.refused[0].reason);
    }
    fs::write(dir.path().join("noop.rhai"), b"\xff\xfe").unwrap();
    settle(&library);
    assert_eq!(library.snapshot().scripts[&name("noop")].job_type.version, second);
}

#[test]
fn a_renamed_file_is_taken_at_once() {
    let dir = folder(&[("noop.rhai", NOOP)]);
    let library = Library::load(dir.path()).unwrap();
    fs::write(dir.path().join("new"), NOOP.replace('1', "2")).unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("noop.rhai")).unwrap();
    let before = library.snapshot().scripts[&name("noop")].job_type.version.clone();
    library.look(Instant::now(), &["noop.rhai".to_owned()].into()).unwrap();
    assert_ne!(library.snapshot().scripts[&name("noop")].job_type.version, before);
}

#[test]
fn a_module_is_part_of_the_version_and_a_broken_one_keeps_the_good_script() {
    let script = "const JOB = #{};\nimport \"lib/money\" as money;\nfn run(job) { money::twice(2) }";
    let dir = folder(&[("uses.rhai", script), ("lib/money.rhai", "fn twice(x) { x * 2 }")]);
    let library = Library::load(dir.path()).unwrap();
    let first = Arc::clone(&library.snapshot().scripts[&name("uses")]);
    fs::write(dir.path().join("lib/money.rhai"), "fn twice(x) { x + x }").unwrap();
    settle(&library);
    let second = Arc::clone(&library.snapshot().scripts[&name("uses")]);
    assert_ne!(second.job_type.version, first.job_type.version);
    fs::write(dir.path().join("lib/money.rhai"), "fn twice(x) { x + }").unwrap();
    settle(&library);
    let snapshot = library.snapshot();
    assert_eq!(snapshot.scripts[&name("uses")].job_type.version, second.job_type.version);
    assert!(snapshot.refused[0].reason.contains("lib/money.rhai"), "{}", snapshot.refused[0].reason);
    assert!(snapshot.scripts[&name("uses")].modules["lib/money"].contains("x + x"));
}

#[test]
fn a_link_that_leads_out_is_left_out() {
    let outside = folder(&[("secret.rhai", NOOP)]);
    let dir = folder(&[("noop.rhai", NOOP)]);
    std::os::unix::fs::symlink(outside.path().join("secret.rhai"), dir.path().join("secret.rhai")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("noop.rhai"), dir.path().join("inside.rhai")).unwrap();
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    assert_eq!(snapshot.scripts.keys().map(JobName::as_str).collect::<Vec<_>>(), ["inside", "noop"]);
}

#[test]
fn what_is_no_text_is_a_fault_and_what_was_good_stays() {
    let dir = folder(&[("noop.rhai", NOOP), ("marked.rhai", &format!("\u{feff}{NOOP}"))]);
    fs::write(dir.path().join("bytes.rhai"), b"const JOB = #{};\nfn run(job) { \"\xff\" }\n").unwrap();
    fs::write(dir.path().join("large.rhai"), format!("{NOOP}{}", "//\n".repeat(1 << 19))).unwrap();
    let library = Library::load(dir.path()).unwrap();
    let snapshot = library.snapshot();
    let faults: Vec<String> = snapshot.faults.iter().map(|(fault, _)| fault.to_string()).collect();
    assert_eq!(faults[0], "bytes.rhai:2:16: the file is not UTF-8: here is a byte that is no text");
    assert!(faults[1].starts_with("large.rhai: the file has ") && faults.len() == 2, "{faults:?}");
    assert_eq!(snapshot.scripts.keys().map(JobName::as_str).collect::<Vec<_>>(), ["marked", "noop"]);
    assert_eq!(snapshot.refused.iter().map(|refused| refused.name.as_str()).collect::<Vec<_>>(), ["bytes", "large"]);

    fs::write(dir.path().join("noop.rhai"), b"\xff").unwrap();
    fs::write(dir.path().join("bytes.rhai"), NOOP).unwrap();
    fs::remove_file(dir.path().join("large.rhai")).unwrap();
    settle(&library);
    let snapshot = library.snapshot();
    let faults: Vec<&str> = snapshot.faults.iter().map(|(fault, _)| fault.file.as_str()).collect();
    assert_eq!(faults, ["noop.rhai"]);
    assert_eq!(snapshot.scripts.len(), 3, "the version that is live stays");
}

#[test]
fn modules_that_import_each_other_are_told() {
    let dir = folder(&[
        ("uses.rhai", "import \"lib/a\" as a;\nconst JOB = #{};\nfn run(job) { a::f() }"),
        ("lib/a.rhai", "import \"lib/b\" as b;\nfn f() { b::f() }"),
        ("lib/b.rhai", "import \"lib/a\" as a;\nfn f() { 1 }"),
        ("lib/c.rhai", "fn f() { import \"lib/d\" as d; d::f() }"),
        ("lib/d.rhai", "import \"lib/c\" as c;\nfn f() { 1 }"),
        ("lib/e.rhai", "import \"lib/e\" as e;\nfn f() { 1 }"),
    ]);
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    let faults: Vec<String> = snapshot.faults.iter().map(|(fault, _)| fault.to_string()).collect();
    for expected in [
        "lib/a.rhai:1:8: the import leads back here: lib/a → lib/b → lib/a",
        "lib/b.rhai:1:8: the import leads back here: lib/b → lib/a → lib/b",
        "lib/e.rhai:1:8: the import leads back here: lib/e → lib/e",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{faults:#?}");
    }
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(snapshot.scripts.is_empty());
}

#[test]
fn a_deleted_script_goes_and_comes_back() {
    let dir = folder(&[("noop.rhai", NOOP)]);
    let library = Library::load(dir.path()).unwrap();
    fs::remove_file(dir.path().join("noop.rhai")).unwrap();
    settle(&library);
    assert!(library.snapshot().scripts.is_empty());
    fs::write(dir.path().join("noop.rhai"), NOOP).unwrap();
    settle(&library);
    assert_eq!(library.snapshot().scripts.len(), 1);
}

/// Refuses versions that have a word in them, and counts how often it was asked.
struct NoBadWord(Arc<std::sync::atomic::AtomicUsize>);

impl Gate for NoBadWord {
    fn admit(&self, candidate: &Candidate<'_>) -> Result<(), Objection> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(candidate.snapshot.scripts.contains_key(&candidate.script.job_type.name));
        let source = &candidate.script.source;
        if source.contains("unsure") && self.0.load(std::sync::atomic::Ordering::Relaxed) < 3 {
            return Err(Objection { reason: "ask me later".to_owned(), for_now: true });
        }
        if source.contains("bad") { Err("a bad word".to_owned().into()) } else { Ok(()) }
    }
}

#[test]
fn what_reaches_outside_of_allow_does_not_go_live() {
    let dir = folder(&[("noop.rhai", NOOP)]);
    let library = Library::load(dir.path()).unwrap();
    let version = || library.snapshot().scripts[&name("noop")].job_type.version.clone();
    let good = version();
    for call in ["http::get(\"https://example.com/\")", "secret(\"token\")", "sql::query(\"sales\", \"SELECT 1\")"] {
        let text = format!("const JOB = #{{}};\nfn run(job) {{ {call} }}\n");
        fs::write(dir.path().join("noop.rhai"), text).unwrap();
        settle(&library);
        assert_eq!(version(), good, "{call}");
        let refused = library.snapshot().refused[0].reason.clone();
        assert!(refused.contains("is not in the script's `allow."), "{refused}");
    }
}

#[test]
fn what_a_module_reaches_and_children_of_others_are_warnings() {
    let dir = folder(&[
        ("lib/m.rhai", "fn load() { http::get(\"https://module.example/\") }"),
        (
            "noop.rhai",
            "import \"lib/m\" as m;\nconst JOB = #{};\nfn run(job) { m::load(); submit(\"nopp\", #{}); submit(\"noop\", #{}) }",
        ),
    ]);
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    assert!(snapshot.faults.is_empty(), "{:?}", snapshot.faults);
    let warnings: Vec<String> = snapshot.warnings.iter().map(|(fault, _)| fault.to_string()).collect();
    assert!(
        warnings[0].starts_with("noop.rhai:3:33: there is no script nopp.rhai in this folder (did you mean `noop`?"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].starts_with("lib/m.rhai:1:23: `module.example` is not in noop.rhai's `allow.hosts`"),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn the_gate_is_not_asked_about_what_check_refuses() {
    let dir = folder(&[("noop.rhai", NOOP)]);
    let library = Library::load(dir.path()).unwrap();
    let asked = Arc::default();
    library.judge_by(Box::new(NoBadWord(Arc::clone(&asked))));
    fs::write(dir.path().join("noop.rhai"), "const JOB = #{};\nfn run(job) { secret(\"bad\") }\n").unwrap();
    settle(&library);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn what_a_try_catches_is_a_warning() {
    let text = "const JOB = #{};\nfn run(job) {\n    try { nope(1); nowhere } catch { nope_either() }\n}\n";
    let dir = folder(&[("noop.rhai", text)]);
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    let lines = |located: &[Located]| located.iter().map(|(fault, _)| fault.message.clone()).collect::<Vec<_>>();
    assert_eq!(lines(&snapshot.warnings), ["there is no function `nope`", "there is no variable `nowhere`"]);
    assert_eq!(lines(&snapshot.faults), ["there is no function `nope_either`"]);
}

#[test]
fn only_variables_that_nobody_has_are_told() {
    let unknown = |code: &str| {
        let text = format!("const JOB = #{{}};\nconst TOP = 1;\n{code}\n");
        let dir = folder(&[("noop.rhai", &text)]);
        let snapshot = Library::load(dir.path()).unwrap().snapshot();
        snapshot.faults.iter().map(|(fault, _)| fault.message.clone()).collect::<Vec<_>>()
    };
    for code in [
        "fn run(job) { let n = 0; let f = || { let m = n; || { m += 1; m + n } }; f.call().call() }",
        "fn run(job) { for (x, i) in [1] { print(x + i); } try { } catch (e) { e } }",
        "fn run(job) { let g = helper; [1].map(helper).map(|x| x + g.call(x)) } fn helper(x) { x }",
        "fn run(job) { const X = 1; let f = |a| a + X + job.attempt; f.call(global::TOP) }",
        "fn run(job) { let y = 1; add!() } fn add() { y + 1 }",
        "fn run(job) { let o = #{ n: 1, f: |x| this.n + x }; o.f(1); switch 1 { 1 if o.n > 0 => o, _ => () } }",
        "fn run(job) { if is_def_var(\"x\") { x } }",
    ] {
        assert!(unknown(code).is_empty(), "{code}: {:?}", unknown(code));
    }
    for (code, name) in [
        ("fn run(job) { jbo.payload }", "jbo"),
        ("fn run(job) { [1].map(|x| x + nope) }", "nope"),
        ("fn run(job) { TOP }", "TOP"),
        ("fn run(job) { helper() } fn helper() { job.payload }", "job"),
        ("fn run(job) { { let inner = 1; } `${inner}` }", "inner"),
    ] {
        assert_eq!(unknown(code), [format!("there is no variable `{name}`")], "{code}");
    }
}

#[test]
fn what_the_gate_refuses_does_not_go_live() {
    let dir = folder(&[("noop.rhai", NOOP), ("other.rhai", NOOP)]);
    let library = Library::load(dir.path()).unwrap();
    let asked = Arc::default();
    library.judge_by(Box::new(NoBadWord(Arc::clone(&asked))));
    let count = || asked.load(std::sync::atomic::Ordering::Relaxed);
    let version = || library.snapshot().scripts[&name("noop")].job_type.version.clone();
    let good = version();
    fs::write(dir.path().join("noop.rhai"), format!("{NOOP}// bad\n")).unwrap();
    settle(&library);
    assert_eq!(version(), good);
    assert_eq!(library.snapshot().refused[0].reason, "a bad word");
    assert_eq!(count(), 1, "only what is new is asked about");
    // Another edit does not ask again; a new test does, and so does a reload.
    fs::write(dir.path().join("other.rhai"), format!("{NOOP}// fine\n")).unwrap();
    settle(&library);
    assert_eq!(count(), 2);
    fs::write(dir.path().join("noop.test.rhai"), "fn test_it() {}").unwrap();
    settle(&library);
    assert_eq!(count(), 3);
    library.reload().unwrap();
    assert_eq!(count(), 4);
    let refused = library.snapshot().refused.clone();
    library.reload().unwrap();
    assert_eq!(library.snapshot().refused, refused, "the same refusal keeps its time");
    // Tests that cannot be run are no tests that pass.
    fs::write(dir.path().join("noop.rhai"), format!("{NOOP}// good\n")).unwrap();
    fs::write(dir.path().join("noop.test.rhai"), "fn test_it( {}").unwrap();
    settle(&library);
    assert_eq!(version(), good);
    assert!(library.snapshot().refused[0].reason.contains("noop.test.rhai:1:"), "{:?}", library.snapshot().refused);
    fs::write(dir.path().join("noop.test.rhai"), "fn test_it() {}").unwrap();
    settle(&library);
    assert_ne!(version(), good);
    assert!(library.snapshot().refused.is_empty());
}

#[test]
fn a_start_is_judged_like_a_reload_but_for_what_was_live_before() {
    let bad = format!("{NOOP}// bad\n");
    let dir = folder(&[("old.rhai", bad.as_str()), ("new.rhai", bad.as_str()), ("fine.rhai", NOOP)]);
    let library = Library::load(dir.path()).unwrap();
    let asked = Arc::default();
    library.judge_by(Box::new(NoBadWord(Arc::clone(&asked))));
    let known = [(name("old"), library.snapshot().scripts[&name("old")].job_type.version.clone())].into();
    assert!(library.judge_start(&known));
    let there = || library.snapshot().scripts.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(there(), ["fine", "old"]);
    assert_eq!(library.snapshot().refused[0].reason, "a bad word");
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2, "the one that was live is not asked about");
    fs::write(dir.path().join("new.rhai"), NOOP).unwrap();
    settle(&library);
    assert_eq!(there(), ["fine", "new", "old"]);
}

#[test]
fn what_could_not_be_judged_is_asked_about_again() {
    let dir = folder(&[("noop.rhai", NOOP)]);
    let library = Library::load(dir.path()).unwrap();
    let asked = Arc::default();
    library.judge_by(Box::new(NoBadWord(Arc::clone(&asked))));
    let version = || library.snapshot().scripts[&name("noop")].job_type.version.clone();
    let good = version();
    fs::write(dir.path().join("noop.rhai"), format!("{NOOP}// unsure\n")).unwrap();
    settle(&library);
    assert_eq!((version(), &*library.snapshot().refused[0].reason), (good.clone(), "ask me later"));
    // Nothing has changed on disk, and yet the next looks ask.
    while version() == good {
        library.look(Instant::now(), &BTreeSet::new()).unwrap();
    }
    assert!(library.snapshot().refused.is_empty());
}

#[test]
fn a_set_that_does_not_fit_together_is_refused_as_a_whole() {
    let user = |call: &str| format!("const JOB = #{{}};\nimport \"lib/money\" as money;\nfn run(job) {{ {call} }}");
    let dir = folder(&[
        ("one.rhai", user("money::twice(2)").as_str()),
        ("two.rhai", user("money::half(2)").as_str()),
        ("alone.rhai", NOOP),
        ("lib/money.rhai", "fn twice(x) { x * 2 }\nfn half(x) { x / 2 }"),
    ]);
    let library = Library::load(dir.path()).unwrap();
    let versions = || {
        let snapshot = library.snapshot();
        ["one", "two", "alone"].map(|script| snapshot.scripts[&name(script)].job_type.version.clone())
    };
    let before = versions();
    // `half` is gone: `one` could live with it, `two` cannot.
    fs::write(dir.path().join("lib/money.rhai"), "fn twice(x) { x + x }").unwrap();
    fs::write(dir.path().join("alone.rhai"), format!("{NOOP}// edited\n")).unwrap();
    settle(&library);
    let after = versions();
    assert_eq!(after[..2], before[..2]);
    assert_ne!(after[2], before[2], "what does not import it is not held up");
    let reasons = |script: &str| {
        let snapshot = library.snapshot();
        snapshot.refused.iter().find(|refused| refused.name == name(script)).map(|refused| refused.reason.clone())
    };
    assert!(reasons("two").unwrap().contains("there is no function `half`"), "{:?}", reasons("two"));
    assert!(reasons("one").unwrap().contains("together with `two`"), "{:?}", reasons("one"));
    fs::write(dir.path().join("two.rhai"), user("money::twice(1)")).unwrap();
    settle(&library);
    let last = versions();
    assert!(last[0] != before[0] && last[1] != before[1] && library.snapshot().refused.is_empty());
}

#[test]
fn misspelt_keywords_of_a_schema_are_told() {
    let schema =
        "#{ type: \"object\", require: [\"to\"], properties: #{ require: #{ maxlength: 10, audience: \"all\" } } }";
    let dir = folder(&[("noop.rhai", format!("const JOB = #{{ payload: {schema} }};\nfn run(job) {{ () }}").as_str())]);
    let snapshot = Library::load(dir.path()).unwrap().snapshot();
    assert!(snapshot.faults.is_empty() && snapshot.scripts.len() == 1);
    let told: Vec<String> = snapshot.warnings.iter().map(|(fault, source)| fault.card(source, false)).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("noop.rhai:1:") && told[0].contains("did you mean `required`?"), "{}", told[0]);
    assert!(told[1].contains("did you mean `maxLength`?"), "{}", told[1]);
}
