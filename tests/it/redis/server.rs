//! One redis-server process, which can be killed and started again with its port, folder and settings.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue, InfoDict};
use tempfile::TempDir;

use super::keeper;
use super::tls::Authority;
use crate::eventually::eventually;

pub struct RedisServer {
    child: Child,
    port: u16,
    tls: Option<Authority>,
    password: Option<String>,
    /// Starts so far; each has a log of its own.
    starts: usize,
    dir: TempDir,
}

/// Ports below those that the kernel gives to whoever asks for any, so that a port is still free when a killed server
/// is started again.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl RedisServer {
    /// With these settings, as in `redis.conf`. Without any it keeps nothing on disk.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_as(settings, None, &[]).await
    }

    /// Its `url` is of a second port, with TLS.
    pub async fn start_with_tls(settings: &[(&str, &str)]) -> Self {
        Self::start_as(settings, Some(Authority::new()), &[]).await
    }

    /// With further arguments, such as `--sentinel`.
    pub(super) async fn start_as(settings: &[(&str, &str)], tls: Option<Authority>, args: &[&str]) -> Self {
        loop {
            let (dir, port) = (keeper::folder(), free_port());
            let mut lines = vec![("bind", "127.0.0.1".to_owned()), ("port", port.to_string())];
            if !args.contains(&"--sentinel") {
                lines.extend([("save", "\"\"".to_owned()), ("enable-debug-command", "yes".to_owned())]);
                // Only read by members of a cluster.
                lines.push(("cluster-port", free_port().to_string()));
            }
            if let Some(authority) = &tls {
                lines.push(("tls-port", free_port().to_string()));
                lines.push(("tls-cert-file", authority.certificate().display().to_string()));
                lines.push(("tls-key-file", authority.key().display().to_string()));
                lines.push(("tls-ca-cert-file", authority.file().display().to_string()));
                lines.push(("tls-auth-clients", "no".to_owned()));
            }
            lines.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
            let text: String = lines.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
            std::fs::write(dir.path().join("redis.conf"), text).unwrap();
            let password = lines.iter().find(|(name, _)| *name == "requirepass").map(|(_, value)| value.clone());
            let child = spawn(dir.path(), 0, args);
            let mut server = Self { child, port, tls: None, password, starts: 1, dir };
            if server.is_up().await {
                server.tls = tls;
                return server;
            }
            let log = server.log();
            assert!(log.contains("Address already in use"), "redis-server did not start: {log}");
        }
    }

    /// Waits until it answers. False: it has ended.
    async fn is_up(&mut self) -> bool {
        eventually("redis-server answers", async || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            // Another server may answer on a port that this one could not get.
            let log = self.log();
            let listens = log.contains("Ready to accept connections") || log.contains("Sentinel ID is");
            (listens && answers(self.port)).then_some(true)
        })
        .await
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `127.0.0.1:PORT`, without TLS.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As whoever the settings let in.
    pub fn url(&self) -> String {
        match &self.password {
            Some(password) => self.url_as(&format!(":{password}")),
            None => self.url_as(""),
        }
    }

    /// As `USER:PASSWORD`.
    pub fn url_as(&self, user: &str) -> String {
        let at = if user.is_empty() { "" } else { "@" };
        match &self.tls {
            Some(_) => format!("rediss://{user}{at}localhost:{}", self.tls_port()),
            None => format!("redis://{user}{at}{}", self.address()),
        }
    }

    /// Whose certificates it shows.
    pub fn authority(&self) -> Option<&Authority> {
        self.tls.as_ref()
    }

    fn tls_port(&self) -> u16 {
        let text = std::fs::read_to_string(self.dir().join("redis.conf")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("tls-port ")).unwrap().parse().unwrap()
    }

    /// A connection without TLS for a test's own commands.
    pub async fn connect(&self) -> MultiplexedConnection {
        let user = self.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        let client = Client::open(format!("redis://{user}{}", self.address())).unwrap();
        let mut wait = redis::AsyncConnectionConfig::new();
        wait = wait.set_response_timeout(Some(Duration::from_secs(30)));
        client.get_multiplexed_async_connection_with_config(&wait).await.unwrap()
    }

    /// One command, its words apart by spaces.
    pub async fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let answer = command(words).query_async(&mut self.connect().await).await;
        answer.unwrap_or_else(|fault| panic!("{words}: {fault}"))
    }

    pub async fn info(&self, section: &str) -> InfoDict {
        self.ask(&format!("INFO {section}")).await
    }

    /// Ends it as kill -9 does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Self::kill`]; it has what its settings made it keep.
    pub async fn restart(&mut self) {
        // A socket of the killed process may take a moment to go.
        eventually("the port is free again", async || TcpListener::bind(("127.0.0.1", self.port)).ok()).await;
        self.child = spawn(self.dir(), self.starts, &[]);
        self.starts += 1;
        assert!(self.is_up().await, "redis-server did not start again: {}", self.log());
    }

    /// What it has logged since it was last started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.dir.path(), self.starts - 1)).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("--- redis-server on port {}", self.port);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A command whose words are apart by spaces.
pub fn command(words: &str) -> redis::Cmd {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    command
}

fn log_file(dir: &Path, start: usize) -> PathBuf {
    dir.join(format!("redis-{start}.log"))
}

fn spawn(dir: &Path, start: usize, args: &[&str]) -> Child {
    let log = log_file(dir, start);
    let mut words = vec!["redis.conf", "--logfile", log.to_str().unwrap()];
    words.extend(args);
    keeper::redis_server(&words, dir)
}

/// Whether a PING is answered, be it by a refusal; not while data is being loaded.
fn answers(port: u16) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"+PONG\r\n" || answer == *b"-NOAUTH")
    };
    ask().unwrap_or(false)
}
