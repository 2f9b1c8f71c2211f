//! `GET /v1/jobs/{id}/events`.

use ryemill::job::{JobId, Progress};
use serde_json::{Value, json};

use super::{Api, succeeded};

/// One event of a stream.
#[derive(Debug)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// An open stream of events.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(api: &Api, id: JobId, last: Option<&str>) -> Self {
        let mut request = api.request(reqwest::Method::GET, &format!("/v1/jobs/{id}/events"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; none at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    event.lines().find_map(|line| line.strip_prefix(&prefix)).map(ToOwned::to_owned)
                };
                let found = field("event").map(|name| Event {
                    name,
                    id: field("id"),
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                });
                // A comment keeps the connection alive and says nothing.
                if found.is_some() {
                    return found;
                }
                continue;
            }
            let piece = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn expect(&mut self, name: &str) -> Event {
        let event = self.next().await.expect("the stream has ended");
        assert_eq!(event.name, name, "{event:?}");
        event
    }
}

#[tokio::test]
async fn a_jobs_life_is_told_from_its_state_to_its_end() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let mut stream = Stream::open(&api, id, None).await;
    assert_eq!(stream.expect("state").await.data["state"], "queued");
    let job = api.claim_one().await;
    assert_eq!(stream.expect("state").await.data["state"], "running");
    let progress = Progress { percent: 12.5, message: "on it".into() };
    api.broker.progress(&job.run, &progress).await.unwrap();
    assert_eq!(stream.expect("progress").await.data, json!({ "percent": 12.5, "message": "on it" }));
    api.log(&job, ["one".to_owned(), "two\nlines".to_owned()]).await;
    let line = stream.expect("log").await;
    assert_eq!((line.id.as_deref(), &line.data["message"]), (Some("1"), &json!("one")));
    assert_eq!(stream.expect("log").await.data["message"], "two\nlines");
    api.log(&job, ["last words".to_owned()]).await;
    api.finish(&[job], succeeded()).await;
    let mut names = Vec::new();
    let mut done = Value::Null;
    while let Some(event) = stream.next().await {
        names.push(event.name);
        done = event.data;
    }
    assert_eq!(names, ["log", "state", "done"]);
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &json!({ "done": true })));
}

#[tokio::test]
async fn an_ended_job_is_told_whole_and_a_client_that_comes_back_gets_only_what_it_missed() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let job = api.claim_one().await;
    api.log(&job, (0..250).map(|n| format!("line {n}"))).await;
    api.finish(&[job], succeeded()).await;
    for (last, missed) in [(None, 250), (Some("240"), 10), (Some("250"), 0)] {
        let mut stream = Stream::open(&api, id, last).await;
        for n in 250 - missed..250 {
            assert_eq!(stream.expect("log").await.data["message"], format!("line {n}"));
        }
        assert_eq!(stream.expect("state").await.data["state"], "succeeded");
        stream.expect("done").await;
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_last_event_id_that_is_none_is_400() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let request = api.request(reqwest::Method::GET, &format!("/v1/jobs/{id}/events")).header("last-event-id", "x");
    super::reply(request).await.problem(400);
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_a_server_that_stops() {
    let api = Api::start().await;
    let id = api.submit_any().await;
    let mut stream = Stream::open(&api, id, None).await;
    stream.expect("state").await;
    api.stop().await;
    assert!(stream.next().await.is_none());
}
