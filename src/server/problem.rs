//! Errors as callers see them: RFC 9457 `application/problem+json`. Here is the one table from error to code, status
//! and public text; what only the log may say travels beside it as the cause.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::broker::{BrokerError, FileError};
use crate::job::{PayloadFault, RequestId};

/// What went wrong; a closed list, so that clients can branch on `code`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    Malformed,
    Unauthorized,
    Forbidden,
    NotFound,
    UnknownJobType,
    JobNotFound,
    FileNotFound,
    MethodNotAllowed,
    RequestTimeout,
    IllegalState,
    TooLarge,
    UnsupportedMediaType,
    InvalidPayload,
    IdempotencyKeyReused,
    TooManyPending,
    Internal,
    BrokerFull,
    Overloaded,
    Unavailable,
}

struct Row {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    /// Seconds.
    retry_after: Option<u16>,
}

impl Code {
    #[rustfmt::skip]
    fn row(self) -> Row {
        use StatusCode as S;
        let row = |status, code, title| Row { status, code, title, retry_after: None };
        let again = |status, code, title, seconds| Row { retry_after: Some(seconds), ..row(status, code, title) };
        match self {
            Self::Malformed => row(S::BAD_REQUEST, "malformed", "The request is malformed"),
            Self::Unauthorized => row(S::UNAUTHORIZED, "unauthorized", "An API key is needed"),
            Self::Forbidden => row(S::FORBIDDEN, "forbidden", "This is not allowed"),
            Self::NotFound => row(S::NOT_FOUND, "not_found", "There is nothing here"),
            Self::UnknownJobType => row(S::NOT_FOUND, "unknown_job_type", "There is no such job type"),
            Self::JobNotFound => row(S::NOT_FOUND, "job_not_found", "There is no such job"),
            Self::FileNotFound => row(S::NOT_FOUND, "file_not_found", "The job has no such file"),
            Self::MethodNotAllowed => row(S::METHOD_NOT_ALLOWED, "method_not_allowed", "The method is not allowed here"),
            Self::RequestTimeout => row(S::REQUEST_TIMEOUT, "request_timeout", "The request took too long to arrive"),
            Self::IllegalState => row(S::CONFLICT, "illegal_state", "The job's state does not allow this"),
            Self::TooLarge => row(S::PAYLOAD_TOO_LARGE, "too_large", "The request is too large"),
            Self::UnsupportedMediaType => row(S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is not JSON"),
            Self::InvalidPayload => row(S::UNPROCESSABLE_ENTITY, "invalid_payload", "The payload does not fit the job type"),
            Self::IdempotencyKeyReused => row(S::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The idempotency key stands for another request"),
            Self::TooManyPending => again(S::TOO_MANY_REQUESTS, "too_many_pending", "Too many jobs are waiting", 1),
            Self::Internal => row(S::INTERNAL_SERVER_ERROR, "internal", "The server failed"),
            Self::BrokerFull => again(S::SERVICE_UNAVAILABLE, "broker_full", "The job store is full", 10),
            Self::Overloaded => again(S::SERVICE_UNAVAILABLE, "overloaded", "The server is busy", 1),
            Self::Unavailable => again(S::SERVICE_UNAVAILABLE, "unavailable", "The job store is not available", 2),
        }
    }

    pub fn status(self) -> StatusCode {
        self.row().status
    }
}

/// One error. Handlers return it; [`render`] turns it into the answer once the request id is at hand.
#[derive(Clone, Debug)]
pub struct Problem {
    pub code: Code,
    /// What is wrong here and what to do; for callers.
    pub detail: String,
    pub faults: Vec<PayloadFault>,
    /// For the log only.
    pub cause: Option<String>,
}

pub type Answer<T = Response> = Result<T, Problem>;

/// Longer texts are cut, so that a bad megabyte is not answered with a megabyte. Characters.
const MAX_TEXT: usize = 500;

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), faults: Vec::new(), cause: None }
    }

    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Code::Malformed, detail)
    }

    /// The payload does not fit: where and why.
    pub fn invalid_payload(faults: Vec<PayloadFault>) -> Self {
        let detail = match faults.first() {
            Some(fault) if fault.pointer.is_empty() => fault.message.clone(),
            Some(fault) => format!("at {}: {}", fault.pointer, fault.message),
            None => String::new(),
        };
        Self { faults, ..Self::new(Code::InvalidPayload, detail) }
    }

    /// A fault of ours; the caller learns nothing of the cause but the request id to ask about.
    pub fn internal(cause: impl Into<String>) -> Self {
        let detail = "an unexpected error; the server's log tells more under this request id";
        Self { cause: Some(cause.into()), ..Self::new(Code::Internal, detail) }
    }

    /// The body of the answer, also for the items of a batch.
    pub fn body<'a>(&'a self, request_id: &'a RequestId) -> impl Serialize + 'a {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: String,
            title: &'static str,
            status: u16,
            detail: String,
            code: &'static str,
            request_id: &'a RequestId,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            errors: Vec<PayloadFault>,
        }
        let row = self.code.row();
        let cut_fault =
            |fault: &PayloadFault| PayloadFault { pointer: cut(&fault.pointer), message: cut(&fault.message) };
        Body {
            r#type: format!("urn:ryemill:problem:{}", row.code),
            title: row.title,
            status: row.status.as_u16(),
            detail: cut(&self.detail),
            code: row.code,
            request_id,
            errors: self.faults.iter().map(cut_fault).collect(),
        }
    }
}

