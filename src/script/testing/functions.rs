//! What only tests can call: `assert`, `assert_eq`, `assert_throws`, `run_job`, `mock_http`, `mock_sql`.

use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;
use rhai::{
    Blob, Dynamic, Engine, EvalAltResult, FnPtr, FuncRegistration, ImmutableString, Map, Module, NativeCallContext,
};
use serde_json::Value;

use super::same::difference;
use super::stage::{HttpReply, Stage, rows};
use super::{GRACE, job};
use crate::job::JobName;
use crate::script::account;
use crate::script::api::{args, put, to_json};
use crate::script::context::{self, ScriptResult};
use crate::script::diagnostics::near;
use crate::script::engine;
use crate::script::ports::HostError;
use crate::script::reference::{Function, Namespace, Outcome};
use crate::script::services::edge::SqlReply;

/// Characters of a value in the text of a failed assertion.
const MAX_SHOWN: usize = 1000;
/// Bytes of a mock, as JSON.
const MAX_MOCK: usize = 8 << 20;

/// What only tests can call.
pub const REFERENCE: Namespace = Namespace {
    name: "",
    about: "",
    functions: &[
        Function::new(
            &["assert(holds: bool)", "assert(holds: bool, why: any)"],
            "fails the test unless `holds` is true",
            "assert(ran.emails.is_empty(), \"nothing was sent\");",
            Outcome::Nothing,
        ),
        Function::new(
            &["assert_eq(left: any, right: any)", "assert_eq(left: any, right: any, why: any)"],
            "fails the test unless both values are the same, and names the first place where they differ",
            "assert_eq(ran.state, \"succeeded\", ran.error);",
            Outcome::Nothing,
        ),
        Function::new(
            &["assert_throws(call: Fn) -> any", "assert_throws(call: Fn, text: string) -> any"],
            "fails the test unless `call` throws something with `text` in it; gives what was thrown",
            "assert_throws(|| run_job(\"email\", #{}), \"subject\");",
            Outcome::Nothing,
        ),
        Function::new(
            &["run_job(name: string, payload: any) -> map"],
            "runs a job to its end over all its attempts and tells all about it",
            "let ran = run_job(\"email\", #{ to: \"ada@example.com\", subject: \"Hello\" });",
            Outcome::Nothing,
        ),
        Function::new(
            &["mock_http(method: string, url_pattern: string, answer: map | array)"],
            "answers HTTP calls in place of the server; of several answers each is given once, the last one stays",
            "mock_http(\"GET\", \"https://api.example.com/*\", #{ status: 200, body: #{ id: 7 } });",
            Outcome::Nothing,
        ),
        Function::new(
            &["mock_sql(database: string, pattern: string, rows: array | int | map)"],
            "answers statements in place of the database",
            "mock_sql(\"shop\", \"FROM orders\", [#{ id: 7, cents: 700 }]);",
            Outcome::Nothing,
        ),
    ],
    notes: "",
};

/// The engine of a test: that of a job, and these.
pub fn engine(stage: &Arc<Stage>) -> Engine {
    let mut engine = engine::build();
    engine.register_global_module(module(stage).into());
    engine
}

fn module(stage: &Arc<Stage>) -> Module {
    let mut module = Module::new();
    put!(&mut module, "assert", |holds: Dynamic| assert(&holds, None));
    put!(&mut module, "assert", |holds: Dynamic, why: Dynamic| assert(&holds, Some(&why)));
    put!(&mut module, "assert_eq", |left: Dynamic, right: Dynamic| assert_eq(&left, &right, None));
    put!(&mut module, "assert_eq", |left: Dynamic, right: Dynamic, why: Dynamic| {
        assert_eq(&left, &right, Some(&why))
    });
    FuncRegistration::new("assert_throws")
        .set_into_module(&mut module, |context: NativeCallContext, call: FnPtr| throws(&context, &call, None));
    FuncRegistration::new("assert_throws")
        .set_into_module(&mut module, |context: NativeCallContext, call: FnPtr, text: ImmutableString| {
            throws(&context, &call, Some(&text))
        });
    let on = Arc::clone(stage);
    put!(&mut module, "run_job", |name: Dynamic, payload: Dynamic| run_job(&on, &name, &payload));
    let on = Arc::clone(stage);
    put!(&mut module, "mock_http", |method: Dynamic, url: Dynamic, answer: Dynamic| {
        mock_http(&on, &method, &url, answer)
    });
    let on = Arc::clone(stage);
    put!(&mut module, "mock_sql", |database: Dynamic, pattern: Dynamic, rows: Dynamic| {
        mock_sql(&on, &database, &pattern, &rows)
    });
    module
}

