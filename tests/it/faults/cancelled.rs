//! Cancel, and who waits for it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{outcomes, reply};
use super::{Ledger, Site};

/// What a stop interrupts: calls of closures inside a native function, inside `try`.
const INSIDE: &[(&str, &str)] = &[
    ("sort", "[3, 1, 2].sort(|a, b| wait())"),
    ("map", "[3, 1, 2].map(|x| wait())"),
    ("filter", "[3, 1, 2].filter(|x| wait())"),
    ("reduce", "[3, 1, 2].reduce(|sum, x| wait(), 0)"),
    ("for_each", "let a = [3, 1, 2]; a.for_each(|x| wait())"),
    ("drain", "let a = [3, 1, 2]; a.drain(|x| wait())"),
    ("retain", "let a = [3, 1, 2]; a.retain(|x| wait())"),
    ("dedup", "let a = [3, 1, 2]; a.dedup(|x, y| wait())"),
    ("find", "[3, 1, 2].find(|x| wait())"),
    ("some", "[3, 1, 2].some(|x| wait())"),
    ("map_filter", "#{ a: 1, b: 2 }.filter(|k, v| wait())"),
    ("nested", "[1, 2].map(|x| { try { [3, 1].sort(|a, b| wait()) } catch { late() } })"),
];

/// Whatever comes after the wait is late: in the callback, after the call, in `catch`, after `try`.
fn script(body: &str) -> String {
    format!(
        r#"
const JOB = #{{ timeout: "5m", max_attempts: 1, allow: #{{ hosts: ["127.0.0.1"] }} }};
fn run(job) {{
    let ledger = job.payload.ledger;
    let late = || {{
        log::info("late");
        file::save("late.txt", "late");
        http::post(`${{ledger}}/enter/late-${{job.id}}`, "");
    }};
    let wait = || {{
        http::post(`${{ledger}}/enter/${{job.id}}`, "");
        log::info("in");
        http::request(#{{ method: "POST", url: `${{ledger}}/gate/wait`, timeout: "5m" }});
        late.call();
        true
    }};
    try {{
        {body};
        late.call();
    }} catch {{
        late.call();
    }}
    late.call();
}}
"#,
        body = body.replace("wait()", "wait.call()").replace("late()", "late.call()"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_inside_a_callback_inside_try_runs_no_further_statement_and_no_host_call() {
    let names: Vec<String> = INSIDE.iter().map(|(name, _)| format!("in_{name}")).collect();
    let sources: Vec<String> = INSIDE.iter().map(|(_, body)| script(body)).collect();
    let scripts: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(sources.iter().map(String::as_str)).collect();
    let site = Site::new(&scripts);
    let (ledger, server, worker) = (Ledger::open().await, site.server().await, site.worker());
    let mut runs = Vec::new();
    for (name, _) in &scripts {
        runs.push((*name, server.api.submit(name, &json!({ "ledger": ledger.url })).await));
    }
    for (_, id) in &runs {
        ledger.entered(id, 1).await;
        server.api.said(id, "in").await;
    }
    for (_, id) in &runs {
        server.api.cancel(id).await;
    }
    for (name, id) in &runs {
        let job = server.api.ended(id).await;
        assert_eq!((&job["state"], outcomes(&job)), (&json!("cancelled"), vec!["cancelled"]), "{name}: {job:#}");
    }
    // Whoever still ran would run now.
    ledger.open_gate("wait");
    let id = server.api.submit("in_sort", &json!({ "ledger": ledger.url })).await;
    assert_eq!(server.api.ended(&id).await["state"], "succeeded");
    assert!(ledger.count(&format!("late-{id}")) > 2, "the script is late when nobody stops it");
    for (name, id) in &runs {
        assert_eq!(ledger.count(id), 1, "{name}");
        assert_eq!(ledger.count(&format!("late-{id}")), 0, "{name}");
        assert_eq!(server.api.messages(id).await, ["in"], "{name}");
        assert_eq!(server.api.job(id).await["files"], json!([]), "{name}");
        assert!(!site.path().join("data/files").join(id).exists(), "{name}");
    }
    assert_eq!(worker.worker_ids().len(), 1);
}

const PATIENT: &str = r#"
const JOB = #{ timeout: "5m", max_attempts: 3 };
fn run(job) {
    print("begun");
    if job.payload == "spin" { loop {} }
    sleep("1h");
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_ends_a_waiting_job_at_once_and_a_running_one_within_a_second() {
    let site = Site::new(&[("patient", PATIENT)]).set("WORKER_CONCURRENCY", "2").set("WORKER_THREADS", "1");
    let (server, mut worker) = (site.server().await, site.worker());
    let api = &server.api;
    let running = api.submit_many("patient", [json!("sleep"), json!("spin")]).await;
    for id in &running {
        api.said(id, "begun").await;
    }
    let queued = api.submit("patient", &json!("sleep")).await;
    let scheduled = json!({ "name": "patient", "payload": 1, "delay": "1h" });
    let scheduled = reply(api.request(reqwest::Method::POST, "/v1/jobs").json(&scheduled)).await.id();
    for (id, state) in [(&queued, "queued"), (&scheduled, "scheduled")] {
        assert_eq!(api.job(id).await["state"], state);
        let cancelled = api.cancel(id).await;
        assert_eq!((&cancelled["state"], outcomes(&cancelled)), (&json!("cancelled"), vec![]), "{cancelled:#}");
    }
    // Someone waits for each of them.
    for id in &running {
        let asked = Instant::now();
        let (job, _) = tokio::join!(api.ended(id), api.cancel(id));
        let took = asked.elapsed();
        eprintln!("cancelled and told {took:.0?} after it was asked for");
        assert_eq!((&job["state"], outcomes(&job)), (&json!("cancelled"), vec!["cancelled"]), "{job:#}");
        assert!(took <= Duration::from_millis(1500), "{took:?}");
        let again = reply(api.request(reqwest::Method::POST, &format!("/v1/jobs/{id}/cancel"))).await;
        assert!(again.status == 200 || again.status == 409, "{}", again.text);
    }
    worker.signal("TERM");
    assert_eq!(worker.exit().await.code(), Some(0));
}
