//! What a request's URL says: the parameters of its path and of its query, read strictly. A misspelt parameter is an
//! error, never silently everything.

use std::fmt::Display;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::Uri;
use axum::http::request::Parts;

use super::problem::{Answer, Code, Problem, cut};
use crate::job::JobId;

/// The parameters of the matched route, decoded.
pub struct PathParams(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(Code::NotFound, "the path is not valid UTF-8 when it is decoded"))?;
        Ok(Self(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

impl PathParams {
    /// Empty when the route has no such parameter.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The `{id}` of a job. What is no id names no job.
    pub fn job(&self) -> Answer<JobId> {
        self.get("id").parse().map_err(|error| Problem::new(Code::JobNotFound, format!("{error}")))
    }
}

/// For handlers that take no query: malformed when there is any.
pub struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        Query::read(&parts.uri, &[]).map(|_| Self)
    }
}

/// The parameters of the query.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Malformed when there is another parameter than the accepted ones, or one twice.
    pub fn read(uri: &Uri, accepted: &[&str]) -> Answer<Self> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !accepted.contains(&name.as_ref()) {
                let accepted = if accepted.is_empty() { "none".to_owned() } else { accepted.join(", ") };
                return Err(Problem::malformed(format!(
                    "unknown query parameter `{}`; accepted here: {accepted}",
                    cut(&name)
                )));
            }
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Problem::malformed(format!("the query parameter `{name}` is given twice")));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// The parsed value; malformed, with the parameter's name and the parser's words, when it does not parse.
    pub fn get<T, E: Display>(&self, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Answer<Option<T>> {
        let Some((_, value)) = self.0.iter().find(|(key, _)| key == name) else { return Ok(None) };
        parse(value).map(Some).map_err(|error| Problem::malformed(format!("query parameter `{name}`: {error}")))
    }

    /// A page's size: 1 to 1000.
    pub fn limit(&self, usual: usize) -> Answer<usize> {
        let parse = |text: &str| match text.parse() {
            Ok(limit @ 1..=1000) => Ok(limit),
            _ => Err(format!("`{}` is not accepted: it must be a whole number from 1 to 1000", cut(text))),
        };
        Ok(self.get("limit", parse)?.unwrap_or(usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(uri: &str) -> String {
        let query = Query::read(&uri.parse().unwrap(), &["limit", "state"]);
        query.and_then(|query| query.limit(50)).unwrap_err().detail
    }

    #[test]
    fn a_fault_names_the_parameter_and_what_is_accepted() {
        assert_eq!(fault("/x?limt=1"), "unknown query parameter `limt`; accepted here: limit, state");
        assert_eq!(fault("/x?limit=1&limit=2"), "the query parameter `limit` is given twice");
        for bad in ["0", "1001", "-1", "1e3", "", "ten"] {
            assert!(fault(&format!("/x?limit={bad}")).ends_with("it must be a whole number from 1 to 1000"), "{bad}");
        }
        assert!(fault(&format!("/x?limit={}", "9".repeat(10_000))).len() < 700);
    }
}
