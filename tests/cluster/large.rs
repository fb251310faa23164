//! Gigabytes: how soon they show, and what can be read of them while they arrive.

use crate::support::large::{rate, write_noise};
use crate::support::{Lab, Node, Process, can_run, eventually, sha256};
use delugefs_torrent::hash::hash_file;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MEGABYTE: u64 = 1_000_000;
const GIGABYTE: u64 = 1000 * MEGABYTE;

/// Long enough for hashing and for writing back, on a machine that others use, too.
const PATIENCE: Duration = Duration::from_mins(5);

/// A disk that alone has the bytes, and one that learns of them.
pub(crate) fn pair(lab: &Lab) -> (Node, Node) {
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    first.set("copies", "1");
    eventually(PATIENCE, "they know each other", || second.connected() == 1);
    (first, second)
}

/// Waits until a node shows a file in its full length.
pub(crate) fn appears(node: &Node, name: &str, length: u64) {
    eventually(PATIENCE, name, || {
        let metadata = node.path(name).metadata();
        metadata.is_ok_and(|metadata| metadata.len() == length)
    });
}

/// The only file in a node's content store.
fn stored(node: &Node) -> PathBuf {
    let folders = fs::read_dir(node.root.join("data")).unwrap().flatten();
    let mut files = folders
        .filter_map(|folder| fs::read_dir(folder.path()).ok())
        .flatten()
        .map(|file| file.unwrap().path());
    let only = files.next().unwrap();
    assert!(files.next().is_none());
    only
}

/// The middle one of three times that the store's own hashing of a file takes.
fn hashing(path: &Path) -> Duration {
    let mut times = [(); 3].map(|()| {
        let file = File::open(path).unwrap();
        let start = Instant::now();
        hash_file(&file).unwrap();
        start.elapsed()
    });
    times.sort();
    times[1]
}

#[test]
#[ignore = "long: moves gigabytes"]
fn four_gigabytes_appear_soon_after_they_are_hashed() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let length = 4 * GIGABYTE;
    let file = write_noise(&first.path("large"), length);
    let start = Instant::now();
    drop(file);
    appears(&second, "large", length);
    let appeared = start.elapsed();
    let hashed = hashing(&stored(&first));
    println!(
        "4 GB: listed elsewhere {appeared:.2?} after close(), hashing alone takes {hashed:.2?}: {:.2} times",
        appeared.as_secs_f64() / hashed.as_secs_f64()
    );
    // what others do on the machine meanwhile must not decide
    assert!(appeared < 5 * hashed + Duration::from_secs(5));
    let start = Instant::now();
    let found = sha256(&second.path("large"));
    println!("read whole elsewhere: {}", rate(length, start.elapsed()));
    assert_eq!(found, sha256(&first.path("large")));
    let memory = [&first, &second].map(Node::most_memory);
    println!("most memory, where written and where read: {memory:?} MB");
    assert!(memory.iter().all(|memory| *memory < 470));
}

/// The time until the first byte of a file is here, its opening included.
fn first_byte(node: &Node, name: &str) -> Duration {
    let start = Instant::now();
    let file = File::open(node.path(name)).unwrap();
    file.read_exact_at(&mut [0], 0).unwrap();
    start.elapsed()
}

/// The last bytes of a file.
fn end_of(node: &Node, name: &str, length: u64) -> Vec<u8> {
    let file = File::open(node.path(name)).unwrap();
    let from = file.metadata().unwrap().len() - length;
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, from).unwrap();
    bytes
}

#[test]
#[ignore = "long: moves gigabytes"]
fn the_end_of_six_gigabytes_arrives_before_their_first_gigabyte() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let length = 6 * GIGABYTE + 400 * MEGABYTE;
    for (name, length) in [
        ("1 MB", MEGABYTE),
        ("100 MB", 100 * MEGABYTE),
        ("6.4 GB", length),
    ] {
        drop(write_noise(&first.path(name), length));
        appears(&second, name, length);
    }
    // five minutes for the whole
    lab.limit(1, 20_000);
    for name in ["1 MB", "100 MB", "6.4 GB"] {
        let took = first_byte(&second, name);
        println!("first byte of {name} over 20 MB/s: {took:.1?}");
        assert!(took < Duration::from_secs(3));
    }

    let before = lab.received(2);
    let mut all = Command::new("cat");
    all.arg(second.path("6.4 GB")).stdout(Stdio::null());
    let mut all = Process(all.spawn().unwrap());
    eventually(PATIENCE, "the whole is arriving", || {
        lab.received(2) - before > 40 * MEGABYTE
    });
    let start = Instant::now();
    let end = end_of(&second, "6.4 GB", MEGABYTE);
    let (took, moved) = (start.elapsed(), (lab.received(2) - before) / MEGABYTE);
    println!("last megabyte, while the whole arrives: {took:.1?}, {moved} MB moved before");
    assert!(end == end_of(&first, "6.4 GB", MEGABYTE) && moved < 1000);
    lab.unlimit(1);
    let ended = all.0.wait().unwrap();
    assert!(ended.success());
    assert_eq!(
        sha256(&second.path("6.4 GB")),
        sha256(&first.path("6.4 GB"))
    );
}
