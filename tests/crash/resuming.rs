//! What was done before a kill is not done again.

use crate::support::{Lab, Node, can_run, eventually, noise, sha256};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Bytes that a process has read from files so far, caches included.
fn bytes_read(node: &Node) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", node.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

/// Bytes of the file that is complete.
const COMPLETE: usize = 64 << 20;

/// Bytes of the file that is being fetched.
const PARTIAL: u64 = 48 << 20;

fn status_number(node: &Node, key: &str) -> u64 {
    node.status()["contents"][key].as_u64().unwrap()
}

#[test]
fn what_was_complete_is_not_hashed_again() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1);
    let node = lab.node(1, "a").create().start();
    fs::write(node.path("large"), noise(1, COMPLETE)).unwrap();
    eventually(SOON, "it is sealed and committed", || {
        status_number(&node, "unsealed") + status_number(&node, "uncommitted") == 0
    });
    node.abandon();
    let node = lab.node(1, "a").start();
    assert_eq!(
        fs::metadata(node.path("large")).unwrap().len(),
        COMPLETE as u64
    );
    assert_eq!(status_number(&node, "held"), 1);
    let read = bytes_read(&node);
    assert!(read < COMPLETE as u64 / 4, "{read} bytes read at the start");
}

#[test]
fn a_fetch_goes_on_from_its_verified_pieces() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    lab.limit(2, 8 << 10);
    fs::write(first.path("large"), noise(2, PARTIAL as usize)).unwrap();
    let here = |node: &Node| -> u64 {
        let fetching = node.status()["contents"]["fetching"].clone();
        fetching[0]["have"].as_u64().unwrap_or(0)
    };
    eventually(SOON, "half of it has arrived", || {
        here(&second) > PARTIAL / 2
    });
    second.abandon();
    let before = lab.received(2);
    let second = lab.node(2, "b").start();
    eventually(SOON, "it is whole", || status_number(&second, "held") == 1);
    let again = lab.received(2) - before;
    assert!(
        again < PARTIAL * 6 / 10,
        "{again} of {PARTIAL} bytes moved after the kill"
    );
    assert_eq!(sha256(&first.path("large")), sha256(&second.path("large")));
}
