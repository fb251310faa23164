//! Bytes that should arrive do.

use super::support::{Node, bytes};
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

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
