//! `ryemill new`, `definitions` and `run`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{fixture, ryemill};

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(jobs: &Path, args: &[&str]) -> Running {
    let child = Command::new(env!("CARGO_BIN_EXE_ryemill"))
        .args(args)
        .current_dir(jobs)
        .env_clear()
        .env("JOBS_DIR", jobs)
        .env("DATA_DIR", jobs.join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Running(child.unwrap())
}

#[test]
fn a_new_job_passes_check_run_and_test() {
    let place = tempfile::tempdir().unwrap();
    let jobs = place.path().join("jobs");
    assert_eq!(ryemill(&jobs, &["new", "send_invoice"]).code, 0);
    for args in [&["check"][..], &["run", "send_invoice", "--example"], &["test", "send_invoice"]] {
        let said = ryemill(&jobs, args);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
    }
    let before = fs::read_to_string(jobs.join("send_invoice.rhai")).unwrap();
    fs::remove_file(jobs.join("send_invoice.test.rhai")).unwrap();
    let said = ryemill(&jobs, &["new", "send_invoice"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("is there already"), "{}", said.err);
    assert_eq!(fs::read_to_string(jobs.join("send_invoice.rhai")).unwrap(), before);
    assert!(!jobs.join("send_invoice.test.rhai").exists(), "both or none");
    assert_eq!(ryemill(&jobs, &["new", "Send-Invoice"]).code, 2);
}

#[test]
fn definitions_are_files_or_json() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("types");
    let said = ryemill(place.path(), &["definitions", folder.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(fs::read_to_string(folder.join("email.d.rhai")).unwrap().contains("fn send("));
    let said = ryemill(place.path(), &["definitions", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let names: Vec<&str> =
        all["namespaces"].as_array().unwrap().iter().map(|namespace| namespace["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"http") && names.contains(&""), "{names:?}");
}

#[test]
fn a_payload_comes_from_flag_file_standard_input_or_example() {
    let place = tempfile::tempdir().unwrap();
    assert_eq!(ryemill(place.path(), &["new", "hello"]).code, 0);
    let file = place.path().join("payload.json");
    fs::write(&file, r#"{"name": "Grace"}"#).unwrap();
    let at_file = format!("@{}", file.display());
    for (args, expected) in [
        (&["--payload", r#"{"name": "Alan"}"#][..], "Hello, Alan!"),
        (&["--payload", &at_file], "Hello, Grace!"),
        (&["--example"], "Hello, Ada!"),
    ] {
        let said = ryemill(place.path(), &[&["run", "hello"], args].concat());
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains(expected), "{args:?}: {}", said.out);
        for part in ["info greeted", " 50% greeting", "result {", " operations, ", " of memory"] {
            assert!(said.out.contains(part), "{part}: {}", said.out);
        }
    }
    let mut running = start(place.path(), &["run", "hello", "--payload", "-"]);
    running.0.stdin.take().unwrap().write_all(br#"{"name": "Barbara"}"#).unwrap();
    let out = std::io::read_to_string(running.0.stdout.take().unwrap()).unwrap();
    assert!(out.contains("Hello, Barbara!"), "{out}");
    let said = ryemill(place.path(), &["run", "hello"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("\"name\" is a required property"), "{}", said.err);
}

#[test]
fn a_watched_run_starts_again_when_its_script_changes() {
    let place = tempfile::tempdir().unwrap();
    fs::copy(fixture("tests/order.rhai"), place.path().join("other.rhai")).unwrap();
    let script = |value: &str| format!("const JOB = #{{}};\nfn run(job) {{ {value} }}\n");
    let path = place.path().join("hello.rhai");
    fs::write(&path, script("1")).unwrap();
    let mut running = start(place.path(), &["run", "hello", "--watch"]);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut until = |expected: &str| {
        let mut said = Vec::new();
        for line in &mut lines {
            said.push(line.unwrap());
            if said.last().unwrap().contains(expected) {
                return;
            }
        }
        panic!("{expected:?} was not said: {said:?}");
    };
    until("result 1");
    until("waiting for a change");
    fs::write(&path, script("1 +")).unwrap();
    until("hello.rhai:2:");
    until("waiting for a change");
    fs::write(&path, script("2")).unwrap();
    until("result 2");
}

#[test]
fn one_file_or_job_can_be_checked() {
    let jobs = tempfile::tempdir().unwrap();
    fs::create_dir(jobs.path().join("lib")).unwrap();
    let good = "import \"lib/sums\" as sums;\nconst JOB = #{};\nfn run(job) { sums::double(2) }\n";
    fs::write(jobs.path().join("good.rhai"), good).unwrap();
    fs::write(jobs.path().join("bad.rhai"), "const JOB = #{};\nfn run(job) { nowhere() }\n").unwrap();
    fs::write(jobs.path().join("lib/sums.rhai"), "fn double(x) { x * 2 }\n").unwrap();
    let check = |path: &str| ryemill(jobs.path(), &["check", path]);
    let below = |path: &str| jobs.path().join(path).to_str().unwrap().to_owned();
    for path in ["good".to_owned(), below("good.rhai"), below("lib/sums.rhai")] {
        let said = check(&path);
        assert_eq!((said.code, said.out.contains("no faults")), (0, true), "{path}: {said:?}");
    }
    for path in ["bad".to_owned(), below("bad.rhai"), below("")] {
        let said = check(&path);
        assert_eq!((said.code, said.out.contains("bad.rhai:2:15")), (1, true), "{path}: {said:?}");
    }
    let said = ryemill(&fixture("tests"), &["check", &below("lib/sums.rhai")]);
    assert_eq!(said.code, 0, "of another folder than JOBS_DIR: {said:?}");
    assert_eq!(check("neither").code, 2);
}

#[test]
fn a_run_without_payload_says_how_one_is_given() {
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    let said = ryemill(&jobs, &["run", "email"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("--example"), "{}", said.err);
}