/// `name/arity` of what is registered.
///
/// # Panics
/// Without a runtime.
#[cfg(test)]
pub fn registered() -> std::collections::BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let options = super::TestOptions {
        timeout: GRACE,
        limits: crate::job::Limits::default(),
        mail_from: String::new(),
        runtime: runtime.handle().clone(),
    };
    let mut engine = Engine::new_raw();
    engine.register_global_module(module(&Stage::new(Arc::default(), &options)).into());
    let signatures = engine.gen_fn_signatures(true).into_iter();
    signatures
        .filter_map(|signature| {
            let (name, rest) = signature.split_once('(')?;
            let parameters = rest.split(") ->").next()?.trim_end_matches(')');
            Some(format!("{name}/{}", parameters.split(',').filter(|text| !text.trim().is_empty()).count()))
        })
        .collect()
}

fn failed(mut message: String, why: Option<&Dynamic>) -> Box<EvalAltResult> {
    if let Some(why) = why {
        let _ = write!(message, ": {why}");
    }
    message.into()
}

fn assert(holds: &Dynamic, why: Option<&Dynamic>) -> ScriptResult<()> {
    match holds.as_bool() {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("assertion failed".to_owned(), why)),
        Err(_) => Err(args::unfit("assert", "holds", "a bool", holds)),
    }
}

fn assert_eq(left: &Dynamic, right: &Dynamic, why: Option<&Dynamic>) -> ScriptResult<()> {
    let Some(place) = difference(left, right) else { return Ok(()) };
    let at = if place.is_empty() { String::new() } else { format!(" at {place}") };
    let first = failed(format!("assertion failed: the values differ{at}"), why).to_string();
    Err(format!("{}\n   left: {}\n  right: {}", text_of(&first), shown(left), shown(right)).into())
}

fn text_of(error: &str) -> &str {
    error.strip_prefix("Runtime error: ").unwrap_or(error)
}

fn shown(value: &Dynamic) -> String {
    let text = format!("{value:?}");
    if text.len() <= MAX_SHOWN { text } else { format!("{}…", &text[..text.floor_char_boundary(MAX_SHOWN)]) }
}

/// The value that the call throws, which must contain `text`.
fn throws(context: &NativeCallContext, call: &FnPtr, text: Option<&str>) -> ScriptResult<Dynamic> {
    let placed = |message: String| -> Box<EvalAltResult> {
        EvalAltResult::ErrorRuntime(message.into(), context.call_position()).into()
    };
    match call.call_within_context::<Dynamic>(context, ()) {
        Ok(value) => Err(placed(format!("assertion failed: nothing was thrown, the value is {}", shown(&value)))),
        Err(error) if !error.is_catchable() => Err(error),
        Err(error) => {
            let mut inner = &*error;
            while let EvalAltResult::ErrorInFunctionCall(_, _, error, _) | EvalAltResult::ErrorInModule(_, error, _) =
                inner
            {
                inner = error;
            }
            let value = match inner {
                EvalAltResult::ErrorRuntime(value, _) => value.clone(),
                other => other.to_string().into(),
            };
            match text {
                Some(text) if !said(&value).contains(text) => {
                    Err(placed(format!("assertion failed: what was thrown has no {text:?} in it: {}", said(&value))))
                }
                _ => Ok(value),
            }
        }
    }
}

/// The message of a host error, or else the value as text.
fn said(value: &Dynamic) -> String {
    let message = value.read_lock::<Map>().and_then(|map| map.get("message").map(ToString::to_string));
    message.unwrap_or_else(|| value.to_string())
}

