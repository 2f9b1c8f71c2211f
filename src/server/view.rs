//! The job as JSON: the contract's fields, in its order.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::problem::{Answer, Problem};
use crate::job::{
    Attempt, FileInfo, Job, JobError, JobId, JobName, Json, Priority, Progress, QueueName, RequestId, State, Timestamp,
    Version,
};

#[derive(Serialize)]
pub struct JobView<'a> {
    id: JobId,
    name: &'a JobName,
    queue: &'a QueueName,
    state: State,
    reason: Option<&'a str>,
    payload: &'a Json,
    priority: Priority,
    attempt: u32,
    max_attempts: u32,
    lost: u32,
    tags: &'a [String],
    request_id: &'a RequestId,
    script_version: Option<&'a Version>,
    progress: Option<&'a Progress>,
    result: Option<&'a Json>,
    error: Option<&'a JobError>,
    attempts: &'a [Attempt],
    files: Vec<FileView<'a>>,
    created_at: Timestamp,
    run_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<JobId>,
}

#[derive(Serialize)]
struct FileView<'a> {
    name: &'a str,
    size: u64,
    content_type: &'a str,
    sha256: &'a str,
    /// A path of this server.
    url: String,
}

impl<'a> From<&'a Job> for JobView<'a> {
    fn from(job: &'a Job) -> Self {
        Self {
            id: job.id,
            name: &job.name,
            queue: &job.queue,
            state: job.state,
            reason: job.reason.as_deref(),
            payload: &job.payload,
            priority: job.priority,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            lost: job.lost,
            tags: &job.tags,
            request_id: &job.request_id,
            script_version: job.script_version.as_ref(),
            progress: job.progress.as_ref(),
            result: job.result.as_ref(),
            error: job.error.as_ref(),
            attempts: &job.attempts,
            files: job.files.iter().map(|file| FileView::new(job.id, file)).collect(),
            created_at: job.created_at,
            run_at: job.run_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            parent_id: job.parent_id,
        }
    }
}

impl<'a> FileView<'a> {
    fn new(job: JobId, file: &'a FileInfo) -> Self {
        Self {
            name: &file.name,
            size: file.size,
            content_type: &file.content_type,
            sha256: &file.sha256,
            // A space is the only character of a file's name that a URL has not.
            url: format!("/v1/jobs/{job}/files/{}", file.name.replace(' ', "%20")),
        }
    }
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| Problem::internal(error.to_string()))?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// An object with one member, which is where lists go: more members may join it later.
pub fn list(name: &str, items: impl Serialize) -> Answer {
    json(StatusCode::OK, &BTreeMap::from([(name, items)]))
}

/// A job as the whole answer.
pub fn job(status: StatusCode, job: &Job) -> Answer {
    json(status, &JobView::from(job))
}
