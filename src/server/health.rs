//! `/healthz` (this process answers) and `/readyz` (it can take jobs), which are open because a probe has no key; and
//! `/metrics`, which needs the scope `read` like all that tells of jobs.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::problem::{Answer, Code, Problem};
use super::{Shared, view};
use crate::broker::QueueInfo;
use crate::telemetry::metrics::{self as gauges, QueueDepth};

/// For the broker's round trip.
const PING: Duration = Duration::from_secs(2);

pub async fn alive() -> Answer {
    view::json(StatusCode::OK, &json!({ "status": "ok" }))
}

pub async fn ready(State(app): Shared) -> Answer {
    if app.shutdown.is_requested() {
        return Err(Problem::new(Code::Unavailable, "the server is stopping"));
    }
    match tokio::time::timeout(PING, app.broker.ping()).await {
        Ok(pinged) => drop(pinged?),
        Err(_) => return Err(Problem::new(Code::Unavailable, "the job store does not answer within 2s")),
    }
    view::json(StatusCode::OK, &json!({ "status": "ready" }))
}

pub async fn metrics(State(app): Shared) -> Response {
    match app.broker.queues().await {
        Ok(queues) => {
            let depths: Vec<_> = queues.iter().flat_map(depths).collect();
            app.metrics.set_queues(&depths);
        }
        // The counters are still worth a scrape.
        Err(error) => {
            app.metrics.set_queues(&[]);
            tracing::debug!(%error, "the queues are missing from the metrics");
        }
    }
    let mut response = app.metrics.render().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(gauges::CONTENT_TYPE));
    response
}

/// The states that a job does not stay in.
fn depths(queue: &QueueInfo) -> [QueueDepth<'_>; 3] {
    let depth = |state, jobs, oldest| QueueDepth { queue: queue.name.as_str(), state, jobs, oldest };
    let oldest = queue.oldest_queued_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    [
        depth("scheduled", queue.scheduled, None),
        depth("queued", queue.queued, oldest),
        depth("running", queue.running, None),
    ]
}
