//! `/v1/workers`: the registered worker processes.

use axum::extract::State;

use super::params::NoQuery;
use super::problem::Answer;
use super::{Shared, view};

pub async fn list(State(app): Shared, _: NoQuery) -> Answer {
    view::list("workers", app.broker.workers().await?)
}
