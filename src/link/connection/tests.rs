#![allow(clippy::unwrap_used)]
use super::*;
use crate::link::blocking;
use crate::link::handshake::tests::{pair, tcp_pair};
use delugefs_core::ids::InfoHash;
use std::io::{Read, Write};

const QUICK: Pace = Pace {
    heartbeat: Duration::from_millis(20),
    silence_max: Duration::from_millis(500),
    stall_max: Duration::from_millis(100),
};

fn hashes(count: usize) -> Message {
    Message::Available(vec![InfoHash::new([9; 20]); count])
}

#[tokio::test]
async fn messages_arrive_in_order_and_the_end_is_clean() {
    let (near, far) = tcp_pair().await;
    let near = Connection::start(near, Pace::default());
    let mut far = Connection::start(far, Pace::default());
    let sent: Vec<Message> = (0..200).map(|n| hashes(n * 7)).collect();
    let sender = near.sender;
    // The other half has to live: dropping it ends the connection.
    let _receiver = near.receiver;
    let sending = async move {
        for message in &sent {
            sender.send(message).await.unwrap();
        }
        drop(sender);
        sent
    };
    let receiving = async {
        let mut received = Vec::new();
        while let Some(message) = far.receiver.receive().await.unwrap() {
            if !matches!(message, Message::Ping(_)) {
                received.push(message);
            }
        }
        received
    };
    let (sent, received) = tokio::join!(sending, receiving);
    assert_eq!(sent, received);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up() {
    let (near, _far) = pair().await;
    let near = Connection::start(near, QUICK);
    let giving_up = async {
        loop {
            if let Err(error) = near.sender.send(&hashes(10_000)).await {
                break error;
            }
        }
    };
    let error = timeout(Duration::from_secs(20), giving_up).await.unwrap();
    assert!(matches!(error, SendError::Closed));
    near.sender.closed().await;
    let mut receiver = near.receiver;
    let last = receiver.receive().await;
    let is_over = matches!(last, Err(LinkError::Closed | LinkError::TimedOut));
    assert!(is_over, "{last:?}");
}

#[tokio::test]
async fn a_silent_peer_is_noticed_and_a_quiet_one_is_not() {
    let (near, far) = pair().await;
    let mut near = Connection::start(near, QUICK);
    let quiet = Connection::start(far, QUICK);
    let mut beats = 0;
    let beating = async {
        loop {
            match near.receiver.receive().await {
                Ok(Some(Message::Ping(_))) => beats += 1,
                other => break other,
            }
        }
    };
    let ended = timeout(QUICK.silence_max * 2, beating).await;
    assert!(
        ended.is_err() && beats > 0,
        "{beats} heartbeats, then {ended:?}"
    );
    drop(quiet);
    while let Ok(message) = near.receiver.receive().await {
        assert!(matches!(message, Some(Message::Ping(_))), "{message:?}");
    }

    let (near, _silent) = pair().await;
    let mut near = Connection::start(near, QUICK);
    let received = timeout(Duration::from_secs(20), near.receiver.receive()).await;
    assert!(matches!(
        received.unwrap(),
        Err(LinkError::TimedOut | LinkError::Closed)
    ));
}

#[tokio::test]
async fn garbage_and_oversized_frames_end_it() {
    for bytes in [
        &[0xff; 8][..],
        &[0, 0, 0, 0],
        &[0, 0, 0, 2, 2, 9],
        &[0, 0, 0, 9, 12, 1],
    ] {
        let (mut near, far) = pair().await;
        let mut far = Connection::start(far, Pace::default());
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let received = far.receiver.receive().await;
        assert!(
            matches!(received, Err(LinkError::Protocol(_))),
            "{received:?}"
        );
    }
}

#[tokio::test]
async fn receiving_may_be_interrupted_anywhere() {
    let (mut near, far) = pair().await;
    let mut far = Connection::start(far, Pace::default());
    let frame = codec::encode(&hashes(3)).unwrap();
    for byte in &frame[..] {
        let interrupted = timeout(Duration::from_millis(1), far.receiver.receive()).await;
        assert!(interrupted.is_err());
        near.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(far.receiver.receive().await.unwrap(), Some(hashes(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_code_uses_a_link() {
    let (near, far) = tcp_pair().await;
    let wait = Duration::from_secs(20);
    let handle = tokio::runtime::Handle::current();
    let (mut reader, mut writer) = blocking::split(near, handle.clone(), wait);
    let asking = tokio::task::spawn_blocking(move || {
        for _ in 0..1000 {
            writer.write_all(b"0009abcde").unwrap();
        }
        writer.finish().unwrap();
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).unwrap();
        answer
    });
    let (mut reader, mut writer) = blocking::split(far, handle, wait);
    let answering = tokio::task::spawn_blocking(move || {
        let mut question = Vec::new();
        reader.read_to_end(&mut question).unwrap();
        writer.write_all(&question).unwrap();
        writer.finish().unwrap();
    });
    answering.await.unwrap();
    assert_eq!(asking.await.unwrap(), b"0009abcde".repeat(1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_code_waits_no_longer_than_allowed() {
    let (near, _silent) = tcp_pair().await;
    let handle = tokio::runtime::Handle::current();
    let reading = tokio::task::spawn_blocking(move || {
        let (mut reader, _writer) = blocking::split(near, handle, Duration::from_millis(50));
        reader.read(&mut [0; 8]).unwrap_err().kind()
    });
    assert_eq!(reading.await.unwrap(), io::ErrorKind::TimedOut);
}
