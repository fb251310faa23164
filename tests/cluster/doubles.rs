//! Disks that were copied bit by bit: two of one identity at once, and one that was restored from an older image.

use crate::support::{Lab, Node, can_run, eventually, noise};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small disk in a file: its filesystem's id and inodes are those of any copy of it.
struct Image(PathBuf);

impl Image {
    fn new(path: PathBuf) -> Self {
        fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", text(&path)]);
        Self(path)
    }

    fn copy(&self, name: &str) -> Self {
        let path = self.0.with_file_name(name);
        run("cp", &["--sparse=always", text(&self.0), text(&path)]);
        Self(path)
    }

    fn mount(&self, point: PathBuf) -> Mounted {
        run("mount", &["-o", "loop", text(&self.0), text(&point)]);
        Mounted(point)
    }
}

/// Unmounted when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn id(node: &Node) -> String {
    node.status()["node"]["id"].to_string()
}

fn incarnation(node: &Node) -> String {
    node.status()["node"]["incarnation"].to_string()
}

fn is_quiet(node: &Node) -> bool {
    let contents = &node.status()["contents"];
    contents["unsealed"] == 0 && contents["uncommitted"] == 0
}

#[track_caller]
fn committed(node: &Node) {
    eventually(SOON, "all is committed", || is_quiet(node));
}

#[track_caller]
fn ends_by_itself(node: &mut Node, sentence: &str) {
    let status = node.wait();
    let log = node.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(sentence), "{sentence:?} is not in {log}");
}

/// It says where the other copy is: at its IPv4 address, or at its link-local IPv6 one if that was found first.
#[track_caller]
fn meets_its_copy(node: &mut Node, ipv4: &str) {
    ends_by_itself(node, "another copy of this disk runs at ");
    let log = node.log();
    let is_at = |address: &str| log.contains(&format!("runs at {address}"));
    assert!(is_at(ipv4) || is_at("[fe80:"), "{ipv4} is not in {log}");
}

fn listing(node: &Node) -> BTreeSet<String> {
    let entries = fs::read_dir(node.path("")).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect()
}

/// All show the same, bytes included; every one of `versions` is there.
#[track_caller]
fn all_is_everywhere(nodes: &[&Node], names: &[&str], versions: &[&[u8]]) {
    eventually(SOON, "all have the same head", || {
        nodes.iter().all(|node| {
            node.connected() == nodes.len() - 1 && is_quiet(node) && node.head() == nodes[0].head()
        })
    });
    for node in nodes {
        let listing = listing(node);
        for name in names {
            assert!(listing.contains(*name), "{name} is not in {listing:?}");
        }
        let found: Vec<_> = listing
            .iter()
            .map(|name| fs::read(node.path(name)).unwrap())
            .collect();
        for version in versions {
            assert!(
                found.iter().any(|bytes| bytes == version),
                "a version is lost"
            );
        }
    }
}

