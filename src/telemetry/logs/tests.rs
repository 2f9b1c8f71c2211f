//! Log lines as they arrive at a captured writer, in files, and from a process of its own.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::{Value, json};
use tracing::{debug, error, info, info_span, warn};

use super::*;

/// Runs `log` and returns what it wrote, in one form.
fn captured(format: Format, level: &str, log: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let sink = Sink { format, writer: BoxMakeWriter::new(move || writer.clone()) };
    let subscriber = tracing_subscriber::registry().with(filter(level).unwrap()).with(LogLayer { sinks: vec![sink] });
    tracing::subscriber::with_default(subscriber, log);
    let bytes = buffer.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// The lines as JSON, without their timestamps, which are checked.
fn json_lines(level: &str, log: impl FnOnce()) -> Vec<Value> {
    let text = captured(Format::Json, level, log);
    let parse = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
        let timestamp = timestamp.as_str().unwrap();
        assert!(timestamp.parse::<Timestamp>().is_ok() && timestamp.len() == "2026-01-01T00:00:00.000000Z".len());
        assert!(timestamp.ends_with('Z'));
        line
    };
    text.lines().map(parse).collect()
}

#[test]
fn a_line_is_one_flat_object() {
    let lines = json_lines("info", || {
        info!(target: "script", job_id = "j1", attempt = 2, ratio = 0.5, done = true, big = u64::MAX, "sent {}", 3);
    });
    assert_eq!(
        lines,
        [json!({
            "level": "INFO", "target": "script", "message": "sent 3", "job_id": "j1", "attempt": 2, "ratio": 0.5,
            "done": true, "big": u64::MAX
        })]
    );
}

#[test]
fn keys_come_in_a_fixed_order() {
    let text = captured(Format::Json, "info", || info!(b = 1, a = 2, "x"));
    let from_level = text.split_once(r#","level""#).unwrap().1;
    assert_eq!(
        from_level,
        ":\"INFO\",\"target\":\"ryemill::telemetry::logs::tests\",\"message\":\"x\",\"b\":1,\"a\":2}\n"
    );
}

#[test]
fn span_fields_are_on_every_line_inside_and_the_event_wins() {
    let lines = json_lines("info", || {
        let outer = info_span!("worker", worker_id = "w1", job_id = "outer", late = tracing::field::Empty);
        let _outer = outer.enter();
        let inner = info_span!("run", job_id = "inner", message = "of the span");
        outer.record("late", 7);
        inner.in_scope(|| info!("in both"));
        inner.in_scope(|| info!(job_id = "event", "own id"));
        info!("in one");
    });
    let expected = |job_id: &str, message: &str| {
        json!({
            "level": "INFO", "target": module_path!(), "message": message, "worker_id": "w1", "job_id": job_id,
            "late": 7, "field.message": "of the span"
        })
    };
    assert_eq!(lines[0], expected("inner", "in both"));
    assert_eq!(lines[1], expected("event", "own id"));
    assert_eq!(lines[2]["job_id"], "outer");
    assert_eq!(lines[2].get("field.message"), None);
}

#[test]
fn a_field_cannot_pose_as_one_of_the_line() {
    let lines = json_lines("info", || info!(level = "ERROR", target = "x", timestamp = 0, "real"));
    assert_eq!(
        lines,
        [json!({
            "level": "INFO", "target": module_path!(), "message": "real", "field.level": "ERROR", "field.target": "x",
            "field.timestamp": 0
        })]
    );
}

#[test]
fn fields_of_a_script_are_flattened_under_a_prefix() {
    let fields = json!({"amount": 12, "job_id": "forged", "nested": {"a": [1]}, "none": null}).to_string();
    let lines = json_lines("info", || {
        info!(job_id = "real", fields = %fields, "x");
        info!(fields = "not an object", "x");
    });
    assert_eq!(
        lines[0],
        json!({
            "level": "INFO", "target": module_path!(), "message": "x", "job_id": "real", "fields.amount": 12,
            "fields.job_id": "forged", "fields.nested": "{\"a\":[1]}", "fields.none": null
        })
    );
    assert_eq!(lines[1]["fields"], "not an object");
}

#[test]
fn errors_show_their_causes_and_odd_numbers_are_text() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);
    let lines = json_lines("info", || {
        let outer = Outer(std::io::Error::other("inner"));
        error!(error = &outer as &dyn std::error::Error, nan = f64::NAN, huge = 1e300, wide = i128::MAX, "x");
    });
    assert_eq!(lines[0]["error"], "outer: inner");
    assert_eq!(lines[0]["nan"], "NaN");
    assert_eq!(lines[0]["huge"], 1e300);
    assert_eq!(lines[0]["wide"], i128::MAX.to_string());
}

