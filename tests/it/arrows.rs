//! Dependencies point one way: `main → cli → {server, worker} → {script, broker} → job`; `config`, `telemetry` and
//! `shutdown` are leaves. Proven by reading every path into the crate that the sources name.

use std::fs;
use std::path::{Path, PathBuf};

/// What each module may name besides itself.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("main", &["cli", "config", "telemetry", "shutdown", "job"]),
    ("cli", &["server", "worker", "script", "broker", "job", "config", "telemetry", "shutdown"]),
    ("server", &["broker", "job", "config", "telemetry", "shutdown"]),
    ("worker", &["script", "broker", "job", "config", "telemetry", "shutdown"]),
    ("script", &["job", "config", "telemetry", "shutdown"]),
    ("broker", &["job", "config", "telemetry", "shutdown"]),
    ("config", &["job"]),
    ("telemetry", &["job"]),
    ("job", &[]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The first segment of every `crate::x` and `ryemill::x`, also inside `crate::{x, y::z}`.
fn named_modules(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for prefix in ["crate::", "ryemill::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            if let Some(list) = rest.strip_prefix('{') {
                let mut depth = 0;
                let mut word = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push(std::mem::take(&mut word)),
                        c if depth == 0 => word.push(c),
                        _ => {}
                    }
                }
                found.push(word);
            } else {
                found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
    }
    found
        .into_iter()
        .map(|path| path.trim().split("::").next().unwrap_or_default().trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 10, "the sources were not found below {}", root.display());
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_string_lossy();
        let module = module.trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module).or_else(|| {
            // Leaves that need nothing.
            (module == "shutdown").then_some(&("shutdown", &[] as &[&str]))
        }) else {
            wrong.push(format!("{}: the module {module} is not on the map", inside.display()));
            continue;
        };
        for named in named_modules(&fs::read_to_string(&file).unwrap()) {
            let is_module = ALLOWED.iter().any(|(name, _)| *name == named) || named == "shutdown";
            if is_module && named != module && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{}: {module} must not know {named}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_paths_sees_every_form() {
    let text = "use crate::server::x;\nuse crate::{job::Id, broker::{A, B}, script};\n// use crate::cli;\nlet a = crate::worker::go();";
    assert_eq!(named_modules(text), ["server", "job", "broker", "script", "worker"]);
}
