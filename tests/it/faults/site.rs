//! A folder with scripts, a database and logs of its own, and the processes that work on it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use super::{Api, Process};

pub struct Site {
    dir: TempDir,
    env: Vec<(String, String)>,
    started: AtomicUsize,
}

/// A server process that listens.
pub struct Server {
    pub process: Process,
    pub api: Api,
}

impl Site {
    pub fn new(scripts: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("jobs")).unwrap();
        let site = Self { dir, env: Vec::new(), started: AtomicUsize::new(0) };
        for (name, source) in scripts {
            std::fs::write(site.script(name), source).unwrap();
        }
        site.set("PORT", "0").set("LOG_FORMAT", "json").set("HTTP_ALLOW_PRIVATE", "127.0.0.1")
    }

    /// Sets a variable for every process that is started after.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What workers note of who is on a CPU: a file for each.
    pub fn notes(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join("data/on-cpu")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Where the script of that name is; `lib/NAME` for a module.
    pub fn script(&self, name: &str) -> PathBuf {
        self.path().join("jobs").join(format!("{name}.rhai"))
    }

    pub fn start(&self, args: &[&str]) -> Process {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let console = self.path().join(format!("{}-{number}.console", args[0]));
        Process::start(args, self.path(), &self.env, console)
    }

    pub fn worker(&self) -> Process {
        self.start(&["worker"])
    }

    pub async fn server(&self) -> Server {
        let process = self.start(&["server"]);
        let line = process.logged("the API is on ").await;
        let base = line["message"].as_str().unwrap().trim_start_matches("the API is on ");
        Server { api: Api::new(base.to_owned()), process }
    }

    /// Every line in the log files of a role (`server` or `worker`), whichever process wrote it.
    pub fn filed(&self, role: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(self.path().join("logs")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with(role) {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
        }
        lines
    }
}
