//! Scripts that would take a worker process down.

use serde_json::{Value, json};

use super::api::{Api, list, outcomes, text};
use super::{Site, heavy};

/// Scripts by name: the body of `run`, and the kinds of error of which one must end the job.
const ABUSES: &[(&str, &str, &[&str])] = &[
    ("recursion", "f(1) } fn f(x) { f(x + 1) + 1", &["stack"]),
    ("mutual_recursion", "f(1) } fn f(x) { g(x) + 1 } fn g(x) { f(x) + 1", &["stack"]),
    ("closure_recursion", "let f = |f, n| f.call(f, n + 1) + 1; f.call(f, 0)", &["stack"]),
    ("nested_closures", "let f = || 1; loop { let g = f; f = || g; }", &["memory"]),
    ("nested_maps", "let m = #{}; loop { let n = m; let keep = || n; m = #{ a: keep }; }", &["memory"]),
    ("nested_arrays", "let m = []; loop { let n = m; let keep = || n; m = [keep]; }", &["memory"]),
    ("nested_result", "let m = []; for i in 0..5000 { m = [m]; } m", &["invalid_result", "timeout"]),
    ("nested_thrown", "let m = []; for i in 0..500 { m = [m]; } throw m", &["thrown"]),
    ("doubling", "let s = \"x\"; loop { s += s; }", &["memory"]),
    ("replacing", "let s = \"a\"; loop { s.replace(\"a\", \"aaaaaaaaaaaaaaaa\"); }", &["memory"]),
    ("padding", "let s = \"\"; s.pad(9000000000, \"ab\"); s.len", &["memory", "script"]),
    ("huge_blob", "blob(2 ** 33)", &["memory", "script"]),
    ("array_growth", "let a = []; loop { a.push(\"x\".to_upper()); }", &["memory"]),
    ("map_growth", "let m = #{}; let i = 0; loop { m[`k${i}`] = i; i += 1; }", &["memory", "timeout"]),
    ("shift", "let x = 1 << 400; loop { x = x << 400; }", &["script", "timeout"]),
    ("race", "let a = [1, 2]; loop { try { a.map(|x| a.len()); } catch { } }", &["timeout"]),
    ("endless", "loop { try { loop { } } catch { } }", &["timeout"]),
    ("endless_sort", "loop { try { [2, 1].sort(|a, b| { loop { } }); } catch { } }", &["timeout"]),
    ("sleeping_sort", "loop { try { [2, 1].sort(|a, b| { sleep(\"1h\"); 1 }); } catch { } }", &["timeout"]),
    ("endless_sleep", "loop { try { sleep(\"1000d\"); } catch { } }", &["timeout", "script"]),
    ("log_flood", "let s = \"\"; s.pad(200, \"x\"); loop { print(s); }", &["timeout"]),
    ("log_excess", "let s = \"\"; s.pad(200, \"x\"); for n in 0..60000 { print(s); } throw \"enough\"", &["thrown"]),
    ("progress_flood", "let n = 0; loop { n += 1; progress(n % 100, `${n}`); }", &["timeout"]),
    ("large_result", "let s = \"\"; s.pad(20 * 1024 * 1024, \"x\"); s", &["invalid_result"]),
    ("large_thrown", "let s = \"\"; s.pad(20 * 1024 * 1024, \"x\"); throw s", &["thrown"]),
    ("many_children", "loop { submit(\"echo\", 0); }", &["denied"]),
    ("late_submit", "try { sleep(\"1h\"); } catch { } submit(\"echo\", 0);", &["timeout"]),
];

const SELFISH: &str =
    "const JOB = #{ max_attempts: 1 };\nfn run(job) { submit(\"selfish\", job.payload + 1); job.payload }";

/// A process may keep so much more than before: what its allocator has for the next run. MiB.
const KEPT: u64 = 64;

/// Only what is to run into its time has little of it: the others share the processors.
fn source(body: &str, kinds: &[&str]) -> String {
    let timeout = if kinds.contains(&"timeout") { "3s" } else { "60s" };
    format!("const JOB = #{{ timeout: \"{timeout}\", max_attempts: 1 }};\nfn run(job) {{ {body} }}")
}

