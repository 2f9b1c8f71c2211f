//! The stage of one test: its clock, its mocks, and what its jobs have sent. Answers in place of the outside.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::StatusCode;
use reqwest::{Request, Response};
use serde_json::{Map, Value};

use super::TestOptions;
use crate::job::time::SystemClock;
use crate::job::{Clock, ErrorKind, FileInfo, JobId, JobName, Json, LogLevel, Timestamp};
use crate::script::library::Snapshot;
use crate::script::memory::MemoryPorts;
use crate::script::pool::{Pool, PoolOptions};
use crate::script::ports::{ChildJob, HostError, HostResult, RunPorts};
use crate::script::services::Services;
use crate::script::services::edge::{Edge, SqlReply};
use crate::script::services::mail::Letter;

/// What a mocked server answers.
#[derive(Clone, Debug)]
pub struct HttpReply {
    pub status: StatusCode,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// No answer at all, for this reason.
    pub error: Option<String>,
}

/// A request that a job made.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Debug)]
struct HttpMock {
    method: String,
    url: String,
    /// The last one stays.
    replies: VecDeque<HttpReply>,
}

#[derive(Debug)]
struct SqlMock {
    database: String,
    pattern: String,
    reply: Result<SqlReply, String>,
}

/// What left the jobs of a test.
#[derive(Debug, Default)]
pub struct Sent {
    pub requests: Vec<Asked>,
    pub letters: Vec<Letter>,
}

#[derive(Debug)]
pub struct Stage {
    pub snapshot: Arc<Snapshot>,
    pub options: TestOptions,
    /// How far the clock is ahead of the real one.
    ahead: Mutex<Duration>,
    http: Mutex<Vec<HttpMock>>,
    sql: Mutex<Vec<SqlMock>>,
    sent: Mutex<Sent>,
    services: Mutex<Option<Arc<Services>>>,
    jobs: Mutex<Jobs>,
}

/// The pool of a test's jobs, made for the first.
#[derive(Default)]
struct Jobs(Option<Pool>);

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jobs")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    pub fn new(snapshot: Arc<Snapshot>, options: &TestOptions) -> Arc<Self> {
        Arc::new(Self {
            snapshot,
            options: options.clone(),
            ahead: Mutex::default(),
            http: Mutex::default(),
            sql: Mutex::default(),
            sent: Mutex::default(),
            services: Mutex::default(),
            jobs: Mutex::default(),
        })
    }

    pub fn use_services(&self, services: Arc<Services>) {
        *lock(&self.services) = Some(services);
    }

    /// Gives the pool of jobs what to do.
    pub fn with_jobs<T>(&self, work: impl FnOnce(&Pool) -> T) -> HostResult<T> {
        let mut jobs = lock(&self.jobs);
        if jobs.0.is_none() {
            let failed = |why: String| HostError::new(ErrorKind::Panic, why, false);
            let services = lock(&self.services).clone().ok_or_else(|| failed("the test is over".to_owned()))?;
            let options = PoolOptions { threads: 1, limits: self.options.limits.clone(), services };
            jobs.0 = Some(Pool::start(options).map_err(|error| failed(format!("{error:#}")))?);
        }
        let pool = jobs.0.as_ref().expect("made above");
        Ok(work(pool))
    }

    /// Waits for what still runs.
    pub fn close(&self) {
        lock(&self.services).take();
        let pool = lock(&self.jobs).0.take();
        if let Some(pool) = pool {
            pool.shut_down();
        }
    }

    pub fn ahead(&self) -> Duration {
        *lock(&self.ahead)
    }

    pub fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.ahead())
    }

    pub fn advance(&self, duration: Duration) {
        let mut ahead = lock(&self.ahead);
        *ahead = ahead.saturating_add(duration);
    }

    /// The newest mock is asked first.
    pub fn mock_http(&self, method: String, url: String, replies: Vec<HttpReply>) {
        lock(&self.http).insert(0, HttpMock { method, url, replies: replies.into() });
    }

    pub fn mock_sql(&self, database: String, pattern: String, reply: Result<SqlReply, String>) {
        lock(&self.sql).insert(0, SqlMock { database, pattern, reply });
    }

    /// What was sent since this was asked last.
    pub fn take_sent(&self) -> Sent {
        std::mem::take(&mut lock(&self.sent))
    }
}