#[test]
fn two_copies_of_one_disk_both_stop_and_go_on_as_two() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let disk = Image::new(lab.folder("images").join("disk"));
    let first_disk = disk.mount(lab.folder("a"));
    let mut node = lab.node(1, "a").create().start();
    fs::write(node.path("before"), noise(1, 200_000)).unwrap();
    committed(&node);
    let original = id(&node);
    node.stop();
    drop((node, first_disk));
    let copy = disk.copy("copy");
    let _disks = [disk.mount(lab.folder("a")), copy.mount(lab.folder("b"))];

    lab.cut(2);
    let mut a = lab.node(1, "a").start();
    let mut b = lab.node(2, "b").start();
    assert_eq!(
        [id(&a), id(&b)],
        [&*original, &*original],
        "nothing tells them apart yet"
    );
    let versions = [
        noise(2, 300_000),
        noise(3, 300_000),
        noise(4, 5_000),
        noise(5, 5_000),
    ];
    fs::write(a.path("by a"), &versions[0]).unwrap();
    fs::write(b.path("by b"), &versions[1]).unwrap();
    fs::write(a.path("before"), &versions[2]).unwrap();
    fs::write(b.path("before"), &versions[3]).unwrap();
    committed(&a);
    committed(&b);
    lab.heal(2);
    meets_its_copy(&mut a, "10.77.0.2");
    meets_its_copy(&mut b, "10.77.0.1");
    drop((a, b));

    let a = lab.node(1, "a").start();
    let b = lab.node(2, "b").start();
    let versions = versions.each_ref().map(|version| &version[..]);
    all_is_everywhere(&[&a, &b], &["by a", "by b", "before"], &versions);
    let ids = [id(&a), id(&b)];
    assert_ne!(ids[0], ids[1]);
    assert!(ids.contains(&original), "one of them stays who it was");
    fs::write(a.path("after"), "a").unwrap();
    eventually(SOON, "they go on together", || b.path("after").exists());
    let names = listing(&b);
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn copies_that_meet_by_a_third_node_come_to_an_end_too() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let disk = Image::new(lab.folder("images").join("disk"));
    let first_disk = disk.mount(lab.folder("a"));
    let mut node = lab.node(1, "a").create().start();
    fs::write(node.path("before"), "before").unwrap();
    committed(&node);
    node.stop();
    drop((node, first_disk));
    let copy = disk.copy("copy");
    let _disks = [disk.mount(lab.folder("a")), copy.mount(lab.folder("b"))];

    // nobody is found by itself: both know the third only
    let third = "--no-mdns --peer 10.77.0.3:7777";
    let start = |host, disk: &str| lab.node(host, disk).with(third).start();
    let c = lab
        .node(3, "c")
        .with("--no-mdns --listen 10.77.0.3:7777 --peer 10.77.0.1:1");
    lab.cut(2);
    let a = start(1, "a");
    let port = a.status()["node"]["listen"]
        .as_str()
        .unwrap()
        .rsplit_once(':')
        .unwrap()
        .1
        .to_owned();
    let c = c.with(&format!("--peer 10.77.0.1:{port}")).start();
    fs::write(a.path("by a"), noise(2, 100_000)).unwrap();
    eventually(SOON, "the third has it", || c.path("by a").exists());
    let b = start(2, "b");
    fs::write(b.path("by b"), noise(3, 100_000)).unwrap();
    committed(&b);
    lab.heal(2);
    // whoever has ended is started again, until nobody ends any more
    let mut copies = [(Some(a), 1, "a"), (Some(b), 2, "b")];
    let mut ends = 0;
    eventually(3 * SOON, "all three are one volume", || {
        for (node, host, disk) in &mut copies {
            if node.as_mut().unwrap().has_ended() {
                ends += 1;
                // its mount goes with it, and must not be the next one's
                drop(node.take());
                *node = Some(start(*host, disk));
            }
        }
        let heads = copies
            .each_ref()
            .map(|(node, ..)| node.as_ref().unwrap().try_head());
        c.connected() == 2 && heads.iter().all(|head| *head == Some(c.head()))
    });
    assert!((2..=5).contains(&ends), "{ends} ends");
    let [a, b] = copies.map(|(node, ..)| node.unwrap());
    let versions = [noise(2, 100_000), noise(3, 100_000)];
    let versions = versions.each_ref().map(|version| &version[..]);
    all_is_everywhere(&[&a, &b, &c], &["before", "by a", "by b"], &versions);
    assert_ne!(id(&a), id(&b));
}

#[test]
fn a_disk_restored_from_an_old_image_catches_up_and_harms_nothing() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let disk = Image::new(lab.folder("images").join("disk"));
    let mounted = disk.mount(lab.folder("a"));
    let mut a = lab.node(1, "a").create().start();
    let b = lab.node(2, "b").start();
    for name in ["kept", "edited", "removed"] {
        fs::write(a.path(name), noise(1, 50_000)).unwrap();
    }
    all_is_everywhere(&[&a, &b], &["kept", "edited", "removed"], &[]);
    a.stop();
    drop((a, mounted));
    let backup = disk.copy("backup");

    let mounted = disk.mount(lab.folder("a"));
    let mut a = lab.node(1, "a").start();
    let (original, chain) = (id(&a), incarnation(&a));
    let (edited, new) = (noise(2, 60_000), noise(3, 70_000));
    fs::write(a.path("edited"), &edited).unwrap();
    fs::write(a.path("new"), &new).unwrap();
    fs::remove_file(a.path("removed")).unwrap();
    all_is_everywhere(&[&a, &b], &["kept", "edited", "new"], &[&edited, &new]);
    a.stop();
    drop((a, mounted));

    // the disk dies, and the backup is put in its place; it works on before it meets anybody
    let _mounted = backup.mount(lab.folder("a"));
    lab.cut(1);
    let mut a = lab.node(1, "a").start();
    assert_eq!(incarnation(&a), chain);
    let offline = noise(4, 80_000);
    fs::write(a.path("offline"), &offline).unwrap();
    committed(&a);
    lab.heal(1);
    ends_by_itself(&mut a, "has seen newer work of this disk than is on it");
    drop(a);
    let names = listing(&b);
    assert_eq!(names.len(), 3, "no harm is done: {names:?}");

    let a = lab.node(1, "a").start();
    let names = ["kept", "edited", "new", "offline"];
    all_is_everywhere(&[&a, &b], &names, &[&edited, &new, &offline]);
    for node in [&a, &b] {
        assert_eq!(listing(node).len(), names.len(), "{:?}", listing(node));
        assert_eq!(fs::read(node.path("edited")).unwrap(), edited);
    }
    assert_eq!(id(&a), original, "the same disk");
    assert_ne!(incarnation(&a), chain, "with a chain of its own");
    fs::write(b.path("after"), "b").unwrap();
    eventually(SOON, "they go on together", || a.path("after").exists());
}
