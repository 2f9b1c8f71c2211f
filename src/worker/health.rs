//! What a worker answers to its operator: alive, ready, and its metrics. Read only, meant for the loopback or a private
//! network; knows nothing of jobs.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::error;

use super::Shared;
use crate::broker::QueueInfo;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::{CONTENT_TYPE, QueueDepth};

/// How long a claim may go without an answer before the worker counts as one that takes no jobs.
const UNANSWERED: Duration = Duration::from_secs(5);
/// How long a scrape waits for the broker.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Health {
    pub shared: Arc<Shared>,
    /// When claiming stops.
    pub stopping: Shutdown,
}

impl Health {
    /// Serves until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: Shutdown) {
        let router = Router::new()
            // A wedged process does not answer, or has ended itself.
            .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self));
        let stopped = async move { stop.requested().await };
        if let Err(problem) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            error!("the worker's health endpoint has failed: {problem}");
        }
    }
}

/// Whether this worker takes jobs.
async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, Json<Value>) {
    let unready = if health.stopping.is_requested() {
        "the worker is shutting down"
    } else if !health.shared.lease.held() {
        "the worker has no lease: the broker does not answer"
    } else if health.shared.consuming.unanswered().is_some_and(|waited| waited > UNANSWERED) {
        "the worker takes no jobs: the broker does not answer its claims"
    } else {
        return (StatusCode::OK, Json(json!({ "status": "ready" })));
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unready", "detail": unready })))
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let Shared { broker, metrics, .. } = &*health.shared;
    let queues = tokio::time::timeout(PATIENCE, broker.queues()).await;
    // Without the broker the rest is still worth showing; old depths are not.
    let queues = queues.ok().and_then(Result::ok).unwrap_or_default();
    metrics.set_queues(&queues.iter().flat_map(depths).collect::<Vec<_>>());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.render()).into_response()
}

fn depths(queue: &QueueInfo) -> [QueueDepth<'_>; 3] {
    let depth = |state, jobs, oldest| QueueDepth { queue: queue.name.as_str(), state, jobs, oldest };
    let oldest = queue.oldest_queued_seconds.and_then(|age| Duration::try_from_secs_f64(age).ok());
    [
        depth("scheduled", queue.scheduled, None),
        depth("queued", queue.queued, oldest),
        depth("running", queue.running, None),
    ]
}
