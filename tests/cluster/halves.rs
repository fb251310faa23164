//! Two halves of a volume, each of which has retired the other and cut its history while they were apart.

use crate::past::{COMMITS, LATER, SOON, has_cut, write};
use crate::support::{Lab, Node, can_run, eventually, noise};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// More than what names carry: these bytes are in the content stores.
const LARGE: usize = 100_000;

/// What the halves are called.
const CHANGED: [&str; 2] = ["left", "right"];

fn noise_of(half: usize) -> Vec<u8> {
    noise(half as u64, LARGE)
}

/// One half works, and retires the other, until its history is cut.
fn work_apart(lab: &Lab, nodes: &[Node], disks: [&str; 2], half: usize) {
    let [first, second] = nodes else {
        panic!("two nodes a half");
    };
    let name = CHANGED[half];
    write(first, &format!("edited by {name}"), name);
    write(first, "edited by both", name);
    fs::write(second.path(&format!("large of {name}")), noise_of(half)).unwrap();
    let before = second.head();
    fs::remove_file(second.path(&format!("removed by {name}"))).unwrap();
    fs::rename(
        second.path(&format!("renamed by {name}")),
        second.path(&format!("new name by {name}")),
    )
    .unwrap();
    eventually(SOON, "it is committed", || second.head() != before);
    for number in 0..COMMITS {
        write(first, &format!("again by {name}"), &number.to_string());
    }
    eventually(LATER, "history is cut without the other half", || {
        disks.iter().all(|disk| has_cut(lab, disk))
    });
}

/// All that is shown, with what is in it; `None` while the node ends.
fn shown(node: &Node) -> Option<BTreeMap<String, Vec<u8>>> {
    let files = fs::read_dir(node.path(".")).ok()?;
    let file = |file: std::io::Result<fs::DirEntry>| {
        let name = file.ok()?.file_name().into_string().unwrap();
        let bytes = fs::read(node.path(&name)).ok()?;
        Some((name, bytes))
    };
    files.map(file).collect()
}

/// What all show, once it is the same.
fn shown_by_all(nodes: &[Node]) -> Option<BTreeMap<String, Vec<u8>>> {
    let first = shown(&nodes[0])?;
    let is_same = nodes
        .iter()
        .all(|node| shown(node).as_ref() == Some(&first));
    (is_same && are_one(nodes)).then_some(first)
}

const DISKS: [&str; 4] = ["a", "b", "c", "d"];

fn are_one(nodes: &[Node]) -> bool {
    let heads: Option<BTreeSet<String>> = nodes.iter().map(Node::try_head).collect();
    heads.is_some_and(|heads| heads.len() == 1)
}

#[test]
fn two_halves_that_have_retired_each_other_lose_nothing() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(4);
    let mut nodes = vec![lab.node(1, "a").create().start()];
    nodes.extend(
        (2..=4)
            .zip(&DISKS[1..])
            .map(|(host, disk)| lab.node(host, disk).start()),
    );
    for (key, value) in [("history", "1s"), ("retire", "30s"), ("keep", "0")] {
        nodes[0].set(key, value);
    }
    write(&nodes[0], "edited by both", "at first");
    for name in CHANGED {
        for what in ["edited", "removed", "renamed", "again"] {
            write(&nodes[0], &format!("{what} by {name}"), "at first");
        }
    }
    fs::write(nodes[0].path("large of old"), noise_of(2)).unwrap();
    eventually(SOON, "all have the same", || {
        are_one(&nodes) && nodes.iter().all(|node| node.path("large of old").exists())
    });
    // so that all know of each other that they have it
    write(&nodes[2], "last", "at first");
    eventually(SOON, "all have the same", || are_one(&nodes));

    for host in [3, 4] {
        lab.set_aside(host, true);
    }
    std::thread::scope(|scope| {
        for (half, (nodes, disks)) in nodes.chunks(2).zip(DISKS.as_chunks().0).enumerate() {
            let lab = &lab;
            scope.spawn(move || work_apart(lab, nodes, *disks, half));
        }
    });
    for host in [3, 4] {
        lab.set_aside(host, false);
    }
    let mut files = None;
    eventually(LATER, "both are one again", || {
        files = shown_by_all(&nodes).filter(|files| !files.is_empty());
        files.is_some()
    });
    for node in &nodes {
        assert!(!node.log().contains("panic"), "{}", node.log());
    }
    check(&files.unwrap());
}

/// All is there that either half has made and changed, and nothing of before beside it. What the half that comes over to the
/// other has removed or renamed is as the other has it.
fn check(files: &BTreeMap<String, Vec<u8>>) {
    let is = |name: &str, bytes: &[u8]| files.get(name).is_some_and(|found| found == bytes);
    let last = (COMMITS - 1).to_string();
    for (half, name) in CHANGED.into_iter().enumerate() {
        assert!(is(&format!("edited by {name}"), name.as_bytes()), "{name}");
        assert!(is(&format!("again by {name}"), last.as_bytes()), "{name}");
        assert!(is(&format!("large of {name}"), &noise_of(half)), "{name}");
        let (old, new) = (format!("renamed by {name}"), format!("new name by {name}"));
        assert!(is(&old, b"at first") != is(&new, b"at first"), "one name");
    }
    assert!(is("large of old", &noise_of(2)));
    let both = |(file, bytes): (&String, &Vec<u8>)| {
        let is_it = file.starts_with("edited by both");
        is_it.then(|| String::from_utf8(bytes.clone()).unwrap())
    };
    let both: BTreeSet<String> = files.iter().filter_map(both).collect();
    assert_eq!(both, CHANGED.map(str::to_owned).into());
    let copies = files.keys().filter(|name| is_copy(name));
    let others: Vec<_> = copies
        .filter(|name| !name.starts_with("edited by both"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let removed = CHANGED.map(|name| files.contains_key(&format!("removed by {name}")));
    assert_ne!(removed, [true, true], "one half's removals count");
    let names = files.keys().filter(|name| !is_copy(name)).count();
    assert!((11..=12).contains(&names), "{:?}", files.keys());
}

fn is_copy(name: &str) -> bool {
    name.contains(" (conflict ")
}
