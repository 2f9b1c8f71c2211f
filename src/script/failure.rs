//! From what the script engine says of a failure to what callers see: kind, text, place, snippet, call stack.

use rhai::{Dynamic, EvalAltResult, Position};
use unicode_width::UnicodeWidthStr;

use super::fiber::ScriptEnd;
use super::fiber::context::{End, RunContext, StopReason};
use super::{convert, hints};
use crate::job::outcome::Frame;
use crate::job::units::{format_duration, format_size};
use crate::job::{ErrorKind, JobError};

/// At most this many frames are kept: a deep recursion repeats itself.
const MAX_FRAMES: usize = 16;

/// Where in which file.
struct Place {
    file: String,
    position: Position,
}

/// The end of a run that did not end by itself. `error` is what the engine made of it; it knows the place.
pub fn early_end(run: &RunContext, end: End, error: Option<&EvalAltResult>) -> ScriptEnd {
    let located = |kind, message: String, retryable| {
        let (mut place, mut stack) = error.map_or_else(|| (nowhere(run), Vec::new()), |error| locate(run, error));
        let mut error = JobError::new(kind, message, retryable);
        let called = hints::called_at(&run.compiled.program, place.position);
        let inner = run.end_place.borrow_mut().take();
        if let Some((file, position)) = inner.filter(|(_, position)| *position != place.position) {
            // A host call ended the run and knows where it stands.
            let frame = Frame { function: called.unwrap_or_default(), file: place.file, line: place.position.line() };
            stack.extend(Some(frame).filter(|frame| !frame.function.is_empty()));
            place = Place { file: file_of(&file, &run.script.file), position };
        } else if let Some(called) = called {
            error.hint = Some(hints::ended_within(&run.compiled.program, &called));
        }
        with_place(run, error, &place, stack)
    };
    match end {
        End::Stopped(StopReason::TimeUp) => {
            ScriptEnd::Failed(located(ErrorKind::Timeout, "the time for the run is over".to_owned(), true))
        }
        End::Stopped(reason) => ScriptEnd::Stopped(reason),
        End::FailedByScript(why) => ScriptEnd::Failed(located(ErrorKind::FailedByScript, why, false)),
        End::RetryIn(delay, why) => ScriptEnd::RetryIn { error: located(ErrorKind::Thrown, why, true), delay },
        End::Timeout => ScriptEnd::Failed(located(
            ErrorKind::Timeout,
            format!("the run took longer than its timeout of {}", format_duration(run.timeout())),
            true,
        )),
        End::Memory(over) => ScriptEnd::Failed(located(
            ErrorKind::Memory,
            format!("the run needs more than its memory of {}: {over}", format_size(over.limit as u64)),
            false,
        )),
        End::Panicked(text) => {
            ScriptEnd::Failed(located(ErrorKind::Panic, format!("a host function panicked: {text}"), false))
        }
        End::Stack => ScriptEnd::Failed(located(
            ErrorKind::Stack,
            "the script calls itself too deeply: its stack is used up".to_owned(),
            false,
        )),
    }
}

/// A result that is not JSON, or too large.
pub fn invalid_result(run: &RunContext, message: &str) -> JobError {
    let error = JobError::new(ErrorKind::InvalidResult, format!("the value of run(job): {message}"), false);
    with_place(run, error, &nowhere(run), Vec::new())
}

/// An error that the script did not catch.
pub fn job_error(run: &RunContext, error: &EvalAltResult) -> JobError {
    let inner = error;
    let (place, stack) = locate(run, error);
    let error = match innermost(error) {
        EvalAltResult::ErrorRuntime(value, _) => thrown(run, value),
        EvalAltResult::ErrorStackOverflow(_) => {
            JobError::new(ErrorKind::Stack, "the script calls itself too deeply", false)
        }
        other => JobError::new(ErrorKind::Script, without_place(other), true),
    };
    let hint = hints::hint(&run.script, &run.compiled.program, innermost(inner));
    with_place(run, JobError { hint, ..error }, &place, stack)
}

/// A thrown value. One that has the form of a host error is one.
fn thrown(run: &RunContext, value: &Dynamic) -> JobError {
    if let Some(map) = value.read_lock::<rhai::Map>() {
        let text = |key: &str| map.get(key).and_then(|value| value.clone().into_string().ok());
        let kind = text("kind").and_then(|kind| ErrorKind::ALL.into_iter().find(|known| known.as_str() == kind));
        let host = matches!(
            kind,
            Some(
                ErrorKind::Script
                    | ErrorKind::InvalidPayload
                    | ErrorKind::HostHttp
                    | ErrorKind::HostSql
                    | ErrorKind::HostEmail
                    | ErrorKind::HostFile
                    | ErrorKind::Denied
                    | ErrorKind::Panic
            )
        );
        if let (true, Some(kind), Some(message)) = (host, kind, text("message")) {
            let retryable = map.get("retryable").and_then(|value| value.as_bool().ok()).unwrap_or(false);
            return JobError::new(kind, cut(message, run.limits.max_thrown), retryable);
        }
    }
    let message = if value.is_unit() {
        "the script threw without saying why".to_owned()
    } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        cut(text.to_string(), run.limits.max_thrown)
    } else {
        convert::to_json(value, "thrown", run.limits.max_thrown)
            .unwrap_or_else(|fault| format!("a thrown {} that cannot be shown: {fault}", value.type_name()))
    };
    JobError::new(ErrorKind::Thrown, message, true)
}

