//! The accept loop: connections in, bounded in number and in time, HTTP/1 and HTTP/2; and their end when the server
//! stops. Knows a router, not what it routes.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::pace::{self, Pace, Paced};
use crate::shutdown::Shutdown;

/// What connections are held to.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open at once; the next ones wait in the listener's queue.
    pub connections: usize,
    pub pace: Pace,
    /// For requests under way when the server stops.
    pub grace: Duration,
}

/// The head of a request, bytes. Over it the answer is 431.
const MAX_HEAD: u32 = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// Serves until `shutdown`, then lets what is under way end within the grace period and cuts off the rest.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let builder = Arc::new(builder());
    loop {
        // A place first: a connection is not accepted before it can be served.
        let place = tokio::select! {
            () = shutdown.requested() => break,
            place = room.clone().acquire_owned() => place,
        };
        let stream = tokio::select! {
            () = shutdown.requested() => break,
            stream = accept(&listener) => stream,
        };
        let paced = Paced::new(stream, limits.pace);
        let requests = paced.requests();
        let router = router.clone();
        let service = tower::service_fn(move |request: axum::http::Request<_>| {
            let (router, request_under_way) = (router.clone(), requests.begin());
            async move {
                let answer: Result<_, Infallible> = router.oneshot(request.map(Body::new)).await;
                answer.map(|answer| answer.map(|body| Body::new(Counted { body, _request: request_under_way })))
            }
        });
        let (builder, watcher) = (builder.clone(), graceful.watcher());
        connections.spawn(async move {
            let connection = builder.serve_connection(TokioIo::new(paced), TowerToHyperService::new(service));
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections cut off at the end of the grace period");
    }
    connections.shutdown().await;
}

/// An answer's body, which is part of its request: only when it is sent or given up is the request over.
struct Counted {
    body: Body,
    _request: pace::Request,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_buf_size(MAX_HEAD as usize);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEAD);
    builder
}

/// The next connection. A failed accept is either that client's affair or a lack of descriptors that will pass:
/// the loop never ends for it.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole; waiting to fill a packet only adds delay.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was refused");
                }
                return stream;
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionRefused | K::ConnectionAborted | K::ConnectionReset)
}
