//! The pace a connection is held to: a request's head must arrive in time, a connection without a request is closed
//! after a while, and a client that does not take its answer is cut off. Knows bytes and counts, not HTTP.
//!
//! hyper's own `header_read_timeout` also runs while a kept-alive connection is idle, and nothing in it bounds the
//! first bytes of a connection whose HTTP version is not known yet; so the clock is here, below both versions.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the first byte of a request, or the beginning of the connection, to the end of its head.
    pub head: Duration,
    /// Without any request.
    pub idle: Duration,
    /// Without the client taking a byte of what is to be sent.
    pub stall: Duration,
}

/// What one connection is at; shared by its bytes and its requests.
#[derive(Debug)]
struct Doing {
    requests: usize,
    /// When it was last of use: the end of a request, or a write.
    last_used: Instant,
    /// Since when bytes arrive that are no request yet.
    head_since: Option<Instant>,
}

/// A handle to count the requests of a connection.
#[derive(Clone, Debug)]
pub struct Requests(Arc<Mutex<Doing>>);

/// Counts as one request until dropped.
pub struct Request(Requests);

impl Requests {
    pub fn begin(&self) -> Request {
        let mut doing = self.lock();
        doing.requests += 1;
        doing.head_since = None;
        drop(doing);
        Request(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut doing = self.0.lock();
        doing.requests -= 1;
        doing.last_used = Instant::now();
    }
}

/// A stream held to a [`Pace`]; over time its reads and writes fail with `TimedOut`, which ends the connection.
pub struct Paced<S> {
    stream: S,
    pace: Pace,
    requests: Requests,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub fn new(stream: S, pace: Pace) -> Self {
        let now = Instant::now();
        // A new connection owes its first head at once.
        let doing = Doing { requests: 0, last_used: now, head_since: Some(now) };
        Self {
            stream,
            pace,
            requests: Requests(Arc::new(Mutex::new(doing))),
            read_timer: Box::pin(sleep_until(now + pace.head)),
            write_timer: None,
        }
    }

    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// When the wait for bytes has lasted too long. While a request is under way (its body has its own clock) that is
    /// only when to look again: its end may not wake the reader.
    fn read_deadline(&self) -> Instant {
        let doing = self.requests.lock();
        match doing.head_since {
            _ if doing.requests > 0 => Instant::now() + self.pace.idle,
            Some(since) => since + self.pace.head,
            None => doing.last_used + self.pace.idle,
        }
    }

    /// Passes on a finished write; on a blocked one fails when it has been blocked for too long.
    fn paced_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            self.requests.lock().last_used = Instant::now();
            return written;
        }
        let stall = self.pace.stall;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(late("the client takes no bytes")))
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buffer) {
            let mut doing = this.requests.lock();
            if doing.requests == 0 {
                doing.head_since.get_or_insert_with(Instant::now);
            }
            // A head that comes byte by byte always has something to read: the clock is looked at here, too.
            let late_head =
                doing.requests == 0 && doing.head_since.is_some_and(|since| since.elapsed() > this.pace.head);
            return Poll::Ready(if late_head { Err(late("the head takes too long")) } else { read });
        }
        loop {
            let deadline = this.read_deadline();
            if deadline <= Instant::now() {
                return Poll::Ready(Err(late("no request came")));
            }
            this.read_timer.as_mut().reset(deadline);
            ready!(this.read_timer.as_mut().poll(cx));
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.paced_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.paced_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    /// Never over within a test.
    const LONG: Duration = Duration::from_mins(10);

    /// Reads until that fails.
    async fn error_of(stream: &mut Paced<DuplexStream>) -> io::ErrorKind {
        loop {
            if let Err(error) = stream.read_u8().await {
                return error.kind();
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_never_asks_is_cut_at_the_time_for_a_head() {
        let (_client, server) = duplex(64);
        let mut server = Paced::new(server, Pace { head: SHORT, idle: LONG, stall: LONG });
        assert_eq!(error_of(&mut server).await, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_head_that_drips_is_cut_although_bytes_keep_coming() {
        let (mut client, server) = duplex(64);
        let mut server = Paced::new(server, Pace { head: SHORT, idle: LONG, stall: LONG });
        let drip = async {
            while client.write_u8(b'x').await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        tokio::select! {
            kind = error_of(&mut server) => assert_eq!(kind, io::ErrorKind::TimedOut),
            () = drip => panic!("the stream ended before it was cut"),
        }
    }

    #[tokio::test]
    async fn a_request_may_take_long_and_afterwards_the_idle_time_begins() {
        let (_client, server) = duplex(64);
        let mut server = Paced::new(server, Pace { head: SHORT, idle: SHORT, stall: LONG });
        let request = server.requests().begin();
        assert!(tokio::time::timeout(SHORT * 4, server.read_u8()).await.is_err(), "cut during the request");
        drop(request);
        let began = Instant::now();
        assert_eq!(error_of(&mut server).await, io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= SHORT, "the idle time was not given");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut() {
        let (_client, server) = duplex(64);
        let mut server = Paced::new(server, Pace { head: LONG, idle: LONG, stall: SHORT });
        server.write_all(&[0; 64]).await.unwrap();
        assert_eq!(server.write_all(&[0; 10]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_a_little_now_and_then_is_not_cut() {
        let (mut client, server) = duplex(1);
        let stall = SHORT * 20;
        let mut server = Paced::new(server, Pace { head: LONG, idle: LONG, stall });
        let slow = async {
            for _ in 0..5 {
                tokio::time::sleep(stall / 4).await;
                client.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(server.write_all(&[0; 6]), slow);
        written.unwrap();
    }
}
