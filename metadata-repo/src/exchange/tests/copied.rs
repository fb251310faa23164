//! What lies in packs is sent as it lies there.

use super::support::{Node, git, pull, pull_with, trusting, with_server};
use gix::ObjectId;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// More objects than are sent one by one.
const COMMITS: usize = 400;

/// One author's commits, each of which changes a line of a file.
fn history(node: &Node, from: Option<ObjectId>, rounds: std::ops::Range<usize>) -> ObjectId {
    let text = |round: usize| {
        let last = |line| round.checked_sub(line).map_or(0, |since| 1 + since / 100);
        let lines = (0..100).map(|line| format!("line {line} of {}\n", last(line)));
        lines.collect::<String>()
    };
    let mut head = from;
    for round in rounds {
        let (text, other) = (text(round), round.to_string());
        let files = [
            ("d/long", text.as_str()),
            ("d/short", &other),
            ("same", "x"),
        ];
        let parents: Vec<_> = head.into_iter().collect();
        head = Some(node.commit(1, &parents, &files));
    }
    let head = head.unwrap();
    node.set_main(head);
    head
}

fn repack(node: &Node, depth: usize) {
    let depth = format!("--depth={depth}");
    git(
        node.path(),
        &["repack", "-q", "-a", "-d", "-f", &depth, "--window=20"],
    );
}

fn packs(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.join("objects/pack")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let packs = paths.filter(|path| path.extension().is_some_and(|it| it == "pack"));
    packs.collect()
}

fn bytes(packs: &[PathBuf]) -> u64 {
    packs
        .iter()
        .map(|pack| pack.metadata().unwrap().len())
        .sum()
}

/// Of the longest chain of deltas in any pack.
fn longest_chain(path: &Path) -> usize {
    let mut longest = 0;
    for pack in packs(path) {
        let said = git(path, &["verify-pack", "-v", pack.to_str().unwrap()]);
        let lengths = said
            .lines()
            .filter_map(|line| line.strip_prefix("chain length = "));
        let lengths = lengths.map(|line| line.split(':').next().unwrap().parse().unwrap());
        longest = longest.max(lengths.max().unwrap_or(0));
    }
    longest
}

#[test]
fn deltas_go_as_they_lie_and_are_stored_as_they_come() {
    let (from, to) = (Node::new(), Node::new());
    history(&from, None, 0..COMMITS);
    repack(&from, 50);
    let (pulled, served) = pull_with(&to, &from, &trusting());
    assert_eq!(pulled.unwrap().objects, served.unwrap().objects);
    to.fsck();
    let (there, here) = (bytes(&packs(from.path())), bytes(&packs(to.path())));
    assert!(here <= there + 1000, "{there} bytes became {here}");
    assert_eq!(longest_chain(to.path()), longest_chain(from.path()));
    // what came as it lay is served on
    let third = Node::new();
    pull(&third, &to);
    third.fsck();
    assert!(bytes(&packs(third.path())) <= there + 1000);
}

#[test]
fn chains_that_are_too_long_are_cut() {
    let (from, to) = (Node::new(), Node::new());
    history(&from, None, 0..COMMITS);
    repack(&from, 300);
    assert!(longest_chain(from.path()) > 50);
    pull(&to, &from);
    to.fsck();
    assert_eq!(longest_chain(to.path()), 50);
}

#[test]
fn stock_git_takes_them_with_deltas_and_without() {
    let (from, folder) = (Node::new(), TempDir::new().unwrap());
    history(&from, None, 0..COMMITS);
    repack(&from, 50);
    let size = |name: &str| bytes(&packs(&folder.path().join(name).join(".git")));
    with_server(&from, |url| {
        let dissolved = "repack.useDeltaBaseOffset=false";
        git(folder.path(), &["clone", "-q", url, "small"]);
        git(
            folder.path(),
            &["-c", dissolved, "clone", "-q", url, "large"],
        );
        git(
            folder.path(),
            &["clone", "-q", "--depth=350", url, "shallow"],
        );
    });
    for clone in ["small", "large", "shallow"] {
        git(&folder.path().join(clone), &["fsck", "--strict", "--full"]);
    }
    let there = bytes(&packs(from.path()));
    assert!(size("small") <= there + 1000 && 2 * size("large") > 3 * there);
}

#[test]
fn a_part_of_what_lies_in_packs_is_whole() {
    let (from, to) = (Node::new(), Node::new());
    let first = history(&from, None, 0..COMMITS);
    pull(&to, &from);
    repack(&from, 50);
    // in a second pack, alone and twice, and beside the packs
    let second = history(&from, Some(first), COMMITS..2 * COMMITS);
    git(from.path(), &["repack", "-q", "-d"]);
    let third = history(&from, Some(second), 2 * COMMITS..2 * COMMITS + 10);
    pull(&to, &from);
    assert_eq!(to.author(1), Some(third));
    to.fsck();
    let newcomer = Node::new();
    pull(&newcomer, &from);
    newcomer.fsck();
}

#[test]
fn bytes_that_have_rotted_are_not_served() {
    let from = Node::new();
    history(&from, None, 0..COMMITS);
    repack(&from, 50);
    let pack = &packs(from.path())[0];
    std::fs::set_permissions(pack, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(pack)
        .unwrap();
    let length = file.metadata().unwrap().len();
    for part in 1..20 {
        let at = 12 + (length - 33) * part / 20;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let to = Node::new();
        let (pulled, served) = pull_with(&to, &from, &trusting());
        assert!(pulled.is_err() && served.is_err(), "at {at} of {length}");
        assert_eq!((to.author(1), to.leftovers()), (None, vec![]));
        file.write_all_at(&byte, at).unwrap();
    }
    let to = Node::new();
    pull(&to, &from);
    to.fsck();
}
