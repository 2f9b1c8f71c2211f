//! What of this machine Ryemill stands on: configuration, folders, process manager.

use std::time::Duration;

use crate::broker::Note;
use crate::cli::setup;
use crate::config::Config;
use crate::job::units::format_duration;
use crate::script::library::Library;
use crate::worker;

/// What PM2 gives a process to end when `kill_timeout` is not set.
const PM2_DEFAULT: Duration = Duration::from_millis(1600);

pub(super) fn configuration(config: &Config) -> Vec<Note> {
    let broker = setup::shown(&config.broker);
    let all = Note::ok("configuration", format!("APP_ENV={}, broker {broker}", config.app_env));
    let warnings = config
        .warnings
        .iter()
        .map(|warning| Note::warning("configuration", warning, "see .env.example for what there is"));
    std::iter::once(all).chain(warnings).collect()
}

pub(super) fn scripts(config: &Config) -> Note {
    const SUBJECT: &str = "scripts";
    let dir = config.jobs_dir.display();
    let library = match Library::load(&config.jobs_dir) {
        Ok(library) => library,
        Err(error) => return Note::wrong(SUBJECT, format!("{dir} cannot be read: {error}"), "see JOBS_DIR"),
    };
    let snapshot = library.snapshot();
    let count = snapshot.scripts.len();
    let refused: Vec<&str> = snapshot.refused.iter().map(|refused| refused.name.as_str()).collect();
    if !refused.is_empty() {
        let what = format!("{count} good ones in {dir}, {} with faults: {}", refused.len(), refused.join(", "));
        return Note::wrong(SUBJECT, what, "`ryemill check` shows the faults");
    }
    if !snapshot.faults.is_empty() {
        let what = format!("{count} good ones in {dir}, {} faults", snapshot.faults.len());
        return Note::wrong(SUBJECT, what, "`ryemill check` shows the faults");
    }
    if count == 0 {
        return Note::warning(SUBJECT, format!("none in {dir}"), "see JOBS_DIR, or make one: `ryemill new NAME`");
    }
    Note::ok(SUBJECT, format!("{count} in {dir}, without faults"))
}

/// The folder of the jobs' files takes a file.
pub(super) fn files(config: &Config) -> Note {
    let dir = config.files_dir.display();
    let write = || {
        std::fs::create_dir_all(&config.files_dir)?;
        let probe = config.files_dir.join(format!(".doctor-{}", std::process::id()));
        std::fs::write(&probe, b"probe")?;
        std::fs::remove_file(probe)
    };
    match write() {
        Ok(()) => Note::ok("files", format!("{dir} can be written")),
        Err(error) => Note::wrong("files", format!("{dir} cannot be written: {error}"), "see FILES_URL and its owner"),
    }
}

/// PM2 hands its settings down as environment variables; none when this does not run under PM2.
pub(super) fn pm2(config: &Config) -> Option<Note> {
    std::env::var_os("pm_id")?;
    let given = std::env::var("kill_timeout").ok();
    Some(kill_timeout(given.as_deref(), config.shutdown_grace))
}

fn kill_timeout(given: Option<&str>, grace: Duration) -> Note {
    const SUBJECT: &str = "pm2";
    let needed = grace + worker::EXTRA;
    let advice = format!("set `kill_timeout: {}` or more in the PM2 file", needed.as_millis());
    let (timeout, name) = match given {
        None => (PM2_DEFAULT, "PM2's own kill_timeout"),
        Some(text) => match text.parse() {
            Ok(ms) => (Duration::from_millis(ms), "kill_timeout"),
            Err(_) => return Note::warning(SUBJECT, format!("kill_timeout is no number: {text:?}"), advice),
        },
    };
    let needs = format!(
        "a stop may take {} (SHUTDOWN_GRACE and {} more)",
        format_duration(needed),
        format_duration(worker::EXTRA)
    );
    if timeout < needed {
        let what = format!("{name} is {}: {needs}, so jobs may be killed and run again", format_duration(timeout));
        Note::warning(SUBJECT, what, advice)
    } else {
        Note::ok(SUBJECT, format!("{name} is {}: {needs}", format_duration(timeout)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Level;

    #[test]
    fn pm2_must_wait_as_long_as_a_stop_takes() {
        let grace = Duration::from_secs(20);
        for (given, level) in [
            (Some("35000"), Level::Ok),
            (Some("32000"), Level::Ok),
            (Some("31999"), Level::Warning),
            (Some("soon"), Level::Warning),
            (None, Level::Warning),
        ] {
            assert_eq!(kill_timeout(given, grace).level, level, "{given:?}");
        }
        let note = kill_timeout(None, grace);
        assert!(note.what.starts_with("PM2's own kill_timeout is 1600ms: a stop may take 32s"), "{}", note.what);
        assert_eq!(note.advice.as_deref(), Some("set `kill_timeout: 32000` or more in the PM2 file"));
    }
}
