#![allow(clippy::unwrap_used)]
use super::*;
use crate::link::handshake::tests::tcp_pair;

async fn connected() -> (
    Connection<tokio::net::TcpStream>,
    Connection<tokio::net::TcpStream>,
) {
    let (near, far) = tcp_pair().await;
    let start = |stream| Connection::start(stream, Pace::default());
    (start(near), start(far))
}

#[tokio::test]
async fn who_says_much_and_never_hello_is_not_waited_for() {
    let (near, mut far) = connected().await;
    let talk = tokio::spawn(async move {
        while near.sender.send(&Message::Ping(1)).await.is_ok() {}
        near
    });
    let hello = receive_hello(&mut far.receiver, Duration::from_millis(50)).await;
    assert!(matches!(hello, Err(LinkError::TimedOut)), "{hello:?}");
    talk.abort();
}

#[tokio::test]
async fn a_link_that_says_much_is_read_no_faster_than_the_loop_takes_it() {
    let (near, mut far) = connected().await;
    let (inbox, mut inputs) = mpsc::channel(1024);
    let reading = tokio::spawn(async move {
        let _ = forward(&inbox, LinkId(1), &mut far.receiver).await;
    });
    for number in 0..50 {
        let free = number;
        let said = Message::Space { capacity: 1, free };
        near.sender.send(&said).await.unwrap();
    }
    let mut waiting = Vec::new();
    for _ in 0..INPUTS_MAX {
        waiting.push(inputs.recv().await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(inputs.try_recv().is_err(), "the loop has taken none yet");
    waiting.pop();
    waiting.push(inputs.recv().await.unwrap());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(inputs.try_recv().is_err());
    reading.abort();
}
