//! Bytes that should arrive do.

use super::support::{Node, bytes, config};
use crate::swarm::limits::CONTENTS_AT_EASE;
use crate::swarm::{ReadError, Swarm, SwarmConfig, TcpConnector};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_moves_whole_from_seed_to_leech() {
    let (seed, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(5_000_000, 1);
    let info = seed.seed(&data);
    leech.knows(&[&seed]);
    let mut fetch = leech.swarm.fetch(&info);
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
    assert_eq!(leech.bytes(&info), data);
    assert_eq!(fetch.progress().borrow().missing_pieces, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_halves_make_two_wholes() {
    let (left, right) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(4_100_000, 2);
    let info = left.give(&data, 0..30);
    right.give(&data, 30..63);
    left.knows(&[&right]);
    right.knows(&[&left]);
    let mut fetches = [left.swarm.fetch(&info), right.swarm.fetch(&info)];
    for fetch in &mut fetches {
        timeout(SOON, fetch.done()).await.unwrap().unwrap();
    }
    assert_eq!(left.bytes(&info), data);
    assert_eq!(right.bytes(&info), data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_leeches_of_one_slow_seed_feed_one_another() {
    let seed = Node::start(1).await;
    let leeches = [
        Node::start(2).await,
        Node::start(3).await,
        Node::start(4).await,
    ];
    let data = bytes(6_000_000, 3);
    let info = seed.seed(&data);
    // The seed can give each byte about once in the time allowed.
    seed.swarm.set_limits(Some(8_000_000), None);
    let [a, b, c] = &leeches;
    a.knows(&[&seed, b, c]);
    b.knows(&[&seed, a, c]);
    c.knows(&[&seed, a, b]);
    let begun = Instant::now();
    let mut fetches: Vec<_> = leeches
        .iter()
        .map(|leech| leech.swarm.fetch(&info))
        .collect();
    for fetch in &mut fetches {
        timeout(SOON, fetch.done()).await.unwrap().unwrap();
    }
    for leech in &leeches {
        assert_eq!(leech.bytes(&info), data);
    }
    let alone = Duration::from_secs_f64(3.0 * 6.0 / 8.0);
    assert!(begun.elapsed() < alone, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_goes_on_from_the_pieces_that_are_here() {
    let (seed, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(3_000_000, 4);
    let info = seed.seed(&data);
    leech.give(&data, 0..40);
    leech.knows(&[&seed]);
    let mut fetch = leech.swarm.fetch(&info);
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
    assert_eq!(leech.bytes(&info), data);
    assert_eq!(leech.storage.content(&info).count(), 46);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_anywhere_get_the_right_bytes() {
    let (seed, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(10_000_000, 5);
    let info = seed.seed(&data);
    leech.knows(&[&seed]);
    let read = |reader: u64| {
        let (swarm, info, data) = (leech.swarm.clone(), info.clone(), data.clone());
        tokio::spawn(async move {
            let reading = swarm.reader(&info);
            for step in 0..30u64 {
                let at = (reader * 7_919 + step * 1_299_709) % 10_100_000;
                let length = (1 + step as usize * 9_973) % 300_000;
                let got = timeout(SOON, reading.read(at, length))
                    .await
                    .unwrap()
                    .unwrap();
                let from = (at as usize).min(data.len());
                let to = (from + length).min(data.len());
                assert_eq!(got, data[from..to], "{length} at {at}");
            }
        })
    };
    for task in (0..8).map(read).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_fetches_little_more_than_it_needs() {
    let (seed, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(40_000_000, 6);
    let info = seed.seed(&data);
    leech.knows(&[&seed]);
    let reader = leech.swarm.reader(&info);
    let got = timeout(SOON, reader.read(39_000_000, 4096))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, data[39_000_000..39_004_096]);
    // The read's piece and a megabyte ahead.
    assert!(leech.storage.content(&info).count() <= 17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_once_then_fails_at_once_until_a_holder_appears() {
    let mut impatient = config(2);
    impatient.wait = Duration::from_millis(400);
    let seed = Node::start(1).await;
    let connector = std::sync::Arc::new(crate::swarm::TcpConnector);
    let leech = Node::with(impatient, connector).await;
    let data = bytes(200_000, 7);
    let info = seed.seed(&data);
    let reader = leech.swarm.reader(&info);
    let begun = Instant::now();
    assert_eq!(reader.read(0, 10).await, Err(ReadError::TimedOut));
    assert!(begun.elapsed() >= Duration::from_millis(400));
    let begun = Instant::now();
    assert_eq!(reader.read(0, 10).await, Err(ReadError::Unavailable));
    assert!(begun.elapsed() < Duration::from_millis(300));
    leech.knows(&[&seed]);
    leech.swarm.peers_changed(&info.info_hash());
    let got = timeout(SOON, reader.read(0, 10)).await.unwrap().unwrap();
    assert_eq!(got, data[..10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_read_ends_well_when_the_holder_appears() {
    let (seed, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(200_000, 8);
    let info = seed.seed(&data);
    let reader = leech.swarm.reader(&info);
    let waiting = {
        let reader = reader.clone();
        tokio::spawn(async move { reader.read(100_000, 50_000).await })
    };
    until(&leech.swarm, |swarm| {
        swarm.status().contents.iter().any(|c| c.waiting_reads == 1)
    })
    .await;
    leech.knows(&[&seed]);
    leech.swarm.peers_changed(&info.info_hash());
    let got = timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(got, data[100_000..150_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_read_is_no_longer_waited_for() {
    let leech = Node::start(2).await;
    let info = super::support::info_of(&bytes(200_000, 9));
    let reader = leech.swarm.reader(&info);
    let waiting = tokio::spawn(async move { reader.read(0, 10).await });
    let waits = |swarm: &Swarm| swarm.status().contents.iter().any(|c| c.waiting_reads == 1);
    until(&leech.swarm, waits).await;
    waiting.abort();
    until(&leech.swarm, |swarm| !waits(swarm)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_content_is_let_go_and_comes_back() {
    let mut forgetful = config(2);
    forgetful.idle = Duration::from_millis(50);
    let seed = Node::start(1).await;
    let leech = Node::with(forgetful, std::sync::Arc::new(crate::swarm::TcpConnector)).await;
    let data = bytes(5_000_000, 10);
    let info = seed.seed(&data);
    leech.knows(&[&seed]);
    let reader = leech.swarm.reader(&info);
    assert_eq!(reader.read(0, 10).await.unwrap(), data[..10]);
    until(&leech.swarm, |swarm| swarm.status().contents.is_empty()).await;
    assert_eq!(
        reader.read(4_000_000, 10).await.unwrap(),
        data[4_000_000..4_000_010]
    );
}

/// Waits for something that will come true.
pub(super) async fn until(swarm: &Swarm, condition: impl Fn(&Swarm) -> bool) {
    let waiting = async {
        while !condition(swarm) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.expect("it came true");
}

/// Without the limit all of them would stay open for an hour, with a connection each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_contents_do_not_keep_many_files_open() {
    let patient = |name| SwarmConfig {
        idle: Duration::from_secs(3600),
        ..config(name)
    };
    let seed = Node::with(patient(1), Arc::new(TcpConnector)).await;
    let leech = Node::with(patient(2), Arc::new(TcpConnector)).await;
    leech.knows(&[&seed]);
    for group in 0..10 {
        let infos: Vec<_> = (0..60)
            .map(|number| seed.seed(&bytes(20_000, 1 + group * 100 + number)))
            .collect();
        let mut fetches: Vec<_> = infos.iter().map(|info| leech.swarm.fetch(info)).collect();
        for fetch in &mut fetches {
            timeout(SOON, fetch.done()).await.unwrap().unwrap();
        }
    }
    for node in [&leech, &seed] {
        let few = |swarm: &Swarm| swarm.status().contents.len() <= CONTENTS_AT_EASE;
        until(&node.swarm, few).await;
    }
}
