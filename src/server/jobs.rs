//! `/v1/jobs`: submit, show (and wait for the end), list, cancel, retry, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::auth::Caller;
use super::idempotency::{self, Turn};
use super::params::{NoQuery, PathParams, Query};
use super::problem::{Answer, Code, Problem};
use super::request_id::AboutJob;
use super::submission::{Submission, as_text};
use super::view::{self, JobView};
use super::wait::Seen;
use super::{App, Shared, body, compute};
use crate::broker::{BrokerError, Filter};
use crate::job::time::SystemClock;
use crate::job::units::parse_duration;
use crate::job::{Clock, Job, JobId, JobName, QueueName, RequestId, State as JobState};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// A client that wants to wait longer asks again.
const MAX_WAIT: Duration = Duration::from_mins(1);
/// A list's answer ends early, with a cursor, when its jobs need more. Bytes of payloads and results.
const MAX_LIST: usize = 16 << 20;
/// Jobs that are read at once for a list, whatever their size.
const LIST_STEP: usize = 50;

/// `POST /v1/jobs`
pub async fn submit(
    State(app): Shared,
    Extension(request_id): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    _: NoQuery,
    request: Request,
) -> Answer {
    let key = idempotency::key(request.headers())?;
    let limit = body::Limit { bytes: app.options.max_body, variable: "MAX_BODY" };
    let body = body::read(request, limit, app.options.body_pace, &app.body_memory).await?;
    let size = body.bytes.len();
    let (submission, body_hash) = compute(size, move || {
        let submission = Submission::read(as_text(&body.bytes)?, SystemClock.now())?;
        Ok((submission, <[u8; 32]>::from(Sha256::digest(&body.bytes))))
    })
    .await?;
    let live = app.catalog.live(&submission.name).await?;
    let (checked_app, checked_live) = (app.clone(), live.clone());
    let submission = compute(size, move || {
        submission.check_payload(&checked_live, &checked_app.options.limits)?;
        Ok(submission)
    })
    .await?;
    let mut id = JobId::new(&live.job_type.spec.queue);
    if let Some(key) = key {
        match idempotency::take(&app, &caller, &key, id, body_hash).await? {
            Turn::Store(reserved) => id = reserved,
            Turn::Replay(job) => return accepted(&job, true),
        }
    }
    let stored = app.enqueue(vec![submission.into_job(&live, id, request_id)]).await?;
    let (job, created) = stored.first().ok_or_else(|| Problem::internal("no job was stored"))?;
    accepted(job, !created)
}

fn accepted(job: &Job, replayed: bool) -> Answer {
    let mut response = view::job(StatusCode::ACCEPTED, job)?;
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", job.id));
    response.headers_mut().insert(LOCATION, location.map_err(|error| Problem::internal(error.to_string()))?);
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(about(job.id, response))
}

/// `GET /v1/jobs/{id}?wait=`
pub async fn show(State(app): Shared, path: PathParams, uri: Uri) -> Answer {
    let id = path.job()?;
    let wait = Query::read(&uri, &["wait"])?.get("wait", parse_duration)?;
    let job = match wait {
        Some(wait) => ended(&app, id, wait.min(MAX_WAIT)).await?,
        None => Arc::new(existing(&app, id).await?),
    };
    view::job(StatusCode::OK, &job)
}

/// The job once it has ended; as it is when that takes longer than `wait`, or when the server stops.
async fn ended(app: &App, id: JobId, wait: Duration) -> Answer<Arc<Job>> {
    let mut following = app.waiting.follow(id);
    let job = Arc::new(existing(app, id).await?);
    if job.state.is_terminal() {
        return Ok(job);
    }
    let over = |seen: &Seen| match seen {
        Seen::NotYet => false,
        Seen::Job(job) => job.state.is_terminal(),
        Seen::Gone => true,
    };
    tokio::select! {
        _ = following.wait_for(over) => {}
        () = tokio::time::sleep(wait) => {}
        () = app.shutdown.requested() => {}
    }
    let seen = following.borrow().clone();
    match seen {
        Seen::NotYet => Ok(job),
        Seen::Job(job) => Ok(job),
        Seen::Gone => Err(gone(id)),
    }
}

pub async fn existing(app: &App, id: JobId) -> Answer<Job> {
    app.broker.get(id).await?.ok_or_else(|| gone(id))
}

pub fn gone(id: JobId) -> Problem {
    BrokerError::NotFound(id).into()
}

/// A page of a list.
#[derive(Serialize)]
struct List<'a> {
    jobs: Vec<JobView<'a>>,
    /// None at the end.
    next_cursor: Option<String>,
}

/// `GET /v1/jobs`
pub async fn list(State(app): Shared, uri: Uri) -> Answer {
    let query = Query::read(&uri, &["state", "name", "queue", "tag", "request_id", "limit", "cursor"])?;
    let text = |text: &str| Ok::<_, std::convert::Infallible>(text.to_owned());
    let mut filter = Filter {
        state: query.get("state", str::parse::<JobState>)?,
        name: query.get("name", JobName::new)?,
        queue: query.get("queue", QueueName::new)?,
        tag: query.get("tag", text)?,
        request_id: query.get("request_id", RequestId::new)?,
        limit: 0,
        cursor: query.get("cursor", text)?,
    };
    let limit = query.limit(50)?;
    let mut jobs: Vec<Job> = Vec::new();
    let mut bytes = 0;
    // In steps, so that a thousand jobs of the largest size are never held at once.
    while jobs.len() < limit && bytes < MAX_LIST {
        filter.limit = (limit - jobs.len()).min(LIST_STEP);
        let page = app.broker.list(&filter).await?;
        let short = page.jobs.len() < filter.limit;
        bytes += page
            .jobs
            .iter()
            .map(|job| job.payload.get().len() + job.result.as_ref().map_or(0, |r| r.get().len()))
            .sum::<usize>();
        jobs.extend(page.jobs);
        filter.cursor = page.next;
        // A short page has looked at as many records as one call may.
        if short || filter.cursor.is_none() {
            break;
        }
    }
    view::json(StatusCode::OK, &List { jobs: jobs.iter().map(JobView::from).collect(), next_cursor: filter.cursor })
}

/// `POST /v1/jobs/{id}/cancel`: 200 when it is cancelled, 202 when its run is told to stop.
pub async fn cancel(State(app): Shared, path: PathParams, _: NoQuery) -> Answer {
    let id = path.job()?;
    let state = app.broker.cancel(id).await?;
    let status = if state == JobState::Running { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(about(id, view::job(status, &existing(&app, id).await?)?))
}

/// `POST /v1/jobs/{id}/retry`
pub async fn retry(State(app): Shared, path: PathParams, _: NoQuery) -> Answer {
    let id = path.job()?;
    app.broker.retry(id).await?;
    Ok(about(id, view::job(StatusCode::OK, &existing(&app, id).await?)?))
}

/// `DELETE /v1/jobs/{id}`
pub async fn delete(State(app): Shared, path: PathParams, _: NoQuery) -> Answer {
    let id = path.job()?;
    app.broker.delete(id).await.map_err(|error| match error {
        BrokerError::IllegalState(_) => Problem::new(Code::IllegalState, "the job is running: cancel it first"),
        other => other.into(),
    })?;
    if let Err(error) = app.files.remove_job(id).await {
        tracing::warn!(job_id = %id, %error, "the files of a deleted job are left behind");
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(about(id, response))
}

fn about(id: JobId, mut response: Response) -> Response {
    response.extensions_mut().insert(AboutJob(id));
    response
}
