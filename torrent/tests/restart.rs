//! Over the real store: a fetch that was cut short goes on after a restart; a limited link shows the far end
//! of a large content as soon as that of a small one.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Node, assert_same, random_file, scratch};
use delugefs_torrent::store::State;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

async fn node() -> Node {
    Node::start(Ipv4Addr::LOCALHOST.into()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_goes_on_after_a_restart_and_partial_contents_are_served() {
    let (seed, leech, third) = (node().await, node().await, node().await);
    let file = tempfile::NamedTempFile::new_in(scratch()).unwrap();
    random_file(file.path(), 16, 1);
    let info = seed.seal(file.path());
    seed.swarm.set_limits(Some(8_000_000), None);
    leech.knows(&[seed.address]);
    let fetch = leech.swarm.fetch(&info);
    let half = info.piece_count() / 2;
    let mut progress = fetch.progress();
    progress
        .wait_for(|progress| progress.missing_pieces <= half)
        .await
        .unwrap();
    drop(fetch);
    let leech = Node::in_folder(Ipv4Addr::LOCALHOST.into(), leech.stop().await).await;
    leech.knows(&[seed.address]);
    assert_eq!(leech.store.state(&info.info_hash()), State::Partial);
    let kept = leech.store.begin(&info).unwrap();
    assert!(kept.missing() <= half + 1, "{} of {half}", kept.missing());
    let first = (0..info.piece_count())
        .find(|piece| kept.have(*piece))
        .unwrap();
    drop(kept);

    // Nobody asked this node to serve it; a peer's handshake is enough.
    third.knows(&[leech.address]);
    let range = info.piece_range(first).unwrap();
    let read = third
        .swarm
        .reader(&info)
        .read(range.start, 1000)
        .await
        .unwrap();
    let original = std::fs::read(file.path()).unwrap();
    assert_eq!(read, original[range.start as usize..][..1000]);

    let mut fetch = leech.swarm.fetch(&info);
    fetch.done().await.unwrap();
    assert_eq!(leech.store.state(&info.info_hash()), State::Complete);
    assert_same(&leech.path(&info), file.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_far_end_arrives_before_the_beginning_has_moved() {
    let (seed, leech) = (node().await, node().await);
    seed.swarm.set_limits(Some(2_000_000), None);
    leech.knows(&[seed.address]);
    let file = tempfile::NamedTempFile::new_in(scratch()).unwrap();
    for megabytes in [4, 200] {
        random_file(file.path(), megabytes, megabytes);
        let info = seed.seal(file.path());
        let mut fetch = leech.swarm.fetch(&info);
        let reader = leech.swarm.reader(&info);
        let begun = Instant::now();
        reader.read(info.length() - 4096, 4096).await.unwrap();
        // The whole of the larger would take 100 s.
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{megabytes}: {:?}",
            begun.elapsed()
        );
        drop(reader);
        if megabytes < 10 {
            fetch.done().await.unwrap();
        }
    }
}
