//! `ryemill check`: every fault of every script, as cards or as JSON.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::{Failure, Outcome, say};
use crate::config::Config;
use crate::script::diagnostics::Fault;
use crate::script::library::{Library, Located};

pub fn run(config: &Config, path: Option<PathBuf>, json: bool) -> Outcome {
    let (dir, only) = place(&config.jobs_dir, path);
    let library = Library::load(&dir)
        .map_err(|error| Failure::Usage(format!("the jobs folder {} cannot be read: {error}", dir.display())))?;
    let snapshot = library.snapshot();
    let concerns = |file: &str| only.as_deref().is_none_or(|only| only == file || file.contains('/'));
    let of_tests = snapshot.tests.values().filter_map(|read| read.as_ref().err()).flatten();
    let all = snapshot.faults.iter().chain(of_tests);
    let faults: Vec<_> = all.filter(|(fault, _)| concerns(&fault.file)).collect();
    let warnings: Vec<_> = snapshot.warnings.iter().filter(|(fault, _)| concerns(&fault.file)).collect();
    let good: Vec<&str> =
        snapshot.scripts.values().map(|script| script.file.as_str()).filter(|file| concerns(file)).collect();
    if json {
        let bare = |located: &[&Located]| -> Vec<Fault> { located.iter().map(|(fault, _)| fault.clone()).collect() };
        let (faults, warnings) = (bare(&faults), bare(&warnings));
        say(&serde_json::json!({ "scripts": good, "faults": faults, "warnings": warnings }).to_string());
    } else {
        let color = std::io::stdout().is_terminal();
        for (fault, source) in &faults {
            say(&format!("{}\n", fault.card(source, color)));
        }
        for (fault, source) in &warnings {
            say(&format!("{}\n", fault.warning(source, color)));
        }
        match faults.len() {
            0 => say(&format!("{}, no faults: {}", good_scripts(good.len()), good.join(", "))),
            1 => say(&format!("{}, 1 fault", good_scripts(good.len()))),
            count => say(&format!("{}, {count} faults", good_scripts(good.len()))),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Said) }
}

/// The folder, and the one file of it that is meant: a file is checked as a part of its folder, where its modules and
/// templates are. A job may be given by its name.
fn place(jobs_dir: &Path, path: Option<PathBuf>) -> (PathBuf, Option<String>) {
    let Some(path) = path else { return (jobs_dir.to_owned(), None) };
    let named = jobs_dir.join(&path).with_extension("rhai");
    let file = match path.is_file() {
        true => path,
        false if !path.exists() && named.is_file() => named,
        false => return (path, None),
    };
    let file = std::path::absolute(&file).unwrap_or(file);
    let below = |dir: &Path| Some((dir.to_owned(), Some(file.strip_prefix(dir).ok()?.to_str()?.replace('\\', "/"))));
    let jobs_dir = std::path::absolute(jobs_dir).unwrap_or_else(|_| jobs_dir.to_owned());
    // Of another folder: the one that has the script, or the modules that it is one of.
    let around = file.ancestors().skip(1).find(|dir| dir.ends_with("lib")).and_then(Path::parent);
    let parent = file.parent().unwrap_or(Path::new("."));
    below(&jobs_dir).or_else(|| below(around.unwrap_or(parent))).unwrap_or((parent.to_owned(), None))
}

fn good_scripts(count: usize) -> String {
    format!("{count} good script{}", if count == 1 { "" } else { "s" })
}
