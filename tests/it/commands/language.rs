//! Every chapter of the language in a job: `ryemill run` prints and returns what plain Rhai does. What is removed on
//! purpose is in docs/language.md.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use rhai::module_resolvers::FileModuleResolver;
use rhai::{Dynamic, Engine, Scope};
use serde_json::{Value, json};

use super::{fixture, ryemill};

/// What plain Rhai makes of `run`: what it printed and what it returned.
fn plain(folder: &Path, text: &str) -> Result<(Vec<String>, Value), String> {
    let said = Rc::new(RefCell::new(Vec::new()));
    let mut engine = Engine::new();
    engine.set_max_expr_depths(64, 32);
    engine.set_module_resolver(FileModuleResolver::new_with_path(folder));
    let lines = Rc::clone(&said);
    engine.on_print(move |text| lines.borrow_mut().push(text.to_owned()));
    let lines = Rc::clone(&said);
    engine.on_debug(move |text, _, _| lines.borrow_mut().push(text.to_owned()));
    let ast = engine.compile(text).map_err(|error| error.to_string())?;
    let job = Dynamic::from(rhai::Map::new());
    let value = engine.call_fn::<Dynamic>(&mut Scope::new(), &ast, "run", (job,)).map_err(|error| error.to_string())?;
    Ok((said.take(), serde_json::to_value(&value).map_err(|error| error.to_string())?))
}

#[test]
fn every_chapter_of_the_language_works_as_in_plain_rhai() {
    let folder = fixture("language");
    let mut chapters = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rhai") {
            continue;
        }
        chapters += 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (said, value) = match plain(&folder, &fs::read_to_string(&path).unwrap()) {
            Ok(plain) => plain,
            Err(error) => {
                wrong.push(format!("{name} in plain Rhai: {error}"));
                continue;
            }
        };
        let ours = ryemill(&folder, &["run", name, "--json"]);
        let Ok(report) = serde_json::from_str::<Value>(&ours.out) else {
            wrong.push(format!("{name}: {ours:?}"));
            continue;
        };
        let lines: Vec<&Value> = report["logs"].as_array().unwrap().iter().map(|line| &line["message"]).collect();
        if json!(lines) != json!(said) || report["result"] != value {
            wrong.push(format!("{name}: plain Rhai {said:?} {value}\nours {report}"));
        }
    }
    assert!(chapters >= 25, "{chapters}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_is_removed_says_so() {
    for (code, expected) in [
        ("const JOB = #{};\nfn run(job) { eval(\"1\") }", "eval"),
        ("const JOB = #{};\nimport \"/etc/passwd\" as p;\nfn run(job) { 1 }", "no module of this jobs folder"),
        ("const JOB = #{};\nfn run(job) { sleep(1) }", "`duration` must be a duration"),
        ("const JOB = #{};\nlet x = 1;\nfn run(job) { x }", "`let` has no use"),
        ("const JOB = #{};\nfn run(job) { timestamp() }", "result"),
    ] {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("gone.rhai"), code).unwrap();
        let said = ryemill(place.path(), &["run", "gone"]);
        assert_eq!(said.code, 1, "{code}: {said:?}");
        assert!(format!("{}{}", said.out, said.err).contains(expected), "{code}: {said:?}");
    }
}