impl Edge for Stage {
    fn http(&self, request: &Request) -> HostResult<Response> {
        let (method, url) = (request.method().as_str(), request.url().as_str());
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        lock(&self.sent).requests.push(Asked {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: request.headers().iter().map(header).collect(),
            body: request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default().to_vec(),
        });
        let failed = |why: String, retryable| HostError::new(ErrorKind::HostHttp, why, retryable);
        let mut mocks = lock(&self.http);
        let Some(mock) = mocks.iter_mut().find(|mock| fits(&mock.method, method) && fits(&mock.url, url)) else {
            let why = format!("http: no mock answers {method} {url}");
            let hint = format!("add mock_http(\"{method}\", \"{url}\", #{{ status: 200, body: … }}) to the test");
            return Err(failed(format!("{why}: {hint}"), false));
        };
        let reply = if mock.replies.len() > 1 { mock.replies.pop_front() } else { mock.replies.front().cloned() };
        let Some(reply) = reply else { return Err(failed("http: the mock has no answer".to_owned(), false)) };
        if let Some(why) = reply.error {
            return Err(failed(format!("http: {url}: {why}"), true));
        }
        let mut answer = http::Response::builder().status(reply.status);
        for (name, value) in &reply.headers {
            answer = answer.header(name, value);
        }
        answer.body(reply.body).map(Response::from).map_err(|error| failed(format!("http: the mock: {error}"), false))
    }

    fn sql(&self, database: &str, statement: &str) -> HostResult<SqlReply> {
        let said = one_line(statement);
        let mocks = lock(&self.sql);
        let found = mocks.iter().find(|mock| mock.database == database && contains(&one_line(&mock.pattern), &said));
        if let Some(mock) = found {
            return mock.reply.clone().map_err(|why| HostError::new(ErrorKind::HostSql, format!("sql: {why}"), true));
        }
        let shown: String = said.chars().take(80).collect();
        let why = format!("sql: no mock answers `{shown}` on `{database}`");
        let hint = format!("add mock_sql(\"{database}\", \"…\", [#{{ … }}]) to the test");
        Err(HostError::new(ErrorKind::HostSql, format!("{why}: {hint}"), false))
    }

    fn mail(&self, letter: Letter) {
        lock(&self.sent).letters.push(letter);
    }
}

/// Blanks and case do not matter in a statement.
fn one_line(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Whether `text` is what `pattern` says, in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let parts: Vec<&str> = parts.collect();
    let (last, between) = parts.split_last().map_or(("", [].as_slice()), |(last, between)| (*last, between));
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn contains(pattern: &str, text: &str) -> bool {
    fits(&format!("*{pattern}*"), text)
}

/// The outside of a run on the stage.
pub struct TestPorts {
    memory: Arc<MemoryPorts>,
    stage: Arc<Stage>,
    /// Whether sleeping counts towards the run's timeout: for jobs, as it would for a worker.
    counts: bool,
}

impl TestPorts {
    pub fn of_test(memory: Arc<MemoryPorts>, stage: Arc<Stage>) -> Self {
        Self { memory, stage, counts: false }
    }

    pub fn of_job(memory: Arc<MemoryPorts>, stage: Arc<Stage>) -> Self {
        Self { memory, stage, counts: true }
    }
}

impl RunPorts for TestPorts {
    fn ahead(&self) -> Duration {
        self.stage.ahead()
    }

    fn skip(&self, duration: Duration) -> Option<Duration> {
        self.stage.advance(duration);
        Some(if self.counts { duration } else { Duration::ZERO })
    }

    fn log(&self, level: LogLevel, message: String, fields: Option<Json>) {
        self.memory.log(level, message, fields);
    }

    fn progress(&self, percent: f64, message: String) {
        self.memory.progress(percent, message);
    }

    fn submit(&self, child: ChildJob) -> BoxFuture<'static, HostResult<JobId>> {
        let scripts = &self.stage.snapshot.scripts;
        let Some(script) = scripts.get(&child.name) else {
            return ready(Err(child.unknown(scripts.keys().map(JobName::as_str)))).boxed();
        };
        let payload: Value = serde_json::from_str(&child.payload).unwrap_or_default();
        let faults = script.schema().faults(&payload);
        if !faults.is_empty() {
            return ready(Err(HostError::unfit(&child.name, &crate::job::schema::list(&faults)))).boxed();
        }
        self.memory.submit(child)
    }

    fn save_file(&self, name: String, content: Vec<u8>) -> BoxFuture<'static, HostResult<FileInfo>> {
        self.memory.save_file(name, content)
    }

    fn read_file(&self, name: String) -> BoxFuture<'static, HostResult<Vec<u8>>> {
        self.memory.read_file(name)
    }

    fn list_files(&self) -> BoxFuture<'static, HostResult<Vec<FileInfo>>> {
        self.memory.list_files()
    }
}

/// The rows of a mock, as JSON objects.
pub fn rows(value: Value) -> Option<Vec<Map<String, Value>>> {
    let Value::Array(rows) = value else { return None };
    rows.into_iter().map(|row| if let Value::Object(row) = row { Some(row) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("https://a.example/x", "https://a.example/x", true),
            ("https://a.example/x", "https://a.example/xy", false),
            ("https://a.example/*", "https://a.example/", true),
            ("*/users/*/mail", "https://a.example/users/7/mail", true),
            ("*/users/*/mail", "https://a.example/users/7/mails", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
        assert!(contains("from orders", &one_line("SELECT *\n  FROM   orders o")));
    }
}
