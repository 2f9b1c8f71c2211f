//! Reloading by hand, what must hold before a version goes live, and edits without end under load.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::api::{list, text};
use super::{Api, Process, Site, eventually};
use crate::http::reply;

fn says(word: &str) -> String {
    format!(
        "const JOB = #{{ max_attempts: 1 }};\nfn twice(x) {{ `${{x}} {word}` }}\nfn run(job) {{ twice(\"{word}\") }}\n"
    )
}

async fn reload(api: &Api, wait: &str) -> (u16, Value) {
    let reply = reply(api.request(Method::POST, &format!("/v1/job-types/reload?wait={wait}"))).await;
    (reply.status, reply.json())
}

async fn result(api: &Api) -> Value {
    let id = api.submit("word", &json!({})).await;
    api.ended(&id).await["result"].clone()
}

async fn id_of(worker: &Process) -> String {
    worker.logged("the worker is registered").await;
    worker.worker_ids().last().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_worker_reloads_when_the_api_is_asked_or_is_named() {
    let site = Site::new(&[("word", &says("one"))]).set("WATCH", "no");
    let (server, first, second) = (site.server().await, site.worker(), site.worker());
    let api = &server.api;
    let mut ids = [id_of(&first).await, id_of(&second).await];
    ids.sort();
    assert_eq!(result(api).await, "one one");
    std::fs::write(site.script("word"), says("two")).unwrap();
    let (status, answer) = reload(api, "60s").await;
    assert_eq!((status, &answer["done"], &answer["lagging"]), (200, &json!(ids), &json!([])), "{answer}");
    let known = api.get("/v1/job-types/word").await;
    let versions: Vec<&str> = list(&known, "workers").iter().map(|worker| text(worker, "version")).collect();
    assert_eq!(versions, [text(&known, "version"); 2], "both have the live one: {known}");
    assert!(list(&known, "workers").iter().all(|worker| worker["loaded_at"].is_string()));
    for _ in 0..4 {
        assert_eq!(result(api).await, "two two");
    }

    // One that stands still is named, and catches up.
    first.freeze(false).await;
    std::fs::write(site.script("word"), says("three")).unwrap();
    let (status, answer) = reload(api, "500ms").await;
    assert_eq!(status, 202, "{answer}");
    assert!(list(&answer, "lagging").contains(&json!(id_of(&first).await)), "{answer}");
    first.signal("CONT");
    assert_eq!(reload(api, "60s").await.0, 200);

    // A signal does the same for one process.
    std::fs::write(site.script("word"), says("four")).unwrap();
    first.signal("HUP");
    second.signal("HUP");
    eventually("both have the version", async || {
        let known = api.get("/v1/job-types/word").await;
        let live = text(&known, "version");
        let same = list(&known, "workers").iter().all(|worker| worker["version"] == live);
        (same && result(api).await == "four four").then_some(())
    })
    .await;
    assert_eq!(reply(api.request(Method::POST, "/v1/job-types/reload?wait=soon")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_its_tests_or_what_waits_for_it_does_not_go_live() {
    let site = Site::new(&[("word", &says("one"))]).set("WATCH", "no");
    let test = |word: &str| {
        format!("fn test_word() {{\n    assert_eq(run_job(\"word\", #{{}}).result, \"{word} {word}\");\n}}\n")
    };
    std::fs::write(site.path().join("jobs/word.test.rhai"), test("one")).unwrap();
    let (server, worker) = (site.server().await, site.worker());
    let api = &server.api;
    assert_eq!(result(api).await, "one one");

    std::fs::write(site.script("word"), says("two")).unwrap();
    let (status, answer) = reload(api, "60s").await;
    assert_eq!(status, 200, "{answer}");
    let refused = &list(&answer, "refused")[0];
    assert_eq!(refused["name"], "word");
    assert!(text(refused, "reason").contains("its test test_word fails"), "{refused}");
    assert!(text(refused, "reason").contains("word.test.rhai:2:5"), "{refused}");
    assert_eq!(result(api).await, "one one");
    std::fs::write(site.path().join("jobs/word.test.rhai"), test("two")).unwrap();
    assert_eq!(reload(api, "60s").await.1["refused"], json!([]));
    assert_eq!(result(api).await, "two two");

    // Jobs that were accepted with the old schema wait; the new one does not take them.
    let later = json!({ "name": "word", "payload": { "n": "seven" }, "delay": "1h" });
    let waiting = reply(api.request(Method::POST, "/v1/jobs").json(&later)).await;
    assert_eq!(waiting.status, 202, "{}", waiting.text);
    let strict = says("two").replace(
        "max_attempts: 1",
        "max_attempts: 1, payload: #{ type: \"object\", properties: #{ n: #{ type: \"integer\" } } }",
    );
    std::fs::write(site.script("word"), &strict).unwrap();
    let (_, answer) = reload(api, "60s").await;
    let reason = text(&list(&answer, "refused")[0], "reason").to_owned();
    assert!(reason.contains("does not take 1 of the 1 waiting jobs") && reason.contains(&waiting.id()), "{reason}");
    assert_eq!(api.get("/v1/job-types/word").await["refused"]["reason"], reason);
    worker.logged("script refused").await;
    api.cancel(&waiting.id()).await;
    assert_eq!(reload(api, "60s").await.1["refused"], json!([]), "nothing waits for the old schema any more");
    assert!(api.get("/v1/job-types/word").await["schema"]["properties"]["n"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_lets_no_version_live_that_fails_its_tests() {
    let site = Site::new(&[("word", &says("one"))]).set("WATCH", "no");
    let tests = site.path().join("jobs/word.test.rhai");
    let fails = "fn test_word() {\n    assert(false);\n}\n";
    let (server, mut first) = (site.server().await, site.worker());
    let api = &server.api;
    assert_eq!(result(api).await, "one one");
    // What was live before needs no test to go on.
    std::fs::write(&tests, fails).unwrap();
    first.signal("TERM");
    first.exit().await;
    let mut second = site.worker();
    assert_eq!(result(api).await, "one one");
    second.signal("TERM");
    second.exit().await;
    // A new version does.
    std::fs::write(site.script("word"), says("two")).unwrap();
    let third = site.worker();
    let line = third.logged("script refused").await;
    assert!(text(&line, "message").contains("word.test.rhai:2:5"), "{line}");
    let known = eventually("the refusal", async || {
        let known = api.get("/v1/job-types/word").await;
        known["refused"].is_object().then_some(known)
    })
    .await;
    assert_eq!(known["workers"], json!([]), "{known}");
    let id = api.submit("word", &json!({})).await;
    let waiting = api.get(&format!("/v1/jobs/{id}")).await;
    assert!(waiting["state"] == "queued" && waiting["reason"].is_string(), "{waiting:#}");
    std::fs::write(&tests, "fn test_word() {\n    assert_eq(run_job(\"word\", #{}).result, \"two two\");\n}\n")
        .unwrap();
    assert_eq!(reload(api, "60s").await.1["refused"], json!([]));
    assert_eq!(api.ended(&id).await["result"], "two two");
}

/// Edits `path` so that `new` stands there at last; answers whether it was ever seen half by then for long enough.
fn edit(way: usize, path: &Path, new: &str) -> bool {
    let aside = path.with_extension("aside");
    match way {
        0 => {
            // Truncated, half of it, then all: a reader must wait until it stands still.
            let begun = std::time::Instant::now();
            std::fs::write(path, new.replace("fn run", "fn half() { 1 }\nfn run").replace("twice(\"", "twice(\"half "))
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
            std::fs::write(path, new).unwrap();
            return begun.elapsed() >= std::time::Duration::from_millis(90);
        }
        1 => {
            std::fs::write(&aside, new).unwrap();
            std::fs::rename(&aside, path).unwrap();
        }
        2 => {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, new).unwrap();
        }
        3 => {
            // A link that is swapped, as deploys do.
            let target = path.with_file_name(format!("lib/{}.version", new.len() % 7));
            std::fs::write(&target, new).unwrap();
            let _ = std::fs::remove_file(&aside);
            std::os::unix::fs::symlink(&target, &aside).unwrap();
            std::fs::rename(&aside, path).unwrap();
        }
        4 => {
            std::fs::write(path, "").unwrap();
            std::thread::sleep(std::time::Duration::from_millis(120));
            std::fs::write(path, new).unwrap();
        }
        _ => {
            std::fs::write(path, b"const JOB = \xff\xfe").unwrap();
            std::thread::sleep(std::time::Duration::from_millis(120));
            std::fs::write(path, new).unwrap();
        }
    }
    false
}

/// `RELOADS=1000` for the long version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_without_end_fail_no_job_and_none_runs_half_a_script() {
    let edits: usize = std::env::var("RELOADS").ok().map_or(36, |edits| edits.parse().unwrap());
    let site = Site::new(&[("word", &says("v0"))]).set("WATCH", "yes");
    std::fs::create_dir(site.path().join("jobs/lib")).unwrap();
    let (server, worker) = (site.server().await, site.worker());
    let api = &server.api;
    assert_eq!(result(api).await, "v0 v0");
    let before = worker.resident();

    let path = site.script("word");
    let editing = tokio::task::spawn_blocking(move || {
        let mut seen_half = false;
        for edition in 1..=edits {
            seen_half |= edit(edition % 6, &path, &says(&format!("v{edition}")));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        seen_half
    });
    // 200 jobs a second for as long as it takes.
    let mut ids = Vec::new();
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(50));
    while !editing.is_finished() {
        pace.tick().await;
        let batch = json!({ "jobs": vec![json!({ "name": "word", "payload": {} }); 10] });
        let answer = reply(api.request(Method::POST, "/v1/jobs/batch").json(&batch)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        for item in list(&answer.json(), "results") {
            ids.push(text(&item["job"], "id").to_owned());
        }
    }
    let seen_half = editing.await.unwrap();
    let last = format!("v{edits} v{edits}");
    eventually("the last edit is live", async || (result(api).await == *last).then_some(())).await;
    for id in &ids {
        let job = api.ended(id).await;
        assert_eq!(job["state"], "succeeded", "{job:#}");
        let said = text(&job, "result");
        let words: Vec<&str> = said.split(' ').collect();
        assert!(words.len() == 2 && words[0] == words[1] || seen_half, "a version that nobody wrote ran: {said}");
    }
    let grown = worker.resident().saturating_sub(before);
    eprintln!("{} jobs, {edits} reloads: from {before} MiB by {grown} MiB", ids.len());
    assert!(grown < 40, "{edits} reloads took {grown} MiB");
}
