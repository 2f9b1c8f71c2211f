//! Whose line is it: log lines of many jobs at once, in the jobs' logs, on the consoles and in the files.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Site;
use super::api::{list, reply, text};

const JOBS: usize = 50;

/// Five lines around sleeps of different lengths; every fifth job says them twice, in two attempts.
const TALKER: &str = r#"
const JOB = #{ max_attempts: 2, backoff: #{ kind: "fixed", first: "50ms" } };
fn run(job) {
    let who = `job ${job.payload.n} attempt ${job.attempt}`;
    log::info(`${who} line 0`, #{ n: job.payload.n });
    for line in 1..4 {
        sleep(`${5 + job.payload.n * line % 23}ms`);
        if line % 2 == 0 { print(`${who} line ${line}`) } else { log::warn(`${who} line ${line}`) }
    }
    [2, 1].sort(|a, b| { sleep("10ms"); debug(`${who} line 4`); a - b });
    if job.payload.n % 5 == 0 && job.attempt == 1 { throw "again" }
    job.request_id
}
"#;

/// Job number, attempt and line number of a message.
fn numbers(message: &str) -> Option<[u64; 3]> {
    let words: Vec<&str> = message.trim_matches('"').split(' ').collect();
    match words[..] {
        ["job", n, "attempt", attempt, "line", line] => {
            Some([n.parse().ok()?, attempt.parse().ok()?, line.parse().ok()?])
        }
        _ => None,
    }
}

/// What every job has to say.
fn expected() -> Vec<[u64; 3]> {
    let attempts = |n: u64| if n.is_multiple_of(5) { 1..=2 } else { 1..=1 };
    let mut lines = Vec::new();
    for n in 0..JOBS as u64 {
        for attempt in attempts(n) {
            lines.extend((0..5).map(|line| [n, attempt, line]));
        }
    }
    lines
}

/// Checks the lines of one sink; `ids` are each job's request id and job id.
fn check(sink: &str, lines: &[Value], ids: &BTreeMap<u64, (String, String)>) {
    let mut said = Vec::new();
    let mut ended = 0;
    for line in lines {
        let (request_id, job_id) = (line["request_id"].as_str(), line["job_id"].as_str());
        match (text(line, "target"), text(line, "message")) {
            ("script", message) => {
                let numbers = numbers(message).unwrap_or_else(|| panic!("{sink}: {line}"));
                let [n, attempt, _] = numbers;
                let (own_request, own_job) = &ids[&n];
                assert_eq!(
                    (request_id, job_id),
                    (Some(own_request.as_str()), Some(own_job.as_str())),
                    "{sink}: {line}"
                );
                assert_eq!(
                    (&line["attempt"], &line["job_name"]),
                    (&json!(attempt), &json!("talker")),
                    "{sink}: {line}"
                );
                for field in ["queue", "worker_id", "script_version"] {
                    assert!(line[field].is_string(), "{sink}: no {field} in {line}");
                }
                said.push(numbers);
            }
            (_, "the run ended") => {
                let own = ids.values().find(|(_, job)| Some(job.as_str()) == job_id);
                assert_eq!(request_id, own.map(|(request, _)| request.as_str()), "{sink}: {line}");
                ended += 1;
            }
            _ => {}
        }
    }
    said.sort_unstable();
    assert_eq!(said, expected(), "{sink}");
    assert_eq!(ended, JOBS + JOBS / 5, "{sink}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_fifty_interleaved_jobs_has_its_own_ids_wherever_it_is_written() {
    let site = Site::new(&[("talker", TALKER)]).set("LOG_LEVEL", "info,script=debug");
    let (server, mut worker) = (site.server().await, site.worker());
    let api = &server.api;
    worker.logged("the worker is registered").await;
    super::eventually("the type is known", async || {
        (reply(api.request(reqwest::Method::GET, "/v1/job-types/talker")).await.status == 200).then_some(())
    })
    .await;
    let submit = async |n: usize| {
        let request_id = format!("caller-{n}.x");
        let answer = reply(api.submission("talker", &json!({ "n": n })).header("X-Request-ID", &request_id)).await;
        assert_eq!((answer.status, answer.header("x-request-id")), (202, request_id.as_str()), "{}", answer.text);
        (n as u64, (request_id, answer.id()))
    };
    let ids: BTreeMap<u64, (String, String)> =
        futures_util::future::join_all((0..JOBS).map(submit)).await.into_iter().collect();

    for (n, (request_id, id)) in &ids {
        let job = api.ended(id).await;
        assert_eq!((&job["result"], &job["request_id"]), (&json!(request_id), &json!(request_id)), "{job:#}");
        let logs = api.get(&format!("/v1/jobs/{id}/logs")).await;
        assert_eq!(logs["dropped"], 0);
        let own: Vec<[u64; 3]> = expected().into_iter().filter(|line| line[0] == *n).collect();
        let said: Vec<[u64; 3]> = list(&logs, "logs")
            .iter()
            .map(|line| {
                let numbers = numbers(text(line, "message")).unwrap_or_else(|| panic!("{line}"));
                assert_eq!(line["attempt"], numbers[1], "{line}");
                numbers
            })
            .collect();
        assert_eq!(said, own, "in the order in which it was said");
    }
    // Interleaved: the second job has said something before the first had ended, and so on.
    let order: Vec<u64> =
        worker.lines().iter().filter_map(|line| numbers(line["message"].as_str()?)).map(|of| of[0]).collect();
    let switches = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(switches > JOBS * 2, "the jobs ran one after the other: {order:?}");
    // The files are whole when the process has ended.
    worker.signal("TERM");
    assert_eq!(worker.exit().await.code(), Some(0));
    check("the worker's console", &worker.lines(), &ids);
    check("the worker's files", &site.filed("worker"), &ids);

    let mut server = server;
    server.process.signal("TERM");
    assert_eq!(server.process.exit().await.code(), Some(0));
    for (sink, lines) in [("console", server.process.lines()), ("files", site.filed("server"))] {
        for (request_id, id) in ids.values() {
            let of_request: Vec<&Value> = lines.iter().filter(|line| line["request_id"] == **request_id).collect();
            assert_eq!(of_request.len(), 1, "the server's {sink}: {of_request:?}");
            assert_eq!(
                (&of_request[0]["job_id"], &of_request[0]["status"]),
                (&json!(id), &json!(202)),
                "{of_request:?}"
            );
        }
    }
}
