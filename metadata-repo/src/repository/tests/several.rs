//! Several nodes: the same heads show the same, whatever came in which order.

use super::stock::git;
use super::support::*;
use super::trees::{Step, take_step};
use crate::signature::{self, Signer};
use crate::{Repository, RepositoryError};
use delugefs_core::change::Changes;
use delugefs_core::entry::{Content, Kind};
use delugefs_core::ids::{CommitId, EntryId};
use delugefs_core::memory_tree::MemoryTree;
use delugefs_core::merge::merge;
use delugefs_core::past::Boundary;
use delugefs_core::settings::Settings;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Gives one repository what another has: all objects, then the author references.
pub(crate) fn carry(from: &Path, to: &Path) {
    for directory in fs::read_dir(from.join("objects")).unwrap() {
        let directory = directory.unwrap();
        let target = to.join("objects").join(directory.file_name());
        fs::create_dir_all(&target).unwrap();
        for object in fs::read_dir(directory.path()).unwrap() {
            let object = object.unwrap();
            // What both have is the same.
            let _ = fs::hard_link(object.path(), target.join(object.file_name()));
        }
    }
}

fn pull(from: &Repository, to: &mut Node) {
    carry(from.path(), to.repository.path());
    let ours = to.repository.authors().unwrap();
    for (author, commit) in from.authors().unwrap() {
        let is_news = author != to.incarnation && ours.get(&author) != Some(&commit);
        if is_news && to.repository.has_before(commit, ours.get(&author).copied()) {
            let name = format!("refs/authors/{author}");
            fs::write(to.repository.path().join(name), format!("{commit}\n")).unwrap();
        }
    }
    to.refresh();
}

impl Repository {
    fn has_before(
        &self,
        new: delugefs_core::ids::CommitId,
        old: Option<delugefs_core::ids::CommitId>,
    ) -> bool {
        let session = self.session();
        old.is_none_or(|old| {
            let [old, new] = [old, new].map(|id| crate::repository::object_id(id.as_bytes()));
            crate::history::is_ancestor(&session, old, new).unwrap()
        })
    }
}

fn nodes(scratch: &TempDir, number: u8) -> Vec<Node> {
    (1..=number)
        .map(|n| Node::create(&scratch.path().join(n.to_string()), n))
        .collect()
}

fn exchange(nodes: &mut [Node], from: usize, to: usize) {
    let from = nodes[from].repository.clone();
    pull(&from, &mut nodes[to]);
}

#[test]
fn two_edits_of_one_file_become_two_files_on_both() {
    let scratch = tempfile::tempdir().unwrap();
    let mut nodes = nodes(&scratch, 2);
    nodes[0].put([placed(EntryId::ROOT, "a.txt", entry(id(1), inline(b"0")))]);
    exchange(&mut nodes, 0, 1);
    for (number, bytes) in [b"one", b"two"].iter().enumerate() {
        let mut edited = placed(EntryId::ROOT, "a.txt", entry(id(1), inline(&bytes[..])));
        edited.entry.written.edits = 1;
        edited.entry.written.by = format!("node{number}");
        nodes[number].put([edited]);
    }
    exchange(&mut nodes, 0, 1);
    exchange(&mut nodes, 1, 0);
    assert_eq!(nodes[0].view, nodes[1].view);
    assert_eq!(nodes[0].view.heads.len(), 2);
    let mut contents: Vec<_> = nodes[0]
        .model
        .list(EntryId::ROOT)
        .map(|placed| match &placed.entry.kind {
            Kind::File(file) => file.content.clone(),
            _ => panic!("not a file"),
        })
        .collect();
    contents.sort_by_key(|content| match content {
        Content::Inline(bytes) => bytes.clone(),
        Content::Swarm(_) => Vec::new(),
    });
    assert_eq!(
        contents,
        [
            Content::Inline(b"one".to_vec()),
            Content::Inline(b"two".to_vec())
        ]
    );
    // A merge is nobody's parent, and the next commit joins the heads.
    let heads = nodes[0].view.heads.clone();
    nodes[0].put([placed(EntryId::ROOT, "next", entry(id(2), inline(b"")))]);
    assert_eq!(nodes[0].view.heads.len(), 1);
    let parents = git(nodes[0].repository.path(), &["log", "-1", "--format=%P"]);
    let parents: Vec<String> = parents.split_whitespace().map(str::to_owned).collect();
    assert_eq!(
        parents,
        heads.iter().map(ToString::to_string).collect::<Vec<_>>()
    );
}

