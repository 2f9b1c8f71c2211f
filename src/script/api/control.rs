//! The functions without a namespace: `progress`, `sleep`, `submit`, `fail`, `retry_in`, `secret`.

use std::time::Duration;

use rhai::{Dynamic, EvalAltResult, FLOAT, INT, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{answer, args, call_id, handed_over, put, to_json};
use crate::job::{JobName, Priority};
use crate::script::account;
use crate::script::context::{self, RunContext, ScriptResult};
use crate::script::ports::{ChildJob, HostError};

const ANOTHER_ATTEMPT: &str = "the script asked for another attempt";

const MAX_TAGS: usize = 16;
const MAX_TAG: usize = 64;

pub const REFERENCE: Namespace = Namespace {
    name: "",
    about: "",
    functions: &[
        Function::new(
            &["progress(percent: int | float)", "progress(percent: int | float, message: string)"],
            "how far the job is, 0 to 100; what is beyond counts as the nearest of both",
            r#"progress(50, "half of it")"#,
            Outcome::Nothing,
        ),
        Function::new(&["sleep(duration: string)"], "lets others work meanwhile", r#"sleep("10ms")"#, Outcome::Nothing),
        Function::new(
            &[
                "submit(name: string, payload: any) -> string",
                "submit(name: string, payload: any, options: map) -> string",
            ],
            "a child job, its id; options `delay`, `priority` (0–9), `tags` (16 of 64 bytes), `unique_key`",
            "let mail = #{ to: \"ada@example.com\", name: \"Ada\" };\n\
             let id = submit(\"email\", mail, #{ delay: \"5m\", tags: [\"welcome\"] });\n\
             id.len()",
            Outcome::Value("36"),
        ),
        Function::new(
            &["fail(why: string)"],
            "ends the job: no further attempt",
            r#"fail("the order was cancelled")"#,
            Outcome::Fails("the order was cancelled"),
        ),
        Function::new(
            &["retry_in(delay: string)", "retry_in(delay: string, why: string)"],
            "ends the attempt; the next is due after `delay`",
            r#"retry_in("10m", "the other side is closed")"#,
            Outcome::Fails("the other side is closed"),
        ),
        Function::new(
            &["secret(name: string) -> string"],
            "a value that the operator set as `SECRET_NAME`; the script's `allow.secrets` must name it",
            r#"secret("api_key").len()"#,
            Outcome::Value("16"),
        ),
    ],
    notes: "A run submits at most 1000 jobs; a payload has at most 1 MiB of JSON.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "progress", |percent: Dynamic| progress(&percent, &Dynamic::UNIT));
    put!(&mut module, "progress", |percent: Dynamic, message: Dynamic| progress(&percent, &message));
    put!(&mut module, "sleep", |duration: Dynamic| sleep(&duration));
    // Rhai's own, which would put the whole thread to sleep, take numbers.
    put!(&mut module, "sleep", |seconds: INT| sleep(&seconds.into()));
    put!(&mut module, "sleep", |seconds: FLOAT| sleep(&seconds.into()));
    put!(&mut module, "submit", |name: Dynamic, payload: Dynamic| submit(&name, &payload, Map::new().into()));
    put!(&mut module, "submit", |name: Dynamic, payload: Dynamic, options: Dynamic| {
        submit(&name, &payload, options)
    });
    put!(&mut module, "fail", |why: Dynamic| fail(&why));
    put!(&mut module, "retry_in", |delay: Dynamic| retry_in(&delay, &ANOTHER_ATTEMPT.into()));
    put!(&mut module, "retry_in", |delay: Dynamic, why: Dynamic| retry_in(&delay, &why));
    put!(&mut module, "secret", |name: Dynamic| secret(&name));
    module
}

fn progress(percent: &Dynamic, message: &Dynamic) -> ScriptResult<()> {
    let run = context::current()?;
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 percent it does not matter")]
    let number = percent.as_float().or_else(|_| percent.as_int().map(|int| int as f64));
    let percent = match number {
        // A sum of steps may end at 100.00000000000001; a job should not fail for that.
        Ok(number) if !number.is_nan() => number.clamp(0.0, 100.0),
        _ => return Err(args::unfit("progress", "percent", "a number from 0 to 100", percent)),
    };
    let message =
        if message.is_unit() { rhai::ImmutableString::new() } else { args::text("progress", "message", message)? };
    let message = cut(&message, run.limits.log_line);
    account::uncharged(|| run.ports.progress(percent, run.services.masker.mask(message).into_owned()));
    Ok(())
}

fn sleep(duration: &Dynamic) -> ScriptResult<()> {
    let run = context::current()?;
    let duration = args::duration("sleep", "duration", duration)?;
    let skipped = run.ports.skip(duration);
    if let Some(counted) = skipped {
        run.skip(counted);
    }
    context::wait(async move {
        tokio::time::sleep(if skipped.is_some() { Duration::ZERO } else { duration }).await;
        Ok(())
    })
}

fn submit(name: &Dynamic, payload: &Dynamic, options: Dynamic) -> ScriptResult<String> {
    const FUNCTION: &str = "submit";

    let run = context::current()?;
    let child = child(&run, name, payload, options)?;
    let limit = run.limits.max_children;
    if run.children.get() >= u64::from(limit) {
        let message = format!("{FUNCTION}: a run may submit {limit} jobs, this would be one more");
        return Err(context::throw(HostError::denied(message)));
    }
    run.children.set(run.children.get() + 1);
    let submitted = account::uncharged(|| run.services.elsewhere(run.ports.submit(child)));
    answer(submitted).map(|id| id.to_string())
}

fn child(run: &RunContext, name: &Dynamic, payload: &Dynamic, options: Dynamic) -> ScriptResult<ChildJob> {
    const FUNCTION: &str = "submit";

    let name = args::name(FUNCTION, "name", name)?;
    let name = JobName::new(&name).map_err(|error| args::wrong(format!("{FUNCTION}: {error}")))?;
    let payload = to_json(FUNCTION, "payload", payload, run.limits.max_payload)?;
    let options = args::options(FUNCTION, "options", options, &["delay", "priority", "tags", "unique_key"])?;
    let option = |key: &str| options.get(key).filter(|value| !value.is_unit());

    let delay = option("delay").map(|value| args::duration(FUNCTION, "delay", value)).transpose()?.unwrap_or_default();
    let priority = option("priority")
        .map(|value| {
            let given =
                value.as_int().map_err(|_| args::unfit(FUNCTION, "priority", "an integer from 0 to 9", value))?;
            Priority::new(given).map_err(|error| args::wrong(format!("{FUNCTION}: {error}")))
        })
        .transpose()?;
    let tags = option("tags").map(|value| args::texts(FUNCTION, "tags", value)).transpose()?.unwrap_or_default();
    if tags.len() > MAX_TAGS || tags.iter().any(|tag| tag.is_empty() || tag.len() > MAX_TAG) {
        return Err(args::wrong(format!(
            "{FUNCTION}: `tags` must be at most {MAX_TAGS} strings of 1 to {MAX_TAG} bytes"
        )));
    }
    let call = match option("unique_key") {
        Some(key) => format!("key:{}", args::name(FUNCTION, "unique_key", key)?),
        None => format!("call:{}", call_id(run, FUNCTION, &[name.as_str().as_bytes(), payload.as_bytes()])),
    };
    Ok(handed_over(&ChildJob { name, payload, delay, priority, tags, call }))
}

fn fail(why: &Dynamic) -> ScriptResult<()> {
    Err(ending(why, "fail", context::fail_job))
}

fn retry_in(delay: &Dynamic, why: &Dynamic) -> ScriptResult<()> {
    context::current()?;
    let delay = args::duration("retry_in", "delay", delay)?;
    Err(ending(why, "retry_in", |why| context::retry_job(delay, why)))
}

fn ending(why: &Dynamic, function: &str, end: impl FnOnce(String) -> Box<EvalAltResult>) -> Box<EvalAltResult> {
    let run = match context::current() {
        Ok(run) => run,
        Err(ended) => return ended,
    };
    match args::text(function, "why", why) {
        Ok(why) => end(cut(&why, run.limits.max_thrown).to_owned()),
        Err(error) => error,
    }
}

fn secret(name: &Dynamic) -> ScriptResult<String> {
    let run = context::current()?;
    let name = args::name("secret", "name", name)?.to_lowercase();
    if !run.spec().allow.secrets.contains(&name) {
        return Err(context::throw(HostError::denied(format!(
            "secret: this script may not read `{name}`: its `allow` has no such entry in `secrets`"
        ))));
    }
    match run.services.secrets.get(&name) {
        Some(value) => Ok(value.to_owned()),
        None => Err(context::throw(HostError::denied(format!(
            "secret: there is no secret `{name}`: SECRET_{} is not set",
            name.to_ascii_uppercase()
        )))),
    }
}

/// At most so many bytes, whole characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
