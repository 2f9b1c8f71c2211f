//! That the proxy does what its faults are called, in front of a server that sends back what it gets.

use std::io::ErrorKind;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::{Fault, Proxy, Way, Weather};

/// Longer than anything takes here that is not held back.
const MOMENT: Duration = Duration::from_millis(100);

/// A proxy, and what its server gets.
async fn echo() -> (Proxy, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (seen, got) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut piece = vec![0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    if seen.send(piece[..count].to_vec()).is_err() || stream.write_all(&piece[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (Proxy::to(address).await, got)
}

async fn client(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(exchange(&mut stream, b"hello").await, b"hello");
    stream
}

/// Sends, and reads as much.
async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

/// What still comes until the end, and how it ends.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await;
    (bytes, end.err().map(|fault| fault.kind()))
}

#[tokio::test]
async fn latency_delays_but_keeps_order_and_throughput() {
    let (proxy, _got) = echo().await;
    let mut stream = client(&proxy).await;
    proxy.set(Weather { latency: Duration::from_millis(60), ..Weather::default() });
    let began = Instant::now();
    let sent: Vec<u8> = (0..100_u8).collect();
    // Many pieces, under way at once.
    for byte in &sent {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = vec![0; sent.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, sent);
    let took = began.elapsed();
    assert!((Duration::from_millis(115)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_cut_lets_exactly_so_many_bytes_through() {
    let (proxy, mut got) = echo().await;
    let mut stream = client(&proxy).await;
    got.recv().await.unwrap();
    proxy.cut_after(Way::Replies, 7);
    assert_eq!(exchange(&mut stream, b"1234").await, b"1234");
    stream.write_all(b"56789").await.unwrap();
    assert_eq!(rest(&mut stream).await, (b"567".to_vec(), None));
    assert_eq!((got.recv().await.unwrap(), got.recv().await.unwrap()), (b"1234".to_vec(), b"56789".to_vec()));

    // The next connection is a good one, until the next cut.
    let mut stream = client(&proxy).await;
    got.recv().await.unwrap();
    proxy.cut_after(Way::Requests, 2);
    stream.write_all(b"abc").await.unwrap();
    rest(&mut stream).await;
    assert_eq!(got.recv().await.unwrap(), b"ab");
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn frozen_is_late_and_not_lost() {
    for frozen in [[true, false], [false, true], [true, true]] {
        let (proxy, mut got) = echo().await;
        let mut stream = client(&proxy).await;
        got.recv().await.unwrap();
        proxy.set(Weather { frozen, ..Weather::default() });
        stream.write_all(b"later").await.unwrap();
        let mut answer = [0; 5];
        assert!(timeout(MOMENT, stream.read_exact(&mut answer)).await.is_err());
        assert_eq!(got.try_recv().is_err(), frozen[0], "{frozen:?}");
        proxy.heal();
        // Nothing of it was read before.
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"later");
    }
}

#[tokio::test]
async fn of_a_lost_direction_nothing_arrives_and_the_connection_is_no_more_after() {
    let (proxy, mut got) = echo().await;
    let mut stream = client(&proxy).await;
    let mut quiet = client(&proxy).await;
    proxy.set(Weather { lost: [false, true], ..Weather::default() });
    assert_eq!((got.recv().await.unwrap(), got.recv().await.unwrap()), (b"hello".to_vec(), b"hello".to_vec()));
    stream.write_all(b"asked").await.unwrap();
    assert_eq!(got.recv().await.unwrap(), b"asked");
    assert!(timeout(MOMENT, stream.read(&mut [0; 8])).await.is_err());
    proxy.heal();
    assert_eq!(rest(&mut stream).await, (Vec::new(), None));
    // It has lost nothing.
    assert_eq!(exchange(&mut quiet, b"fine").await, b"fine");
    client(&proxy).await;
}

#[tokio::test]
async fn a_reset_is_an_error_and_a_close_is_none() {
    let (proxy, _got) = echo().await;
    let mut streams = [client(&proxy).await, client(&proxy).await];
    proxy.close();
    for stream in &mut streams {
        assert_eq!(rest(stream).await, (Vec::new(), None));
    }
    let mut stream = client(&proxy).await;
    proxy.reset();
    assert_eq!(rest(&mut stream).await.1, Some(ErrorKind::ConnectionReset));
    client(&proxy).await;
}

#[tokio::test]
async fn a_proxy_without_its_server_closes_and_one_that_is_dropped_is_gone() {
    let proxy = Proxy::to("127.0.0.1:1".to_owned()).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(rest(&mut stream).await.0, b"");
    let (proxy, _got) = echo().await;
    let (mut stream, address) = (client(&proxy).await, proxy.address());
    drop(proxy);
    assert_eq!(rest(&mut stream).await.0, b"");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_seed_draws_the_same_faults_and_all_kinds() {
    let draw = |seed| -> Vec<String> {
        let mut draws = SmallRng::seed_from_u64(seed);
        (0..200).map(|_| format!("{:?}", Fault::random(&mut draws, 1000))).collect()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
    for kind in [
        "Latency",
        "Cut(Requests",
        "Cut(Replies",
        "Frozen([true, true",
        "Lost(Requests",
        "Lost(Replies",
        "Close",
        "Reset",
    ] {
        assert!(draw(7).iter().any(|fault| fault.starts_with(kind)), "{kind}");
    }
    let (proxy, _got) = echo().await;
    let mut draws = SmallRng::seed_from_u64(1);
    for _ in 0..50 {
        proxy.inflict(Fault::random(&mut draws, 20));
        if let Ok(mut stream) = TcpStream::connect(proxy.address()).await {
            drop(stream.write_all(b"whatever").await);
            drop(timeout(Duration::from_millis(2), stream.read(&mut [0; 8])).await);
        }
    }
    proxy.heal();
    client(&proxy).await;
}
