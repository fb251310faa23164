//! Copies: made without being asked for, made again when a disk is gone, spread over sites, and given back.

use crate::support::large::write_noise;
use crate::support::{Lab, Node, can_run, eventually, noise};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const MIB: usize = 1 << 20;

/// Labels of the holders, sorted, each with whether it is connected.
fn holders(node: &Node, name: &str) -> Vec<(String, bool)> {
    let report = node.whereabouts(name);
    let holders = report["holders"].as_array().unwrap().iter();
    let mut holders: Vec<_> = holders
        .map(|holder| {
            let label = holder["label"].as_str().unwrap().to_owned();
            (label, holder["connected"] == true)
        })
        .collect();
    holders.sort();
    holders
}

fn labels(node: &Node, name: &str) -> Vec<String> {
    let holders = holders(node, name).into_iter();
    holders.map(|(label, _)| label).collect()
}

/// Bytes below a node's `data`.
fn stored(root: &Path) -> u64 {
    let directories = fs::read_dir(root.join("data")).unwrap().flatten();
    let files = directories.filter_map(|directory| fs::read_dir(directory.path()).ok());
    files
        .flatten()
        .flatten()
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

/// Bytes of removed files that a node still has open: the disk does not have them back yet.
fn unreleased(node: &Node) -> u64 {
    let folder = format!("/proc/{}/fd", node.pid());
    let open = fs::read_dir(folder).unwrap().flatten();
    open.filter_map(|open| {
        let target = fs::read_link(open.path()).ok()?;
        let removed = target.starts_with(&node.root) && target.to_str()?.ends_with("(deleted)");
        removed.then(|| Some(fs::metadata(open.path()).ok()?.len()))?
    })
    .sum()
}

fn short_of_copies(node: &Node) -> u64 {
    node.status()["contents"]["short_of_copies"]
        .as_u64()
        .unwrap()
}

fn acquainted(nodes: &[&Node]) {
    eventually(SOON, "all are connected", || {
        nodes.iter().all(|node| node.connected() == nodes.len() - 1)
    });
}

#[test]
fn new_content_is_copied_without_being_read_and_more_when_asked() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    fs::write(first.path("file"), noise(1, 8 * MIB)).unwrap();
    eventually(SOON, "alone, it says that a copy is missing", || {
        short_of_copies(&first) == 1
    });
    let second = lab.node(2, "b").storage().start();
    eventually(SOON, "the storage node has it", || {
        labels(&first, "file") == ["a", "b"]
    });
    assert_eq!(stored(&second.root), 8 * MIB as u64);
    eventually(SOON, "nothing is short", || short_of_copies(&first) == 0);

    let third = lab.node(2, "c").storage().start();
    acquainted(&[&first, &second, &third]);
    assert_eq!(labels(&first, "file"), ["a", "b"], "two are enough");
    first.set("copies", "3");
    eventually(SOON, "three copies", || {
        labels(&first, "file") == ["a", "b", "c"]
    });
    assert_eq!(stored(&third.root), 8 * MIB as u64);
}

#[test]
fn a_disk_that_is_gone_is_replaced_and_keeps_what_it_has() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let first = lab.node(1, "a").create().start();
    first.set("grace", "3s");
    let mut others = [
        lab.node(2, "b").storage().start(),
        lab.node(3, "c").storage().start(),
    ];
    acquainted(&[&first, &others[0], &others[1]]);
    fs::write(first.path("file"), noise(2, 4 * MIB)).unwrap();
    eventually(SOON, "a second copy", || labels(&first, "file").len() == 2);
    let taker = usize::from(labels(&first, "file")[1] == "c");
    others[taker].kill();
    eventually(SOON, "it is missed", || first.connected() == 1);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(stored(&others[1 - taker].root), 0, "not within the grace");
    eventually(SOON, "the other one has a copy", || {
        stored(&others[1 - taker].root) == 4 * MIB as u64
    });
    let name = ["b", "c"][taker];
    let expected: Vec<_> = [("a", true), ("b", taker != 0), ("c", taker != 1)]
        .map(|(label, up)| (label.to_owned(), up))
        .into();
    eventually(SOON, "the lost one is still listed", || {
        holders(&first, "file") == expected
    });

    let back = lab.node(2 + taker as u32, name).storage().start();
    acquainted(&[&first, &back, &others[1 - taker]]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(labels(&first, "file"), ["a", "b", "c"]);
    assert_eq!(stored(&back.root), 4 * MIB as u64);
}

#[test]
fn a_full_disk_is_passed_over() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let first = lab.node(1, "a").create().start();
    let small = lab.node(2, "b").storage().with("--capacity 6M").start();
    let large = lab.node(3, "c").storage().start();
    acquainted(&[&first, &small, &large]);
    for number in 0..6 {
        let name = format!("file{number}");
        fs::write(first.path(&name), noise(number, 4 * MIB)).unwrap();
        eventually(SOON, "a second copy", || labels(&first, &name).len() == 2);
    }
    assert!(stored(&small.root) <= 6 * MIB as u64);
    assert!(stored(&large.root) >= 5 * 4 * MIB as u64);
    eventually(SOON, "nothing is short", || short_of_copies(&first) == 0);
}

