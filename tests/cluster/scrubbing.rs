//! Disks that change, cut, lose or swap bytes behind our back: it is found, told, and repaired from other disks.

use crate::support::{Lab, Node, PROGRAM, can_run, eventually, noise};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

/// The exit status that says that something is still damaged.
const DAMAGE_REMAINS: i32 = 3;

/// `delugefs scrub --json`: its exit status and report.
fn scrub(node: &Node) -> (i32, Value) {
    let mut command = Command::new(PROGRAM);
    command.args(["scrub", "--json", "--root"]).arg(&node.root);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {text}\n{}", node.log()));
    (output.status.code().unwrap(), report)
}

fn held_by(node: &Node, name: &str, disks: usize) -> bool {
    node.whereabouts(name)["holders"].as_array().unwrap().len() == disks
}

/// Where a node keeps the bytes of a file.
fn data_file(node: &Node, info_hash: &str) -> PathBuf {
    node.root.join("data").join(&info_hash[..2]).join(info_hash)
}

fn info_hash(node: &Node, name: &str) -> String {
    node.whereabouts(name)["info_hash"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn writable(path: &Path) -> fs::File {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = writable(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

/// Bytes as they are on a node's disk, whole and without `.have`.
fn is_whole(node: &Node, hash: &str, bytes: &[u8]) -> bool {
    let path = data_file(node, hash);
    !path.with_extension("have").exists() && fs::read(path).is_ok_and(|found| found == bytes)
}

fn damaged_paths(report: &Value) -> Vec<&str> {
    let damaged = report["damaged"].as_array().unwrap().iter();
    damaged
        .map(|damage| damage["path"].as_str().unwrap())
        .collect()
}

/// Nothing of this comes from what the kernel or a process remembers.
fn restarted(lab: &Lab, mut node: Node, host: u32, disk: &str) -> Node {
    node.stop();
    drop(node);
    lab.node(host, disk).start()
}

#[test]
fn a_scrub_finds_and_repairs_what_was_changed_cut_and_removed() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    let files: Vec<(String, Vec<u8>)> = (0..6)
        .map(|number| (format!("file{number}"), noise(number, 2 * MIB + 77)))
        .chain([("small".to_owned(), noise(9, 10_000))])
        .collect();
    fs::create_dir(first.path("dir")).unwrap();
    for (name, bytes) in &files {
        fs::write(first.path("dir").join(name), bytes).unwrap();
    }
    let at = |name: &str| format!("dir/{name}");
    for (name, _) in &files {
        eventually(SOON, "two copies", || held_by(&first, &at(name), 2));
    }
    let (status, report) = scrub(&first);
    assert_eq!((status, &report["found"]), (0, &0.into()), "{report}");
    assert_eq!(report["contents"], 7);

    let hash = |number: usize| info_hash(&first, &at(&files[number].0));
    let mut open = fs::File::open(first.path("dir/file0")).unwrap();
    flip(&data_file(&first, &hash(0)), 1_000_000);
    flip(&data_file(&first, &hash(0)), 2_000_000);
    writable(&data_file(&first, &hash(1)))
        .set_len(700_000)
        .unwrap();
    fs::remove_file(data_file(&first, &hash(2))).unwrap();
    flip(&data_file(&first, &hash(6)), 5);
    let (status, report) = scrub(&first);
    assert_eq!(status, 0, "{report}");
    assert_eq!(
        (&report["found"], &report["repaired"]),
        (&4.into(), &4.into()),
        "{report}"
    );
    for (number, (name, bytes)) in files.iter().enumerate() {
        assert!(is_whole(&first, &hash(number), bytes), "{name}");
        assert!(
            fs::read(first.path("dir").join(name)).unwrap() == *bytes,
            "{name}"
        );
        eventually(SOON, "it says that it has it again", || {
            held_by(&second, &at(name), 2)
        });
    }
    let mut seen = Vec::new();
    std::io::Read::read_to_end(&mut open, &mut seen).unwrap();
    assert!(seen == files[0].1, "who had it open reads it right, too");
    let log = first.log();
    for line in [
        "damaged on disk a: dir/file0, 2 of its pieces",
        "repaired on disk a: dir/file1",
        "repaired on disk a: dir/file2",
        "damaged on disk a: dir/small, 1 of its pieces",
    ] {
        assert!(log.contains(line), "{line}");
    }
    assert_eq!(scrub(&first).0, 0);
}

#[test]
fn without_another_copy_nothing_is_removed_and_a_holder_that_comes_heals_it() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let mut second = lab.node(2, "b").storage().start();
    first.set("wait", "1s");
    let bytes = noise(1, 4 * MIB);
    fs::write(first.path("film"), &bytes).unwrap();
    eventually(SOON, "two copies", || held_by(&first, "film", 2));
    second.stop();
    let first = restarted(&lab, first, 1, "a");
    let hash = info_hash(&first, "film");
    flip(&data_file(&first, &hash), 3 * MIB as u64);
    let (status, report) = scrub(&first);
    assert_eq!(status, DAMAGE_REMAINS, "{report}");
    assert_eq!(damaged_paths(&report), ["film"]);
    assert_eq!(report["damaged"][0]["repair"], "waiting");
    assert_eq!(
        fs::metadata(data_file(&first, &hash)).unwrap().len(),
        bytes.len() as u64
    );
    assert_eq!(first.whereabouts("film")["damage"]["pieces"], 1);
    assert_eq!(damaged_paths(&first.status()["scrub"]), ["film"]);

    let file = fs::File::open(first.path("film")).unwrap();
    let mut good = vec![0; MIB];
    file.read_exact_at(&mut good, 0).unwrap();
    assert!(good == bytes[..MIB], "what is right is given");
    let mut bad = vec![0; MIB];
    let error = file.read_exact_at(&mut bad, 3 * MIB as u64).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "an error rather than a lie");

    // a crash forgets nothing of it
    let mut first = first;
    first.kill();
    drop(first);
    let first = lab.node(1, "a").start();
    eventually(SOON, "it still names it", || {
        first.status()["scrub"]["damaged"][0]["path"] == "film"
    });
    assert_eq!(scrub(&first).0, DAMAGE_REMAINS);
    let _second = lab.node(2, "b").storage().start();
    eventually(SOON, "repaired", || {
        first.status()["scrub"]["damaged_contents"] == 0
    });
    assert!(is_whole(&first, &hash, &bytes));
    eventually(SOON, "it can be read", || {
        fs::read(first.path("film")).is_ok_and(|found| found == bytes)
    });
    assert_eq!(scrub(&first).0, 0);
}

#[test]
fn a_peer_that_gets_wrong_bytes_complains_and_the_disk_is_repaired() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let first = lab.node(1, "a").create().start();
    let mut second = lab.node(2, "b").storage().start();
    let bytes = noise(2, 4 * MIB);
    fs::write(first.path("film"), &bytes).unwrap();
    eventually(SOON, "two copies", || held_by(&first, "film", 2));
    let hash = info_hash(&first, "film");
    // whom a piece is asked of is chance while there are two
    second.stop();
    flip(&data_file(&first, &hash), 3 * MIB as u64);
    let third = lab.node(3, "c").start();
    eventually(SOON, "it sees the name", || third.path("film").exists());
    let path = third.path("film");
    let reading = std::thread::spawn(move || fs::read(path));
    eventually(SOON, "the complaint is checked, and true", || {
        first
            .log()
            .contains("damaged on disk a: film, 1 of its pieces")
    });
    assert!(third.log().contains("a has sent a wrong piece"));
    assert!(!is_whole(&first, &hash, &bytes));
    let _second = lab.node(2, "b").storage().start();
    assert!(
        reading.join().unwrap().unwrap() == bytes,
        "the read waits for right bytes"
    );
    eventually(SOON, "repaired", || is_whole(&first, &hash, &bytes));
    eventually(SOON, "and told", || {
        first.log().contains("repaired on disk a: film")
    });
}

