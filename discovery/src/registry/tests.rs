#![allow(clippy::unwrap_used)]
use super::*;
use crate::{Discovery, Event, Sources};
use delugefs_core::ids::{NodeId, VolumeId};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;
use tokio::sync::mpsc::Receiver as Events;

/// Generous: the machine may be busy. The interval itself is asserted nowhere.
const WAIT: Duration = Duration::from_secs(20);

fn node(n: u8) -> Announcement {
    Announcement {
        volume: VolumeId::new([7; 16]),
        volume_name: "store".into(),
        node: NodeId::new([n; 16]),
        listen: format!("[::]:{}", 1000 + u16::from(n)).parse().unwrap(),
    }
}

fn sources(directory: &Path) -> Sources {
    Sources {
        mdns: None,
        registry: vec![directory.join("registry")],
    }
}

/// What is told of others: a node may also find itself.
fn try_next(events: &mut Events<Event>) -> Option<Event> {
    loop {
        match events.try_recv().ok()? {
            Event::Ourselves(_) => {}
            event => return Some(event),
        }
    }
}

fn next(events: &mut Events<Event>) -> Event {
    let until = Instant::now() + WAIT;
    loop {
        if let Some(event) = try_next(events) {
            return event;
        }
        assert!(Instant::now() < until, "nothing happened in {WAIT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn found(events: &mut Events<Event>) -> Peer {
    match next(events) {
        Event::Found(peer) => peer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_nodes_find_and_lose_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let sources = sources(directory.path());
    let (first, mut first_events) = Discovery::start(&node(1), &sources).unwrap();
    let (second, mut second_events) = Discovery::start(&node(2), &sources).unwrap();
    let peer = found(&mut first_events);
    assert_eq!(peer.node, node(2).node);
    assert_eq!(peer.volume, node(2).volume);
    let expected = ["127.0.0.1:1002", "[::1]:1002"].map(|a| a.parse().unwrap());
    assert_eq!(peer.addresses, expected);
    assert_eq!(found(&mut second_events).node, node(1).node);
    second.stop();
    assert_eq!(next(&mut first_events), Event::Lost(node(2).node));
    first.stop();
    let left: Vec<_> = fs::read_dir(&sources.registry[0]).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn browsing_sees_and_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let sources = sources(directory.path());
    let (_browser, mut seen) = Discovery::browse(&sources).unwrap();
    assert!(!sources.registry[0].exists());
    let (_node, mut events) = Discovery::start(&node(1), &sources).unwrap();
    assert_eq!(found(&mut seen).volume_name, "store");
    let mode = fs::metadata(&sources.registry[0]).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o1777);
    assert_eq!(try_next(&mut events), None);
}

/// Not a test by itself: what [`a_killed_process_is_noticed`] starts and kills.
#[test]
fn child_that_announces_until_killed() {
    let Some(directory) = std::env::var_os("REGISTRY_TEST_DIRECTORY") else {
        return;
    };
    let sources = sources(Path::new(&directory));
    let _running = Discovery::start(&node(3), &sources).unwrap();
    // Ends with the parent's pipe, should the parent not live to kill it.
    let _ = io::stdin().read(&mut [0]);
}

#[test]
fn a_killed_process_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let sources = sources(directory.path());
    let (_browser, mut seen) = Discovery::browse(&sources).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "registry::tests::child_that_announces_until_killed",
        ])
        .env("REGISTRY_TEST_DIRECTORY", directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(found(&mut seen).node, node(3).node);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(next(&mut seen), Event::Lost(node(3).node));
    let file = sources.registry[0].join(format!("{}.json", node(3).node));
    assert!(!file.exists(), "the stale file should be removed");
}

#[test]
fn a_removed_file_is_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let sources = sources(directory.path());
    let (_browser, mut seen) = Discovery::browse(&sources).unwrap();
    let (_node, _events) = Discovery::start(&node(1), &sources).unwrap();
    found(&mut seen);
    let file = sources.registry[0].join(format!("{}.json", node(1).node));
    fs::remove_file(&file).unwrap();
    let until = Instant::now() + WAIT;
    while !file.exists() {
        assert!(Instant::now() < until, "not put back in {WAIT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_second_process_of_one_node_does_not_take_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let network = network_identity().unwrap();
    let path = directory.path().join("registry");
    let held = announce(&path, &node(1), &network).unwrap();
    assert!(announce(&path, &node(1), &network).is_err());
    drop(held);
    announce(&path, &node(1), &network).unwrap();
}

fn look(path: &Path, network: &str) -> Vec<Option<Peer>> {
    let watch = Watch {
        own: None,
        directories: Vec::new(),
        network: network.into(),
        seen: BTreeMap::new(),
    };
    let mut now = BTreeMap::new();
    watch.read_directory(path, &mut now);
    now.into_values().map(|(_, peer)| peer).collect()
}

fn lock(path: &Path) -> File {
    let file = File::open(path).unwrap();
    unix::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    file
}

#[test]
fn garbage_links_and_giants_are_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry");
    let network = network_identity().unwrap();
    let held = announce(&path, &node(1), &network).unwrap();
    assert_eq!(look(&path, &network).len(), 1);
    assert_eq!(look(&path, "another network"), [None]);
    let good = fs::read(&held.path).unwrap();
    let mut locks = Vec::new();
    let giant = vec![b' '; FILE_BYTES_MAX as usize + 1];
    for (name, bytes) in [
        ("a", &b"{"[..]),
        ("b", b"\xff\0"),
        ("c", &giant),
        ("d", b""),
    ] {
        let file = path.join(format!("{name}.json"));
        fs::write(&file, bytes).unwrap();
        locks.push(lock(&file));
    }
    fs::write(path.join("unnamed"), &good).unwrap();
    std::os::unix::fs::symlink(&held.path, path.join("link.json")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path.join("pipe.json"), Mode::RUSR).unwrap();
    let peers: Vec<Peer> = look(&path, &network).into_iter().flatten().collect();
    assert_eq!(peers.len(), 1, "{peers:?}");
}

#[test]
fn records_with_lies_are_refused() {
    let record = FileRecord::new(&node(1), "here", 1, 1);
    let good = serde_json::to_string(&record).unwrap();
    assert!(FileRecord::parse(good.as_bytes(), "here").is_some());
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"name\":\"store\"", "\"name\":\"\""),
        (":1001\"", ":0\""),
        ("\"volume\":\"07", "\"volume\":\"x7"),
        ("[\"127.0.0.1:1001\",\"[::1]:1001\"]", "[]"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert!(FileRecord::parse(bad.as_bytes(), "here").is_none(), "{bad}");
    }
}