/// What is wrong with the end of a job. A run that ends in the index of an assignment has no line: Rhai gives none there.
async fn check(api: &Api, name: &str, id: &str, kinds: &[&str]) -> Result<(), String> {
    let job = api.ended(id).await;
    let error = &job["error"];
    let told = job["state"] == "failed"
        && error["kind"].as_str().is_some_and(|kind| kinds.contains(&kind))
        && error["message"].as_str().is_some_and(|message| !message.is_empty() && message.len() < 100_000)
        && text(error, "file") == format!("{name}.rhai")
        && (error["line"] == 2 || error["kind"] == "invalid_result" || name == "map_growth" && error["line"].is_null());
    // One that found every thread busy was given back before it began.
    let runs: Vec<&str> = outcomes(&job).into_iter().filter(|outcome| *outcome != "released").collect();
    let once = runs == ["failed"] && job["lost"] == 0;
    if told && once { Ok(()) } else { Err(format!("{name}: {:.2000}", format!("{job:#}"))) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_abuse_ends_its_own_job_with_a_reason_and_leaves_the_worker_as_it_was() {
    let _alone = heavy().await;
    let sources: Vec<String> = ABUSES.iter().map(|(_, body, kinds)| source(body, kinds)).collect();
    let mut scripts: Vec<(&str, &str)> =
        ABUSES.iter().zip(&sources).map(|((name, ..), text)| (*name, text.as_str())).collect();
    scripts.push(("echo", "const JOB = #{ max_attempts: 1 };\nfn run(job) { job.payload }"));
    scripts.push(("selfish", SELFISH));
    let site = Site::new(&scripts).set("LEASE", "5s").set("MAX_CHILDREN", "20").set("WORKER_THREADS", "2");
    let (server, mut worker) = (site.server().await, site.worker());
    let api = &server.api;
    let first = api.submit("echo", &json!("first")).await;
    assert_eq!(api.ended(&first).await["state"], "succeeded");
    let before = worker.resident();

    let mut abuses = Vec::new();
    let mut neighbours = Vec::new();
    for (name, _, kinds) in ABUSES {
        abuses.push((*name, api.submit(name, &json!({})).await, *kinds));
        neighbours.push(api.submit("echo", &json!(name)).await);
    }
    let selfish = api.submit("selfish", &json!(0)).await;
    let mut wrong = Vec::new();
    for (name, id, kinds) in &abuses {
        wrong.extend(check(api, name, id, kinds).await.err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for id in &neighbours {
        let job = api.ended(id).await;
        assert_eq!((&job["state"], &job["lost"]), (&json!("succeeded"), &json!(0)), "{job:#}");
    }
    // Generation after generation, up to the deepest one that is allowed.
    let mut id = selfish;
    for depth in 0..=16 {
        let job = api.ended(&id).await;
        if depth == 16 {
            assert_eq!((&job["state"], text(&job["error"], "kind")), (&json!("failed"), "denied"), "{job:#}");
            break;
        }
        assert_eq!((&job["state"], &job["result"]), (&json!("succeeded"), &json!(depth)), "{job:#}");
        let page = api.get("/v1/jobs?name=selfish&limit=100").await;
        let child = list(&page, "jobs").iter().find(|child| child["parent_id"] == id);
        id = text(child.unwrap_or_else(|| panic!("no child: {page:#}")), "id").to_owned();
    }
    let excess = &abuses.iter().find(|(name, ..)| *name == "log_excess").unwrap().1;
    let logs: Value = api.get(&format!("/v1/jobs/{excess}/logs")).await;
    assert!(logs["dropped"].as_u64().unwrap() > 0, "{}", logs["dropped"]);

    // What was taken is given back, by and by; a second round needs no more than the first.
    let last = super::eventually("the memory comes back", async || {
        let now = worker.resident();
        (now <= before + KEPT).then_some(now)
    })
    .await;
    eprintln!("the worker had {before} MiB before, {last} MiB after {} abuses", abuses.len());
    assert!(worker.is_running());
    assert_eq!(worker.worker_ids().len(), 1, "it lost its lease");
    assert!(!worker.lines().iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains("panic"))));
    let last = api.submit("echo", &json!("last")).await;
    assert_eq!(api.ended(&last).await["result"], "last");
}
