//! A model of the metadata repository: authored chains over a commit graph.

use delugefs_core::ids::{CommitId, IncarnationId, PublicKey};
use delugefs_core::sync::Authors;
use std::collections::BTreeSet;

/// A commit; its id is its place in [`Graph`].
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) author: usize,
    parents: Vec<usize>,
    /// For each author, how many of its commits are in this one's history, itself included.
    clock: Vec<u64>,
    /// For each author, how many of its writes are.
    writes: Vec<u64>,
}

/// All commits of all nodes. What a node has is in its [`Store`].
#[derive(Debug)]
pub(crate) struct Graph {
    authors: usize,
    commits: Vec<Commit>,
}

/// The most nodes of a scenario.
const AUTHORS_MAX: usize = 64;

pub(crate) fn key(author: usize) -> PublicKey {
    PublicKey::new([author as u8 + 1; 32])
}

pub(crate) fn incarnation(author: usize) -> IncarnationId {
    key(author).incarnation()
}

fn author(incarnation: IncarnationId) -> usize {
    let mut all = 0..AUTHORS_MAX;
    all.find(|author| self::incarnation(*author) == incarnation)
        .expect("a node of this scenario")
}

fn id(index: usize) -> CommitId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
    CommitId::new(bytes)
}

fn index(id: CommitId) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.as_bytes()[..8]);
    u64::from_be_bytes(bytes) as usize
}

impl Graph {
    pub(crate) fn new(authors: usize) -> Self {
        Self {
            authors,
            commits: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.commits.len()
    }

    fn contains(&self, later: usize, earlier: usize) -> bool {
        let author = self.commits[earlier].author;
        self.commits[later].clock[author] >= self.commits[earlier].clock[author]
    }

    /// Heads that are in no other head's history: what a view is made of.
    pub(crate) fn maximal(&self, authors: &Authors) -> BTreeSet<CommitId> {
        let heads: BTreeSet<_> = authors.values().map(|head| index(*head)).collect();
        let is_maximal = |head: &&usize| {
            let mut others = heads.iter().filter(|other| other != head);
            !others.any(|other| self.contains(*other, **head))
        };
        heads
            .iter()
            .filter(is_maximal)
            .map(|head| id(*head))
            .collect()
    }

    /// No author's chain has gone back.
    pub(crate) fn assert_forward(&self, before: &Authors, after: &Authors) {
        for (author, old) in before {
            let new = after.get(author).expect("an author was forgotten");
            assert!(self.contains(index(*new), index(*old)), "a chain went back");
        }
    }

    /// How many writes of each author some heads show.
    pub(crate) fn writes(&self, heads: &BTreeSet<CommitId>) -> Vec<u64> {
        let mut all = vec![0; self.authors];
        for head in heads {
            for (sum, writes) in all.iter_mut().zip(&self.commits[index(*head)].writes) {
                *sum = (*sum).max(*writes);
            }
        }
        all
    }
}

/// One node's repository. All of it is durable.
#[derive(Debug, Default)]
pub(crate) struct Store {
    has: BTreeSet<usize>,
    authors: Authors,
}

impl Store {
    pub(crate) fn authors(&self) -> &Authors {
        &self.authors
    }

    /// Adds a commit with some writes of `me` to our chain, on what these heads show.
    pub(crate) fn author(
        &mut self,
        graph: &mut Graph,
        me: usize,
        writes: u64,
        heads: &BTreeSet<CommitId>,
    ) -> CommitId {
        assert!(writes > 0, "a commit without anything new");
        let parents: Vec<_> = heads.iter().map(|head| index(*head)).collect();
        let mut clock = vec![0; graph.authors];
        for parent in &parents {
            for (mine, theirs) in clock.iter_mut().zip(&graph.commits[*parent].clock) {
                *mine = (*mine).max(*theirs);
            }
        }
        let own = self.authors.get(&incarnation(me)).map(|own| index(*own));
        let has_own = own.is_none_or(|own| parents.iter().any(|p| graph.contains(*p, own)));
        assert!(has_own, "a commit beside our own chain");
        clock[me] += 1;
        let mut all = graph.writes(heads);
        all[me] += writes;
        let new = graph.commits.len();
        graph.commits.push(Commit {
            author: me,
            parents,
            clock,
            writes: all,
        });
        self.add(graph, new);
        self.authors.insert(incarnation(me), id(new));
        id(new)
    }

    /// What a peer would be given: all that is reachable from the heads, oldest first.
    pub(crate) fn pack(&self) -> (Authors, Vec<usize>) {
        (self.authors.clone(), self.has.iter().copied().collect())
    }

    /// Takes what a peer gave; heads move forward only.
    pub(crate) fn receive(&mut self, graph: &Graph, authors: &Authors, pack: &[usize]) {
        for commit in pack {
            self.add(graph, *commit);
        }
        for (incarnation, head) in authors {
            let new = index(*head);
            assert_eq!(
                graph.commits[new].author,
                author(*incarnation),
                "a foreign commit as head"
            );
            assert!(self.has.contains(&new), "a head without its commit");
            let old = self.authors.get(incarnation).map(|old| index(*old));
            if old.is_none_or(|old| graph.contains(new, old)) {
                self.authors.insert(*incarnation, *head);
            }
        }
    }

    fn add(&mut self, graph: &Graph, commit: usize) {
        for parent in &graph.commits[commit].parents {
            assert!(self.has.contains(parent), "a commit without its ancestors");
        }
        self.has.insert(commit);
    }
}
