//! The HTTP API over real connections, on the embedded broker. There is no worker process: a test plays the worker by
//! the broker's own verbs, so it decides when a run begins and ends.

mod access;
mod batch;
mod connections;
mod docs;
mod events;
mod idempotency;
mod look;
mod manage;
mod submit;
mod wait;

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use ryemill::broker::sqlite::{SqliteBroker, SyncMode};
use ryemill::broker::{
    Claim, ClaimedJob, FileStore, Finish, LoadedType, LogBatch, NewLogLine, Publication, SharedBroker, WorkerBeat,
};
use ryemill::job::{
    ClaimTicket, JobError, JobId, JobName, JobSpec, JobType, LogLevel, QueueName, RunEnd, Timestamp, Version, WorkerId,
};
use ryemill::server::{self, ServerOptions, ServerState};
use ryemill::shutdown::Shutdown;
use ryemill::telemetry::metrics::Metrics;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub use crate::eventually::eventually;

/// A server that serves, and what it stands on.
pub struct Api {
    pub address: SocketAddr,
    pub broker: SharedBroker,
    pub files: FileStore,
    pub shutdown: Shutdown,
    client: reqwest::Client,
    serving: JoinHandle<()>,
    worker: WorkerId,
    _dir: TempDir,
}

/// An answer, read to its end.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} is no JSON: {}", self.status, self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks the shape that every error has, and gives its `code` and `detail`.
    pub fn problem(&self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], status);
        assert_eq!(body["request_id"], self.header("x-request-id"));
        assert_ne!(self.header("x-request-id"), "");
        for field in ["type", "title", "detail", "code"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {body}");
        }
        (body["code"].as_str().unwrap().to_owned(), body["detail"].as_str().unwrap().to_owned())
    }

    /// The job's id, of an answer that is a job.
    pub fn id(&self) -> String {
        assert!(self.status < 300, "{} {}", self.status, self.text);
        self.json()["id"].as_str().unwrap().to_owned()
    }
}

impl Api {
    /// With the types `email` (queue `mail`, wants `to`) and `any` (queue `default`, takes anything) loaded by a worker.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker: SharedBroker =
            Arc::new(SqliteBroker::open(&dir.path().join("ryemill.db"), SyncMode::Normal).unwrap());
        let files = FileStore::open(dir.path().join("files")).unwrap();
        let mut options = ServerOptions::default();
        options.connections.grace = Duration::from_mins(1);
        change(&mut options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let state =
            ServerState { options, broker: broker.clone(), files: files.clone(), metrics: Arc::new(Metrics::new()) };
        let serving = tokio::spawn(server::run(listener, state, shutdown.clone()));
        // Fails when another test was first, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let worker = WorkerId::random();
        let api = Self { address, broker, files, shutdown, client, serving, worker, _dir: dir };
        let email = json!({
            "type": "object", "required": ["to"], "additionalProperties": false,
            "properties": { "to": { "type": "string", "format": "email" }, "n": { "type": "integer" } },
        });
        api.publish(&[("email", "mail", email), ("any", "default", json!(true))]).await;
        api
    }

    /// Makes the worker have these types: name, queue, schema. Gives their versions.
    pub async fn publish(&self, types: &[(&str, &str, Value)]) -> Vec<Version> {
        self.beat().await;
        let types: Vec<LoadedType> = types
            .iter()
            .map(|(name, queue, schema)| {
                let spec = JobSpec {
                    queue: QueueName::new(queue).unwrap(),
                    schema: schema.clone(),
                    examples: vec![json!({ "to": "ada@example.com" })],
                    ..JobSpec::default()
                };
                let version = Version::of(&[name.as_bytes(), schema.to_string().as_bytes()]);
                let name = JobName::new(name).unwrap();
                let job_type = JobType { description: format!("What {name} does."), name, version, spec };
                LoadedType { job_type, replaced: None }
            })
            .collect();
        let versions = types.iter().map(|loaded| loaded.job_type.version.clone()).collect();
        self.broker.publish(&Publication { worker: self.worker.clone(), types, refused: Vec::new() }).await.unwrap();
        versions
    }

