//! The natives that break the process are for tests only: in builds for tests, and there only when asked for.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

fn run(natives: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("jobs")).unwrap();
    std::fs::write(dir.path().join("jobs/breaker.rhai"), "const JOB = #{};\nfn run(job) { test_abort() }").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ryemill"));
    command.args(["run", "breaker"]).current_dir(dir.path()).env_clear().env("RYEMILL_TEST_NATIVES", natives);
    command.output().unwrap()
}

fn is_refused(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    output.status.code() == Some(1) && text.contains("there is no function `test_abort`")
}

/// Runs in both profiles.
#[test]
fn no_script_of_a_release_can_break_the_process() {
    let asked = run("yes");
    if cfg!(debug_assertions) {
        assert_eq!(asked.status.signal(), Some(6), "{asked:?}");
    } else {
        assert!(is_refused(&asked), "{asked:?}");
    }
    let output = run("no");
    assert!(is_refused(&output), "{output:?}");
}
