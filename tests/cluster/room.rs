//! Full disks: the writer is told, what is there stays, and the node goes on when there is room again.

use crate::support::{Lab, Node, can_run, eventually, noise};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A small disk, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(point: PathBuf, size: &str) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&point);
        assert!(mount.status().unwrap().success());
        Self(point)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until the disk is full; answers how many bytes were taken.
#[track_caller]
fn fill(path: &Path, most: usize) -> usize {
    let mut file = File::create(path).unwrap();
    let block = noise(7, 1 << 16);
    let mut taken = 0;
    loop {
        match file.write(&block) {
            Ok(bytes) => taken += bytes,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
                return taken;
            }
        }
        assert!(taken < most, "{taken} bytes were taken");
    }
}

#[track_caller]
fn goes_on(node: &Node, old: &[u8]) {
    assert_eq!(
        fs::read(node.path("old")).unwrap(),
        old,
        "older data is unharmed"
    );
    fs::remove_file(node.path("big")).unwrap();
    let new = noise(9, 4 << 20);
    let path = node.path("new");
    eventually(SOON, "there is room again", || {
        node.status()["space"]["free"].as_u64().unwrap() > 6 << 20
    });
    fs::write(&path, &new).unwrap();
    assert_eq!(fs::read(&path).unwrap(), new);
    eventually(SOON, "all is committed", || {
        let contents = node.status()["contents"].clone();
        contents["unsealed"] == 0 && contents["uncommitted"] == 0
    });
}

#[test]
fn a_full_disk_refuses_writers_and_recovers() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let disk = Disk::new(lab.folder("a"), "size=24m");
    let mut node = lab.node(1, "a").create().start();
    let old = noise(1, 2 << 20);
    fs::write(node.path("old"), &old).unwrap();
    fill(&node.path("big"), 24 << 20);
    fs::create_dir(node.path("a folder still can be made")).unwrap();
    goes_on(&node, &old);
    assert!(node.log().contains("this disk is full"), "{}", node.log());

    // someone else fills it to the last byte
    let ballast = disk.0.join("ballast");
    let mut other = File::create(&ballast).unwrap();
    while other.write_all(&[0; 4096]).is_ok() {}
    let refused = fs::write(node.path("refused"), "x").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    drop(other);
    fs::remove_file(ballast).unwrap();
    eventually(SOON, "writing works again", || {
        fs::write(node.path("after"), "x").is_ok()
    });
    node.stop();
    drop(node);
    let mut node = lab.node(1, "a").start();
    assert_eq!(fs::read(node.path("old")).unwrap(), old);
    assert_eq!(fs::read(node.path("after")).unwrap(), b"x");
    node.stop();
    drop(node);
}

#[test]
fn a_commit_that_finds_no_space_says_so_and_is_made_when_there_is() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    // the journal needs bytes, a commit needs files: they can be made to run out apart
    let disk = Disk::new(lab.folder("a"), "size=64m,nr_inodes=2000");
    let mut node = lab.node(1, "a").create().start();
    fs::write(node.path("file"), "x").unwrap();
    let is_committed = || node.status()["contents"]["uncommitted"] == 0;
    eventually(SOON, "it is committed", is_committed);
    let ballast = disk.0.join("ballast");
    fs::create_dir(&ballast).unwrap();
    let mut number = 0;
    while File::create(ballast.join(number.to_string())).is_ok() {
        number += 1;
    }
    fs::set_permissions(node.path("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let sentence = format!("no space left on the disk of {}", node.root.display());
    eventually(SOON, "the owner is told", || node.log().contains(&sentence));
    assert!(!is_committed());
    fs::remove_dir_all(&ballast).unwrap();
    eventually(SOON, "it is committed", is_committed);
    assert!(node.log().contains("works again"), "{}", node.log());
    node.stop();
    drop(node);
}

#[test]
fn a_capacity_is_kept_by_writers_too() {
    if !can_run() {
        return;
    }
    let lab = Lab::loopback_only();
    let node = lab.node(1, "a").create().with("--capacity 12M").start();
    let old = noise(1, 2 << 20);
    fs::write(node.path("old"), &old).unwrap();
    let taken = fill(&node.path("big"), 12 << 20);
    assert!(taken > 8 << 20, "{taken}");
    goes_on(&node, &old);
}
