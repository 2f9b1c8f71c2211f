//! What scripts ask for over HTTP, through the real binary: servers that mean harm, and addresses that no script may
//! reach.

mod closed;
mod hostile;
mod server;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use server::Server;

/// A script that makes each request of its payload and tells what came of it; a blob as base64.
const PROBE: &str = r#"
fn run(job) {
    let said = #{};
    for name in job.payload.calls.keys() {
        let request = job.payload.calls[name];
        let found = ();
        try {
            let answer = http::request(request);
            found = #{ kind: "none", status: answer.status, body: if type_of(answer.body) == "blob" { crypto::base64_encode(answer.body) } else { answer.body } };
        } catch (e) {
            found = #{ kind: e.kind, message: e.message, retryable: e.retryable };
        }
        said[name] = found;
    }
    said
}
"#;

/// Runs the script with these requests, entries of `allow.hosts` and settings, and gives what came of each request.
fn probe(server: &Server, allow: &[&str], settings: &[(&str, &str)], calls: &Value) -> BTreeMap<String, Value> {
    probe_within("64MiB", server, allow, settings, calls)
}

fn probe_within(
    memory: &str,
    server: &Server,
    allow: &[&str],
    settings: &[(&str, &str)],
    calls: &Value,
) -> BTreeMap<String, Value> {
    let place = tempfile::tempdir().unwrap();
    let hosts = serde_json::to_string(allow).unwrap();
    let head = format!("const JOB = #{{ timeout: \"10m\", memory: \"{memory}\", allow: #{{ hosts: {hosts} }} }};");
    std::fs::write(place.path().join("probe.rhai"), head + PROBE).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_ryemill"))
        .args(["run", "probe", "--json", "--payload", &json!({ "calls": calls }).to_string()])
        .current_dir(place.path())
        .env_clear()
        .env("JOBS_DIR", place.path())
        .env("DATA_DIR", place.path())
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.watch(process.id());
    let output = process.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(report["result"].clone()).unwrap()
}
