//! `POST /v1/jobs/batch`: many jobs in one request and one write. Each job is accepted or refused on its own.

use std::fmt;

use axum::Extension;
use axum::extract::{Request, State};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::params::NoQuery;
use super::problem::{Answer, Problem};
use super::submission::{Submission, as_text, not_json};
use super::view::{self, JobView};
use super::{Shared, body, compute};
use crate::job::time::SystemClock;
use crate::job::{Clock, JobId, RequestId};

const MAX_JOBS: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    jobs: Jobs<'a>,
}

/// At most [`MAX_JOBS`] items; reading ends at the first one too many.
struct Jobs<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Jobs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Jobs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {MAX_JOBS} jobs")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Jobs<'de>, A::Error> {
                let mut jobs = Vec::new();
                while let Some(item) = items.next_element()? {
                    if jobs.len() == MAX_JOBS {
                        return Err(A::Error::custom(format!("a batch has at most {MAX_JOBS} jobs")));
                    }
                    jobs.push(item);
                }
                Ok(Jobs(jobs))
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// One item's answer.
#[derive(Serialize)]
struct Item<J, E> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<J>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<E>,
}

pub async fn submit(
    State(app): Shared,
    Extension(request_id): Extension<RequestId>,
    _: NoQuery,
    request: Request,
) -> Answer {
    if request.headers().contains_key("idempotency-key") {
        return Err(Problem::malformed("Idempotency-Key is for POST /v1/jobs; a batch has none"));
    }
    let limit = body::Limit { bytes: app.options.max_batch, variable: "MAX_BATCH" };
    let body = body::read(request, limit, app.options.body_pace, &app.body_memory).await?;
    let size = body.bytes.len();
    let read = compute(size, move || read_all(as_text(&body.bytes)?)).await?;
    let mut checked = Vec::with_capacity(read.len());
    for submission in read {
        checked.push(match submission {
            Ok(submission) => app.catalog.live(&submission.name).await.map(|live| (submission, live)),
            Err(problem) => Err(problem),
        });
    }
    let limits = app.options.limits.clone();
    let id_of_request = request_id.clone();
    let (jobs, refused) = compute(size, move || {
        let mut jobs = Vec::new();
        // In the order of the batch: what is refused, or that the next stored job stands here.
        let mut refused: Vec<Option<Problem>> = Vec::new();
        for item in checked {
            let checked = item.and_then(|(submission, live)| {
                submission.check_payload(&live, &limits)?;
                let id = JobId::new(&live.job_type.spec.queue);
                Ok(submission.into_job(&live, id, id_of_request.clone()))
            });
            refused.push(checked.map(|job| jobs.push(job)).err());
        }
        Ok((jobs, refused))
    })
    .await?;
    let stored = app.enqueue(jobs).await?;
    let mut stored = stored.iter().map(|(job, _)| job);
    let results: Vec<_> = refused
        .iter()
        .map(|refused| match refused {
            None => Item { status: 202, job: stored.next().map(JobView::from), error: None },
            Some(problem) => {
                Item { status: problem.code.status().as_u16(), job: None, error: Some(problem.body(&request_id)) }
            }
        })
        .collect();
    view::list("results", results)
}

/// The batch itself must be well formed; a fault of one job is that job's.
fn read_all(text: &str) -> Answer<Vec<Answer<Submission>>> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Problem::malformed("a batch is a JSON object {\"jobs\":[…]}"));
    }
    let batch: Batch = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let now = SystemClock.now();
    Ok(batch.jobs.0.into_iter().map(|job| Submission::read(job.get(), now)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_over_its_number_is_refused_without_reading_on() {
        let many = format!("{{\"jobs\":[{}1]}}", "1,".repeat(1000));
        assert!(read_all(&many).unwrap_err().detail.contains("at most 1000 jobs"));
        let fits = format!("{{\"jobs\":[{}1]}}", "1,".repeat(999));
        assert_eq!(read_all(&fits).unwrap().len(), 1000);
        assert!(read_all("[[]]").is_err() && read_all(r#"{"jobs":[],"x":1}"#).is_err());
    }
}
