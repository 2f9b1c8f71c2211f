//! `/v1/queues`: their counts, and pausing them.

use axum::extract::State;
use axum::http::StatusCode;

use super::params::{NoQuery, PathParams};
use super::problem::{Answer, Problem};
use super::{App, Shared, view};
use crate::broker::QueueInfo;
use crate::job::QueueName;

pub async fn list(State(app): Shared, _: NoQuery) -> Answer {
    view::list("queues", app.broker.queues().await?)
}

pub async fn pause(State(app): Shared, path: PathParams, _: NoQuery) -> Answer {
    set_paused(&app, &path, true).await
}

pub async fn resume(State(app): Shared, path: PathParams, _: NoQuery) -> Answer {
    set_paused(&app, &path, false).await
}

/// Answers the queue as it is then. A queue may be paused before it has its first job.
async fn set_paused(app: &App, path: &PathParams, paused: bool) -> Answer {
    let name = QueueName::new(path.get("name")).map_err(|error| Problem::malformed(error.to_string()))?;
    app.broker.set_paused(&name, paused).await?;
    let known = app.broker.queues().await?.into_iter().find(|queue| queue.name == name);
    let never_used = || QueueInfo {
        name,
        paused,
        scheduled: 0,
        queued: 0,
        running: 0,
        succeeded: 0,
        failed: 0,
        cancelled: 0,
        oldest_queued_seconds: None,
    };
    view::json(StatusCode::OK, &known.unwrap_or_else(never_used))
}
