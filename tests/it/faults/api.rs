//! The API of one server process, as a client uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use super::eventually;
pub use crate::http::reply;

#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
}

impl Api {
    pub fn new(base: String) -> Self {
        // Fails when another test was first, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().unwrap();
        Self { client, base }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub fn submission(&self, name: &str, payload: &Value) -> RequestBuilder {
        self.request(Method::POST, "/v1/jobs").json(&json!({ "name": name, "payload": payload }))
    }

    pub async fn get(&self, path: &str) -> Value {
        let reply = reply(self.request(Method::GET, path)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.json()
    }

    /// Submits a job, once its type is known; the accepted job's id.
    pub async fn submit(&self, name: &str, payload: &Value) -> String {
        let accepted = eventually("the type is known", async || {
            let reply = reply(self.submission(name, payload)).await;
            (reply.status != 404).then_some(reply)
        })
        .await;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        accepted.id()
    }

    pub async fn submit_many(&self, name: &str, payloads: impl IntoIterator<Item = Value>) -> Vec<String> {
        let mut ids = Vec::new();
        for payload in payloads {
            ids.push(self.submit(name, &payload).await);
        }
        ids
    }

    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await
    }

    /// The job when it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        eventually("the job ends", async || {
            let job = self.get(&format!("/v1/jobs/{id}?wait=30s")).await;
            ["succeeded", "failed", "cancelled"].contains(&text(&job, "state")).then_some(job)
        })
        .await
    }

    /// The job when it satisfies `test`.
    pub async fn until(&self, id: &str, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || Some(self.job(id).await).filter(&test)).await
    }

    pub async fn cancel(&self, id: &str) -> Value {
        let reply = reply(self.request(Method::POST, &format!("/v1/jobs/{id}/cancel"))).await;
        assert!(reply.status < 300, "{}", reply.text);
        reply.json()
    }

    /// The messages in the job's log.
    pub async fn messages(&self, id: &str) -> Vec<String> {
        let logs = self.get(&format!("/v1/jobs/{id}/logs")).await;
        list(&logs, "logs").iter().map(|line| text(line, "message").to_owned()).collect()
    }

    /// Waits until the job has logged a line that begins so.
    pub async fn said(&self, id: &str, beginning: &str) {
        let said = async || self.messages(id).await.iter().any(|said| said.starts_with(beginning)).then_some(());
        eventually(beginning, said).await;
    }

    /// Every job by id, and the states in which a list of that state has it.
    pub async fn states(&self) -> BTreeMap<String, Vec<&'static str>> {
        let mut found: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
        for state in ["scheduled", "queued", "running", "succeeded", "failed", "cancelled"] {
            let mut cursor = String::new();
            loop {
                let page = self.get(&format!("/v1/jobs?state={state}&limit=1000{cursor}")).await;
                for job in list(&page, "jobs") {
                    found.entry(text(job, "id").to_owned()).or_default().push(state);
                }
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
        }
        found
    }
}

/// A field that holds text.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {value:#}"))
}

/// A field that holds a list.
pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("no list `{field}` in {value:#}"))
}

/// A field that holds a time, in milliseconds since 1970.
pub fn time(value: &Value, field: &str) -> i64 {
    text(value, field).parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// Each run's outcome, in their order.
pub fn outcomes(job: &Value) -> Vec<&str> {
    list(job, "attempts").iter().map(|attempt| attempt["outcome"].as_str().unwrap_or("running")).collect()
}
