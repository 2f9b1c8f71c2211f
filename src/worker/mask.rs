//! The operator's secrets never leave a run: what scripts say, return or fail with is masked here, before it is cut, stored
//! or logged.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::job::{JobError, Json, RunEnd};
use crate::script::services::Services;

pub fn text(services: &Services, text: String) -> String {
    match services.masker.mask(&text) {
        Cow::Owned(masked) => masked,
        Cow::Borrowed(_) => text,
    }
}

pub fn json(services: &Services, json: Json) -> Json {
    match services.masker.mask_json(json.get()) {
        // What the masker makes of JSON is JSON.
        Cow::Owned(masked) => RawValue::from_string(masked).unwrap_or(json),
        Cow::Borrowed(_) => json,
    }
}

pub fn end(services: &Services, end: RunEnd) -> RunEnd {
    match end {
        RunEnd::Succeeded { result } => RunEnd::Succeeded { result: json(services, result) },
        RunEnd::Failed { error } => RunEnd::Failed { error: job_error(services, error) },
        RunEnd::Retry { error, delay } => RunEnd::Retry { error: job_error(services, error), delay },
        end @ (RunEnd::Released { .. } | RunEnd::Cancelled) => end,
    }
}

fn job_error(services: &Services, error: JobError) -> JobError {
    let message = text(services, error.message);
    let snippet = error.snippet.map(|snippet| text(services, snippet));
    JobError { message, snippet, ..error }
}
