#![allow(clippy::unwrap_used)]
use super::*;
use crate::net::connect;
use std::collections::BTreeSet;
use tokio::io::AsyncWriteExt;

/// Generous: it only ends a test that has failed.
const WAIT: Duration = Duration::from_secs(20);

fn gate() -> Arc<Gate> {
    Arc::new(Gate::new(BTreeSet::new()))
}

fn listener(limits: Limits) -> Listener {
    Listener::bind("127.0.0.1:0".parse().unwrap(), gate(), limits).unwrap()
}

async fn dial(listener: &Listener) -> TcpStream {
    connect(listener.address(), &gate()).await.unwrap()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    // A reset is an end, too.
    matches!(
        timeout(WAIT, stream.read(&mut [0; 8])).await.unwrap(),
        Ok(0) | Err(_)
    )
}

#[tokio::test]
async fn sorts_by_first_bytes_and_loses_none() {
    let mut listener = listener(Limits::default());
    for (bytes, protocol) in [
        (&b"DELUGEFS\x01\x01rest"[..], Protocol::Link),
        (
            b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0",
            Protocol::BitTorrent,
        ),
        (b"0032git-upload-pack /store\0host=x\0", Protocol::Git),
    ] {
        for chunk in [1, 7, 100] {
            let mut stream = dial(&listener).await;
            for part in bytes.chunks(chunk) {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
            let mut incoming = timeout(WAIT, listener.accept()).await.unwrap().unwrap();
            assert_eq!(incoming.protocol, protocol);
            assert_eq!(incoming.source, stream.local_addr().unwrap());
            let mut whole = Vec::new();
            incoming.stream.read_to_end(&mut whole).await.unwrap();
            assert_eq!(whole, bytes);
        }
    }
}

#[tokio::test]
async fn what_is_unknown_silent_or_half_is_closed_and_disturbs_nobody() {
    let limits = Limits {
        first_bytes: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut listener = listener(limits);
    let mut silent = dial(&listener).await;
    let mut half = dial(&listener).await;
    half.write_all(b"DELU").await.unwrap();
    let mut unknown = dial(&listener).await;
    unknown.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut good = dial(&listener).await;
    good.write_all(b"DELUGEFS").await.unwrap();
    let incoming = timeout(WAIT, listener.accept()).await.unwrap().unwrap();
    assert_eq!(incoming.source, good.local_addr().unwrap());
    for stream in [&mut silent, &mut half, &mut unknown] {
        assert!(is_closed(stream).await);
    }
}

#[tokio::test]
async fn connections_are_limited_and_places_given_back() {
    let limits = Limits {
        per_address: 2,
        ..Limits::default()
    };
    let mut listener = listener(limits);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = dial(&listener).await;
        stream.write_all(b"DELUGEFS").await.unwrap();
        open.push((stream, listener.accept().await.unwrap()));
    }
    let mut third = dial(&listener).await;
    assert!(is_closed(&mut third).await);
    open.pop();
    let mut fourth = dial(&listener).await;
    fourth.write_all(b"DELUGEFS").await.unwrap();
    timeout(WAIT, listener.accept()).await.unwrap().unwrap();
}

#[test]
fn limits_count_in_all_and_by_address() {
    let limits = Limits {
        connections: 3,
        per_address: 2,
        ..Limits::default()
    };
    let counts = Arc::default();
    let take = |ip: [u8; 4]| Counts::take(&counts, ip.into(), limits);
    let first = take([10, 0, 0, 1]);
    let second = take([10, 0, 0, 1]);
    assert!(first.is_some() && second.is_some());
    assert!(take([10, 0, 0, 1]).is_none());
    let third = take([10, 0, 0, 2]);
    assert!(third.is_some());
    assert!(take([10, 0, 0, 3]).is_none());
    drop(first);
    assert!(take([10, 0, 0, 3]).is_some());
    drop((second, third));
    assert!(counts.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn both_families_on_one_port_which_can_be_taken_again() {
    let listener = Listener::bind_all(0, gate(), Limits::default()).unwrap();
    let port = listener.address().port();
    let stream = TcpStream::connect(("127.0.0.1", port)).await;
    stream.unwrap();
    let taken = Listener::bind_all(port, gate(), Limits::default());
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    let until = Instant::now() + WAIT;
    while let Err(error) = Listener::bind_all(port, gate(), Limits::default()) {
        assert!(Instant::now() < until, "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn public_addresses_are_not_dialled() {
    let error = connect("8.8.8.8:53".parse().unwrap(), &gate())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}