    async fn beat(&self) {
        let beat = WorkerBeat {
            worker: self.worker.clone(),
            lease: Duration::from_mins(10),
            host: "test".into(),
            pid: std::process::id(),
            concurrency: 10,
        };
        self.broker.renew(&beat).await.unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> Reply {
        reply(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        reply(self.request(Method::DELETE, path)).await
    }

    /// With a JSON body, as it is.
    pub async fn post(&self, path: &str, body: impl Display) -> Reply {
        reply(self.post_request(path, body)).await
    }

    pub fn post_request(&self, path: &str, body: impl Display) -> RequestBuilder {
        self.request(Method::POST, path).header("content-type", "application/json").body(body.to_string())
    }

    /// Submits a job of the type `any`; its id.
    pub async fn submit_any(&self) -> JobId {
        self.post("/v1/jobs", json!({ "name": "any" })).await.id().parse().unwrap()
    }

    /// As the worker: takes the next jobs of both queues.
    pub async fn claim(&self, limit: usize) -> Vec<ClaimedJob> {
        let queues = ["mail", "default"].map(|name| QueueName::new(name).unwrap()).to_vec();
        let claim = Claim {
            worker: self.worker.clone(),
            ticket: ClaimTicket::random(),
            queues,
            lacking: Vec::new(),
            limit,
            suspect: false,
        };
        self.broker.claim(&claim).await.unwrap().jobs
    }

    /// As the worker: takes the one job there is.
    pub async fn claim_one(&self) -> ClaimedJob {
        let mut jobs = self.claim(2).await;
        assert_eq!(jobs.len(), 1);
        jobs.remove(0)
    }

    /// As the worker: ends runs.
    pub async fn finish(&self, jobs: &[ClaimedJob], end: RunEnd) {
        let finish = |job: &ClaimedJob| Finish {
            run: job.run.clone(),
            end: end.clone(),
            script_version: Some(Version::of(&[b"x"])),
            keep: Duration::from_mins(10),
        };
        for ended in self.broker.finish(jobs.iter().map(finish).collect()).await.unwrap() {
            ended.unwrap();
        }
    }

    /// As the worker: logs lines.
    pub async fn log(&self, job: &ClaimedJob, messages: impl IntoIterator<Item = String>) {
        let lines = messages
            .into_iter()
            .map(|message| NewLogLine { time: Timestamp(0), level: LogLevel::Info, message, fields: None })
            .collect();
        let first = self.broker.logs(job.run.job, 0, 10_000).await.unwrap().unwrap().lines.len() as u64;
        let batch = LogBatch { run: job.run.clone(), attempt: job.attempt, first, lines, dropped: 0 };
        self.broker.log(vec![batch], 8 << 20).await.unwrap().remove(0).unwrap();
    }

    /// Asks the server to stop and waits until it has.
    pub async fn stop(self) {
        self.shutdown.request();
        self.serving.await.unwrap();
    }
}

pub async fn reply(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Reply { status, headers, text: response.text().await.unwrap() }
}

pub fn succeeded() -> RunEnd {
    RunEnd::Succeeded { result: RawValue::from_string("{\"done\": true}".into()).unwrap() }
}

pub fn failed() -> RunEnd {
    RunEnd::Failed { error: JobError::new(ryemill::job::ErrorKind::Thrown, "no", false) }
}

/// A connection without a client library in between.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn connect(api: &Api) -> Self {
        Self(TcpStream::connect(api.address).await.unwrap())
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What comes until the server closes the connection.
    pub async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        // A reset counts as closed.
        while let Ok(read @ 1..) = self.0.read(&mut piece).await {
            bytes.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
