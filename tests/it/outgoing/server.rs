//! A web server that does what none should: bodies without end, bombs, heads without end, silence. Raw sockets on
//! loopback, one request each, since a library for servers would keep to the rules. Ends when it is dropped.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress, write::GzEncoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub const GIB: u64 = 1 << 30;
const PIECE: usize = 16 << 10;

pub struct Server {
    pub port: u16,
    seen: Arc<Seen>,
    runtime: Runtime,
}

/// What the server knows of its clients.
struct Seen {
    /// Bytes of bodies that were taken off its hands.
    sent: AtomicU64,
    /// First lines of the requests.
    asked: Mutex<Vec<String>>,
    /// The process whose memory `/peak` tells.
    watched: watch::Sender<u32>,
}

impl Server {
    pub fn start() -> Self {
        Self::on("127.0.0.1:0")
    }

    pub fn on(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seen = Arc::new(Seen { sent: AtomicU64::new(0), asked: Mutex::default(), watched: watch::Sender::new(0) });
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                tokio::spawn(async move {
                    // The client may leave whenever it likes.
                    let _ = serve(stream, &seen).await;
                });
            }
        });
        Self { port, seen, runtime }
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Tells `/peak` whose memory is asked for.
    pub fn watch(&self, process: u32) {
        self.seen.watched.send_replace(process);
    }

    pub fn sent(&self) -> u64 {
        self.seen.sent.load(Ordering::Relaxed)
    }

    pub fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().unwrap().clone()
    }

    /// Ends it, with all that it is doing.
    pub fn stop(self) {
        self.runtime.shutdown_background();
    }
}

async fn serve(mut stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let first = request.lines().next().unwrap_or_default().to_owned();
    seen.asked.lock().unwrap().push(first.clone());
    let target = first.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/declared" => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n").as_bytes()).await?;
            flood(&mut stream, &[0; PIECE], GIB / PIECE as u64, seen).await
        }
        "/until-close" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            flood(&mut stream, &[0; PIECE], GIB / PIECE as u64, seen).await
        }
        "/chunked" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            flood(&mut stream, &chunk(&[0; PIECE]), GIB / PIECE as u64, seen).await
        }
        "/small-chunks" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            flood(&mut stream, &chunk(&[0; 100]).repeat(1000), GIB / 100_000, seen).await
        }
        "/chunk-extension" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;").await?;
            flood(&mut stream, &[b'x'; PIECE], GIB / PIECE as u64, seen).await
        }
        "/trailers" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n").await?;
            flood(&mut stream, &b"x-a: b\r\n".repeat(PIECE / 8), GIB / PIECE as u64, seen).await
        }
        "/gzip" | "/gzip-declared" | "/gzip-twice" | "/gzip-within" => explode(&mut stream, path, seen).await,
        // Codings that nobody asked for.
        "/br" | "/deflate" | "/zstd" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: {}\r\ncontent-length: 4\r\n\r\n",
                &path[1..]
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&[0xff, 0, 1, 2]).await
        }
        "/gzip-broken" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope").await
        }
        "/trickle" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            trickle(&mut stream, &chunk(b"x")).await
        }
        "/head-trickle" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-a: ").await?;
            trickle(&mut stream, b"x").await
        }
        "/long-header" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-a: ").await?;
            flood(&mut stream, &[b'x'; PIECE], GIB / PIECE as u64, seen).await
        }
        "/many-headers" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            flood(&mut stream, &b"x-a: b\r\n".repeat(PIECE / 8), GIB / PIECE as u64, seen).await
        }
        "/hints" => loop {
            stream.write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)).await?;
        },
        "/garbage" => flood(&mut stream, &[b'x'; PIECE], GIB / PIECE as u64, seen).await,
        "/silence" => stream.read_to_end(&mut Vec::new()).await.map(drop),
        "/short" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx").await,
        "/lengths" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx").await,
        "/to" => {
            let (status, location) = query.split_once(',').unwrap_or(("500", ""));
            reply(&mut stream, &format!("{status} To\r\nlocation: {location}"), "").await
        }
        "/peak" => {
            let mut watched = seen.watched.subscribe();
            let process = *watched.wait_for(|process| *process != 0).await.map_err(std::io::Error::other)?;
            let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
            reply(&mut stream, "200 OK", peak.trim().trim_end_matches(" kB")).await
        }
        _ => reply(&mut stream, "200 OK", &request).await,
    }
}

/// The bomb: chunked, with its length, or within another layer of gzip, told as such (`gzip, gzip`) or as one.
async fn explode(stream: &mut TcpStream, path: &str, seen: &Seen) -> std::io::Result<()> {
    let (bomb, times) = bomb();
    let coding = if path == "/gzip-twice" { "gzip, gzip" } else { "gzip" };
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: {coding}\r\n");
    match path {
        "/gzip" => {
            stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
            stream.write_all(&chunk(&GZIP_HEAD)).await?;
            flood(stream, &chunk(&bomb), times, seen).await
        }
        "/gzip-declared" => {
            let length = GZIP_HEAD.len() as u64 + bomb.len() as u64 * times;
            stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await?;
            stream.write_all(&GZIP_HEAD).await?;
            flood(stream, &bomb, times, seen).await
        }
        _ => {
            let mut outer = GzEncoder::new(Vec::new(), Compression::best());
            outer.write_all(&GZIP_HEAD)?;
            for _ in 0..times {
                outer.write_all(&bomb)?;
            }
            let body = outer.finish()?;
            stream.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).await?;
            stream.write_all(&body).await
        }
    }
}

async fn reply(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

async fn flood(stream: &mut TcpStream, piece: &[u8], times: u64, seen: &Seen) -> std::io::Result<()> {
    for _ in 0..times {
        stream.write_all(piece).await?;
        seen.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

async fn trickle(stream: &mut TcpStream, piece: &[u8]) -> std::io::Result<()> {
    loop {
        stream.write_all(piece).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A piece that is a mebibyte of zeros, and how often it makes 10 GiB; all together are some 10 MB.
fn bomb() -> (Vec<u8>, u64) {
    let mut compress = Compress::new(Compression::best(), false);
    let mut piece = Vec::with_capacity(1 << 16);
    // After a full flush nothing refers to what came before, so that the piece can stand anywhere.
    compress.compress_vec(&vec![0; 1 << 20], &mut piece, FlushCompress::Full).unwrap();
    assert_eq!(compress.total_in(), 1 << 20);
    (piece, 10 << 10)
}
