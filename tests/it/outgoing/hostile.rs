//! Answers without end or measure: each is given up at a limit that the error names, and the process stays small.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::server::{GIB, Server};
use super::{probe, probe_within};

/// A path, the kind of error, and what the error says. Those that never end have two seconds, the others as long as a busy
/// machine needs.
const HOSTILE: &[(&str, &str, &str)] = &[
    ("/declared", "host.http", "has more than the 8388608 bytes that the run may take: ask for less at a time"),
    ("/until-close", "host.http", "has more than the 8388608 bytes"),
    ("/chunked", "host.http", "has more than the 8388608 bytes"),
    ("/small-chunks", "host.http", "has more than the 8388608 bytes"),
    ("/chunk-extension", "host.http", "no whole answer from 127.0.0.1"),
    ("/trailers", "host.http", "no whole answer from 127.0.0.1"),
    ("/gzip", "host.http", "has more than the 8388608 bytes"),
    ("/gzip-declared", "host.http", "has more than the 8388608 bytes"),
    ("/gzip-broken", "host.http", "no whole answer from 127.0.0.1"),
    ("/trickle", "host.http", "did not answer in full within 2s"),
    ("/head-trickle", "host.http", "did not answer in full within 2s"),
    ("/silence", "host.http", "did not answer in full within 2s"),
    ("/hints", "host.http", "did not answer in full within 2s"),
    ("/long-header", "host.http", "no whole answer from 127.0.0.1"),
    ("/many-headers", "host.http", "no whole answer from 127.0.0.1"),
    ("/garbage", "host.http", "no whole answer from 127.0.0.1"),
    ("/short", "host.http", "no whole answer from 127.0.0.1"),
    ("/lengths", "host.http", "no whole answer from 127.0.0.1"),
];

const OPEN: (&str, &str) = ("HTTP_ALLOW_PRIVATE", "127.0.0.1");

fn call(server: &Server, path: &str) -> Value {
    json!({ "url": format!("{}{path}", server.base()), "timeout": "60s" })
}

fn call_until(server: &Server, path: &str, said: &str) -> Value {
    let mut call = call(server, path);
    if said.ends_with("within 2s") {
        call["timeout"] = json!("2s");
    }
    call
}

#[test]
fn an_answer_without_measure_ends_at_a_limit_that_the_error_names() {
    let server = Server::start();
    // Names are sorted: the first and the last call tell the peak of the process' memory.
    let mut calls: Map<String, Value> =
        HOSTILE.iter().map(|(path, _, said)| ((*path).to_owned(), call_until(&server, path, said))).collect();
    calls.insert(" before".to_owned(), call(&server, "/peak"));
    calls.insert("~after".to_owned(), call(&server, "/peak"));
    let begun = Instant::now();
    let said = probe(&server, &["127.0.0.1"], &[OPEN], &calls.into());
    let took = begun.elapsed();
    let wrong: Vec<String> = HOSTILE
        .iter()
        .filter(|(path, kind, message)| {
            let said = &said[*path];
            said["kind"] != *kind || !said["message"].as_str().is_some_and(|text| text.contains(message))
        })
        .map(|(path, ..)| format!("{path}: {}", said[*path]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let peak = |name: &str| said[name]["body"].as_str().unwrap().parse::<u64>().unwrap();
    let grown = peak("~after") - peak(" before");
    println!("{} bytes taken in {took:?}, the process grew by {grown} KiB", server.sent());
    // Beside the 8 MiB that it may take, what allocator and connections keep for the next.
    assert!(grown < 64 << 10, "the process grew by {grown} KiB");
    // Of some 8 GiB that it would have sent.
    assert!(server.sent() < GIB / 4, "{} bytes were sent", server.sent());
    assert!(took < Duration::from_mins(5), "it took {took:?}");
    server.stop();
}

#[test]
fn only_one_layer_of_gzip_is_taken_off_and_nothing_else() {
    let server = Server::start();
    let calls = json!({
        "within": call(&server, "/gzip-within"), "twice": call(&server, "/gzip-twice"), "br": call(&server, "/br"),
        "deflate": call(&server, "/deflate"), "zstd": call(&server, "/zstd"),
    });
    let said = probe(&server, &["127.0.0.1"], &[OPEN], &calls);
    let message = said["within"]["message"].as_str().unwrap();
    assert!(message.contains("more than the 8388608 bytes"), "{message}");
    for name in ["twice", "br", "deflate", "zstd"] {
        let body = said[name]["body"].as_str().unwrap_or_else(|| panic!("{name}: {}", said[name]));
        assert!(body.len() < 200_000, "{name}: {} bytes", body.len());
    }
    assert_eq!(said["br"]["body"], "/wABAg==");
    server.stop();
}

#[test]
fn a_run_with_little_memory_takes_less() {
    let server = Server::start();
    let calls = json!({ "a": call(&server, "/chunked") });
    let said = probe_within("4MiB", &server, &["127.0.0.1"], &[OPEN], &calls);
    let message = said["a"]["message"].as_str().unwrap_or_else(|| panic!("{}", said["a"]));
    assert!(message.contains("bytes that the run may take") && !message.contains("8388608"), "{message}");
    server.stop();
}
