//! `/v1/job-types`: what can be submitted, with its schema, and who runs which version.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::Value;

use super::catalog;
use super::params::{NoQuery, PathParams, Query};
use super::problem::Answer;
use super::{Shared, view};
use crate::broker::{RefusedType, Topic, TypeInfo, TypeWorker};
use crate::job::units::parse_duration;
use crate::job::{JobName, QueueName, Timestamp, Version, WorkerId};

#[derive(Serialize)]
struct TypeView<'a> {
    name: &'a JobName,
    description: &'a str,
    queue: &'a QueueName,
    version: &'a Version,
    schema: &'a Value,
    examples: &'a [Value],
    workers: &'a [TypeWorker],
    refused: Option<RefusedView<'a>>,
}

#[derive(Serialize)]
struct RefusedView<'a> {
    version: &'a Version,
    reason: &'a str,
    at: Timestamp,
}

impl<'a> From<&'a TypeInfo> for TypeView<'a> {
    fn from(info: &'a TypeInfo) -> Self {
        let job_type = &info.job_type;
        Self {
            name: &job_type.name,
            description: &job_type.description,
            queue: &job_type.spec.queue,
            version: &job_type.version,
            schema: &job_type.spec.schema,
            examples: &job_type.spec.examples,
            workers: &info.workers,
            refused: info.refused.as_ref().map(|refused| RefusedView {
                version: &refused.version,
                reason: &refused.reason,
                at: refused.at,
            }),
        }
    }
}

pub async fn list(State(app): Shared, _: NoQuery) -> Answer {
    let types = app.broker.job_types().await?;
    view::list("job_types", types.iter().map(TypeView::from).collect::<Vec<_>>())
}

pub async fn show(State(app): Shared, path: PathParams, _: NoQuery) -> Answer {
    let name = path.get("name");
    let types = app.broker.job_types().await?;
    let found = types.iter().find(|info| info.job_type.name.as_str() == name);
    let known = types.iter().map(|info| info.job_type.name.as_str());
    view::json(StatusCode::OK, &TypeView::from(found.ok_or_else(|| catalog::unknown(name, known))?))
}

/// How long a request waits for the workers, and at most.
const WAIT: Duration = Duration::from_secs(10);
const MAX_WAIT: Duration = Duration::from_secs(60);
/// A worker that nobody told of is seen after this.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct ReloadView<'a> {
    /// Workers that have looked, and published what they found.
    done: Vec<&'a WorkerId>,
    lagging: Vec<&'a WorkerId>,
    refused: Vec<RefusedName<'a>>,
}

#[derive(Serialize)]
struct RefusedName<'a> {
    name: &'a JobName,
    #[serde(flatten)]
    refused: RefusedView<'a>,
}

/// `POST /v1/job-types/reload?wait=`: 200 when every live worker has looked at its scripts, 202 with those that have not.
pub async fn reload(State(app): Shared, uri: Uri) -> Answer {
    let wait = Query::read(&uri, &["wait"])?.get("wait", parse_duration)?.unwrap_or(WAIT).min(MAX_WAIT);
    let mut changes = app.broker.changes(Topic::JobTypes);
    let number = app.broker.request_reload().await?;
    let over = Instant::now() + wait;
    loop {
        let reloads = app.broker.reloads().await?;
        let (done, lagging): (Vec<_>, Vec<_>) = reloads.done.iter().partition(|(_, done)| **done >= number);
        if lagging.is_empty() || Instant::now() >= over || app.shutdown.is_requested() {
            let types = app.broker.job_types().await?;
            let refused = types.iter().filter_map(|info| {
                let RefusedType { name, version, reason, at } = info.refused.as_ref()?;
                Some(RefusedName { name, refused: RefusedView { version, reason, at: *at } })
            });
            let status = if lagging.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
            let view = ReloadView {
                done: done.into_iter().map(|(id, _)| id).collect(),
                lagging: lagging.into_iter().map(|(id, _)| id).collect(),
                refused: refused.collect(),
            };
            return view::json(status, &view);
        }
        tokio::select! {
            () = app.shutdown.requested() => {}
            () = tokio::time::sleep(LOOK_EVERY.min(over.saturating_duration_since(Instant::now()))) => {}
            Ok(()) = changes.changed() => {}
        }
    }
}
