//! What is done through one mount is seen through the others.

use crate::support::{Lab, Node, can_run, eventually, noise, sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn pair(lab: &Lab) -> (Node, Node) {
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    (first, second)
}

#[track_caller]
fn arrives(path: &Path, bytes: &[u8]) {
    eventually(
        SOON,
        &format!("{} has the new bytes", path.display()),
        || fs::read(path).is_ok_and(|found| found == bytes),
    );
}

#[test]
fn files_of_all_sizes_arrive_whole() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    for (seed, length) in [0, 1, 1024, 4096, 4097, 65_536, 1 << 20, (20 << 20) + 7]
        .into_iter()
        .enumerate()
    {
        let name = format!("file{length}");
        let bytes = noise(seed as u64, length);
        fs::write(first.path(&name), &bytes).unwrap();
        arrives(&second.path(&name), &bytes);
        assert_eq!(sha256(&first.path(&name)), sha256(&second.path(&name)));
    }
}

#[test]
fn every_change_arrives() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let long = noise(1, 100_000);

    fs::write(first.path("file"), &long).unwrap();
    arrives(&second.path("file"), &long);
    fs::write(first.path("file"), b"overwritten").unwrap();
    arrives(&second.path("file"), b"overwritten");
    let mut appended = fs::File::options()
        .append(true)
        .open(first.path("file"))
        .unwrap();
    std::io::Write::write_all(&mut appended, b" and appended").unwrap();
    drop(appended);
    arrives(&second.path("file"), b"overwritten and appended");
    fs::File::options()
        .write(true)
        .open(first.path("file"))
        .unwrap()
        .set_len(4)
        .unwrap();
    arrives(&second.path("file"), b"over");

    fs::create_dir_all(first.path("d/e")).unwrap();
    fs::rename(first.path("file"), first.path("d/e/file")).unwrap();
    arrives(&second.path("d/e/file"), b"over");
    assert!(!second.path("file").exists());
    fs::write(first.path("other"), &long).unwrap();
    fs::rename(first.path("other"), first.path("d/e/file")).unwrap();
    arrives(&second.path("d/e/file"), &long);
    fs::rename(first.path("d"), first.path("moved")).unwrap();
    arrives(&second.path("moved/e/file"), &long);

    symlink("moved/e/file", first.path("link")).unwrap();
    arrives(&second.path("link"), &long);
    assert_eq!(
        fs::read_link(second.path("link")).unwrap(),
        Path::new("moved/e/file")
    );
    fs::set_permissions(
        first.path("moved/e/file"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    std::os::unix::fs::chown(first.path("moved/e/file"), Some(12), Some(34)).unwrap();
    let seen = || second.path("moved/e/file").metadata().unwrap();
    eventually(SOON, "mode and owner", || {
        (seen().mode() & 0o7777, seen().uid(), seen().gid()) == (0o640, 12, 34)
    });
    let time = std::time::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    fs::File::options()
        .write(true)
        .open(first.path("moved/e/file"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    eventually(SOON, "time to the nanosecond", || {
        seen().modified().unwrap() == time
    });

    fs::remove_file(first.path("moved/e/file")).unwrap();
    fs::remove_dir(first.path("moved/e")).unwrap();
    fs::remove_dir(first.path("moved")).unwrap();
    eventually(SOON, "it is gone", || !second.path("moved").exists());
}

#[test]
fn both_sides_of_a_cut_keep_their_work() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    fs::write(first.path("shared"), b"before").unwrap();
    arrives(&second.path("shared"), b"before");
    lab.cut(2);
    fs::write(first.path("shared"), b"of the first").unwrap();
    fs::write(second.path("shared"), b"of the second").unwrap();
    fs::write(first.path("one"), b"1").unwrap();
    fs::write(second.path("two"), b"2").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    lab.heal(2);
    arrives(&first.path("two"), b"2");
    arrives(&second.path("one"), b"1");
    let contents = |node: &Node| {
        let entries = fs::read_dir(node.path("")).unwrap();
        let mut all: Vec<_> = entries
            .map(|entry| fs::read(entry.unwrap().path()).unwrap_or_default())
            .collect();
        all.sort();
        all
    };
    let expected = [&b"1"[..], b"2", b"of the first", b"of the second"];
    eventually(SOON, "both versions are on both sides", || {
        contents(&first) == expected
            && contents(&second) == expected
            && first.head() == second.head()
    });
}

#[test]
fn what_is_written_is_soon_read_whole_elsewhere() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    for length in [1024, 1 << 20] {
        let mut times: Vec<Duration> = (0..50)
            .map(|round| {
                let name = format!("file{length}-{round}");
                let bytes = noise(round + length as u64, length);
                fs::write(first.path(&name), &bytes).unwrap();
                let path = second.path(&name);
                eventually(SOON, &name, || {
                    fs::read(&path).is_ok_and(|found| found == bytes)
                })
            })
            .collect();
        times.sort();
        println!(
            "{length} bytes: median {:?}, worst {:?}",
            times[25], times[49]
        );
    }
}

#[test]
fn what_was_known_before_gives_way_at_once() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let (old, new) = (noise(1, 200_000), noise(2, 150_000));
    fs::create_dir_all(first.path("d/sub")).unwrap();
    fs::create_dir(first.path("empty")).unwrap();
    fs::write(first.path("d/file"), &old).unwrap();
    arrives(&second.path("d/file"), &old);
    let open = fs::File::open(second.path("d/file")).unwrap();
    assert!(second.path("empty").is_dir() && !second.path("d/later").exists());
    assert_eq!(fs::read_dir(second.path("d")).unwrap().count(), 2);

    fs::write(first.path("d/file"), &new).unwrap();
    arrives(&second.path("d/file"), &new);
    let mut kept = Vec::new();
    std::io::Read::read_to_end(&mut &open, &mut kept).unwrap();
    assert!(kept == old, "who has the old version open keeps reading it");

    fs::write(first.path("d/later"), b"later").unwrap();
    arrives(&second.path("d/later"), b"later");
    assert_eq!(fs::read_dir(second.path("d")).unwrap().count(), 3);
    fs::rename(first.path("d"), first.path("empty")).unwrap();
    arrives(&second.path("empty/file"), &new);
    assert!(!second.path("d").exists() && second.path("empty/sub").is_dir());

    let (path, value) = (first.path("empty/later"), b"blue".as_slice());
    rustix::fs::setxattr(&path, "user.colour", value, rustix::fs::XattrFlags::empty()).unwrap();
    let mut found = [0; 16];
    let mut colour = || {
        let length =
            rustix::fs::getxattr(second.path("empty/later"), "user.colour", &mut found[..]);
        length.ok().map(|length| found[..length].to_vec())
    };
    eventually(SOON, "the attribute", || colour().as_deref() == Some(value));
    rustix::fs::removexattr(&path, "user.colour").unwrap();
    eventually(SOON, "no attribute", || colour().is_none());
    fs::remove_file(&path).unwrap();
    eventually(SOON, "it is gone", || !second.path("empty/later").exists());
    assert_eq!(fs::read_dir(second.path("empty")).unwrap().count(), 2);
}

#[test]
fn a_name_that_shows_can_be_read_at_once() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    for round in 0..6 {
        let folder = format!("folder{round}");
        fs::create_dir(first.path(&folder)).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_what_shows(&second.path(&folder)));
            for file in 0..FILES_THAT_SHOW {
                let path = first.path(&folder).join(file.to_string());
                fs::write(path, noise(round * 1000 + file, 8 << 10)).unwrap();
            }
            let read = reader.join().unwrap();
            for (file, bytes) in read {
                let written = noise(round * 1000 + file.parse::<u64>().unwrap(), 8 << 10);
                assert!(bytes == written, "{folder}/{file} has other bytes");
            }
        });
    }
}

const FILES_THAT_SHOW: u64 = 100;

/// Lists without a pause, and reads each name once, as soon as it is listed.
fn read_what_shows(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (start, mut read) = (std::time::Instant::now(), BTreeMap::new());
    while read.len() < FILES_THAT_SHOW as usize {
        assert!(start.elapsed() < SOON, "not all of them arrive");
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for name in entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            let bytes = || fs::read(folder.join(&name)).unwrap();
            read.entry(name.clone()).or_insert_with(bytes);
        }
    }
    read
}
