//! `ryemill test`: the tests of scripts, told as `cargo test` tells its own.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{Failure, Outcome, TestArgs, say, setup};
use crate::config::Config;
use crate::job::JobName;
use crate::job::units::{millis, parse_duration};
use crate::script::diagnostics::{error_card, near};
use crate::script::library::{Snapshot, TestFile};
use crate::script::testing::{TestEnd, TestOptions, run_test};

/// What is to be run: the file and which of its tests.
struct Chosen {
    file: Arc<TestFile>,
    tests: Vec<String>,
}

pub fn run(config: &Config, args: &TestArgs) -> Outcome {
    let timeout = parse_duration(&args.timeout).map_err(|error| Failure::Usage(format!("--timeout: {error}")))?;
    let library = setup::library(config)?;
    let snapshot = library.snapshot();
    let (chosen, broken) = choose(&snapshot, args.name.as_deref())?;
    let runtime = setup::runtime()?;
    let _entered = runtime.enter();
    let options = TestOptions {
        timeout,
        limits: config.limits.clone(),
        mail_from: config.mail_from.clone(),
        runtime: Handle::current(),
    };
    let begun = Instant::now();
    let mut ends = Vec::new();
    for Chosen { file, tests } in &chosen {
        if !args.json {
            let plural = if tests.len() == 1 { "" } else { "s" };
            say(&format!("\nrunning {} test{plural} of {}", tests.len(), file.file));
        }
        for test in tests {
            let end = run_test(&snapshot, file, test, &options);
            if !args.json {
                let word = if end.failure.is_none() { "ok" } else { "FAILED" };
                say(&format!("test {} ... {word}", end.name));
            }
            ends.push(end);
        }
    }
    if args.json {
        say(&report_json(&ends, &broken));
    } else {
        report_text(&ends, &broken, begun.elapsed().as_secs_f64());
    }
    let good = broken.is_empty() && ends.iter().all(|end| end.failure.is_none());
    if good { Ok(()) } else { Err(Failure::Said) }
}

/// The tests that the argument names, and the cards of scripts and test files that have faults.
fn choose(snapshot: &Snapshot, wanted: Option<&str>) -> Result<(Vec<Chosen>, Vec<String>), Failure> {
    let (job, test) = match wanted.map(|wanted| wanted.split_once("::").unwrap_or((wanted, ""))) {
        Some((job, test)) => (Some(job), Some(test).filter(|test| !test.is_empty())),
        None => (None, None),
    };
    let (mut chosen, mut broken) = (Vec::new(), Vec::new());
    let tested = |name: &JobName| job.is_none_or(|job| job == name.as_str());
    broken
        .extend(snapshot.refused.iter().filter(|refused| tested(&refused.name)).map(|refused| refused.reason.clone()));
    let has_faults = |name: &JobName| snapshot.refused.iter().any(|refused| refused.name == *name);
    for (name, read) in snapshot.tests.iter().filter(|(name, _)| tested(name)) {
        match read {
            Ok(_) if has_faults(name) => {}
            Ok(file) => {
                let tests = file.tests.iter().filter(|known| test.is_none_or(|test| test == *known)).cloned();
                chosen.push(Chosen { file: Arc::clone(file), tests: tests.collect() });
            }
            Err(faults) => broken.extend(faults.iter().map(|(fault, source)| fault.card(source, false))),
        }
    }
    match (job, test) {
        (Some(job), _) if chosen.is_empty() && broken.is_empty() => {
            let files: Vec<&str> = snapshot.tests.keys().map(JobName::as_str).collect();
            let hint = match near(job, files.iter().copied()) {
                Some(hint) => hint,
                None if files.is_empty() => "there is no test file".to_owned(),
                None => format!("there are tests of {}", files.join(", ")),
            };
            Err(Failure::Usage(format!("there is no {job}.test.rhai in the jobs folder; {hint}")))
        }
        (_, Some(test)) if broken.is_empty() && chosen.iter().all(|chosen| chosen.tests.is_empty()) => {
            let known: Vec<&str> =
                chosen.iter().flat_map(|chosen| chosen.file.tests.iter().map(String::as_str)).collect();
            let hint = near(test, known.iter().copied()).unwrap_or_else(|| format!("there are: {}", known.join(", ")));
            Err(Failure::Usage(format!("there is no `fn {test}()`; {hint}")))
        }
        _ => Ok((chosen, broken)),
    }
}

fn report_text(ends: &[TestEnd], broken: &[String], seconds: f64) {
    for card in broken {
        say(&format!("\n{card}"));
    }
    let failed: Vec<&TestEnd> = ends.iter().filter(|end| end.failure.is_some()).collect();
    if !failed.is_empty() {
        say("\nfailures:");
    }
    for end in &failed {
        say(&format!("\n---- {} ----", end.name));
        for (level, message) in &end.logs {
            say(&format!("{:>5} {message}", level.as_str()));
        }
        if let Some(error) = &end.failure {
            say(&error_card(error));
        }
    }
    let word = if failed.is_empty() && broken.is_empty() { "ok" } else { "FAILED" };
    let unread = match broken.len() {
        0 => String::new(),
        1 => "; 1 fault in scripts and test files".to_owned(),
        count => format!("; {count} faults in scripts and test files"),
    };
    say(&format!(
        "\ntest result: {word}. {} passed; {} failed{unread}; finished in {seconds:.2}s",
        ends.len() - failed.len(),
        failed.len()
    ));
}

fn report_json(ends: &[TestEnd], broken: &[String]) -> String {
    let test = |end: &TestEnd| -> Value {
        let logs: Vec<_> =
            end.logs.iter().map(|(level, message)| json!({ "level": level, "message": message })).collect();
        json!({
            "name": end.name, "passed": end.failure.is_none(), "error": end.failure, "logs": logs,
            "duration_ms": millis(end.duration),
        })
    };
    let failed = ends.iter().filter(|end| end.failure.is_some()).count();
    let tests: Vec<Value> = ends.iter().map(test).collect();
    json!({ "passed": ends.len() - failed, "failed": failed, "tests": tests, "faults": broken }).to_string()
}
