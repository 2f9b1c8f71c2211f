//! Editing scripts while they run.

use std::path::Path;

use serde_json::{Value, json};

use super::api::{Api, list, text, time};
use super::{Ledger, Process, Site, eventually};

/// Tells its version only after the gate: from a constant, a function and a module that it imports then.
fn script(version: &str) -> String {
    format!(
        r#"
const JOB = #{{ timeout: "60s", max_attempts: 1, allow: #{{ hosts: ["127.0.0.1"] }} }};
const VERSION = "{version}";
fn of_function() {{ "{version}" }}
fn run(job) {{
    http::post(`${{job.payload.ledger}}/enter/${{job.id}}`, "");
    if job.payload.held {{
        http::request(#{{ method: "POST", url: `${{job.payload.ledger}}/gate/edited`, timeout: "60s" }});
    }}
    import "lib/word" as word;
    `${{global::VERSION}} ${{of_function()}} ${{word::word()}}`
}}
"#
    )
}

fn module(word: &str) -> String {
    format!("fn word() {{ \"{word}\" }}\n")
}

type Save = fn(&Path, &str);

fn by_rename(path: &Path, text: &str) {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(&aside, path).unwrap();
}

fn in_place(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// Runs the job again and again until it says this. Answers how long after `saved` the first that did was started.
async fn turns_to(api: &Api, payload: &Value, saved: i64, result: &str) -> i64 {
    eventually(result, async || {
        let id = api.submit("edited", payload).await;
        let job = api.ended(&id).await;
        let began = time(&job, "started_at") - saved;
        assert!(job["result"] == result || began < 1000, "still the old version {began} ms after the save: {job:#}");
        (job["result"] == result).then_some(began)
    })
    .await
}

/// The type, once it was looked at after a save: it has `refused` or not.
async fn refusal(api: &Api, refused: bool) -> Value {
    eventually("the refusal", async || {
        let known = api.get("/v1/job-types/edited").await;
        (known["refused"].is_object() == refused).then_some(known)
    })
    .await
}

async fn refused_line(worker: &Process) -> Value {
    worker.logged("script refused").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_runs_end_on_their_version_and_the_next_uses_the_edited_one_within_a_second() {
    let site = Site::new(&[("edited", &script("one"))]).set("WATCH", "yes");
    std::fs::create_dir(site.path().join("jobs/lib")).unwrap();
    in_place(&site.script("lib/word"), &module("alpha"));
    let (ledger, server, worker) = (Ledger::open().await, site.server().await, site.worker());
    let api = &server.api;
    let payload = |held| json!({ "ledger": ledger.url, "held": held });
    let active = api.submit_many("edited", (0..8).map(|_| payload(true))).await;
    for id in &active {
        ledger.entered(id, 1).await;
    }

    let mut took = Vec::new();
    let edits: [(&str, String, Save, &str); 4] = [
        ("edited", script("two"), in_place, "two two alpha"),
        ("edited", script("three"), by_rename, "three three alpha"),
        ("lib/word", module("beta"), in_place, "three three beta"),
        ("lib/word", module("gamma"), by_rename, "three three gamma"),
    ];
    for (name, text, save, result) in edits {
        let saved = jiff::Timestamp::now().as_millisecond();
        save(&site.script(name), &text);
        took.push(turns_to(api, &payload(false), saved, result).await);
    }
    eprintln!("an edit is used {took:?} ms after the save (in place, renamed; a module in place, renamed)");
    assert!(took.iter().all(|took| *took <= 1000), "{took:?}");

    // A broken edit changes nothing but what is reported.
    let before = api.get("/v1/job-types/edited").await;
    let good = script("four");
    for broken in [good.replace("`${global", "let = `${global"), good.replace("max_attempts: 1", "max_attempts: 0")] {
        in_place(&site.script("edited"), &broken);
        let known = refusal(api, true).await;
        assert_eq!(known["version"], before["version"]);
        assert_ne!(known["refused"]["version"], before["version"]);
        let reason = text(&known["refused"], "reason");
        assert!(reason.contains("edited.rhai:") && reason.contains('^'), "{reason}");
        let id = api.submit("edited", &payload(false)).await;
        let job = api.ended(&id).await;
        assert_eq!((&job["result"], &job["script_version"]), (&json!("three three gamma"), &before["version"]));
        let line = refused_line(&worker).await;
        assert_eq!((&line["level"], &line["job_name"]), (&json!("ERROR"), &json!("edited")));
        assert!(text(&line, "message").contains('^'), "{line}");
        // Back to what was good: the report goes.
        in_place(&site.script("edited"), &script("three"));
        refusal(api, false).await;
    }
    let saved = jiff::Timestamp::now().as_millisecond();
    in_place(&site.script("edited"), &good);
    turns_to(api, &payload(false), saved, "four four gamma").await;

    // Of everything since, the first eight know nothing.
    ledger.open_gate("edited");
    let mut versions = Vec::new();
    for id in &active {
        let job = api.ended(id).await;
        assert_eq!(job["result"], "one one alpha", "{job:#}");
        assert_eq!(list(&job, "attempts").len(), 1);
        versions.push(job["script_version"].clone());
    }
    versions.dedup();
    assert_eq!(versions.len(), 1);
    assert_ne!(versions[0], before["version"]);
}
