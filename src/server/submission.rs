//! What a client submits: one job's JSON, read strictly, held against its type, made into what the broker stores.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::catalog::LiveType;
use super::payload;
use super::problem::{Answer, Code, Problem, cut};
use crate::broker::{Enqueued, NewJob};
use crate::job::units::{MAX_DURATION, format_size, parse_duration};
use crate::job::{Job, JobId, Json, Limits, PayloadFault, Priority, RequestId, Timestamp};

/// The body as it stands: every field is read by hand afterwards, so that a fault names the field.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    delay: Option<&'a RawValue>,
    #[serde(borrow)]
    run_at: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    max_attempts: Option<&'a RawValue>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
}

/// `"payload": null` is the payload null; the other fields take null as not given.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// One job as a client wants it, well formed; its payload is not checked yet.
#[derive(Debug)]
pub struct Submission {
    pub name: String,
    pub payload: Json,
    delay: Duration,
    priority: Option<Priority>,
    max_attempts: Option<u32>,
    tags: Vec<String>,
}

const MAX_ATTEMPTS: u32 = 100;
const MAX_TAGS: usize = 16;
/// Characters.
const MAX_TAG: usize = 64;

impl Submission {
    /// Reads one job's JSON. `now` is what `run_at` is held against.
    pub fn read(text: &str, now: Timestamp) -> Answer<Self> {
        // serde would also read the fields from an array, in their order.
        if !text.trim_ascii_start().starts_with('{') {
            let found = if text.trim_ascii().is_empty() { "is empty" } else { "is something else" };
            return Err(Problem::malformed(format!(
                "a job is a JSON object such as {{\"name\":\"email\"}}; this {found}"
            )));
        }
        let fields: Fields = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        let name = fields.name.ok_or_else(|| Problem::malformed("the field `name` is missing: the job type to run"))?;
        let delay = field("delay", fields.delay, "a string such as \"10s\"", |text: String| {
            parse_duration(&text).map_err(|error| error.to_string())
        })?;
        let run_at = field("run_at", fields.run_at, "an RFC 3339 string", |text: String| until(&text, now))?;
        if delay.is_some() && run_at.is_some() {
            return Err(Problem::malformed("give `delay` or `run_at`, not both"));
        }
        Ok(Self {
            name: field("name", Some(name), "a string", Ok)?.unwrap_or_default(),
            payload: fields.payload.map_or_else(empty_object, ToOwned::to_owned),
            delay: delay.or(run_at).unwrap_or_default(),
            priority: field("priority", fields.priority, "a whole number from 0 to 9", |number: i64| {
                Priority::new(number).map_err(|error| error.to_string())
            })?,
            max_attempts: field("max_attempts", fields.max_attempts, "a whole number from 1 to 100", |number: i64| {
                u32::try_from(number)
                    .ok()
                    .filter(|number| (1..=MAX_ATTEMPTS).contains(number))
                    .ok_or_else(|| format!("{number} is not from 1 to {MAX_ATTEMPTS}"))
            })?,
            tags: field("tags", fields.tags, "an array of strings", checked_tags)?.unwrap_or_default(),
        })
    }

    /// Holds the payload against the limits and the live version's schema.
    pub fn check_payload(&self, live: &LiveType, limits: &Limits) -> Answer<()> {
        let text = self.payload.get();
        if text.len() > limits.max_payload {
            let detail = format!("the payload is over {}", format_size(limits.max_payload as u64));
            return Err(Problem::new(Code::TooLarge, detail));
        }
        if let Some(fault) = payload::first_fault(text, limits.max_depth) {
            return Err(Problem::invalid_payload(vec![fault]));
        }
        let value: Value = serde_json::from_str(text).map_err(|error| {
            // What is left: strings that are no text, such as half of a surrogate pair.
            Problem::invalid_payload(vec![PayloadFault { pointer: String::new(), message: error.to_string() }])
        })?;
        let faults = live.schema()?.faults(&value);
        if faults.is_empty() { Ok(()) } else { Err(Problem::invalid_payload(faults)) }
    }

    /// What the broker stores: the type's own settings where the client gave none.
    pub fn into_job(self, live: &LiveType, id: JobId, request_id: RequestId) -> NewJob {
        let job_type = &live.job_type;
        NewJob {
            id,
            name: job_type.name.clone(),
            queue: job_type.spec.queue.clone(),
            payload: self.payload,
            priority: self.priority.unwrap_or(job_type.spec.priority),
            delay: self.delay,
            timeout: job_type.spec.timeout,
            max_attempts: self.max_attempts.unwrap_or(job_type.spec.max_attempts),
            tags: self.tags,
            request_id,
            checked_with: Some(job_type.version.clone()),
            parent_id: None,
            depth: 0,
        }
    }
}

