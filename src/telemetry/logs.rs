//! Log lines to the console and to daily files: JSON lines or text for people, one event a line, see
//! `line.rs`.
//!
//! Fields come from the event and from the spans it is in, and the event wins: scripts run on fibers, over whose
//! suspensions no span may stay entered, so their events carry job id, request id and the like themselves.
//!
//! The console is standard error, written at once; standard output is for results. Files are written by a thread of
//! their own, which drops lines (and counts them) rather than hold up a run when the disk is slow.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::fmt::MakeWriter as _;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use super::line::{Fields, Line, Recorder};

/// Lines that may wait for the disk; then they are dropped. With lines of 16 KiB, the most a script may log by
/// default, that is 256 MiB.
const WAITING_LINES: usize = 16_384;

/// How a process logs.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A level, or directives of [`EnvFilter`]; modules that none is for log at `info`.
    pub level: String,
    /// Text for people on the console, else JSON lines.
    pub pretty: bool,
    /// Folder of the daily files, made when it is missing; `None` for no files.
    pub dir: Option<PathBuf>,
    /// How many daily files of this role to keep, at least 2. (With 1 a restart would delete the file of the day.)
    pub keep_files: usize,
    /// `server`, `worker` or `dev`: the files are `ROLE.YYYY-MM-DD.jsonl`, by UTC day.
    pub role: &'static str,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log level is not valid")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    #[error("log files cannot be written in {}; set LOG_DIR to a folder that can be written, or to nothing", dir.display())]
    Dir { dir: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("logging has been started already in this process")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps the log files open. Dropping it writes what is still waiting, so it must outlive all that logs.
#[must_use = "dropping it ends the log files"]
#[derive(Debug)]
pub struct LogGuard {
    files: Option<(WorkerGuard, ErrorCounter)>,
}

impl LogGuard {
    /// Lines that did not get into the files because the disk did not keep up.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.files.as_ref().map_or(0, |(_, dropped)| dropped.dropped_lines() as u64)
    }
}

/// Starts logging for the whole process, panics included.
///
/// # Errors
/// When the level is not valid, the folder cannot be written, or logging runs already.
pub fn init(options: &LogOptions) -> Result<LogGuard, LogError> {
    let filter = filter(&options.level)?;
    let console = if options.pretty {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Format::Pretty { color: std::io::stderr().is_terminal() && !no_color }
    } else {
        Format::Json
    };
    let mut sinks = vec![Sink { format: console, writer: BoxMakeWriter::new(std::io::stderr) }];
    let files = match &options.dir {
        Some(dir) => {
            let (writer, guard) = daily_files(dir, options.role, options.keep_files)
                .map_err(|source| LogError::Dir { dir: dir.clone(), source })?;
            let dropped = writer.error_counter();
            sinks.push(Sink { format: Format::Json, writer: BoxMakeWriter::new(writer) });
            Some((guard, dropped))
        }
        None => None,
    };
    tracing_subscriber::registry().with(filter).with(LogLayer { sinks }).try_init()?;
    log_panics();
    Ok(LogGuard { files })
}

fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(format!("info,{level}"))
}

/// The suffix is not `log`: what does not come from here but lies in the same folder, such as the output files of a
/// process manager, must never be taken for an old file of ours and removed.
fn daily_files(
    dir: &Path,
    role: &str,
    keep: usize,
) -> Result<(NonBlocking, WorkerGuard), Box<dyn std::error::Error + Send + Sync>> {
    std::fs::create_dir_all(dir)?;
    let files = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(role)
        .filename_suffix("jsonl")
        .max_log_files(keep)
        .build(dir)?;
    Ok(NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).thread_name("log-files").finish(files))
}

/// A panic is a log line like any other, with its place; the standard message would be several lines of plain text.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("(not a text)");
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(target: "panic", place, %backtrace, "panicked: {what}");
        } else {
            tracing::error!(target: "panic", place, "panicked: {what}");
        }
    }));
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Json,
    Pretty { color: bool },
}

struct Sink {
    format: Format,
    writer: BoxMakeWriter,
}

/// Writes every event to every sink.
struct LogLayer {
    sinks: Vec<Sink>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut recorder = Recorder::default();
            attributes.record(&mut recorder);
            span.extensions_mut().insert(recorder.into_span_fields());
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut recorder = Recorder::default();
            values.record(&mut recorder);
            if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
                fields.merge(&recorder.into_span_fields());
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut recorder = Recorder::default();
        event.record(&mut recorder);
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.merge(of_span);
            }
        }
        fields.merge(&recorder.fields);
        let line = Line {
            timestamp: Timestamp::now(),
            level: *event.metadata().level(),
            target: recorder.log_target.as_deref().unwrap_or(event.metadata().target()),
            message: recorder.message.as_deref().unwrap_or_default(),
            fields: &fields,
        };
        for sink in &self.sinks {
            let text = match sink.format {
                Format::Json => line.json(),
                Format::Pretty { color } => line.pretty(color),
            };
            // A console or disk that takes no more lines must not end the process, and there is nobody to tell.
            let _ = sink.writer.make_writer().write_all(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
