//! Stopped at each write, with what a crash or a power cut leaves.

use super::several::carry;
use super::stock::git;
use super::support::*;
use crate::Repository;
use delugefs_core::change::Changes;
use delugefs_core::entry::Kind;
use delugefs_core::ids::EntryId;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

pub(super) fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
    for directory in ["refs/authors", "objects/pack", "objects/info"] {
        fs::create_dir_all(to.join(directory)).unwrap();
    }
}

/// Two commits, the second of which is the one that is interrupted.
struct Case {
    scratch: tempfile::TempDir,
    before: Node,
    second: Changes,
    after: Node,
}

fn case() -> Case {
    let scratch = tempfile::tempdir().unwrap();
    let mut before = Node::create(&scratch.path().join("before"), 1);
    before.put([
        placed(EntryId::ROOT, "d", entry(id(1), Kind::Directory)),
        placed(id(1), "f", entry(id(2), swarm(1))),
    ]);
    let second: Changes = [
        placed(id(1), "g", entry(id(3), swarm(2))),
        placed(EntryId::ROOT, "h", entry(id(4), inline(b"h"))),
    ]
    .into_iter()
    .map(|after| change(&before.model, after.entry.id, Some(after)))
    .collect();
    let path = scratch.path().join("after");
    copy(before.repository.path(), &path);
    let mut after = Node::new(Repository::open(&path).unwrap(), 1);
    after.sequence = before.sequence;
    after.author(&second);
    Case {
        scratch,
        before,
        second,
        after,
    }
}

/// New objects, and the author's reference last.
fn writes(case: &Case) -> Vec<PathBuf> {
    let (before, after) = (case.before.repository.path(), case.after.repository.path());
    let relative = |path: PathBuf| path.strip_prefix(after).unwrap().to_owned();
    let objects = files(&after.join("objects")).into_iter().map(relative);
    let mut all: Vec<PathBuf> = objects.filter(|file| !before.join(file).exists()).collect();
    all.push(Path::new("refs/authors").join(incarnation(1).to_string()));
    all
}

#[test]
fn stopped_after_each_write_it_is_before_or_after() {
    let case = case();
    let writes = writes(&case);
    assert!(writes.len() >= 6, "{writes:?}");
    for stop in 0..=writes.len() {
        let path = case.scratch.path().join(format!("stop{stop}"));
        copy(case.before.repository.path(), &path);
        for file in &writes[..stop] {
            fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
            fs::copy(case.after.repository.path().join(file), path.join(file)).unwrap();
        }
        fs::write(path.join("objects/.tmpABC"), "half").unwrap();
        fs::write(path.join("refs/heads/main.lock"), "").unwrap();
        fs::write(
            path.join(format!("refs/authors/{}.lock", incarnation(1))),
            "x",
        )
        .unwrap();
        fs::write(path.join("packed-refs.lock"), "").unwrap();
        let node = Node::new(Repository::open(&path).unwrap(), 1);
        let expected = if stop == writes.len() {
            &case.after
        } else {
            &case.before
        };
        assert_eq!(node.view, expected.view, "stopped after {stop}");
        assert_eq!(node.model, expected.model);
        assert!(!path.join("objects/.tmpABC").exists());
        assert_eq!(git(&path, &["fsck", "--strict", "--no-dangling"]), "");
        assert_eq!(
            node.repository.sequence(incarnation(1)).unwrap(),
            Some(expected.sequence)
        );
    }
}

/// After a power cut, the reference may be there and any of the objects empty.
#[test]
fn after_a_power_cut_the_last_whole_commit_counts() {
    last_whole_commit_counts(|_| Vec::new());
}

/// Or half of it is there.
#[test]
fn after_a_power_cut_torn_objects_go() {
    last_whole_commit_counts(|whole| whole[..whole.len() / 2].to_vec());
}

/// Or its length alone.
#[test]
fn after_a_power_cut_zeros_go() {
    last_whole_commit_counts(|whole| vec![0; whole.len()]);
}

fn last_whole_commit_counts(leave: impl Fn(&[u8]) -> Vec<u8>) {
    let case = case();
    let writes = writes(&case);
    for (number, broken) in writes.iter().enumerate() {
        let path = case.scratch.path().join(format!("cut{number}"));
        copy(case.after.repository.path(), &path);
        let whole = fs::read(path.join(broken)).unwrap();
        fs::remove_file(path.join(broken)).unwrap();
        let is_reference = broken.starts_with("refs");
        let left = match is_reference {
            // of one block: all or nothing, but it may have its length
            true => vec![0; leave(&whole).len()],
            false => leave(&whole),
        };
        fs::write(path.join(broken), left).unwrap();
        let mut node = Node::new(Repository::open_in(&path, "another boot").unwrap(), 1);
        // The newest whole commit is found even where the reference to it is lost.
        let expected = if is_reference {
            &case.after
        } else {
            &case.before
        };
        assert_eq!(node.view, expected.view, "{}", broken.display());
        assert_eq!(node.model, expected.model);
        if !is_reference {
            // What the empty object blocked can be written again.
            node.sequence = case.before.sequence;
            node.author(&case.second);
            assert_eq!(node.view, case.after.view);
        }
        assert_eq!(git(&path, &["fsck", "--strict", "--no-dangling"]), "");
    }
}

/// Objects that are missing altogether are noticed only by their absence.
#[test]
fn after_a_power_cut_missing_objects_are_noticed() {
    let case = case();
    let objects = writes(&case)
        .into_iter()
        .filter(|file| file.starts_with("objects"));
    for (number, gone) in objects.enumerate() {
        let path = case.scratch.path().join(format!("gone{number}"));
        copy(case.after.repository.path(), &path);
        fs::remove_file(path.join(&gone)).unwrap();
        let node = Node::new(Repository::open_in(&path, "another boot").unwrap(), 1);
        assert_eq!(node.view, case.before.view, "{}", gone.display());
    }
}

#[test]
fn durable_commits_survive_with_their_packs() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a");
    let mut node = Node::create(&path, 1);
    node.durable = true;
    node.put((0..300).map(|n| placed(EntryId::ROOT, format!("f{n}"), entry(id(n), inline(b"")))));
    for turn in 300..600 {
        node.put([placed(
            EntryId::ROOT,
            format!("f{turn}"),
            entry(id(turn), inline(b"")),
        )]);
    }
    let other = scratch.path().join("b");
    copy(&path, &other);
    carry(&path, &other);
    let again = Repository::open_in(&other, "another boot").unwrap();
    assert_eq!(again.view(), node.view);
    assert_eq!(read(&again, again.view().tree), node.model);
}
