#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]
use super::*;
use crate::link::handshake::tests::{pair, tcp_pair};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Not a multiple of anything, and several frames.
const SOME_BYTES: usize = 300_007;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[tokio::test]
async fn bytes_arrive_in_order_whatever_the_sizes() {
    for size in [1, 2, 1000, 65_519, 65_520, 100_000] {
        let (mut near, mut far) = pair().await;
        let sent = pattern(SOME_BYTES);
        let writing = async {
            for chunk in sent.chunks(size.max(50)) {
                near.write_all(chunk).await.unwrap();
            }
            near.shutdown().await.unwrap();
        };
        let reading = async {
            let mut received = Vec::new();
            let mut buffer = vec![0; size];
            loop {
                match far.read(&mut buffer).await.unwrap() {
                    0 => break received,
                    count => received.extend_from_slice(&buffer[..count]),
                }
            }
        };
        let ((), received) = tokio::join!(writing, reading);
        assert!(received == sent, "size {size}");
    }
}

#[tokio::test]
async fn both_directions_end_cleanly_and_each_by_itself() {
    let (mut near, mut far) = tcp_pair().await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut question = Vec::new();
    far.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    assert!(near.write_all(b"more").await.is_err());
}

#[tokio::test]
async fn a_cut_is_not_an_end() {
    let (mut near, mut far) = pair().await;
    near.write_all(b"half a story").await.unwrap();
    drop(near);
    let mut read = Vec::new();
    let error = far.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(read, b"half a story");
}

/// Frames as they go over the wire, sealed by one end of a link, for the other.
async fn sealed(texts: &[&[u8]]) -> (Vec<Vec<u8>>, SecureStream<tokio::io::DuplexStream>) {
    let (mut near, far) = pair().await;
    let frames = texts.iter().map(|text| {
        near.seal_frame(text).unwrap();
        near.outgoing.split().to_vec()
    });
    let frames = frames.collect();
    // The other end gets the frames from a fresh connection.
    (frames, far)
}

async fn read_from(wire: &[u8], far: SecureStream<tokio::io::DuplexStream>) -> io::Result<Vec<u8>> {
    let (mut feed, inner) = tokio::io::duplex(1 << 20);
    feed.write_all(wire).await.unwrap();
    drop(feed);
    let mut far = SecureStream::new(inner, far.noise);
    let mut read = Vec::new();
    far.read_to_end(&mut read).await.map(|_| read)
}

#[tokio::test]
async fn tampering_replay_reordering_and_halves_are_errors() {
    let texts: &[&[u8]] = &[b"one", b"two", b""];
    let (good, far) = sealed(texts).await;
    assert_eq!(read_from(&good.concat(), far).await.unwrap(), b"onetwo");
    for at in [1, 2, 4, 5, 20] {
        let (frames, far) = sealed(texts).await;
        let mut wire = frames.concat();
        wire[at] ^= 1;
        assert!(read_from(&wire, far).await.is_err(), "byte {at}");
    }
    let (frames, far) = sealed(texts).await;
    let replayed = [&frames[0][..], &frames[0], &frames[2]].concat();
    assert!(read_from(&replayed, far).await.is_err());
    let (frames, far) = sealed(texts).await;
    let reordered = [&frames[1][..], &frames[0], &frames[2]].concat();
    assert!(read_from(&reordered, far).await.is_err());
    for less in [1, 17, 18, 19] {
        let (frames, far) = sealed(texts).await;
        let wire = frames.concat();
        let cut = read_from(&wire[..wire.len() - less], far).await;
        assert_eq!(
            cut.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof,
            "{less}"
        );
    }
    for garbage in [&[0, 0][..], &[0, 15, 1, 2, 3], &vec![0xff; 70_000]] {
        let (_, far) = sealed(texts).await;
        assert!(read_from(garbage, far).await.is_err());
    }
}

#[tokio::test]
async fn a_writer_waits_for_a_reader() {
    let (mut near, _far) = pair().await;
    let big = pattern(8 * OUTGOING_BYTES_MAX);
    let writing = near.write_all(&big);
    let waited = tokio::time::timeout(std::time::Duration::from_millis(100), writing).await;
    assert!(waited.is_err(), "everything was taken with nobody reading");
    assert!(near.outgoing.len() <= OUTGOING_BYTES_MAX + PLAIN_BYTES_MAX + 100);
}

/// Prints the speed; a floor far below the usual one, so that a busy machine does not fail it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput_over_loopback() {
    const BYTES: usize = 256 * 1024 * 1024;
    let (mut near, mut far) = tcp_pair().await;
    let start = Instant::now();
    let writing = tokio::spawn(async move {
        let chunk = vec![1; 256 * 1024];
        for _ in 0..BYTES / chunk.len() {
            near.write_all(&chunk).await.unwrap();
        }
        near.shutdown().await.unwrap();
    });
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    while let count @ 1.. = far.read(&mut buffer).await.unwrap() {
        total += count;
    }
    writing.await.unwrap();
    assert_eq!(total, BYTES);
    let speed = BYTES as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{speed:.0} MB/s");
    assert!(speed > 30.0, "{speed} MB/s");
}