/// The error below all calls and modules.
fn innermost(error: &EvalAltResult) -> &EvalAltResult {
    let mut error = error;
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) = error {
        error = inner;
    }
    error
}

/// The place of the innermost error, and the calls that led to it, innermost first.
fn locate(run: &RunContext, error: &EvalAltResult) -> (Place, Vec<Frame>) {
    let main = &run.script.file;
    let mut frames = Vec::new();
    let mut file = main.clone();
    let mut position = error.position();
    let mut error = error;
    loop {
        match error {
            EvalAltResult::ErrorInFunctionCall(name, source, inner, called_at) => {
                let caller = std::mem::replace(&mut file, file_of(source, main));
                let function = if name.starts_with("anon$") { "(closure)".to_owned() } else { name.clone() };
                frames.push(Frame { function, file: caller, line: called_at.line() });
                position = inner.position();
                error = inner;
            }
            EvalAltResult::ErrorInModule(path, inner, _) => {
                file = file_of(path, main);
                position = inner.position();
                error = inner;
            }
            _ => break,
        }
    }
    frames.reverse();
    frames.truncate(MAX_FRAMES);
    (Place { file, position }, frames)
}

fn file_of(source: &str, main: &str) -> String {
    match source {
        "" => main.to_owned(),
        _ if source.ends_with(".rhai") => source.to_owned(),
        _ => format!("{source}.rhai"),
    }
}

fn nowhere(run: &RunContext) -> Place {
    Place { file: run.script.file.clone(), position: Position::NONE }
}

fn with_place(run: &RunContext, mut error: JobError, place: &Place, stack: Vec<Frame>) -> JobError {
    error.message = run.services.masker.mask(&error.message).into_owned();
    error.snippet = run
        .script
        .source_of(&place.file)
        .and_then(|source| snippet(source, place.position.line()?, place.position.position()));
    error.file = Some(place.file.clone());
    error.line = place.position.line();
    error.column = place.position.position();
    error.stack = stack;
    error
}

/// The source line with a caret under the column; both 1-based.
fn snippet(source: &str, line: usize, column: Option<usize>) -> Option<String> {
    const WIDTH: usize = 160;
    let text = source.lines().nth(line.checked_sub(1)?)?;
    let column = column.unwrap_or(1).max(1);
    // A long line is shown around the column.
    let skipped = column.saturating_sub(WIDTH / 2);
    let shown: String = text.chars().skip(skipped).take(WIDTH).map(|c| if c == '\t' { ' ' } else { c }).collect();
    let before = column - 1 - skipped.min(column - 1);
    let at = shown.char_indices().nth(before).map_or(shown.len(), |(at, _)| at);
    // The word that begins there, as in the cards of `check`.
    let word: String = shown[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let margin = line.to_string();
    // Some characters take two places on a terminal.
    let (blanks, carets) = (shown[..at].width(), word.width().max(1));
    Some(format!("{margin} | {shown}\n{} | {}{}", " ".repeat(margin.len()), " ".repeat(blanks), "^".repeat(carets)))
}

/// The engine's text without the "(line 1, position 2)" that the place says already.
fn without_place(error: &EvalAltResult) -> String {
    let text = error.to_string();
    let text = match text.rfind(" (line ") {
        Some(at) if text.ends_with(')') => &text[..at],
        _ => &text,
    };
    // The types as `type_of` calls them.
    text.replace("&str | ImmutableString | String", "string")
}

fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_points_at_its_column() {
        assert_eq!(snippet("let a = 1;\nlet b = ;\n", 2, Some(9)).unwrap(), "2 | let b = ;\n  |         ^");
        assert_eq!(snippet("x", 7, Some(1)), None);
    }

    #[test]
    fn a_caret_stands_below_its_word_after_wide_characters() {
        let shown = snippet("let s = \"日本😀é\"; s.nope()", 1, Some(19)).unwrap();
        assert_eq!(shown, "1 | let s = \"日本😀é\"; s.nope()\n  |                      ^^^^");
    }

    #[test]
    fn a_long_line_is_shown_around_its_column() {
        let line = format!("{}!{}", "a".repeat(1000), "b".repeat(1000));
        let shown = snippet(&line, 1, Some(1001)).unwrap();
        let (text, caret) = shown.split_once('\n').unwrap();
        assert_eq!(text.find('!'), caret.find('^'));
        assert!(shown.len() < 400);
    }

    #[test]
    fn a_cut_keeps_whole_characters() {
        assert_eq!(cut("aé".into(), 2), "a…");
    }
}
