//! A number of nodes at one volume, and what has to be so between them.

use crate::support::{Lab, Node, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// After the last change all nodes have the same head within 5 s where each has a machine; here they share one.
const AGREE: Duration = Duration::from_secs(30);

/// Starting takes longer the more nodes share a machine's cores.
const MEET: Duration = Duration::from_secs(20);

/// Nodes `n0`, `n1`, …, two to a host where there are more than five.
pub struct Crowd {
    pub nodes: Vec<Node>,
}

impl Crowd {
    pub fn hosts(nodes: u32) -> u32 {
        if nodes > 5 { nodes.div_ceil(2) } else { nodes }
    }

    /// Starts them; all are connected and show the same then.
    pub fn meet(lab: &Lab, number: u32) -> Self {
        let host = |nth| nth % Self::hosts(number) + 1;
        let spec = |nth| lab.node(host(nth), &format!("n{nth}"));
        let mut nodes = vec![spec(0).create().start()];
        nodes.extend((1..number).map(|nth| spec(nth).start()));
        let crowd = Self { nodes };
        eventually(MEET, "everyone is connected to everyone", || {
            crowd
                .nodes
                .iter()
                .all(|node| node.connected() == number as usize - 1)
        });
        crowd
    }

    /// Waits until nothing is under way and all have the same head.
    #[track_caller]
    pub fn agree(&self) -> Duration {
        let is_quiet = |node: &Node| {
            let contents = &node.status()["contents"];
            contents["unsealed"] == 0 && contents["uncommitted"] == 0
        };
        let took = eventually(AGREE, "all have the same head", || {
            let heads: BTreeSet<String> = self.nodes.iter().map(Node::head).collect();
            heads.len() == 1 && self.nodes.iter().all(is_quiet)
        });
        let (number, commits) = (self.nodes.len(), self.commits());
        println!("{number} nodes agree {took:?} after the last change: {commits:?}");
        took
    }

    /// What stock git finds in the nodes' repositories, which have to agree.
    #[track_caller]
    pub fn commits(&self) -> Commits {
        let all = self.nodes.iter().map(Commits::of);
        let all: Vec<Commits> = all.collect();
        let authored = |commits: &Commits| commits.authored;
        let first = authored(&all[0]);
        assert!(all.iter().all(|one| authored(one) == first), "{all:?}");
        let made = all.iter().map(|one| one.made);
        Commits {
            made: made.max().unwrap(),
            ..all[0]
        }
    }

    /// What all of them show, which has to be the same: each path with its bytes, `None` for a directory.
    #[track_caller]
    pub fn tree(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let trees = self
            .nodes
            .iter()
            .map(|node| tree(node.mount.as_ref().unwrap()));
        let trees: Vec<_> = trees.collect();
        for (node, other) in self.nodes.iter().zip(&trees) {
            let names = |tree: &BTreeMap<PathBuf, _>| tree.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&trees[0]), names(other), "at {}", node.root.display());
            assert!(trees[0] == *other, "other bytes at {}", node.root.display());
        }
        trees.into_iter().next().unwrap()
    }

    /// Paths of conflict copies.
    pub fn conflicts(&self) -> Vec<PathBuf> {
        let paths = self.tree().into_keys();
        let is_conflict = |path: &PathBuf| path.to_string_lossy().contains("(conflict");
        paths.filter(is_conflict).collect()
    }
}

/// Commits of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commits {
    /// In the history of the head: groups of changes, each on its author's chain, as its trailer says.
    pub authored: usize,
    /// In the history of the head: shows several chains at a time. Never a parent, so there is one at most.
    pub merges: usize,
    /// Merges that a node has ever made, also those that newer ones have replaced. Of several nodes: the most.
    pub made: usize,
}

impl Commits {
    fn of(node: &Node) -> Self {
        let found = history(node, &["refs/heads/main"]);
        let (authored, others): (Vec<_>, Vec<_>) = found.iter().partition(|one| one.is_authored);
        let merge = |one: &&Commit| one.parents.len() > 1;
        let merges: Vec<_> = others.into_iter().filter(merge).collect();
        let mut parents = found.iter().flat_map(|one| &one.parents);
        let is_merge = |id: &String| merges.iter().any(|one| one.id == *id);
        assert!(!parents.any(is_merge), "a merge is a parent");
        let made = history(node, &["--no-walk", "--stdin"]);
        let made = made.iter().filter(|one| !one.is_authored);
        Self {
            authored: authored.len(),
            merges: merges.len(),
            made: made.filter(merge).count(),
        }
    }
}

struct Commit {
    id: String,
    parents: Vec<String>,
    is_authored: bool,
}

/// `git log`, which finds all commits that there are on its standard input.
fn history(node: &Node, words: &[&str]) -> Vec<Commit> {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(node.root.join("metadata.git"));
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let text = |child: Child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let objects = text(git(&[
        "cat-file",
        "--batch-all-objects",
        "--batch-check=%(objecttype) %(objectname)",
    ]));
    let commits = objects
        .lines()
        .filter_map(|line| line.strip_prefix("commit "));
    let commits = commits.fold(String::new(), |all, id| all + id + "\n");
    let format = "--format=%H|%P|%(trailers:key=Incarnation,valueonly,separator=%x2C)";
    let mut log = git(&[&["log", format], words].concat());
    // it may have no use for them
    let _ = log.stdin.take().unwrap().write_all(commits.as_bytes());
    text(log).lines().map(Commit::parse).collect()
}

impl Commit {
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split('|').collect();
        Self {
            id: fields[0].to_owned(),
            parents: fields[1].split_whitespace().map(str::to_owned).collect(),
            is_authored: !fields[2].is_empty(),
        }
    }
}

fn tree(mount: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![mount.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(mount).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                folders.push(path);
            } else {
                let bytes = fs::read(&path);
                found.insert(
                    name,
                    Some(bytes.unwrap_or_else(|error| panic!("{}: {error}", path.display()))),
                );
            }
        }
    }
    found
}
