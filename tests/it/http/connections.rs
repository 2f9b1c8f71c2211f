//! What connections are held to, seen from the other end of a plain TCP stream.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::{Api, Raw};

const SHORT: Duration = Duration::from_millis(200);
const SUBMIT: &str = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let api = Api::with(|options| options.connections.pace.head = SHORT).await;
    for sent in ["", "GET /healthz HTTP/1.1\r\nHost: localh", "PRI * HTTP/2.0\r\n"] {
        let mut raw = Raw::connect(&api).await;
        raw.send(sent).await;
        assert_eq!(raw.rest().await, "", "{sent}");
    }
    assert_eq!(api.get("/healthz").await.status, 200, "others are served");
}

#[tokio::test]
async fn a_connection_at_rest_is_closed_after_its_idle_time_and_not_before_the_next_request() {
    let api = Api::with(|options| {
        options.connections.pace.head = SHORT;
        options.connections.pace.idle = SHORT * 10;
    })
    .await;
    let mut raw = Raw::connect(&api).await;
    for _ in 0..2 {
        raw.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut answer = [0; 12];
        raw.0.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = [0; 1024];
        assert!(raw.0.read(&mut rest).await.unwrap() > 0);
        // Longer than the time for a head, shorter than the idle time.
        tokio::time::sleep(SHORT * 2).await;
    }
    raw.rest().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let api = Api::with(|options| options.body_pace.idle = SHORT).await;
    let mut raw = Raw::connect(&api).await;
    raw.send(format!("{SUBMIT}Content-Length: 100\r\n\r\n{{\"na")).await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"request_timeout\""), "{answer}");
}

#[tokio::test]
async fn a_body_that_drips_is_408_in_the_end() {
    let api = Api::with(|options| options.body_pace.whole = SHORT * 3).await;
    let mut raw = Raw::connect(&api).await;
    raw.send(format!("{SUBMIT}Content-Length: 100000\r\n\r\n")).await;
    let (mut from, mut to) = raw.0.into_split();
    let drip = async {
        loop {
            tokio::time::sleep(SHORT / 4).await;
            if tokio::io::AsyncWriteExt::write_all(&mut to, b" ").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = [0; 12];
    tokio::select! {
        read = from.read_exact(&mut answer) => { read.unwrap(); }
        () = drip => {}
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_chunked_body_without_end_is_413_and_the_client_gets_to_see_it() {
    let api = Api::with(|options| options.max_body = 10_000).await;
    let mut raw = Raw::connect(&api).await;
    raw.send(format!("{SUBMIT}Transfer-Encoding: chunked\r\n\r\n")).await;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..200 {
        raw.send(&chunk).await;
    }
    raw.send("0\r\n\r\n").await;
    let mut answer = [0; 12];
    raw.0.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_sent_when_the_client_asks() {
    let api = Api::with(|options| options.max_body = 10_000).await;
    let mut raw = Raw::connect(&api).await;
    raw.send(format!("{SUBMIT}Content-Length: 100000000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")).await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_malformed_chunk_is_400() {
    let api = Api::start().await;
    let mut raw = Raw::connect(&api).await;
    raw.send(format!("{SUBMIT}Transfer-Encoding: chunked\r\n\r\nzz\r\n")).await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_huge_head_is_431() {
    let api = Api::start().await;
    let mut raw = Raw::connect(&api).await;
    // Exactly what the server reads, so that it answers without anything left unread.
    let begin = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: ";
    raw.send(format!("{begin}{}", "x".repeat((64 << 10) - begin.len()))).await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(api.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let api = Api::with(|options| options.connections.connections = 1).await;
    let mut first = Raw::connect(&api).await;
    first.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut begin = [0; 12];
    first.0.read_exact(&mut begin).await.unwrap();
    let mut second = Raw::connect(&api).await;
    second.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(tokio::time::timeout(SHORT, second.0.readable()).await.is_err(), "answered beside the first");
    drop(first);
    assert!(second.rest().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_gives_its_place_back() {
    // One place is the client library's, which keeps its connection.
    let api = Api::with(|options| options.connections.connections = 2).await;
    let id = api.submit_any().await;
    let last = async {
        for _ in 0..3 {
            let mut waiting = Raw::connect(&api).await;
            waiting.send(format!("GET /v1/jobs/{id}?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            tokio::time::sleep(SHORT / 2).await;
        }
        let mut last = Raw::connect(&api).await;
        last.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        last.rest().await
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), last).await.expect("a place is still taken");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn http_2_is_spoken() {
    let api = Api::start().await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let submit = client.post(api.url("/v1/jobs")).header("content-type", "application/json").body("{\"name\":\"any\"}");
    let answer = submit.send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 202));
    let rebound = client.post(api.url("/v1/jobs")).header("origin", "http://evil.example");
    assert_eq!(rebound.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_server_that_stops_finishes_what_is_under_way_and_takes_nothing_new() {
    let api = Api::start().await;
    let mut under_way = Raw::connect(&api).await;
    let body = "{\"name\":\"any\"}";
    under_way.send(format!("{SUBMIT}Content-Length: {}\r\n\r\n{{", body.len())).await;
    let mut at_rest = Raw::connect(&api).await;
    at_rest.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut begin = [0; 12];
    at_rest.0.read_exact(&mut begin).await.unwrap();
    // Both are accepted, in their order, since the second is answered.
    let address = api.address;
    api.shutdown.request();
    at_rest.rest().await;
    under_way.send(&body[1..]).await;
    let answer = under_way.rest().await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    api.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn a_server_that_stops_cuts_off_what_does_not_end() {
    let api = Api::with(|options| options.connections.grace = SHORT).await;
    let mut stuck = Raw::connect(&api).await;
    stuck.send(format!("{SUBMIT}Content-Length: 100\r\n\r\n{{")).await;
    api.get("/healthz").await;
    api.stop().await;
    assert_eq!(stuck.rest().await, "");
}
