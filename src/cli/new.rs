//! `ryemill new NAME`: a script and its tests, from a template that passes both `check` and `test`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use super::{Failure, Outcome, say};
use crate::config::Config;
use crate::job::JobName;

const JOB: &str = include_str!("templates/job.rhai");
const TEST: &str = include_str!("templates/job.test.rhai");

pub fn run(config: &Config, name: &str) -> Outcome {
    let name = JobName::new(name).map_err(|error| Failure::Usage(error.to_string()))?;
    let folder = &config.jobs_dir;
    fs::create_dir_all(folder)
        .map_err(|error| Failure::Failed(format!("the jobs folder {} cannot be made: {error}", folder.display())))?;
    let (script, tests) = (folder.join(format!("{name}.rhai")), folder.join(format!("{name}.test.rhai")));
    // Both or none.
    if let Some(there) = [&script, &tests].into_iter().find(|path| path.exists()) {
        return Err(Failure::Failed(format!("{} is there already and stays as it is", there.display())));
    }
    // The tests first: a worker that watches the folder takes the script only with them.
    write(&tests, &TEST.replace("NAME", name.as_str()))?;
    write(&script, JOB)?;
    say(&format!("made {} and {}", script.display(), tests.display()));
    say(&format!("try it: ryemill run {name} --example, ryemill test {name}"));
    Ok(())
}

fn write(path: &Path, text: &str) -> Outcome {
    File::create_new(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", path.display())))
}
