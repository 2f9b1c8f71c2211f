//! The API as commands use it: one base address, one key, errors told in the server's words.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;
use crate::config::Config;
use crate::job::Job;

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl Client {
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let key = config.api_key.as_ref().map(|key| key.expose().to_owned());
        Self::to(config.api_url.expose(), key)
    }

    pub fn to(base: &str, key: Option<String>) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .build()
            .map_err(|error| Failure::Failed(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), key })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.send(self.request(reqwest::Method::GET, path)).await?;
        response.json().await.map_err(|error| Failure::Failed(format!("the answer of {path} makes no sense: {error}")))
    }

    /// Submits a job; `body` is the request body of `POST /v1/jobs`.
    pub async fn submit(&self, body: String, idempotency_key: Option<&str>) -> Result<Job, Failure> {
        let mut request = self
            .request(reqwest::Method::POST, "/v1/jobs")
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let response = self.send(request).await?;
        response
            .json()
            .await
            .map_err(|error| Failure::Failed(format!("the answer to the submit makes no sense: {error}")))
    }

    /// The events of a job, as they come.
    pub async fn events(&self, id: &str, after: u64) -> Result<reqwest::Response, Failure> {
        let request = self.request(reqwest::Method::GET, &format!("/v1/jobs/{id}/events"));
        self.send(request.header("Last-Event-ID", after)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let response = request.send().await.map_err(|error| {
            Failure::Failed(format!("the server at {} does not answer: {}", self.base, deepest(&error)))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        Err(Failure::Failed(match serde_json::from_str::<Value>(&text) {
            Ok(problem) => told(&problem),
            Err(_) => format!("the server answered {status}"),
        }))
    }
}

/// A problem document, for people.
fn told(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or_default();
    let mut told = format!("{} ({})", text("detail"), text("code"));
    for fault in problem["errors"].as_array().into_iter().flatten() {
        let pointer = fault["pointer"].as_str().filter(|pointer| !pointer.is_empty()).unwrap_or("/");
        told.push_str(&format!("\n  {pointer}: {}", fault["message"].as_str().unwrap_or_default()));
    }
    told
}

/// The cause that says most: "connection refused" rather than "error sending request".
fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}
