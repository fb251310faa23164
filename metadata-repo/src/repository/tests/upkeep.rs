//! Many commits and packs: the files stay few, and nobody misses an object.

use super::crash::{copy, files};
use super::stock::git;
use super::support::*;
use crate::{Repository, RepositoryError, Upkeep};
use delugefs_core::entry::Kind;
use delugefs_core::ids::EntryId;
use delugefs_core::time::Timestamp;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DAY: i64 = 24 * 60 * 60;

/// What the node does by itself.
pub(crate) fn upkeep() -> Upkeep<'static> {
    Upkeep {
        now: Timestamp::from_seconds(1_700_000_000),
        in_use: &[],
        kept: Duration::from_hours(24),
        thorough: false,
        stop: &|| false,
    }
}

pub(super) fn maintain(repository: &Repository, thorough: bool, days: i64) {
    let now = Timestamp::from_seconds(1_700_000_000 + days * DAY);
    let upkeep = Upkeep {
        now,
        thorough,
        ..upkeep()
    };
    repository.maintain(&upkeep).unwrap();
}

/// A file's edit, told apart by a number.
fn edit(file: u32, number: u32) -> delugefs_core::entry::Placed {
    let mut edited = entry(id(file), swarm(u64::from(number % 64)));
    edited.attributes.uid = number;
    placed(EntryId::ROOT, format!("f{file}"), edited)
}

fn count(path: &Path, extension: &str) -> usize {
    let entries = fs::read_dir(path.join("objects/pack")).unwrap();
    entries
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|e| e == extension)
        })
        .count()
}

fn loose(path: &Path) -> usize {
    git(path, &["count-objects"])
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn packs_and_loose_objects_are_put_together_under_readers() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a");
    let mut node = Node::create(&path, 1);
    node.put((0..300).map(|n| placed(EntryId::ROOT, format!("f{n}"), entry(id(n), swarm(1)))));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = node.repository.clone();
        let ended = &ended;
        let reading = scope.spawn(move || {
            let mut reads = 0;
            while !ended.load(Ordering::Relaxed) || reads == 0 {
                let tree = reader.view().tree;
                let listed = reader.directory(tree).unwrap();
                for listed in listed.iter().step_by(50) {
                    reader.info(listed.blob.unwrap()).unwrap();
                }
                reads += 1;
            }
        });
        for turn in 0..60 {
            // Enough for a pack each time.
            node.put((0..300).map(|n| {
                let mut edited = entry(id(n), swarm(u64::from(turn)));
                edited.attributes.uid = turn;
                placed(EntryId::ROOT, format!("f{n}"), edited)
            }));
        }
        assert_eq!(count(&path, "pack"), 61);
        maintain(&node.repository, false, 0);
        assert_eq!(count(&path, "pack"), 1);
        assert_eq!(count(&path, "idx"), 1);
        for turn in 100..1200 {
            node.put([edit(turn % 300, turn)]);
            if node.repository.wants_maintenance() {
                maintain(&node.repository, false, 0);
            }
        }
        assert!(
            loose(&path) < 4096 + 512 * 5,
            "{} loose objects",
            loose(&path)
        );
        ended.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    });
    node.durable = true;
    node.put([placed(EntryId::ROOT, "last", entry(id(9000), swarm(3)))]);
    assert_whole(&node);
}

/// Here, to stock git, and to who opens it anew.
pub(super) fn assert_whole(node: &Node) {
    let path = node.repository.path();
    assert_eq!(read(&node.repository, node.view.tree), node.model);
    assert_eq!(git(path, &["fsck", "--strict", "--no-dangling"]), "");
    let again = Repository::open(path).unwrap();
    assert_eq!(again.view(), node.view);
    assert_eq!(read(&again, node.view.tree), node.model);
}

#[test]
fn a_tree_that_history_comes_back_to_keeps_all_that_is_in_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    let inside = placed(id(1), "inside", entry(id(2), swarm(3)));
    let directory = placed(EntryId::ROOT, "d", entry(id(1), Kind::Directory));
    node.put([directory, inside, edit(3, 1)]);
    let first = node.view.tree;
    for number in [2, 1] {
        node.put([edit(3, number)]);
    }
    assert_eq!(node.view.tree, first);
    // without what is remembered
    node = Node::new(Repository::open(node.repository.path()).unwrap(), 1);
    node.sequence = 9;
    node.put([edit(3, 4)]);
    for days in 0..3 {
        maintain(&node.repository, true, days * 2);
    }
    assert_whole(&node);
}

