//! `GET /v1/jobs/{id}/files/{name}`: one of a job's files, as a download. What the record does not list is not served,
//! whatever lies in the store.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::Response;
use tokio_util::io::ReaderStream;

use super::params::{NoQuery, PathParams};
use super::problem::{Answer, Code, Problem, cut};
use super::{Shared, jobs};
use crate::broker::FileName;

/// Read at once, bytes.
const PIECE: usize = 64 << 10;

pub async fn download(State(app): Shared, path: PathParams, _: NoQuery) -> Answer {
    let id = path.job()?;
    let job = jobs::existing(&app, id).await?;
    let name = path.get("name");
    let Some(info) = job.files.iter().find(|file| file.name == name) else {
        return Err(Problem::new(Code::FileNotFound, format!("job {id} has no file `{}`", cut(name))));
    };
    let (file, size) = app.files.open_file(id, &FileName::new(&info.name)?).await?;
    if size != info.size {
        // Its job replaces it just now: the record is written before the file is in place.
        return Err(Problem::new(Code::FileNotFound, "the file is being replaced; try again"));
    }
    let mut response = Response::new(Body::from_stream(ReaderStream::with_capacity(file, PIECE)));
    let headers = response.headers_mut();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| Problem::internal(error.to_string()));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert(CONTENT_TYPE, value(&info.content_type)?);
    headers.insert(CONTENT_DISPOSITION, value(&format!("attachment; filename=\"{}\"", info.name))?);
    // A script's HTML must not act in this origin, not even when a browser shows it against our word.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    Ok(response)
}
