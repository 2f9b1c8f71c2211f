//! `GET /v1/jobs/{id}/logs`: a job's log, page by page.

use axum::extract::State;
use axum::http::{StatusCode, Uri};

use super::params::{PathParams, Query};
use super::problem::Answer;
use super::{Shared, jobs, view};

pub async fn page(State(app): Shared, path: PathParams, uri: Uri) -> Answer {
    let id = path.job()?;
    let query = Query::read(&uri, &["after", "limit"])?;
    let after = query.get("after", |text| {
        text.parse::<u64>().map_err(|_| "it must be the `seq` of a log line, a whole number".to_owned())
    })?;
    let logs = app.broker.logs(id, after.unwrap_or(0), query.limit(1000)?).await?.ok_or_else(|| jobs::gone(id))?;
    view::json(StatusCode::OK, &logs)
}