/// Of every chain of deltas in all packs: how many objects are so deep.
fn chains(path: &Path) -> BTreeMap<usize, usize> {
    let mut chains = BTreeMap::new();
    for index in files(&path.join("objects/pack")) {
        if index.extension().is_none_or(|it| it != "idx") {
            continue;
        }
        let listed = git(path, &["verify-pack", "-v", index.to_str().unwrap()]);
        for line in listed.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if words.len() == 7 {
                *chains.entry(words[5].parse().unwrap()).or_default() += 1;
            }
        }
    }
    chains
}

#[test]
fn history_is_kept_as_short_chains_of_deltas() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a");
    let mut node = Node::create(&path, 1);
    node.put((0..200).map(|n| edit(n, 0)));
    for round in 0..4 {
        for turn in 0..80 {
            node.put([edit(turn % 3, 1000 + round * 100 + turn)]);
        }
        maintain(&node.repository, true, 0);
        assert_eq!((count(&path, "pack"), loose(&path)), (1, 0));
        let chains = chains(&path);
        assert!(chains.keys().all(|depth| *depth <= 50), "{chains:?}");
        let deltas: usize = chains.values().sum();
        // the root's tree and the file's descriptor of each commit, but for one in fifty
        let commits = 80 * (round as usize + 1);
        assert!(deltas >= commits * 2 * 9 / 10, "{deltas} of {commits}");
        assert_whole(&node);
    }
    let bytes: u64 = files(&path.join("objects"))
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    // whole trees of 200 names alone would be 1.6 MB
    assert!(bytes < 320 * 700 + 120_000, "{bytes} bytes");
}

/// A node whose newest commit is not referenced any more, and what that changed.
fn with_orphans(scratch: &Path) -> (Node, Node) {
    let path = scratch.join("a");
    let mut node = Node::create(&path, 1);
    node.put((0..50).map(|n| edit(n, 0)));
    let before = node.view.commit.unwrap().to_string();
    node.put([
        placed(EntryId::ROOT, "d", entry(id(100), Kind::Directory)),
        placed(id(100), "g", entry(id(101), inline(b"g"))),
        edit(7, 7),
    ]);
    let author = format!("refs/authors/{}", incarnation(1));
    for name in [author.as_str(), "refs/heads/main"] {
        git(&path, &["update-ref", name, &before]);
    }
    let mut again = Node::new(Repository::open(&path).unwrap(), 1);
    again.sequence = 1;
    (node, again)
}

/// Commits again what the other has: the same commit.
fn commit_again(node: &Node, again: &mut Node) {
    let entries = [id(100), id(101), id(7)];
    again.put(entries.map(|id| node.model.get(id).unwrap().clone()));
    assert_eq!(again.view, node.view);
}

pub(super) fn exists(path: &Path, commit: &str) -> bool {
    let output = std::process::Command::new("git")
        .arg("-C")
        .arg(path)
        .args(["cat-file", "-e", commit])
        .output();
    output.unwrap().status.success()
}

#[test]
fn what_nothing_reaches_goes_a_day_later() {
    let scratch = tempfile::tempdir().unwrap();
    let (node, mut again) = with_orphans(scratch.path());
    let path = again.repository.path().to_owned();
    let orphan = node.view.commit.unwrap().to_string();
    for day in 0..2 {
        maintain(&again.repository, true, day);
        assert!(exists(&path, &orphan));
        assert_eq!((count(&path, "pack"), count(&path, "mtimes")), (2, 1));
        assert_whole(&again);
    }
    maintain(&again.repository, true, 2);
    assert!(!exists(&path, &orphan));
    assert_eq!((count(&path, "pack"), count(&path, "mtimes")), (1, 0));
    assert_whole(&again);
    // what this process has seen there, and is made again, is written again
    commit_again(&node, &mut again);
    assert_whole(&again);
}

#[test]
fn what_is_used_again_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let (node, mut again) = with_orphans(scratch.path());
    maintain(&again.repository, true, 0);
    commit_again(&node, &mut again);
    for day in [2, 4] {
        maintain(&again.repository, true, day);
        assert_whole(&again);
    }
    assert_eq!(count(again.repository.path(), "mtimes"), 0);
}

