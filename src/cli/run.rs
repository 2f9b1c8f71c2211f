//! `ryemill run NAME`: one script, here and now, with the same engine and limits as a worker, and no broker.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::oneshot;

use super::{Failure, Outcome, RunArgs, payload, sample, say, setup};
use crate::config::Config;
use crate::job::units::millis;
use crate::job::{Clock, JobName, LogLevel, time::SystemClock};
use crate::script::context::StopSignal;
use crate::script::diagnostics::error_card;
use crate::script::fiber::{RunReport, ScriptEnd};
use crate::script::library::{Library, Script};
use crate::script::memory::{Listener, MemoryPorts, Note};
use crate::script::pool::{Pool, PoolOptions, RunRequest};
use crate::script::testing;

pub fn run(mut config: Config, args: &RunArgs) -> Outcome {
    sample::provide(&mut config)?;
    let library = setup::library(&config)?;
    let script = find(&library, &args.name);
    let example = || {
        let script = find(&library, &args.name)?;
        Ok(script.job_type.spec.examples.first().map(ToString::to_string))
    };
    // Read once: standard input has no second time.
    let given = if args.payload.example { None } else { Some(payload(&args.payload, || Ok(None))?) };
    let payload = || given.clone().map_or_else(|| payload(&args.payload, example), Ok);
    let runtime = setup::runtime()?;
    runtime.block_on(async {
        let services = setup::services(&config)?;
        let pool = Pool::start(PoolOptions { threads: 1, limits: config.limits.clone(), services })?;
        let mut outcome = match script.and_then(|script| payload().map(|payload| (script, payload))) {
            Ok((script, payload)) => once(&config, args, &pool, script, payload).await,
            Err(failure) => Err(failure),
        };
        if args.watch {
            let shutdown = setup::shutdown()?;
            let mut changes = library.changes();
            tokio::spawn(Arc::clone(&library).watch(shutdown.clone()));
            loop {
                tell_failure(&outcome);
                tokio::select! {
                    () = shutdown.requested() => break,
                    Ok(()) = changes.changed() => {}
                }
                say("");
                outcome = match find(&library, &args.name).and_then(|script| payload().map(|payload| (script, payload)))
                {
                    Ok((script, payload)) => once(&config, args, &pool, script, payload).await,
                    Err(failure) => Err(failure),
                };
            }
            outcome = Ok(());
        }
        pool.shut_down();
        outcome
    })
}

/// While watching, a failure is no end.
fn tell_failure(outcome: &Outcome) {
    if let Err(Failure::Failed(why) | Failure::Usage(why)) = outcome {
        say(why);
    }
    say("-- waiting for a change; Ctrl-C ends --");
}

async fn once(config: &Config, args: &RunArgs, pool: &Pool, script: Arc<Script>, payload: String) -> Outcome {
    let is_given = args.payload.payload.is_some() || args.payload.example;
    check_payload(&script, &payload, is_given)?;
    let job = testing::info(&script, 1, SystemClock.now());
    let listener: Option<Listener> = (!args.json).then_some(Box::new(tell));
    let ports = Arc::new(MemoryPorts::new(job.id, listener));
    let (done, ended) = oneshot::channel();
    pool.run(RunRequest {
        script: Arc::clone(&script),
        job,
        payload: serde_json::value::RawValue::from_string(payload)
            .map_err(|error| Failure::Usage(format!("the payload is not JSON: {error}")))?,
        timeout: script.job_type.spec.timeout,
        ports: ports.clone(),
        stop: StopSignal::new(),
        done: Box::new(move |report| {
            let _ = done.send(report); // nobody waits any more: the command was interrupted
        }),
    });
    let report = ended.await.map_err(|_| Failure::Failed("the executor thread has died".into()))?;
    let files = save(config, &script, &ports)?;
    if args.json {
        report_json(&report, &ports, &files);
    } else {
        report_text(&report, &ports, &files);
    }
    if matches!(report.end, ScriptEnd::Returned(_)) { Ok(()) } else { Err(Failure::Said) }
}

/// The script, or why there is none.
fn find(library: &Library, name: &str) -> Result<Arc<Script>, Failure> {
    let snapshot = library.snapshot();
    let known = snapshot.scripts.keys().map(JobName::as_str);
    let wanted = JobName::new(name).map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(refused) = snapshot.refused.iter().find(|refused| refused.name == wanted) {
        return Err(Failure::Failed(format!("the script {name} has faults:\n{}", refused.reason)));
    }
    snapshot.scripts.get(&wanted).cloned().ok_or_else(|| {
        let hint = crate::script::diagnostics::near(name, known.clone())
            .or_else(|| {
                Some(known.collect::<Vec<_>>().join(", "))
                    .filter(|all| !all.is_empty())
                    .map(|all| format!("there are: {all}"))
            })
            .unwrap_or_else(|| "there is none at all".to_owned());
        Failure::Usage(format!("there is no script {name}.rhai in the jobs folder; {hint}"))
    })
}

