//! What all connections of a proxy share, and how one of them is carried.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Way, Weather};

#[derive(Default)]
pub struct Link {
    sky: watch::Sender<Sky>,
    cut: Mutex<Option<(Way, u64)>>,
    connections: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Sky {
    weather: Weather,
    closes: u64,
    resets: u64,
}

/// How a connection ends before its peers want it to.
enum End {
    Close,
    Reset,
}

impl Link {
    pub fn set(&self, weather: Weather) {
        self.sky.send_modify(|sky| sky.weather = weather);
    }

    pub fn cut(&self, cut: Option<(Way, u64)>) {
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner) = cut;
    }

    pub fn end_all(&self, reset: bool) {
        self.sky.send_modify(|sky| if reset { sky.resets += 1 } else { sky.closes += 1 });
    }

    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub async fn carry(&self, mut client: TcpStream, mut server: TcpStream) {
        let sky = self.sky.subscribe();
        // Each piece goes on as it comes.
        drop((client.set_nodelay(true), server.set_nodelay(true)));
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let carried = async {
            tokio::try_join!(
                self.pump(Way::Requests, client_read, server_write),
                self.pump(Way::Replies, server_read, client_write),
            )
            .err()
        };
        let end = tokio::select! {
            end = carried => end,
            end = ended(sky) => Some(end),
        };
        if let Some(End::Reset) = end {
            // Dropped now, they are reset.
            drop((client.set_zero_linger(), server.set_zero_linger()));
        }
    }

    /// Carries one direction until its sender has ended it.
    async fn pump(&self, way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut sky = self.sky.subscribe();
        let (queue, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(64);
        let latency = || self.sky.borrow().weather.latency;
        let read = async move {
            let mut piece = vec![0; 16 << 10];
            loop {
                // A peer that was reset resets the other.
                let count = from.read(&mut piece).await.map_err(|_| End::Reset)?;
                if count == 0 || queue.send((Instant::now() + latency(), piece[..count].to_vec())).await.is_err() {
                    return Ok(());
                }
            }
        };
        let write = async {
            let mut lossy = false;
            loop {
                let next = tokio::select! {
                    next = pieces.recv() => next,
                    () = fair(self.sky.subscribe(), way), if lossy => return Err(End::Close),
                };
                if let Some((due, _)) = &next
                    && *due > Instant::now() + Duration::from_millis(1)
                {
                    sleep_until(*due).await;
                }
                // The end of the connection waits as well.
                let now = sky.wait_for(|sky| !sky.weather.frozen[way as usize]).await.expect("it is ours").weather;
                let Some((_, piece)) = next else { break };
                if now.lost[way as usize] {
                    lossy = true;
                    continue;
                }
                if lossy {
                    return Err(End::Close);
                }
                let (allowed, last) = self.allowed(way, piece.len());
                to.write_all(&piece[..allowed]).await.map_err(|_| End::Reset)?;
                if last {
                    return Err(End::Close);
                }
            }
            // The peer may be gone.
            drop(to.shutdown().await);
            Ok(())
        };
        tokio::try_join!(read, write).map(|_| ())
    }

    /// How many of so many bytes still go, and whether the cut comes after them.
    fn allowed(&self, way: Way, count: usize) -> (usize, bool) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *cut {
            Some((cut_way, left)) if *cut_way == way => match usize::try_from(*left) {
                Ok(left) if left < count => {
                    *cut = None;
                    (left, true)
                }
                _ => {
                    *left -= count as u64;
                    (count, false)
                }
            },
            _ => (count, false),
        }
    }
}

/// Waits until what is sent this way arrives again.
async fn fair(mut sky: watch::Receiver<Sky>, way: Way) {
    // The sender outlives all connections.
    drop(sky.wait_for(|sky| !sky.weather.lost[way as usize]).await);
}

async fn ended(mut sky: watch::Receiver<Sky>) -> End {
    let began = *sky.borrow();
    let now = sky.wait_for(|sky| (sky.closes, sky.resets) != (began.closes, began.resets)).await.expect("it is ours");
    if now.resets == began.resets { End::Close } else { End::Reset }
}
