//! What nodes say they rest on reaches everyone, and tells a restored disk that it is one.

use crate::support::{Lab, Node, can_run, eventually};
use delugefs_core::ids::{CommitId, IncarnationId, VolumeId};
use delugefs_core::past::rests::{Keys, Rests, codec};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);

/// The nodes have verified what is in their lists.
struct Verified;

impl Keys for Verified {
    fn verify(&self, _: &[u8; 32], _: &[u8], _: &[u8; 64]) -> bool {
        true
    }
}

fn file(lab: &Lab, disk: &str) -> PathBuf {
    lab.folder(disk).join("holdings/rests")
}

fn rests(lab: &Lab, disk: &str) -> Rests {
    let bytes = fs::read(file(lab, disk)).unwrap();
    codec::decode(&bytes, VolumeId::new([0; 16]), &Verified).unwrap()
}

fn incarnation(node: &Node) -> IncarnationId {
    let status = node.status();
    status["node"]["incarnation"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn head(node: &Node) -> CommitId {
    let head = node.head();
    head.trim_matches('"').parse().unwrap()
}

/// Whether a disk has heard that another node rests on the head of both.
fn knows(lab: &Lab, disk: &str, other: &Node) -> bool {
    let head = head(other);
    let rests = rests(lab, disk);
    let word = rests.word(incarnation(other));
    word.is_some_and(|word| word.rest().heads == [head].into())
}

#[test]
fn everyone_hears_on_what_everyone_rests() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let mut a = lab.node(1, "a").create().start();
    a.set("history", "1s");
    let b = lab.node(2, "b").start();
    fs::write(a.path("file"), "by a").unwrap();
    eventually(SOON, "a and b know of each other", || {
        knows(&lab, "a", &b) && knows(&lab, "b", &a)
    });
    let (head, of_a) = (head(&a), incarnation(&a));
    a.stop();

    // who was not there hears it from b, and to whom they have given history
    let c = lab.node(3, "c").start();
    eventually(SOON, "c knows of a and b", || {
        let rests = rests(&lab, "c");
        let word = rests.word(of_a).map(|word| word.rest().heads.clone());
        word == Some([head].into()) && knows(&lab, "c", &b)
    });
    let has_met = |one: IncarnationId, other: IncarnationId| {
        let rests = rests(&lab, "c");
        rests
            .word(one)
            .is_some_and(|word| word.rest().met.contains(&other))
    };
    eventually(SOON, "a has met b, and b has met c", || {
        has_met(of_a, incarnation(&b)) && has_met(incarnation(&b), incarnation(&c))
    });
}

#[test]
fn a_restored_disk_is_told_by_what_it_has_said_itself() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let a = lab.node(1, "a").create().start();
    a.set("history", "1s");
    // it writes nothing: by its commits nobody could tell
    let mut b = lab.node(2, "b").storage().start();
    eventually(SOON, "a has heard of b", || knows(&lab, "a", &b));
    let before = incarnation(&b);
    b.stop();
    let backup = fs::read(file(&lab, "b")).unwrap();
    let mut b = lab.node(2, "b").storage().start();
    for name in ["one", "two", "three"] {
        let head = a.head();
        fs::write(a.path(name), "by a").unwrap();
        eventually(SOON, "a has heard more of b", || {
            a.head() != head && b.head() == a.head() && knows(&lab, "a", &b)
        });
    }
    b.stop();

    fs::write(file(&lab, "b"), backup).unwrap();
    let mut b = lab.node(2, "b").storage().start();
    let status = b.wait();
    assert_eq!(status.code(), Some(1), "{}", b.log());
    assert!(
        b.log().contains("has seen newer work of this disk"),
        "{}",
        b.log()
    );
    drop(b);
    let b = lab.node(2, "b").storage().start();
    assert_ne!(incarnation(&b), before);
    eventually(SOON, "it is a disk as any other", || {
        b.connected() == 1 && b.head() == a.head()
    });
}