fn check_payload(script: &Script, payload: &str, is_given: bool) -> Outcome {
    let value = serde_json::from_str(payload)
        .map_err(|error| Failure::Usage(format!("the payload cannot be read: {error}")))?;
    let faults = script.schema().faults(&value);
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = faults
        .iter()
        .map(|fault| format!("  {}: {}", if fault.pointer.is_empty() { "/" } else { &fault.pointer }, fault.message))
        .collect();
    let hint = match (is_given, script.job_type.spec.examples.is_empty()) {
        (true, _) => "",
        (false, true) => "\nno payload was given: --payload takes JSON, @FILE or - for standard input",
        (false, false) => {
            "\nno payload was given: --example takes the script's own, --payload JSON, @FILE or - for standard input"
        }
    };
    let lines = lines.join("\n");
    Err(Failure::Failed(format!("the payload does not fit the schema of {}:\n{lines}{hint}", script.file)))
}

/// Shows what a run says, as it says it.
fn tell(note: &Note) {
    match note {
        Note::Log(level, message, fields) => {
            let fields = fields.map_or(String::new(), |fields| format!(" {}", fields.get()));
            say(&format!("{:>5} {message}{fields}", LogLevel::as_str(*level)));
        }
        Note::Progress(percent, message) => say(&format!("{percent:>4.0}% {message}")),
    }
}

/// Writes the run's files where a person can look at them.
fn save(config: &Config, script: &Script, ports: &MemoryPorts) -> Result<Vec<PathBuf>, Failure> {
    let folder = config.data_dir.join("run").join(script.job_type.name.as_str());
    let mut written = Vec::new();
    for (name, content) in &ports.seen().files {
        let path = folder.join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&path, content))
            .map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", path.display())))?;
        written.push(path);
    }
    Ok(written)
}

fn report_text(report: &RunReport, ports: &MemoryPorts, files: &[PathBuf]) {
    for path in files {
        say(&format!(" file {}", path.display()));
    }
    for (id, child) in &ports.seen().children {
        say(&format!("child {} {id} {}", child.name, child.payload));
    }
    match &report.end {
        ScriptEnd::Returned(value) => say(&format!("result {}", value.get())),
        ScriptEnd::Failed(error) => say(&error_card(error)),
        ScriptEnd::RetryIn { error, delay } => {
            say(&format!("{}\nasks for another attempt in {delay:?}", error_card(error)));
        }
        ScriptEnd::Stopped(reason) => say(&format!("stopped: {reason:?}")),
        ScriptEnd::NotStarted(why) => say(&format!("not started: {why}")),
    }
    let usage = &report.usage;
    say(&format!(
        "{:.1} ms, {} operations, at most {} of memory",
        usage.run_time.as_secs_f64() * 1000.0,
        usage.operations,
        shown_size(usage.peak_memory)
    ));
}

/// Bytes for people; exact ones are in the JSON.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn shown_size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn report_json(report: &RunReport, ports: &MemoryPorts, files: &[PathBuf]) {
    let seen = ports.seen();
    let (state, result, error) = match &report.end {
        ScriptEnd::Returned(value) => ("succeeded", Some(value), None),
        ScriptEnd::Failed(error) => ("failed", None, Some(error)),
        ScriptEnd::RetryIn { error, .. } => ("retried", None, Some(error)),
        ScriptEnd::Stopped(_) | ScriptEnd::NotStarted(_) => ("released", None, None),
    };
    let logs: Vec<_> = seen
        .logs
        .iter()
        .map(|(level, message, fields)| json!({ "level": level, "message": message, "fields": fields }))
        .collect();
    let children: Vec<_> = seen
        .children
        .iter()
        .map(|(id, child)| json!({ "id": id, "name": child.name, "payload": child.payload }))
        .collect();
    let report = json!({
        "state": state, "result": result, "error": error, "logs": logs, "files": files, "children": children,
        "run_time_ms": millis(report.usage.run_time),
        "operations": report.usage.operations, "peak_memory": report.usage.peak_memory,
    });
    say(&report.to_string());
}
