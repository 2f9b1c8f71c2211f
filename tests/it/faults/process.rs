//! One process of the real binary: started, watched through what it writes, sent signals to, and gone when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::eventually;

pub struct Process {
    child: Child,
    console: PathBuf,
}

impl Process {
    /// Starts `ryemill` with these arguments, in `dir` and with nothing else in its environment. Its console is a file.
    pub fn start(args: &[&str], dir: &Path, env: &[(String, String)], console: PathBuf) -> Self {
        let file = File::create(&console).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ryemill"))
            .args(args)
            .current_dir(dir)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, console }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `TERM`. The process is not reaped before it is dropped, so the id is its own.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }

    /// Stops it, by SIGSTOP, when it has the broker's write lock or when it has not. SQLite's lock stays with a process that
    /// stands still, so all others wait for one that was stopped in a commit.
    pub async fn freeze(&self, in_commit: bool) {
        self.freeze_when(|| self.has_write_lock() == in_commit).await;
    }

    /// Stops it, by SIGSTOP, at a moment at which this is so.
    pub async fn freeze_when(&self, test: impl Fn() -> bool) {
        eventually("it can be stopped at such a moment", async || {
            self.signal("STOP");
            eventually("every thread stands still", async || self.stands_still().then_some(())).await;
            let right = test();
            if !right {
                self.signal("CONT");
            }
            right.then_some(())
        })
        .await;
    }

    fn stands_still(&self) -> bool {
        let state = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            Some(stat.rsplit_once(") ")?.1.starts_with('T'))
        };
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks.into_iter().all(|task| state(task) == Some(true))
    }

    /// Whether the kernel lists SQLite's lock for writers, byte 120 of the file `-shm`, as this process's.
    fn has_write_lock(&self) -> bool {
        let (pid, locks) = (self.pid().to_string(), std::fs::read_to_string("/proc/locks").unwrap());
        locks.lines().any(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            matches!(fields[..], [_, "POSIX", _, "WRITE", owner, _, "120", "120"] if owner == pid)
        })
    }

    /// Ends it as kill -9 does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the process ends", async || self.child.try_wait().unwrap()).await
    }

    /// All that it has written.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap()).into_owned()
    }

    /// Its log so far, of whole lines.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.console();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no log line: {line}"))).collect()
    }

    /// Waits for a log line whose message begins so; the first one.
    pub async fn logged(&self, beginning: &str) -> Value {
        eventually(beginning, async || {
            self.lines()
                .into_iter()
                .find(|line| line["message"].as_str().is_some_and(|text| text.starts_with(beginning)))
        })
        .await
    }

    /// The ids under which this process, a worker, has worked.
    pub fn worker_ids(&self) -> Vec<String> {
        let id = |line: &Value| {
            let message = line["message"].as_str()?;
            let id = match message.split_once("this worker comes back as ") {
                Some((_, new)) => new,
                None if message == "the worker is registered" => line["worker_id"].as_str()?,
                None => return None,
            };
            Some(id.to_owned())
        };
        self.lines().iter().filter_map(id).collect()
    }

    /// Memory that it has from the system and not given back, in MiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = self.is_running();
        if running {
            self.kill();
        }
        if std::thread::panicking() {
            let text = self.console();
            // Of what a test asks, there is too much.
            let told = |line: &&str| !line.contains(r#""method":"GET""#);
            let tail: Vec<&str> = text.lines().filter(told).rev().take(30).collect();
            eprintln!("--- {} (running: {running})", self.console.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
