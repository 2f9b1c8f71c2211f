//! Processes and folders that never outlive the test process, however it ends.
//!
//! A process is told by the kernel to die with the *thread* that started it, so one thread, which lives as long as
//! the test process, starts them all. Folders lie in one that a small shell removes when its input, held by this
//! process, comes to its end.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

use tempfile::TempDir;

type Order = (Command, Sender<std::io::Result<Child>>);

static STARTER: LazyLock<Sender<Order>> = LazyLock::new(|| {
    let (sender, orders) = channel::<Order>();
    std::thread::spawn(move || {
        for (mut command, answer) in orders {
            answer.send(command.spawn()).expect("it waits for the answer");
        }
    });
    sender
});

/// Starts `redis-server` with these arguments, in `dir`.
pub fn redis_server(args: &[&str], dir: &Path) -> Child {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "redis-server"]).args(args).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, answer) = channel();
    STARTER.send((command, sender)).expect("the thread lives");
    answer.recv().expect("the thread lives").expect("setpriv (util-linux) can be started")
}

static BASE: LazyLock<(TempDir, Child)> = LazyLock::new(|| {
    let base = tempfile::Builder::new().prefix("ryemill-redis-").tempdir().unwrap();
    let guard = Command::new("sh")
        // A stop of the whole process group must not stop it before its work.
        .args(["-c", r#"trap "" INT TERM HUP; cat >/dev/null; rm -rf -- "$0""#])
        .arg(base.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (base, guard)
});

/// A new folder.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(BASE.0.path()).unwrap()
}