#[test]
fn levels_are_info_unless_told_otherwise() {
    let messages = |level: &str| {
        let lines = json_lines(level, || {
            error!("e");
            warn!("w");
            info!("i");
            debug!("d");
            debug!(target: "other", "o");
        });
        lines.iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(messages("info"), "ewi");
    assert_eq!(messages("warn"), "ew");
    assert_eq!(messages("DEBUG"), "ewido");
    assert_eq!(messages("off"), "");
    assert_eq!(messages("other=debug"), "ewio");
    assert_eq!(messages("off,other=debug"), "o");
    assert!(filter("ryemill=loud").is_err());
}

#[test]
fn text_for_people() {
    let text = |color| {
        let text = captured(Format::Pretty { color }, "info", || {
            warn!(target: "script", job_id = "j-1", path = "a b", empty = "", attempt = 2, "two words");
        });
        let (timestamp, rest) = text.split_once(' ').unwrap();
        assert!(timestamp.parse::<Timestamp>().is_ok() && timestamp.len() == "2026-01-01T00:00:00.000Z".len());
        rest.to_owned()
    };
    assert_eq!(text(false), " WARN script: two words job_id=j-1 path=\"a b\" empty=\"\" attempt=2\n");
    assert!(text(true).starts_with("\u{1b}[33m WARN\u{1b}[0m script: "));
}

#[test]
fn no_value_can_forge_a_line_or_steer_a_terminal() {
    let nasty = "a\n2026-01-01T00:00:00Z ERROR fake\r\u{1b}[2J\u{85}\u{2028}\u{202e}\u{7f}\0\"\\";
    let log = || info!(target: "script", job_id = nasty, "{nasty}");
    let text = captured(Format::Pretty { color: false }, "info", log);
    let escaped = r"a\n2026-01-01T00:00:00Z ERROR fake\r\u001b[2J\u0085\u2028\u202e\u007f\u0000";
    assert!(text.ends_with(&format!("  INFO script: {escaped}\"\\ job_id=\"{escaped}\\\"\\\\\"\n")), "{text}");
    let text = captured(Format::Json, "info", log);
    assert!(text.trim_end_matches('\n').chars().all(|c| !c.is_control() && c != '\u{2028}'), "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["message"], &line["job_id"]), (&json!(nasty), &json!(nasty)));
}

proptest! {
    #[test]
    fn every_text_survives_json_on_one_line(message in any::<String>(), value in any::<String>(), name in any::<String>()) {
        let fields = Value::Object([(name.clone(), json!(value))].into_iter().collect()).to_string();
        let log = || info!(job_id = value, fields, "{message}");
        let lines = json_lines("info", log);
        prop_assert_eq!(lines.len(), 1);
        prop_assert_eq!(&lines[0]["message"], &json!(message));
        prop_assert_eq!(&lines[0]["job_id"], &json!(value));
        prop_assert_eq!(&lines[0][format!("fields.{name}")], &json!(value));
        let pretty = captured(Format::Pretty { color: false }, "info", log);
        prop_assert_eq!(pretty.chars().filter(|c| c.is_control()).collect::<String>(), "\n");
    }
}

#[test]
fn daily_files_of_a_role_are_kept_to_a_number_and_others_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("deep/logs");
    std::fs::create_dir_all(&dir).unwrap();
    for name in ["worker.2026-01-01.jsonl", "worker.2026-01-02.jsonl", "worker.2026-01-03.jsonl"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
    for name in ["worker-out.log", "server.2026-01-01.jsonl"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
    // Twice, as at a restart: the file of the day goes on.
    for _ in 0..2 {
        let (writer, guard) = daily_files(&dir, "worker", 3).unwrap();
        let sink = Sink { format: Format::Json, writer: BoxMakeWriter::new(writer) };
        let subscriber = tracing_subscriber::registry().with(LogLayer { sinks: vec![sink] });
        tracing::subscriber::with_default(subscriber, || info!(job_id = "j1", "kept"));
        drop(guard);
    }
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let today = format!("worker.{}.jsonl", Timestamp::now().strftime("%Y-%m-%d"));
    assert!(names.contains(&"worker-out.log".into()) && names.contains(&"server.2026-01-01.jsonl".into()), "{names:?}");
    assert!(names.contains(&today) && names.len() <= 5, "{names:?}");
    let text = std::fs::read_to_string(dir.join(today)).unwrap();
    let ids: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["job_id"].clone()).collect();
    assert_eq!(ids, ["j1", "j1"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir = file.path().join("logs");
    let options =
        LogOptions { level: "info".into(), pretty: false, dir: Some(dir.clone()), keep_files: 2, role: "server" };
    let error = init(&options).unwrap_err();
    assert!(error.to_string().starts_with(&format!("log files cannot be written in {}; ", dir.display())), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

/// `init` is for a whole process, so this test runs itself in one: standard error and the file get the same lines,
/// panics and records of the `log` crate included, and a second `init` is refused.
#[test]
fn a_process_logs_to_standard_error_and_a_file() {
    const DIR: &str = "RYEMILL_TEST_LOG_DIR";
    if let Some(dir) = std::env::var_os(DIR) {
        let options =
            LogOptions { level: "info".into(), pretty: false, dir: Some(dir.into()), keep_files: 2, role: "worker" };
        let guard = init(&options).unwrap();
        assert!(matches!(init(&LogOptions { dir: None, ..options }), Err(LogError::Twice(_))));
        info!(request_id = "r1", "hello");
        log::warn!(target: "dependency", "through log");
        let thread = std::thread::spawn(|| panic!("two\nlines"));
        assert!(thread.join().is_err());
        assert_eq!(guard.dropped_lines(), 0);
        drop(guard);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "telemetry::logs::tests::a_process_logs_to_standard_error_and_a_file"])
        .env(DIR, dir.path())
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let console = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{console}");
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(std::fs::read_to_string(&files[0]).unwrap(), console);
    let lines: Vec<Value> = console.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{console}");
    assert_eq!((&lines[0]["message"], &lines[0]["request_id"]), (&json!("hello"), &json!("r1")));
    let mut dependency = lines[1].clone();
    dependency.as_object_mut().unwrap().remove("timestamp");
    assert_eq!(dependency, json!({"level": "WARN", "target": "dependency", "message": "through log"}));
    assert_eq!((&lines[2]["message"], &lines[2]["target"]), (&json!("panicked: two\nlines"), &json!("panic")));
    assert!(lines[2]["place"].as_str().unwrap().starts_with("src/telemetry/logs/tests.rs:"), "{console}");
}
