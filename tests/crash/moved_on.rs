//! A killed node comes back to a volume that has moved on.

use crate::ledger::listing;
use crate::support::{Lab, Node, can_run, eventually, noise};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

#[track_caller]
fn agree(a: &Node, b: &Node) {
    let is_quiet = |node: &Node| {
        let contents = &node.status()["contents"];
        contents["unsealed"] == 0 && contents["uncommitted"] == 0
    };
    eventually(SOON, "both have the same head", || {
        is_quiet(a) && is_quiet(b) && a.connected() == 1 && a.head() == b.head()
    });
}

fn names(node: &Node) -> Vec<String> {
    let paths = listing(node.mount.as_ref().unwrap());
    let name = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    paths.iter().map(name).collect()
}

#[track_caller]
fn has(path: &Path, bytes: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(found == bytes, "{}: other bytes", path.display());
}

#[test]
fn nothing_is_lost_or_doubled_by_coming_back() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let mut a = lab.node(1, "a").create().start();
    let b = lab.node(2, "b").start();
    for round in 0..4_u64 {
        let folder = format!("folder{round}");
        fs::create_dir(a.path(&folder)).unwrap();
        for name in ["edited", "moved", "theirs", "removed"] {
            fs::write(a.path(&format!("{folder}/{name}")), name).unwrap();
        }
        agree(&a, &b);
        // acknowledged, and most likely in no commit yet
        let large = noise(round, 9_000_000);
        fs::write(a.path(&format!("{folder}/large")), &large).unwrap();
        fs::write(a.path(&format!("{folder}/edited")), noise(round, 50_000)).unwrap();
        let within = format!("{folder}/within");
        fs::create_dir(a.path(&within)).unwrap();
        fs::rename(
            a.path(&format!("{folder}/moved")),
            a.path(&format!("{within}/moved")),
        )
        .unwrap();
        a.abandon();
        let renamed = format!("renamed{round}");
        fs::write(b.path(&format!("{folder}/theirs")), "by b").unwrap();
        fs::write(b.path(&format!("{folder}/moved")), "by b").unwrap();
        fs::remove_file(b.path(&format!("{folder}/removed"))).unwrap();
        fs::rename(b.path(&folder), b.path(&renamed)).unwrap();
        a = lab.node(1, "a").start();
        agree(&a, &b);
        for node in [&a, &b] {
            let at = |name: &str| node.path(&format!("{renamed}/{name}"));
            has(&at("large"), &large);
            has(&at("edited"), &noise(round, 50_000));
            has(&at("theirs"), b"by b");
            has(&at("within/moved"), b"by b");
            assert!(!at("removed").exists());
            assert_eq!(
                names(node).len(),
                (round as usize + 1) * 6,
                "{:?}",
                names(node)
            );
        }
    }
}

#[test]
fn both_versions_of_a_file_edited_on_both_sides_of_a_kill_are_there() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let a = lab.node(1, "a").create().start();
    let b = lab.node(2, "b").start();
    fs::write(a.path("both.txt"), "old").unwrap();
    agree(&a, &b);
    let (by_a, by_b) = (noise(1, 300_000), noise(2, 300_000));
    // b does not hear of it before it edits, too
    lab.cut(1);
    fs::write(a.path("both.txt"), &by_a).unwrap();
    a.abandon();
    fs::write(b.path("both.txt"), &by_b).unwrap();
    lab.heal(1);
    let a = lab.node(1, "a").start();
    agree(&a, &b);
    for node in [&a, &b] {
        let names = names(node);
        assert_eq!(names.len(), 2, "{names:?}");
        let mut found: Vec<_> = names
            .iter()
            .map(|name| fs::read(node.path(name)).unwrap())
            .collect();
        found.sort();
        let mut expected = vec![by_a.clone(), by_b.clone()];
        expected.sort();
        assert!(found == expected, "{names:?}: other bytes");
    }
}

/// Tools set times and modes after closing, while the node hashes; others remove what they have just closed.
#[test]
fn files_touched_or_removed_while_they_are_hashed_leave_nothing_behind() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1);
    let node = lab.node(1, "a").create().start();
    let bytes = noise(3, 24 << 20);
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for nth in 0..4 {
        let (kept, removed) = (
            node.path(&format!("kept{nth}")),
            node.path(&format!("removed{nth}")),
        );
        fs::write(&removed, &bytes[nth..]).unwrap();
        fs::write(&kept, &bytes[nth * 2..]).unwrap();
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: 1_000_000_000,
                tv_nsec: 0,
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: 1_000_000_000,
                tv_nsec: 0,
            },
        };
        rustix::fs::utimensat(rustix::fs::CWD, &kept, &times, rustix::fs::AtFlags::empty())
            .unwrap();
        fs::remove_file(&removed).unwrap();
    }
    let staging = node.root.join("staging");
    eventually(
        SOON,
        "all is hashed, and nothing is left in staging/",
        || {
            node.status()["contents"]["unsealed"] == 0
                && fs::read_dir(&staging).unwrap().count() == 0
        },
    );
    for nth in 0..4 {
        let path = node.path(&format!("kept{nth}"));
        has(&path, &bytes[nth * 2..]);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
    }
    let log = node.log();
    let is_trouble = |line: &&str| line.contains("ERROR") || line.contains("WARN");
    // a new volume is told to be open
    let troubles = log
        .lines()
        .filter(is_trouble)
        .filter(|line| !line.contains("is open"));
    assert_eq!(troubles.count(), 0, "{log}");
}
