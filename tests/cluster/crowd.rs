//! A number of nodes at one volume, and what has to be so between them.

use crate::support::{Lab, Node, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
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
        eprintln!(
            "{} nodes agree after {took:?}, {} commits",
            self.nodes.len(),
            self.commits()
        );
        took
    }

    /// Commits in the history of the head, counted by stock git.
    pub fn commits(&self) -> usize {
        let output = Command::new("git")
            .arg("--git-dir")
            .arg(self.nodes[0].root.join("metadata.git"))
            .args(["rev-list", "--count", "refs/heads/main"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap()
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