/// The text, or its beginning when it is long.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Fills in the body of an answer that is a [`Problem`]. An error answer that is none (the router's own for unknown
/// paths and methods, for one) becomes one here, so that nothing else than problem+json ever leaves.
pub fn render(response: Response, request_id: &RequestId) -> (Response, Option<Problem>) {
    let (mut parts, body) = response.into_parts();
    let problem = match parts.extensions.remove::<Problem>() {
        Some(problem) => problem,
        None if parts.status.is_client_error() || parts.status.is_server_error() => of_status(parts.status),
        None => return (Response::from_parts(parts, body), None),
    };
    let row = problem.code.row();
    let body = serde_json::to_vec(&problem.body(request_id)).unwrap_or_default();
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = row.status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = row.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.code == Code::Unauthorized {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ryemill\""));
    }
    if let Some(allowed) = parts.headers.remove(ALLOW) {
        headers.insert(ALLOW, allowed);
    }
    (answer, Some(problem))
}

fn of_status(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => {
            Problem::new(Code::NotFound, "there is no such path; GET /v1/job-types is a good start")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Code::MethodNotAllowed, "this path has other methods; the Allow header names them")
        }
        _ if status.is_client_error() => {
            Problem::malformed(status.canonical_reason().unwrap_or("the request is wrong"))
        }
        _ => Problem::internal(format!("an answer {status} without a problem")),
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        let cause = Some(error.to_string());
        match error {
            BrokerError::NotFound(_) => Self::new(Code::JobNotFound, error.to_string()),
            BrokerError::IllegalState(transition) => Self::new(Code::IllegalState, transition.to_string()),
            BrokerError::Invalid(text) => Self::malformed(text),
            BrokerError::Full(_) => {
                let detail = "the job store takes no new jobs now; nothing was stored, try again later";
                Self { cause, ..Self::new(Code::BrokerFull, detail) }
            }
            BrokerError::Unavailable(_) => {
                let detail =
                    "the job store does not answer; try again, with an Idempotency-Key where a job is submitted";
                Self { cause, ..Self::new(Code::Unavailable, detail) }
            }
            BrokerError::LeaseLost | BrokerError::Damaged(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        match &error {
            FileError::BadName { .. } | FileError::NotFound(_) => Self::new(Code::FileNotFound, error.to_string()),
            FileError::Io { source, .. } => Self::internal(format!("{error}: {source}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::Value;

    use super::*;

    async fn body_of(response: Response) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
    }

    fn request_id() -> RequestId {
        RequestId::new("r-1").unwrap()
    }

    #[tokio::test]
    async fn an_internal_error_never_tells_its_cause() {
        let (response, problem) = render(Problem::internal("/secret/path").into_response(), &request_id());
        assert_eq!(problem.unwrap().cause.as_deref(), Some("/secret/path"));
        let body = body_of(response).await;
        assert_eq!(body["code"], "internal");
        assert_eq!(body["request_id"], "r-1");
        assert!(!body.to_string().contains("secret"), "{body}");
    }

    #[tokio::test]
    async fn an_error_of_somebody_else_becomes_a_problem_and_keeps_allow() {
        let foreign = (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET,HEAD")], "plain text").into_response();
        let (response, _) = render(foreign, &request_id());
        assert_eq!(response.headers()[ALLOW], "GET,HEAD");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(body_of(response).await["code"], "method_not_allowed");
    }

    #[tokio::test]
    async fn a_fault_with_a_huge_pointer_is_cut() {
        let fault = PayloadFault { pointer: "/x".repeat(100_000), message: "y".repeat(100_000) };
        let (response, _) = render(Problem::invalid_payload(vec![fault]).into_response(), &request_id());
        assert!(body_of(response).await.to_string().len() < 4_000);
    }

    #[tokio::test]
    async fn a_broker_that_fails_is_503_with_a_time_to_come_back_and_without_its_own_words() {
        for (error, code) in [
            (BrokerError::Unavailable("disk I/O error in /data/x.db".into()), "unavailable"),
            (BrokerError::Full("database or disk is full: /data/x.db".into()), "broker_full"),
        ] {
            let (response, problem) = render(Problem::from(error.clone()).into_response(), &request_id());
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(RETRY_AFTER));
            assert_eq!(problem.unwrap().cause, Some(error.to_string()));
            let body = body_of(response).await;
            assert_eq!(body["code"], code);
            assert!(!body.to_string().contains("/data"), "{body}");
        }
        let damaged = Problem::from(BrokerError::Damaged("record 7".into()));
        assert_eq!((damaged.code, damaged.detail.contains("record")), (Code::Internal, false));
    }
}
