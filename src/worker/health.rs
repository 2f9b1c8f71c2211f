//! What a worker answers to its operator: alive, ready, and its metrics. Read only, meant for the loopback or a private
//! network; knows nothing of jobs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::error;

use super::Shared;
use crate::broker::QueueInfo;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::{CONTENT_TYPE, QueueDepth};

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
            .route("/healthz", get(|| async { "ok\n" }))
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
async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.stopping.is_requested() {
        (StatusCode::SERVICE_UNAVAILABLE, "the worker is shutting down\n")
    } else if !health.shared.lease.held() {
        (StatusCode::SERVICE_UNAVAILABLE, "the worker has no lease: the broker does not answer\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    // Without the broker the rest is still worth showing.
    if let Ok(Ok(queues)) = tokio::time::timeout(PATIENCE, health.shared.broker.queues()).await {
        let depths: Vec<QueueDepth<'_>> = queues.iter().flat_map(depths).collect();
        health.shared.metrics.set_queues(&depths);
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], health.shared.metrics.render()).into_response()
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
