//! A PostgreSQL server of the tests' own: made in a temporary folder, on a free port of loopback, ended with the last test
//! that holds it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

pub const PASSWORD: &str = "only-for-tests";

pub struct Server {
    pub port: u16,
    process: Child,
    folder: tempfile::TempDir,
}

/// The server, started by the first test that asks while there is none.
pub fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Server::start());
    *shared = Arc::downgrade(&server);
    server
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let secret = folder.path().join("password");
        fs::write(&secret, PASSWORD).unwrap();
        // The server refuses to be root.
        if let Some((user, group)) = other_user() {
            for path in [folder.path(), &secret] {
                chown(path, Some(user), Some(group)).unwrap();
            }
        }
        let made = command("initdb")
            .args(["-U", "ryemill", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .arg(format!("--pwfile={}", secret.display()))
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        make_certificate(folder.path(), &data);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=60", "-c", "ssl=on"])
            .args(["-c", &format!("port={port}")])
            .args(["-c", &format!("unix_socket_directories={}", folder.path().display())])
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { port, process, folder };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        let until = Instant::now() + Duration::from_mins(1);
        let log = self.folder.path().join("log");
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("ready to accept connections") {
                return;
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "postgres did not start:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn url(&self) -> String {
        format!("postgres://ryemill:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// The folder with the socket and `root.crt`, the certificate of the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT, the immediate shutdown: the server ends its own processes, which SIGKILL would leave behind.
        let id = self.process.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &id]).status();
        let _ = self.process.wait();
    }
}

/// One of the server's programs, run as who may.
fn command(program: &str) -> Command {
    let mut command = Command::new(found(program));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

/// Debian keeps the server's programs out of the PATH.
fn found(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(program)).collect();
    places.sort();
    places.into_iter().rev().find(|place| place.exists()).unwrap_or_else(|| program.into())
}

/// User and group `postgres`, when this is root.
fn other_user() -> Option<(u32, u32)> {
    let own = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap();
    if own != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("the user postgres, of its package");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}

/// A certificate for `localhost` that nobody else has signed.
fn make_certificate(folder: &Path, data: &Path) {
    let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    fs::copy(&certificate, folder.join("root.crt")).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((user, group)) = other_user() {
        chown(&key, Some(user), Some(group)).unwrap();
        chown(&certificate, Some(user), Some(group)).unwrap();
    }
}