#[test]
fn files_that_are_gone_or_cut_at_a_start_are_not_said_to_be_held() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let mut second = lab.node(2, "b").storage().start();
    let names = ["gone", "cut", "emptied"];
    let bytes = [noise(1, MIB), noise(2, MIB), noise(3, MIB)];
    for (name, bytes) in names.iter().zip(&bytes) {
        fs::write(first.path(name), bytes).unwrap();
    }
    for name in names {
        eventually(SOON, "two copies", || held_by(&first, name, 2));
    }
    let hashes = names.map(|name| info_hash(&first, name));
    second.kill();
    fs::remove_file(data_file(&second, &hashes[0])).unwrap();
    writable(&data_file(&second, &hashes[1]))
        .set_len(300_000)
        .unwrap();
    writable(&data_file(&second, &hashes[2]))
        .set_len(0)
        .unwrap();
    drop(second);
    let second = lab.node(2, "b").storage().start();
    eventually(SOON, "repaired", || {
        let whole = |(hash, bytes): (&String, &Vec<u8>)| is_whole(&second, hash, bytes);
        hashes.iter().zip(&bytes).all(whole)
    });
    let log = second.log();
    for name in names {
        assert!(
            log.contains(&format!("damaged on disk b: {name}")),
            "{name}"
        );
    }
}

#[test]
fn killed_in_the_middle_it_goes_on() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let mut second = lab.node(2, "b").storage().start();
    let files: Vec<Vec<u8>> = (0..24).map(|number| noise(number, MIB + 5)).collect();
    for (number, bytes) in files.iter().enumerate() {
        fs::write(first.path(&format!("file{number}")), bytes).unwrap();
    }
    for number in 0..files.len() {
        eventually(SOON, "two copies", || {
            held_by(&first, &format!("file{number}"), 2)
        });
    }
    let hashes: Vec<String> = (0..files.len())
        .map(|number| info_hash(&first, &format!("file{number}")))
        .collect();
    for round in 0..6 {
        for hash in &hashes {
            let path = data_file(&second, hash);
            if path.exists() && !path.with_extension("have").exists() {
                flip(&path, 70_000 * (round + 1));
            }
        }
        let mut scrubbing = Command::new(PROGRAM)
            .args(["scrub", "--root"])
            .arg(&second.root)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 * round * round));
        second.kill();
        assert!(
            !scrubbing.wait().unwrap().success() || round > 2,
            "cut off, mostly"
        );
        drop(second);
        second = lab.node(2, "b").storage().start();
    }
    eventually(SOON, "connected", || second.connected() == 1);
    let (status, report) = scrub(&second);
    assert_eq!(status, 0, "{report}");
    for (hash, bytes) in hashes.iter().zip(&files) {
        eventually(SOON, "whole", || is_whole(&second, hash, bytes));
    }
}
