//! The outermost layer: every request gets its id, every answer shows it, every request is one log line. A panic ends
//! here as an answer 500. Payloads and keys are never logged.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use super::problem::{self, Problem};
use crate::job::units::millis;
use crate::job::{JobId, RequestId};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A handler's note on its answer: the job that the log line is about.
#[derive(Clone, Copy)]
pub struct AboutJob(pub JobId);

/// The middleware. Handlers find the [`RequestId`] among the request's extensions.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = given.and_then(|text| RequestId::new(text).ok()).unwrap_or_else(RequestId::random);
    let mut line = Line {
        request_id: id.clone(),
        method: request.method().clone(),
        path: request.extensions().get::<MatchedPath>().cloned(),
        began: Instant::now(),
        written: false,
    };
    request.extensions_mut().insert(id.clone());
    // What is logged on the way, by whomever, says which request it was for.
    let handled = next.run(request).instrument(tracing::info_span!("request", request_id = %id));
    let response = AssertUnwindSafe(handled).catch_unwind().await;
    let response = response.unwrap_or_else(|_| Problem::internal("a handler panicked").into_response());
    let job = response.extensions().get::<AboutJob>().map(|about| about.0);
    let (mut response, problem) = problem::render(response, &id);
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    line.write(response.status(), job, problem.as_ref().and_then(|problem| problem.cause.as_deref()));
    response
}

/// The log line of one request. A client that goes away while it waits drops the request; that is logged as well.
struct Line {
    request_id: RequestId,
    method: Method,
    path: Option<MatchedPath>,
    began: Instant,
    written: bool,
}

impl Line {
    /// The route's template, never what was given: ids and file names stay out of it.
    fn path(&self) -> &str {
        self.path.as_ref().map_or("-", MatchedPath::as_str)
    }

    fn duration_ms(&self) -> f64 {
        millis(self.began.elapsed())
    }

    fn write(&mut self, status: StatusCode, job: Option<JobId>, cause: Option<&str>) {
        self.written = true;
        let (request_id, method, path) = (&self.request_id, &self.method, self.path());
        let (status, duration_ms) = (status.as_u16(), self.duration_ms());
        let job_id = job.map(tracing::field::display);
        if status >= 500 {
            tracing::error!(%request_id, %method, path, status, duration_ms, job_id, cause, "request failed");
        } else if matches!(path, "/healthz" | "/readyz" | "/metrics") {
            tracing::debug!(%request_id, %method, path, status, duration_ms, "request");
        } else {
            tracing::info!(%request_id, %method, path, status, duration_ms, job_id, "request");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.written {
            let (request_id, method, path) = (&self.request_id, &self.method, self.path());
            tracing::info!(%request_id, %method, path, duration_ms = self.duration_ms(), "the client went away");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn boom() {
        panic!("the inner text");
    }

    #[tokio::test]
    async fn a_panic_is_answered_500_under_the_callers_id_without_its_text() {
        let router: Router = Router::new().route("/boom", get(boom)).layer(axum::middleware::from_fn(observe));
        let request = Request::get("/boom").header(X_REQUEST_ID, "mine").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[X_REQUEST_ID], "mine");
        let body = String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
        assert!(body.contains("\"code\":\"internal\"") && !body.contains("inner text"), "{body}");
    }
}
