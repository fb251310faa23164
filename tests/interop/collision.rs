//! Two files with one SHA-1 are two files.

use crate::support::{Lab, can_run, eventually, noise, sha256};
use std::fs;
use std::time::Duration;

const A: &[u8] = include_bytes!("data/sha1-collision-a.bin");
const B: &[u8] = include_bytes!("data/sha1-collision-b.bin");

#[test]
fn two_files_with_one_sha1_live_side_by_side() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    // inline, one piece, several pieces: the same bytes behind the collision keep the SHA-1 equal
    for length in [0, 30_000, 1 << 20] {
        let tail = noise(7, length);
        let (one, other) = ([A, &tail].concat(), [B, &tail].concat());
        assert_ne!(one, other);
        for (name, bytes) in [("one", &one), ("other", &other)] {
            fs::write(first.path(&format!("{name}{length}")), bytes).unwrap();
        }
        for (name, bytes) in [("one", &one), ("other", &other)] {
            let path = format!("{name}{length}");
            eventually(Duration::from_secs(10), &format!("{path} arrives"), || {
                fs::read(second.path(&path)).is_ok_and(|found| found == *bytes)
            });
            assert_eq!(sha256(&first.path(&path)), sha256(&second.path(&path)));
        }
    }
    eventually(Duration::from_secs(10), "all four are copied", || {
        second.status()["contents"]["held"] == 4
    });
}
