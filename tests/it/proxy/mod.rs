//! A TCP proxy that does to a connection what networks do: it is slow, stands still, ends in the middle of an answer,
//! loses one direction, is reset. It knows nothing of what it carries.
//!
//! [`Weather`] lasts until it changes and is of all connections; cuts, closes and resets happen once. [`Fault`] is any
//! of them, and can be drawn from a seed.

mod fault;
mod link;
mod shown;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub use fault::Fault;
use link::Link;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Replies,
}

/// What all connections, and those still to come, are like. Each pair is of requests and of replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Every piece arrives so much later; order and throughput stay.
    pub latency: Duration,
    /// What is sent arrives once it is over.
    pub frozen: [bool; 2],
    /// What is sent is gone. A connection that has lost something is closed when it is over, as no sender could repair it.
    pub lost: [bool; 2],
}

pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// To a server on this machine, by its `127.0.0.1:PORT`.
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let link = Arc::new(Link::default());
        let serving = tokio::spawn(serve(listener, server, Arc::clone(&link)));
        Self { address, link, serving }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, weather: Weather) {
        self.link.set(weather);
    }

    /// Fair weather again, and no cut to come.
    pub fn heal(&self) {
        self.link.cut(None);
        self.link.set(Weather::default());
    }

    /// Closes the connection over which the byte after the next `bytes` of this direction, counted over all
    /// connections, would go. What comes before arrives.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        self.link.cut(Some((way, bytes)));
    }

    /// Closes all connections.
    pub fn close(&self) {
        self.link.end_all(false);
    }

    /// Resets all connections, which the peers see as an error.
    pub fn reset(&self) {
        self.link.end_all(true);
    }

    /// Connections made so far.
    pub fn connections(&self) -> u64 {
        self.link.connections()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // With it go its connections.
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, server: String, link: Arc<Link>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        link.connected();
        let (server, link) = (server.clone(), Arc::clone(&link));
        connections.spawn(async move {
            // A server that is not there: the client's connection is closed.
            let Ok(server) = TcpStream::connect(&server).await else { return };
            link.carry(client, server).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