/// The job as it stands in the broker just after it took it.
pub fn as_stored(new: NewJob, enqueued: &Enqueued) -> Job {
    Job {
        id: new.id,
        name: new.name,
        queue: new.queue,
        state: enqueued.state,
        reason: None,
        payload: new.payload,
        priority: new.priority,
        attempt: 0,
        max_attempts: new.max_attempts,
        lost: 0,
        tags: new.tags,
        request_id: new.request_id,
        script_version: None,
        progress: None,
        result: None,
        error: None,
        attempts: Vec::new(),
        files: Vec::new(),
        created_at: enqueued.created_at,
        run_at: enqueued.run_at,
        started_at: None,
        finished_at: None,
        parent_id: new.parent_id,
    }
}

/// The body of a request as text.
pub fn as_text(body: &[u8]) -> Answer<&str> {
    std::str::from_utf8(body)
        .map_err(|error| Problem::malformed(format!("the body is not UTF-8 from byte {} on", error.valid_up_to())))
}

pub fn not_json(error: &serde_json::Error) -> Problem {
    Problem::malformed(format!("the body is not as expected: {}", cut(&error.to_string())))
}

fn empty_object() -> Json {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// One field: its JSON type first, then its value; both faults name it.
fn field<'a, J: Deserialize<'a>, T>(
    name: &str,
    raw: Option<&'a RawValue>,
    expected: &str,
    parse: impl FnOnce(J) -> Result<T, String>,
) -> Answer<Option<T>> {
    let Some(raw) = raw else { return Ok(None) };
    let value = serde_json::from_str(raw.get())
        .map_err(|_| Problem::malformed(format!("`{name}` must be {expected}; it is {}", cut(raw.get()))))?;
    parse(value).map(Some).map_err(|error| Problem::malformed(format!("`{name}`: {error}")))
}

/// How long until `run_at`; none when it is past.
fn until(run_at: &str, now: Timestamp) -> Result<Duration, String> {
    let time: Timestamp = run_at
        .parse()
        .map_err(|_| format!("`{}` is not a time in RFC 3339 such as 2026-11-18T11:06:40Z", cut(run_at)))?;
    let delay = time.since(now);
    if delay > MAX_DURATION { Err("it is more than 3650d away".to_owned()) } else { Ok(delay) }
}

fn checked_tags(tags: Vec<String>) -> Result<Vec<String>, String> {
    if tags.len() > MAX_TAGS {
        return Err(format!("{} tags are too many: at most {MAX_TAGS} are accepted", tags.len()));
    }
    for tag in &tags {
        if tag.is_empty() || tag.chars().count() > MAX_TAG || tag.chars().any(char::is_control) {
            return Err(format!("{:?} is not a tag: 1 to {MAX_TAG} characters, no control characters", cut(tag)));
        }
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000_000);

    fn fault(text: &str) -> String {
        Submission::read(text, NOW).unwrap_err().detail
    }

    #[test]
    fn the_payload_is_passed_on_as_it_was_written() {
        let text = r#" {"name":"email","payload":{ "b":1.0, "a":[ ] } } "#;
        assert_eq!(Submission::read(text, NOW).unwrap().payload.get(), r#"{ "b":1.0, "a":[ ] }"#);
        assert_eq!(Submission::read(r#"{"name":"email"}"#, NOW).unwrap().payload.get(), "{}");
        assert_eq!(Submission::read(r#"{"name":"email","payload":null}"#, NOW).unwrap().payload.get(), "null");
    }

    #[test]
    fn a_time_in_the_past_is_now() {
        let delay = |text: &str| Submission::read(text, NOW).unwrap().delay;
        assert_eq!(delay(r#"{"name":"a","run_at":"2001-01-01T00:00:00Z"}"#), Duration::ZERO);
        assert_eq!(delay(r#"{"name":"a","run_at":"2026-11-18T12:06:50+01:00"}"#), Duration::from_secs(10));
        assert_eq!(delay(r#"{"name":"a","delay":"250ms","run_at":null}"#), Duration::from_millis(250));
    }

    #[test]
    fn a_fault_names_its_field_and_what_is_accepted() {
        let faulty = [
            "",
            "[\"email\"]",
            "{",
            r#"{"payload":{}}"#,
            r#"{"name":7}"#,
            "{\"name\":\"a\",\n \"payloat\":{}}",
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a"} x"#,
            r#"{"name":"a","delay":10}"#,
            r#"{"name":"a","delay":"10"}"#,
            r#"{"name":"a","delay":"1s","run_at":"2030-01-01T00:00:00Z"}"#,
            r#"{"name":"a","run_at":"tomorrow"}"#,
            r#"{"name":"a","run_at":"9999-01-01T00:00:00Z"}"#,
            r#"{"name":"a","priority":10}"#,
            r#"{"name":"a","priority":1.5}"#,
            r#"{"name":"a","max_attempts":0}"#,
            r#"{"name":"a","tags":"x"}"#,
            r#"{"name":"a","tags":[""]}"#,
        ];
        insta::assert_snapshot!(faulty.map(|text| format!("{text}\n    {}", fault(text))).join("\n"));
    }
}
