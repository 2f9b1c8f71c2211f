//! `/v1/job-types`: what can be submitted, with its schema, and who runs which version.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::catalog;
use super::params::{NoQuery, PathParams};
use super::problem::Answer;
use super::{Shared, view};
use crate::broker::{TypeInfo, TypeWorker};
use crate::job::{JobName, QueueName, Timestamp, Version};

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
