//! Many authors over random commit graphs: everyone with the same heads sees the same tree, and nothing that
//! was written is lost.

#![allow(clippy::unwrap_used)]

use super::merge;
use super::testing::{self, Author, Work, all_bytes, bytes, edits, works};
use crate::memory_tree::MemoryTree;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A commit: its place in the list of all.
type Commit = usize;
type Commits = BTreeSet<Commit>;

#[derive(Default)]
struct Graph {
    trees: Vec<MemoryTree>,
    /// Of each commit, itself among them.
    ancestors: Vec<Commits>,
    views: BTreeMap<Commits, MemoryTree>,
    /// Bytes that someone who had them in view overwrote or removed, by the commit that did.
    superseded: Vec<BTreeSet<Vec<u8>>>,
    written: Vec<BTreeSet<Vec<u8>>>,
}

impl Graph {
    fn commit(&mut self, parents: &Commits, author: &mut Author, works: &[Work]) -> Commit {
        let view = self.view(parents);
        let mut tree = view.clone();
        author.play(&mut tree, works);
        let commit = self.trees.len();
        let mut ancestors = self.history(parents);
        ancestors.insert(commit);
        let gone = view.iter().filter(|placed| {
            let now = tree.get(placed.entry.id);
            now.is_none_or(|now| bytes(now) != bytes(placed))
        });
        let gone = gone.filter_map(bytes).map(<[u8]>::to_vec).collect();
        self.superseded.push(gone);
        self.written.push(all_bytes(&tree));
        self.trees.push(tree);
        self.ancestors.push(ancestors);
        commit
    }

    fn history(&self, commits: &Commits) -> Commits {
        let all = commits.iter().flat_map(|commit| &self.ancestors[*commit]);
        all.copied().collect()
    }

    fn maximal(&self, commits: &Commits) -> Commits {
        let is_below = |below: Commit| {
            let mut others = commits.iter().filter(|c| **c != below);
            others.any(|commit| self.ancestors[*commit].contains(&below))
        };
        commits.iter().filter(|c| !is_below(**c)).copied().collect()
    }

    /// The merge of maximal heads: folded in an order that is not that of creation.
    fn view(&mut self, heads: &Commits) -> MemoryTree {
        if let Some(view) = self.views.get(heads) {
            return view.clone();
        }
        let mut order: Vec<Commit> = heads.iter().copied().collect();
        order.sort_by_key(|commit| *blake3::hash(&commit.to_le_bytes()).as_bytes());
        let mut view = MemoryTree::new();
        let mut merged = Commits::new();
        for head in order {
            view = if merged.is_empty() {
                self.trees[head].clone()
            } else {
                self.merge_head(&view, &merged, head)
            };
            merged.insert(head);
        }
        self.views.insert(heads.clone(), view.clone());
        view
    }

    fn merge_head(&mut self, view: &MemoryTree, merged: &Commits, head: Commit) -> MemoryTree {
        let known = self.history(merged);
        let common = known.intersection(&self.ancestors[head]).copied().collect();
        let bases = self.maximal(&common);
        let mut base = self.view(&bases);
        let (left, right) = (base.diff(view), base.diff(&self.trees[head]));
        let one = merge(&base, &left, &right).unwrap();
        assert_eq!(one, merge(&base, &right, &left).unwrap());
        base.apply(&one).unwrap();
        base.check().unwrap();
        base
    }

    /// Bytes written in the history of some heads, and not overwritten or removed by anyone who saw them.
    fn owed(&self, heads: &Commits) -> BTreeSet<Vec<u8>> {
        let history = self.history(heads);
        let of = |sets: &[BTreeSet<Vec<u8>>]| -> BTreeSet<Vec<u8>> {
            history.iter().flat_map(|c| &sets[*c]).cloned().collect()
        };
        &of(&self.written) - &of(&self.superseded)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Work(usize, Vec<Work>),
    Pull(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    steps_of(works(6))
}

fn steps_of(works: impl Strategy<Value = Vec<Work>>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_usize, works).prop_map(|(author, works)| Step::Work(author, works)),
        3 => (0..4_usize, 0..4_usize).prop_map(|(to, from)| Step::Pull(to, from)),
    ];
    proptest::collection::vec(step, 1..30)
}

struct Cluster {
    graph: Graph,
    authors: Vec<Author>,
    heads: Vec<Commits>,
}

impl Cluster {
    fn new(start: &[Work]) -> Self {
        let mut graph = Graph::default();
        let mut founder = Author::new(9);
        let first = graph.commit(&Commits::new(), &mut founder, start);
        Self {
            graph,
            authors: (0..4).map(Author::new).collect(),
            heads: vec![Commits::from([first]); 4],
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Work(author, works) => {
                let parents = self.heads[*author].clone();
                let who = &mut self.authors[*author];
                let commit = self.graph.commit(&parents, who, works);
                self.heads[*author] = Commits::from([commit]);
            }
            Step::Pull(to, from) => {
                let all = &self.heads[*to] | &self.heads[*from];
                self.heads[*to] = self.graph.maximal(&all);
            }
        }
    }

    fn all_heads(&self) -> Commits {
        let all = self.heads.iter().flatten().copied().collect();
        self.graph.maximal(&all)
    }

    fn check(&mut self, heads: &Commits) -> Result<(), TestCaseError> {
        let view = self.graph.view(heads);
        let there = all_bytes(&view);
        for owed in self.graph.owed(heads) {
            let text = String::from_utf8_lossy(&owed);
            prop_assert!(
                there.contains(&owed),
                "lost {text:?} in the view of {heads:?}"
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testing::cases()))]

    #[test]
    fn nothing_unseen_is_lost_whatever_the_graph(start in works(20), steps in steps()) {
        let mut cluster = Cluster::new(&start);
        for step in &steps {
            cluster.step(step);
        }
        for heads in cluster.heads.clone() {
            cluster.check(&heads)?;
        }
        let heads = cluster.all_heads();
        cluster.check(&heads)?;
    }

    #[test]
    fn nothing_unseen_is_lost_where_few_files_are_edited_by_all(
        start in works(6),
        steps in steps_of(edits(2)),
    ) {
        let mut cluster = Cluster::new(&start);
        for step in &steps {
            cluster.step(step);
            let heads = cluster.all_heads();
            cluster.check(&heads)?;
        }
    }

    #[test]
    fn all_come_to_one_head(start in works(20), steps in steps(), last in works(3)) {
        let mut cluster = Cluster::new(&start);
        for step in &steps {
            cluster.step(step);
        }
        let everyone = 0..cluster.heads.len();
        for to in everyone.clone() {
            let heads = cluster.all_heads();
            cluster.heads[to] = heads;
            cluster.step(&Step::Work(to, last.clone()));
        }
        let heads = cluster.all_heads();
        prop_assert_eq!(heads.len(), 1);
        let tree = cluster.graph.trees[*heads.first().unwrap()].clone();
        prop_assert_eq!(cluster.graph.view(&heads), tree);
        cluster.check(&heads)?;
    }
}
