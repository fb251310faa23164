//! Stock git clones a live volume, follows it, and finds nothing wrong with it.

use crate::clone;
use crate::support::{Lab, eventually, has, must, noise};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_live_volume_is_cloned_and_followed() {
    if !has(&["git"]) {
        return;
    }
    let lab = Lab::new(2);
    let node = lab.node(1, "a").create().start();
    fs::create_dir_all(node.path("films/old")).unwrap();
    for number in 0..50 {
        let name = format!("films/old/file {number}");
        fs::write(node.path(&name), noise(number, 9000)).unwrap();
    }
    let copy = lab.folder("clone");
    let writing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                fs::write(node.path(&format!("live{number}")), noise(number, 5000)).unwrap();
                if !writing.load(Ordering::Relaxed) {
                    return;
                }
                // as fast as names are committed, not faster
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        eventually(Duration::from_secs(10), "the first names are there", || {
            node.status()["contents"]["uncommitted"].as_u64() < Some(50)
        });
        clone(&lab, 2, &node, &copy);
        for _ in 0..5 {
            let mut git = lab.command(2, "git");
            must(git.arg("-C").arg(&copy).args(["fetch", "-q"]));
        }
        writing.store(false, Ordering::Relaxed);
    });
    fs::write(node.path("films/last"), noise(1, 9000)).unwrap();
    eventually(Duration::from_secs(10), "all is fetched", || {
        let mut git = lab.command(2, "git");
        must(git.arg("-C").arg(&copy).args(["pull", "-q", "--ff-only"]));
        copy.join("films/last.torrent").exists()
    });
    assert!(copy.join("films/old/file 49.torrent").exists());
    let mut git = lab.command(2, "git");
    must(
        git.arg("-C")
            .arg(&copy)
            .args(["fsck", "--strict", "--full"]),
    );
    let mut git = lab.command(2, "git");
    let served = node.root.join("metadata.git");
    must(git.arg("-C").arg(&served).args(["fsck", "--strict"]));
}