/// The commit falls between the look at what is in use and the removal.
#[test]
fn what_is_used_again_in_the_last_moment_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let (node, mut again) = with_orphans(scratch.path());
    maintain(&again.repository, true, 0);
    let repository = again.repository.clone();
    let (asked, user) = (Cell::new(false), std::cell::RefCell::new(&mut again));
    let act = || {
        if !asked.replace(true) {
            commit_again(&node, &mut user.borrow_mut());
        }
        false
    };
    let upkeep = Upkeep {
        now: Timestamp::from_seconds(1_700_000_000 + 2 * DAY),
        thorough: true,
        stop: &act,
        ..upkeep()
    };
    repository.maintain(&upkeep).unwrap();
    assert!(asked.get());
    assert_whole(&again);
    maintain(&again.repository, true, 4);
    assert_whole(&again);
}

#[test]
fn trees_in_use_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let (node, again) = with_orphans(scratch.path());
    for day in [0, 2, 4] {
        let upkeep = Upkeep {
            now: Timestamp::from_seconds(1_700_000_000 + day * DAY),
            in_use: &[node.view.tree],
            thorough: true,
            ..upkeep()
        };
        again.repository.maintain(&upkeep).unwrap();
        assert_eq!(read(&again.repository, node.view.tree), node.model);
    }
    assert!(!exists(
        again.repository.path(),
        &node.view.commit.unwrap().to_string()
    ));
}

#[test]
fn stopped_it_leaves_everything_as_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, again) = with_orphans(scratch.path());
    let before = files(again.repository.path());
    let left = Cell::new(0_u32);
    for turn in 0.. {
        left.set(turn);
        let stop = || left.replace(left.get().saturating_sub(1)) == 0;
        let upkeep = Upkeep {
            thorough: true,
            stop: &stop,
            ..upkeep()
        };
        match again.repository.maintain(&upkeep) {
            Err(RepositoryError::Stopped) => {}
            ended => {
                ended.unwrap();
                break;
            }
        }
        // the live objects may be in their new pack already, and are in their old place as well
        let after = files(again.repository.path());
        assert!(before.iter().all(|file| after.contains(file)));
        assert_whole(&again);
    }
    assert!(left.get() == 0 && count(again.repository.path(), "pack") >= 2);
    assert_whole(&again);
}

/// Files that come, in the order in which they come: a pack before its index.
fn order_of_coming(file: &Path) -> (PathBuf, usize) {
    let extensions = ["pack", "mtimes", "idx"];
    let place = extensions
        .iter()
        .position(|it| file.extension().is_some_and(|e| e == *it));
    (file.with_extension(""), place.unwrap())
}

#[test]
fn stopped_after_each_file_that_comes_or_goes_nothing_is_missing() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, mut node) = with_orphans(scratch.path());
    maintain(&node.repository, true, 0);
    let (before, after) = (scratch.path().join("before"), scratch.path().join("after"));
    node.put([edit(3, 3)]);
    let path = node.repository.path().to_owned();
    copy(&path, &before);
    maintain(&node.repository, true, 2);
    copy(&path, &after);
    let relative = |root: &Path| -> Vec<PathBuf> {
        let all = files(&root.join("objects")).into_iter();
        all.map(|file| file.strip_prefix(root).unwrap().to_owned())
            .collect()
    };
    let (old, new) = (relative(&before), relative(&after));
    let mut come: Vec<_> = new.iter().filter(|file| !old.contains(file)).collect();
    come.sort_by_key(|file| order_of_coming(file));
    let mut go: Vec<_> = old.iter().filter(|file| !new.contains(file)).collect();
    go.sort_by_key(|file| {
        (
            file.extension().is_some_and(|it| it != "idx"),
            (*file).clone(),
        )
    });
    assert!(come.len() >= 2 && go.len() >= 4, "{come:?} {go:?}");
    for stop in 0..=come.len() + go.len() {
        let at = scratch.path().join(format!("stop{stop}"));
        copy(&before, &at);
        for file in come.iter().take(stop) {
            fs::copy(after.join(file), at.join(file)).unwrap();
        }
        for file in go.iter().take(stop.saturating_sub(come.len())) {
            fs::remove_file(at.join(file)).unwrap();
        }
        let opened = Repository::open(&at).unwrap();
        assert_eq!(opened.view(), node.view, "stopped after {stop}");
        assert_eq!(read(&opened, node.view.tree), node.model);
        assert_eq!(git(&at, &["fsck", "--strict", "--no-dangling"]), "");
        maintain(&opened, true, 2);
        assert_eq!(count(&at, "pack"), 1, "stopped after {stop}");
        assert_eq!(read(&opened, node.view.tree), node.model);
    }
}