#[test]
fn settings_merge_one_by_one() {
    let scratch = tempfile::tempdir().unwrap();
    let mut nodes = nodes(&scratch, 2);
    let mut set = |node: usize, change: &dyn Fn(&mut delugefs_core::settings::Settings)| {
        let mut settings = nodes[node].repository.settings().unwrap();
        change(&mut settings);
        nodes[node].set(&settings);
    };
    set(0, &|settings| settings.copies = 7);
    set(1, &|settings| settings.inline_max = 9);
    exchange(&mut nodes, 0, 1);
    exchange(&mut nodes, 1, 0);
    assert_eq!(nodes[0].view, nodes[1].view);
    let merged = nodes[0].repository.settings().unwrap();
    assert_eq!((merged.copies, merged.inline_max), (7, 9));
}

#[test]
fn the_later_boundary_wins_and_is_never_taken_back() {
    let scratch = tempfile::tempdir().unwrap();
    let mut nodes = nodes(&scratch, 2);
    let boundary = |time: i64, commit: u8| {
        let commit = CommitId::new([commit; 20]);
        Some(Boundary { time, commit })
    };
    let before = nodes[0].repository.settings().unwrap();
    for (node, record) in [(0, boundary(20, 1)), (1, boundary(10, 9))] {
        let settings = Settings {
            boundary: record,
            ..before.clone()
        };
        nodes[node].set(&settings);
    }
    exchange(&mut nodes, 0, 1);
    exchange(&mut nodes, 1, 0);
    assert_eq!(nodes[0].view, nodes[1].view);
    let merged = |node: &Node| node.repository.settings().unwrap();
    assert_eq!(merged(&nodes[0]).boundary, boundary(20, 1));
    // by somebody who has not seen the record
    let settings = Settings {
        copies: 7,
        ..before
    };
    nodes[1].set(&settings);
    let now = merged(&nodes[1]);
    assert_eq!((now.copies, now.boundary), (7, boundary(20, 1)));
}

#[test]
fn a_chain_does_not_fork() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    let (view, model) = (node.view.clone(), node.model.clone());
    node.put([placed(EntryId::ROOT, "a", entry(id(1), inline(b"")))]);
    (node.view, node.model) = (view, model);
    let other: Changes = [change(
        &node.model,
        id(2),
        Some(placed(EntryId::ROOT, "b", entry(id(2), inline(b"")))),
    )]
    .into_iter()
    .collect();
    assert!(matches!(
        node.try_author(&other),
        Err(RepositoryError::Rules { .. })
    ));
}

#[test]
fn a_head_that_lies_is_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    let mut nodes = nodes(&scratch, 2);
    nodes[0].put([placed(EntryId::ROOT, "good", entry(id(1), inline(b"")))]);
    let path = nodes[1].repository.path().to_owned();
    nodes[1].put([placed(EntryId::ROOT, "bad", entry(id(2), inline(b"lies")))]);
    let blob = nodes[1].repository.directory(nodes[1].view.tree).unwrap()[0]
        .blob
        .unwrap()
        .to_string();
    let tree = git(&path, &["ls-tree", "refs/heads/main"]).replace(&blob, &{
        fs::write(scratch.path().join("nonsense"), "d8:delugefsi1ee").unwrap();
        git(
            &path,
            &[
                "hash-object",
                "-w",
                scratch.path().join("nonsense").to_str().unwrap(),
            ],
        )
        .trim()
        .to_owned()
    });
    fs::write(scratch.path().join("tree"), tree).unwrap();
    let make = format!("git mktree < {}", scratch.path().join("tree").display());
    let output = std::process::Command::new("sh")
        .args(["-c", &make])
        .current_dir(&path)
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let old = git(&path, &["cat-file", "commit", "refs/heads/main"]);
    let forged = old.replacen(old.split_whitespace().nth(1).unwrap(), tree.trim(), 1);
    fs::write(scratch.path().join("commit"), forged).unwrap();
    let commit = git(
        &path,
        &[
            "hash-object",
            "-w",
            "-t",
            "commit",
            scratch.path().join("commit").to_str().unwrap(),
        ],
    );
    git(
        &path,
        &[
            "update-ref",
            &format!("refs/authors/{}", incarnation(2)),
            commit.trim(),
        ],
    );
    exchange(&mut nodes, 1, 0);
    assert_eq!(nodes[0].model.len(), 1);
    assert_eq!(nodes[0].view.heads.len(), 1);
    nodes[0].put([placed(EntryId::ROOT, "on", entry(id(3), inline(b"")))]);
    assert_eq!(
        Repository::open(nodes[0].repository.path()).unwrap().view(),
        nodes[0].view
    );
}

