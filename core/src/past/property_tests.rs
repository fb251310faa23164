//! Several nodes that write, pull, tell and record over random histories: once a boundary is recorded, no merge of
//! whatever heads needs anything below it.

#![allow(clippy::unwrap_used)]

use super::{History, Past, boundary};
use crate::ids::CommitId;
use crate::merge::testing::cases;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

type Commits = BTreeSet<CommitId>;

const NODES: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Authors on what is shown.
    Work(usize),
    /// Learns all commits that another has, without showing them yet.
    Pull(usize, usize),
    /// Shows what it has, and rests on that.
    Rest(usize),
    /// Learns who rests on what from another, with all that the other knows of others.
    Hear(usize, usize),
    /// Two nodes pull from each other, show it all and hear what the other has heard.
    Meet(usize, usize),
    /// Records a boundary if there is one, in a commit; only commits older than so many steps are asked for.
    Record(usize, i64),
    /// Will not be heard of for half a year.
    Retire(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES;
    let step = prop_oneof![
        4 => node().prop_map(Step::Work),
        2 => (node(), node()).prop_map(|(to, from)| Step::Pull(to, from)),
        2 => node().prop_map(Step::Rest),
        2 => (node(), node()).prop_map(|(to, from)| Step::Hear(to, from)),
        12 => (node(), node()).prop_map(|(one, other)| Step::Meet(one, other)),
        4 => (node(), 0..8_i64).prop_map(|(node, age)| Step::Record(node, age)),
        1 => node().prop_map(Step::Retire),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What a node last said, and when, so that later words win.
type Word = (i64, Commits);

#[derive(Clone, Default)]
struct Node {
    has: Commits,
    shown: Commits,
    words: BTreeMap<usize, Word>,
    retired: bool,
}

struct World {
    past: BTreeMap<CommitId, Past>,
    /// Of each commit, itself among them.
    ancestors: BTreeMap<CommitId, Commits>,
    nodes: Vec<Node>,
    recorded: Commits,
    now: i64,
}

impl History for (&World, &Commits) {
    type Error = Infallible;

    fn commit(&self, id: CommitId) -> Result<Option<Past>, Infallible> {
        let is_here = self.1.contains(&id);
        Ok(is_here.then(|| self.0.past[&id].clone()))
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            past: BTreeMap::new(),
            ancestors: BTreeMap::new(),
            nodes: Vec::new(),
            recorded: Commits::new(),
            now: 0,
        };
        let genesis = world.commit(&Commits::new());
        let node = Node {
            has: Commits::from([genesis]),
            shown: Commits::from([genesis]),
            ..Node::default()
        };
        world.nodes = vec![node; NODES];
        world
    }

    fn commit(&mut self, parents: &Commits) -> CommitId {
        // order by id says nothing about order in time
        let hash = blake3::hash(&self.past.len().to_le_bytes());
        let id = CommitId::from_slice(&hash.as_bytes()[..20]).unwrap();
        let past = Past {
            parents: parents.iter().copied().collect(),
            time: self.now,
        };
        let mut ancestors = self.history(parents);
        ancestors.insert(id);
        self.past.insert(id, past);
        self.ancestors.insert(id, ancestors);
        id
    }

    fn history(&self, heads: &Commits) -> Commits {
        let all = heads.iter().flat_map(|id| &self.ancestors[id]);
        all.copied().collect()
    }

    fn is_above(&self, id: CommitId, below: CommitId) -> bool {
        self.ancestors[&id].contains(&below)
    }

    fn maximal(&self, commits: &Commits) -> Commits {
        let is_head = |id: &&CommitId| {
            !commits
                .iter()
                .any(|other| other != *id && self.is_above(*other, **id))
        };
        commits.iter().filter(is_head).copied().collect()
    }

    fn author(&mut self, node: usize) -> CommitId {
        let shown = self.nodes[node].shown.clone();
        let id = self.commit(&shown);
        self.nodes[node].has.insert(id);
        self.nodes[node].shown = Commits::from([id]);
        id
    }

    fn step(&mut self, step: Step) {
        self.now += 1;
        let lives = |node: usize| !self.nodes[node].retired;
        match step {
            Step::Work(node) if lives(node) => {
                self.author(node);
            }
            Step::Pull(to, from) if lives(to) && lives(from) => {
                let has = self.nodes[from].has.clone();
                self.nodes[to].has.extend(has);
            }
            Step::Rest(node) if lives(node) => {
                let heads = self.maximal(&self.nodes[node].has);
                let word = (self.now, heads.clone());
                self.nodes[node].shown = heads;
                self.nodes[node].words.insert(node, word);
            }
            Step::Hear(to, from) if lives(to) && lives(from) => {
                for (node, word) in self.nodes[from].words.clone() {
                    let known = self.nodes[to].words.entry(node).or_default();
                    if known.0 < word.0 {
                        *known = word;
                    }
                }
            }
            Step::Meet(one, other) if lives(one) && lives(other) => {
                for (to, from) in [(one, other), (other, one)] {
                    self.step(Step::Pull(to, from));
                    self.step(Step::Rest(to));
                    self.step(Step::Hear(to, from));
                }
                self.step(Step::Hear(one, other));
            }
            Step::Record(node, age) if lives(node) => self.record(node, age),
            Step::Retire(node) if lives(node) && self.is_long_gone(node) => {
                self.nodes[node].retired = true;
            }
            _ => {}
        }
    }

    /// Within half a year, what a node has left with others has been shown by all, who then said anew on what they
    /// rest.
    fn is_long_gone(&self, node: usize) -> bool {
        let own = self.maximal(&self.nodes[node].has);
        let others = || (0..NODES).filter(|other| *other != node && !self.nodes[*other].retired);
        let rests = |on: &Commits| own.iter().all(|id| self.history(on).contains(id));
        others().count() > 1
            && others().all(|other| {
                let heard = |by: usize| self.nodes[by].words.get(&other);
                others().all(|by| heard(by).is_some_and(|word| rests(&word.1)))
            })
    }

    fn record(&mut self, node: usize, age: i64) {
        let has = &self.nodes[node].has;
        let silent = Word::default();
        let living = (0..NODES).filter(|other| !self.nodes[*other].retired);
        let rests: Vec<Commits> = living
            .map(|other| {
                self.nodes[node]
                    .words
                    .get(&other)
                    .unwrap_or(&silent)
                    .1
                    .clone()
            })
            .collect();
        let until = self.now - age;
        let found = boundary(&(&*self, has), has, &rests, (until, 1)).unwrap();
        if let Some(boundary) = found {
            assert_eq!(self.past[&boundary.commit].time, boundary.time);
            assert!(boundary.time <= until, "too new");
            self.recorded.insert(boundary.commit);
            self.author(node);
        }
    }

    /// The maximal commits that both have in common, and those of these, and so on: all that a merge rests on.
    fn bases(&self, heads: &Commits) -> Commits {
        let mut bases = Commits::new();
        let mut left = vec![heads.clone()];
        while let Some(heads) = left.pop() {
            let heads: Vec<_> = heads.into_iter().collect();
            for end in 1..heads.len() {
                let merged = self.history(&heads[..end].iter().copied().collect());
                let common = &merged & &self.ancestors[&heads[end]];
                let common = self.maximal(&common);
                if !common.is_subset(&bases) {
                    bases.extend(&common);
                    left.push(common);
                }
            }
        }
        bases
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for boundary in &self.recorded {
            for id in self.past.keys() {
                let meets = self.is_above(*id, *boundary) || self.is_above(*boundary, *id);
                prop_assert!(meets, "{id} lies beside the boundary {boundary}");
            }
        }
        let all = self.nodes.iter().flat_map(|node| node.has.clone());
        let bases = self.bases(&self.maximal(&all.collect()));
        for boundary in &self.recorded {
            let needed = bases.iter().find(|base| !self.is_above(**base, *boundary));
            prop_assert!(needed.is_none(), "a merge needs {needed:?}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn nothing_below_a_boundary_is_needed_again(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(*step);
            world.check()?;
        }
    }
}

/// The property means something only where boundaries are found.
#[test]
fn boundaries_are_found() {
    let mut world = World::new();
    for round in 0..3 {
        for node in 0..NODES {
            world.step(Step::Work(node));
        }
        meet(&mut world);
        // someone writes on all that was written at once
        world.step(Step::Work(round));
        meet(&mut world);
        world.step(Step::Record(round, 0));
        world.check().unwrap();
        assert!(world.recorded.len() > round, "none in round {round}");
    }
}

/// Everyone gets and shows all, and then hears of everyone's rest.
fn meet(world: &mut World) {
    let pairs = || (0..NODES).flat_map(|to| (0..NODES).map(move |from| (to, from)));
    for (to, from) in pairs() {
        world.step(Step::Pull(to, from));
        world.step(Step::Rest(to));
    }
    for (to, from) in pairs().chain(pairs()) {
        world.step(Step::Hear(to, from));
    }
}