#[test]
fn another_site_is_preferred() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let first = lab.node(1, "a").create().with("--site home").start();
    let near = lab.node(2, "b").storage().with("--site home").start();
    let far = lab.node(3, "c").storage().with("--site attic").start();
    acquainted(&[&first, &near, &far]);
    for number in 0..8 {
        fs::write(first.path(&format!("file{number}")), noise(number, MIB)).unwrap();
    }
    eventually(SOON, "all are in the attic", || {
        stored(&far.root) == 8 * MIB as u64
    });
    assert_eq!(stored(&near.root), 0);
}

/// `rm` of a file that so many of three nodes hold.
fn give_back(length: u64, copies: usize) {
    let lab = Lab::new(3);
    let first = lab.node(1, "a").create().start();
    let others = [lab.node(2, "b").start(), lab.node(3, "c").storage().start()];
    first.set("keep", "0s");
    first.set("copies", &copies.to_string());
    acquainted(&[&first, &others[0], &others[1]]);
    drop(write_noise(&first.path("large"), length));
    let patience = SOON + Duration::from_secs(length >> 23);
    eventually(patience, "all copies are there", || {
        others[0].path("large").exists() && labels(&first, "large").len() == copies
    });
    let nodes = [&first, &others[0], &others[1]];
    let held_by = |node: &&Node| stored(&node.root) + unreleased(node);
    let held = || nodes.iter().map(held_by).sum::<u64>();
    // what a copy needed while it arrived goes after it has been told of
    eventually(SOON, "nothing but the copies is stored", || {
        held() == copies as u64 * length
    });
    fs::remove_file(others[0].path("large")).unwrap();
    let took = eventually(SOON, "the bytes are gone everywhere", || held() == 0);
    println!(
        "{copies} copies of {} MB given back in {took:.2?}",
        length / 1_000_000
    );
    eventually(SOON, "nothing is held", || {
        first.status()["contents"]["held"] == 0
    });
}

#[test]
fn removed_bytes_are_given_back() {
    if can_run() {
        give_back(64 << 20, 3);
    }
}

#[test]
#[ignore = "long: moves gigabytes"]
fn ten_removed_gigabytes_are_given_back_within_ten_seconds() {
    if can_run() {
        give_back(10_000_000_000, 2);
    }
}

#[test]
fn removed_bytes_stay_for_a_week_by_default() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").storage().start();
    fs::write(first.path("file"), noise(3, MIB)).unwrap();
    eventually(SOON, "a copy", || stored(&second.root) == MIB as u64);
    let info_hash = first.whereabouts("file")["info_hash"].clone();
    fs::remove_file(first.path("file")).unwrap();
    for node in [&first, &second] {
        eventually(SOON, "it is noted", || {
            let text = fs::read_to_string(node.root.join("expiring")).unwrap_or_default();
            text.contains(info_hash.as_str().unwrap())
        });
    }
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(stored(&first.root), MIB as u64);
    assert_eq!(stored(&second.root), MIB as u64);
}

#[test]
fn what_an_open_file_reads_is_not_taken_from_under_it() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").storage().start();
    first.set("keep", "0s");
    let bytes = noise(4, 4 * MIB);
    fs::write(first.path("file"), &bytes).unwrap();
    eventually(SOON, "a copy", || stored(&second.root) == 4 * MIB as u64);
    let mut open = fs::File::open(first.path("file")).unwrap();
    fs::remove_file(first.path("file")).unwrap();
    eventually(SOON, "gone from the other disk", || {
        stored(&second.root) == 0
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(stored(&first.root), 4 * MIB as u64, "still open here");
    let mut found = Vec::new();
    std::io::Read::read_to_end(&mut open, &mut found).unwrap();
    assert!(found == bytes);
    drop(open);
    eventually(SOON, "closed and gone", || stored(&first.root) == 0);
}

#[test]
fn the_same_bytes_written_again_while_they_are_reaped_live() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    first.set("keep", "0s");
    acquainted(&[&first, &second]);
    let bytes = noise(5, MIB);
    let until = std::time::Instant::now() + Duration::from_secs(8);
    for round in 0.. {
        fs::write(first.path(&format!("file{round}")), &bytes).unwrap();
        if std::time::Instant::now() > until {
            eventually(SOON, "the last one is readable elsewhere", || {
                fs::read(second.path(&format!("file{round}"))).is_ok_and(|found| found == bytes)
            });
            assert!(fs::read(first.path(&format!("file{round}"))).unwrap() == bytes);
            return;
        }
        std::thread::sleep(Duration::from_millis(round * 37 % 400));
        fs::remove_file(first.path(&format!("file{round}"))).unwrap();
        std::thread::sleep(Duration::from_millis(round * 53 % 700));
    }
}

#[test]
fn a_disk_in_a_drawer_is_named_by_nodes_that_never_met_it() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let first = lab.node(1, "a").create().start();
    let mut drawer = lab.node(2, "drawer").storage().start();
    fs::write(first.path("file"), noise(6, MIB)).unwrap();
    eventually(SOON, "a copy", || labels(&first, "file").len() == 2);
    drawer.stop();
    let mut late = lab.node(3, "late").start();
    let expected = |up: bool| vec![("a".to_owned(), up), ("drawer".to_owned(), false)];
    eventually(SOON, "it has heard of the drawer", || {
        late.path("file").exists() && holders(&late, "file") == expected(true)
    });
    // also alone, and after a crash
    std::thread::sleep(Duration::from_secs(1));
    late.kill();
    drop(first);
    drop(late);
    let late = lab.node(3, "late").start();
    assert_eq!(holders(&late, "file"), expected(false));
}
