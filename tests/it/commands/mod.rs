//! The commands of the script author, as the real binary prints them.

mod author;
mod broken;
mod doctor;
mod language;
mod test;

use std::path::Path;
use std::process::{Command, Stdio};

/// What a command has printed.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `ryemill` on a jobs folder, with a place of its own for everything else.
pub fn ryemill(jobs: &Path, args: &[&str]) -> Said {
    let place = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ryemill"))
        .args(args)
        .current_dir(place.path())
        .env_clear()
        .env("JOBS_DIR", jobs)
        .env("DATA_DIR", place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder below `tests/fixtures`.
pub fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