fn run_job(stage: &Arc<Stage>, name: &Dynamic, payload: &Dynamic) -> ScriptResult<Map> {
    const FUNCTION: &str = "run_job";

    let run = context::current()?;
    let name = args::name(FUNCTION, "name", name)?;
    let scripts = &stage.snapshot.scripts;
    let found = JobName::new(&name).ok().and_then(|name| scripts.get(&name));
    let Some(script) = found else {
        let hint = near(&name, scripts.keys().map(JobName::as_str)).map_or(String::new(), |hint| format!(", {hint}"));
        return Err(args::wrong(format!("{FUNCTION}: there is no job `{name}` without faults{hint}")));
    };
    let payload = to_json(FUNCTION, "payload", payload, run.limits.max_payload)?;
    let value = serde_json::from_str(&payload).unwrap_or(Value::Null);
    let faults = script.schema().faults(&value);
    if !faults.is_empty() {
        let why = crate::job::schema::list(&faults);
        return Err(context::throw(HostError::unfit(&script.job_type.name, &why)));
    }
    let grace = GRACE.min(stage.options.timeout / 10);
    let until = run.deadline().checked_sub(grace).unwrap_or_else(|| run.deadline());
    let reply = account::uncharged(|| {
        let work = job::run(Arc::clone(stage), Arc::clone(script), payload.clone(), until);
        run.services.elsewhere(Box::pin(work))
    });
    Ok(context::wait(reply)?.into_map())
}

fn mock_http(stage: &Stage, method: &Dynamic, url: &Dynamic, answer: Dynamic) -> ScriptResult<()> {
    const FUNCTION: &str = "mock_http";

    let method = args::name(FUNCTION, "method", method)?.to_ascii_uppercase();
    let url = args::text(FUNCTION, "url_pattern", url)?.to_string();
    let replies = match answer.try_cast_result::<rhai::Array>() {
        Ok(answers) if answers.is_empty() => {
            return Err(args::wrong(format!("{FUNCTION}: `answer` is an empty array")));
        }
        Ok(answers) => answers.into_iter().map(|answer| reply(FUNCTION, answer)).collect::<ScriptResult<_>>()?,
        Err(answer) => vec![reply(FUNCTION, answer)?],
    };
    account::uncharged(|| stage.mock_http(method.clone(), url.clone(), replies.clone()));
    Ok(())
}

fn reply(function: &str, answer: Dynamic) -> ScriptResult<HttpReply> {
    let answer = args::options(function, "answer", answer, &["status", "headers", "body", "error"])?;
    let field = |key: &str| answer.get(key).filter(|value| !value.is_unit());
    let status = match field("status") {
        None => StatusCode::OK,
        Some(status) => {
            let code = status.as_int().ok().and_then(|code| u16::try_from(code).ok());
            let code = code.and_then(|code| StatusCode::from_u16(code).ok());
            code.ok_or_else(|| args::unfit(function, "answer.status", "a status code such as 200", status))?
        }
    };
    let mut headers = Vec::new();
    if let Some(given) = field("headers") {
        for (name, value) in args::map(function, "answer.headers", given.clone())? {
            headers.push((name.to_string(), value.to_string()));
        }
    }
    let (body, json) = match field("body") {
        None => (Vec::new(), false),
        Some(body) if body.is_map() || body.is_array() => {
            (to_json(function, "answer.body", body, MAX_MOCK)?.into_bytes(), true)
        }
        Some(body) => match body.read_lock::<Blob>() {
            Some(blob) => (blob.clone(), false),
            None => (args::text(function, "answer.body", body)?.as_bytes().to_vec(), false),
        },
    };
    if json && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    let error = field("error").map(|error| args::text(function, "answer.error", error)).transpose()?;
    Ok(HttpReply { status, headers, body, error: error.map(|text| text.to_string()) })
}

fn mock_sql(stage: &Stage, database: &Dynamic, pattern: &Dynamic, found: &Dynamic) -> ScriptResult<()> {
    const FUNCTION: &str = "mock_sql";
    const EXPECTED: &str = "an array of maps, a number of changed rows, or #{ error: text }";

    let database = args::name(FUNCTION, "database", database)?.to_lowercase();
    let pattern = args::text(FUNCTION, "pattern", pattern)?.to_string();
    let reply = if let Ok(count) = found.as_int() {
        Ok(SqlReply::Changed(u64::try_from(count).unwrap_or(0)))
    } else if let Some(map) = found.read_lock::<Map>() {
        match map.get("error") {
            Some(error) => Err(args::text(FUNCTION, "rows.error", error)?.to_string()),
            None => return Err(args::unfit(FUNCTION, "rows", EXPECTED, found)),
        }
    } else {
        let text = to_json(FUNCTION, "rows", found, MAX_MOCK)?;
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(SqlReply::Rows(rows(value).ok_or_else(|| args::unfit(FUNCTION, "rows", EXPECTED, found))?))
    };
    account::uncharged(|| stage.mock_sql(database.clone(), pattern.clone(), reply.clone()));
    Ok(())
}