/// The union of all model entries' ids, for steps of each node: ids do not meet.
fn act(nodes: &mut [Node], next: &mut [u32], which: usize, step: Step) {
    let mut model = nodes[which].model.clone();
    let changes = take_step(&mut model, &mut next[which], step);
    nodes[which].now += i64::from(step.3) * 3;
    nodes[which].author(&changes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_same_heads_show_the_same(events in prop::collection::vec((0..3usize, 0..3usize, any::<Step>()), 1..30)) {
        let scratch = tempfile::tempdir().unwrap();
        let mut nodes = nodes(&scratch, 3);
        let mut next = [0, 1_000_000, 2_000_000];
        for (which, from, step) in events {
            if from == which || step.0 & 0x40 == 0 {
                act(&mut nodes, &mut next, which, step);
            } else {
                exchange(&mut nodes, from, which);
            }
        }
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (2, 1), (1, 0), (0, 2)] {
            exchange(&mut nodes, from, to);
        }
        let fresh = Repository::open(nodes[0].repository.path()).unwrap();
        // One that has everything at once, from nothing.
        let mut late = Node::create(&scratch.path().join("late"), 9);
        pull(&fresh, &mut late);
        for node in &nodes {
            prop_assert_eq!(&node.view, &late.view);
        }
        let report = git(late.repository.path(), &["fsck", "--strict", "--no-dangling"]);
        prop_assert_eq!(report, "");
    }

    #[test]
    fn merges_as_the_model_does(common in prop::collection::vec(any::<Step>(), 1..16),
        left in prop::collection::vec(any::<Step>(), 1..8), right in prop::collection::vec(any::<Step>(), 1..8)) {
        let scratch = tempfile::tempdir().unwrap();
        let mut nodes = nodes(&scratch, 2);
        let mut next = [0, 1_000_000];
        for step in common { act(&mut nodes, &mut next, 0, step); }
        exchange(&mut nodes, 0, 1);
        let base = nodes[0].model.clone();
        for step in left { act(&mut nodes, &mut next, 0, step); }
        for step in right { act(&mut nodes, &mut next, 1, step); }
        let sides: Vec<(_, MemoryTree)> =
            nodes.iter().map(|node| (node.view.heads.clone(), node.model.clone())).collect();
        exchange(&mut nodes, 1, 0);
        prop_assume!(nodes[0].view.heads.len() == 2);
        let [first, second] = if sides[0].0 < sides[1].0 { [0, 1] } else { [1, 0] }.map(|n| base.diff(&sides[n].1));
        let merged = merge(&base, &first, &second).unwrap();
        let mut expected = base;
        expected.apply(&merged).unwrap();
        prop_assert_eq!(&nodes[0].model, &expected);
    }
}

/// A commit made by stock plumbing, on some parents, with a good tree; signed if there is a key.
fn forge(
    path: &Path,
    (parents, time): (&[String], i64),
    message: &str,
    signer: Option<&dyn Signer>,
) {
    let tree = git(path, &["rev-parse", "refs/heads/main^{tree}"]);
    let who = format!("x <x@x> {time} +0000");
    let parents = parents.iter().fold(String::new(), |text, parent| {
        text + &format!("parent {parent}\n")
    });
    let text = format!("tree {tree}{parents}author {who}\ncommitter {who}\n\n{message}");
    let commit = signer.map_or(text.clone().into_bytes(), |signer| {
        signature::signed(text.as_bytes(), signer).unwrap()
    });
    let file = path.join("forged");
    fs::write(&file, commit).unwrap();
    let commit = git(
        path,
        &["hash-object", "-w", "-t", "commit", file.to_str().unwrap()],
    );
    let name = format!("refs/authors/{}", incarnation(7));
    git(path, &["update-ref", &name, commit.trim()]);
}

#[test]
fn histories_that_break_the_rules_are_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    node.put([placed(EntryId::ROOT, "good", entry(id(1), inline(b"")))]);
    let path = node.repository.path().to_owned();
    let head = node.view.commit.unwrap().to_string();
    let now = node.now;
    let author = format!(
        "x\n\nIncarnation: {}\nJournal-Sequence: 1\nFormat: 2\n",
        incarnation(7)
    );
    let newer = author.replace("Format: 2", "Format: 3");
    let (right, wrong) = (key(7), key(8));
    let on_head = || vec![head.clone()];
    for (parents, time, message, signer) in [
        (vec![], now, &author[..], Some(&right)),
        (on_head(), now - 1, &author, Some(&right)),
        (on_head(), now + 301, &author, Some(&right)),
        (on_head(), now, "x\n\nFormat: 2\n", Some(&right)),
        (on_head(), now, "from elsewhere\n", Some(&right)),
        (on_head(), now, &newer, Some(&right)),
        (on_head(), now, &author, None),
        (on_head(), now, &author, Some(&wrong)),
    ] {
        let signer = signer.map(|key| key as &dyn Signer);
        forge(&path, (&parents, time), message, signer);
        node.refresh();
        assert_eq!(
            node.view.commit.unwrap().to_string(),
            head,
            "{parents:?} {time} {message}"
        );
    }
    forge(&path, (&[head], now + 300), &author, Some(&right));
    node.refresh();
    let forged = git(
        &path,
        &["rev-parse", &format!("refs/authors/{}", incarnation(7))],
    );
    assert_eq!(node.view.commit.unwrap().to_string(), forged.trim());
}
