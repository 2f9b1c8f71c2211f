//! `/v1/workers`: the registered worker processes.

use axum::extract::State;
use axum::http::Uri;

use super::params::Query;
use super::problem::Answer;
use super::{Shared, view};

pub async fn list(State(app): Shared, uri: Uri) -> Answer {
    Query::read(&uri, &[])?;
    view::list("workers", app.broker.workers().await?)
}
