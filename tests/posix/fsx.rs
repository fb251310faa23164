//! A file changed in every way at random, each read compared with what it should be: a million operations, in parts that each
//! stay with what one state of a file does.
//!
//! `SEED=n` draws others, from that seed on.

use crate::suite;
use crate::support::{Lab, eventually, sha256};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Only what is stuck takes so long to be hashed.
const SEALED_MAX: Duration = Duration::from_secs(60);

/// Operations of one process, which lets go of no mapping before it ends: with tens of thousands the kernel is slow.
const ROUND: u64 = 10_000;

/// Every operation there is. Without `msync`, so that the kernel's pages are written back when it has to.
const ALL: &str = "
nomsyncafterwrite = true
flen = 262144
[opsize]
min = 1
max = 16384
[weights]
close_open = 0.5
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 3
punch_hole = 3
sendfile = 5
posix_fadvise = 3
copy_file_range = 5
";

/// Held open all the time: one staging file, and the kernel's pages of it.
const HELD: &str = "
nomsyncafterwrite = true
flen = 131072
[opsize]
min = 1
max = 8192
[weights]
invalidate = 0.2
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
";

/// Closed again and again, and of a length about that up to which bytes are kept in the names: hashed, copied from what was
/// hashed, and written anew.
const CLOSED: &str = "
flen = 16384
[opsize]
min = 1
max = 4096
[weights]
close_open = 10
mapread = 5
mapwrite = 5
read = 5
write = 10
truncate = 10
fsync = 1
punch_hole = 1
";

/// Each write through a mapping is synced.
const SYNCED: &str = "
flen = 65536
[opsize]
min = 1
max = 8192
[weights]
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
fsync = 2
fdatasync = 2
";

/// A disk in memory: here it is about bytes, and holes cost a disk much.
fn disk(lab: &Lab, name: &str) -> Option<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return None;
    }
    let folder = tempfile::Builder::new()
        .prefix("delugefs-fsx-")
        .tempdir_in(memory)
        .unwrap();
    let link = lab.folder("disks").parent().unwrap().join(name);
    std::os::unix::fs::symlink(folder.path(), link).unwrap();
    Some(folder)
}

/// So many operations; afterwards the bytes stay what they are, hashed and after a restart.
fn exercise(configuration: &str, operations: u64) {
    let Some(program) = suite("fsx") else {
        return;
    };
    let lab = Lab::new(1);
    let _disk = disk(&lab, "disk");
    let mut node = lab.node(1, "disk").create().start();
    let file = node.path("file");
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    for round in 0..operations / ROUND {
        run(&lab, &program, configuration, seed + round, &file);
    }

    let bytes = sha256(&file);
    eventually(SEALED_MAX, "it is hashed", || {
        node.status()["contents"]["unsealed"] == 0
    });
    assert_eq!(sha256(&file), bytes, "hashed");
    node.stop();
    let node = lab.node(1, "disk").start();
    assert_eq!(sha256(&node.path("file")), bytes, "after a restart");
}

#[track_caller]
fn run(lab: &Lab, program: &Path, configuration: &str, seed: u64, file: &Path) {
    let folder = lab.folder("fsx");
    let path = folder.join("fsx.toml");
    fs::write(&path, configuration).unwrap();
    let mut fsx = Command::new(program);
    fsx.arg("-f").arg(path).arg("-P").arg(folder);
    let (seed, operations) = (seed.to_string(), ROUND.to_string());
    fsx.args(["-S", &seed, "-N", &operations]).arg(file);
    let output = fsx.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "SEED={seed}\n{said}");
}

#[test]
fn a_file_is_what_was_done_to_it() {
    exercise(ALL, 250_000);
}

#[test]
fn a_file_held_open_is_what_was_done_to_it() {
    exercise(HELD, 550_000);
}

#[test]
fn a_file_closed_again_and_again_is_what_was_done_to_it() {
    exercise(CLOSED, 80_000);
}

#[test]
fn a_file_synced_again_and_again_is_what_was_done_to_it() {
    exercise(SYNCED, 120_000);
}
