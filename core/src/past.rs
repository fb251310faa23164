//! The past: below which commit a volume's history may be cut, and what a node brings along that comes back from
//! before that.
//!
//! Merging needs history: the base of a merge is where two heads' histories meet. A **bottleneck** is a commit that
//! every other commit is an ancestor or a descendant of. Heads that all descend from a bottleneck meet there or
//! later, and so do the bases of their bases, so nothing below it is ever needed again. Whoever writes on all heads
//! while nobody else does makes one, so quiet moments bring them by themselves; without any, nothing is cut.
//!
//! That no commit beside it will turn up later takes everyone's word: a node **rests** on what its view is made of,
//! durably, and all it ever authors descends from that. A bottleneck on which every node rests is **stable**.
//! Retired nodes are not asked; one that comes back after all imports its work ([`imported`]).

pub mod rests;

use crate::change::{Change, Changes};
use crate::entry::{Kind, Placed};
use crate::ids::{CommitId, EntryId};
use crate::name::Name;
use std::collections::{BTreeMap, BTreeSet};

/// A commit below which history may be cut, as the volume's tree records it. Of two records the later one holds:
/// bottlenecks are ordered, and where one is stable, all before it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boundary {
    /// The chain's time (committer date), seconds since 1970.
    pub time: i64,
    /// The commit.
    pub commit: CommitId,
}

/// What is asked of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Its parents; none for the volume's first commit, and where history was cut before.
    pub parents: Vec<CommitId>,
    /// The chain's time (committer date), seconds since 1970; never before a parent's.
    pub time: i64,
}

/// The commits that are here.
pub trait History {
    /// Why it cannot be read.
    type Error;

    /// A commit; `None` if it is not here.
    fn commit(&self, id: CommitId) -> Result<Option<Past>, Self::Error>;
}

/// The newest stable bottleneck that is no newer than `until` (chain time), if at least `least` commits lie below it:
/// history may be cut there.
///
/// `tips` are the heads of all authors that are known here. `rests` has, for each node that is not retired, this one
/// among them, the heads that it last said to rest on; a node that has never said any has an empty set.
///
/// Takes time and memory in proportion to the history that is left.
pub fn boundary<H: History>(
    history: &H,
    tips: &BTreeSet<CommitId>,
    rests: &[BTreeSet<CommitId>],
    (until, least): (i64, usize),
) -> Result<Option<Boundary>, H::Error> {
    let found = find(history, tips, rests, |_, past| past.time <= until)?;
    Ok(found.filter(|found| found.below >= least).map(|it| it.at))
}

/// Whether a commit is a stable bottleneck, with `tips` and `rests` as for [`boundary`].
pub fn is_stable<H: History>(
    history: &H,
    tips: &BTreeSet<CommitId>,
    rests: &[BTreeSet<CommitId>],
    at: CommitId,
) -> Result<bool, H::Error> {
    Ok(find(history, tips, rests, |id, _| id == at)?.is_some())
}

/// A stable bottleneck, and how many commits lie below.
struct Found {
    at: Boundary,
    below: usize,
}

/// The newest stable bottleneck that is wanted.
fn find<H: History>(
    history: &H,
    tips: &BTreeSet<CommitId>,
    rests: &[BTreeSet<CommitId>],
    is_wanted: impl Fn(CommitId, &Past) -> bool,
) -> Result<Option<Found>, H::Error> {
    let starts = rests.iter().flatten().chain(tips).copied().collect();
    let Some(mut sweep) = Sweep::new(history, starts)? else {
        // someone rests on what has not come here yet: what it knows of may lie beside any commit
        return Ok(None);
    };
    let mut waiting: Vec<&BTreeSet<CommitId>> = rests.iter().collect();
    let mut below = sweep.commits.len();
    while let Some((id, is_bottleneck)) = sweep.next() {
        waiting.retain(|heads| !heads.contains(&id));
        below -= 1;
        let Some(past) = sweep.commits.get(&id) else {
            return Ok(None);
        };
        if is_bottleneck && waiting.is_empty() && is_wanted(id, past) {
            let time = past.time;
            let at = Boundary { time, commit: id };
            return Ok(Some(Found { at, below }));
        }
        if past.parents.is_empty() {
            // what is left has another beginning, and lies beside
            return Ok(None);
        }
        sweep.pass(id);
    }
    Ok(None)
}

/// All commits from some heads down, children before parents.
struct Sweep {
    commits: BTreeMap<CommitId, Past>,
    /// Children that have not been passed.
    children: BTreeMap<CommitId, usize>,
    /// Heads and parents of what was passed, that have not been passed themselves.
    frontier: BTreeSet<CommitId>,
    /// Those of the frontier whose children have all been passed.
    ready: Vec<CommitId>,
}

impl Sweep {
    /// `None` if something is not here.
    fn new<H: History>(history: &H, starts: BTreeSet<CommitId>) -> Result<Option<Self>, H::Error> {
        let mut commits = BTreeMap::new();
        let mut children: BTreeMap<CommitId, usize> = BTreeMap::new();
        let mut left: Vec<CommitId> = starts.iter().copied().collect();
        while let Some(id) = left.pop() {
            if commits.contains_key(&id) {
                continue;
            }
            let Some(past) = history.commit(id)? else {
                return Ok(None);
            };
            for parent in &past.parents {
                *children.entry(*parent).or_default() += 1;
                left.push(*parent);
            }
            commits.insert(id, past);
        }
        // what lies below another of them is met on the way
        let heads = starts.into_iter().filter(|id| !children.contains_key(id));
        let frontier: BTreeSet<CommitId> = heads.collect();
        Ok(Some(Self {
            ready: frontier.iter().copied().collect(),
            commits,
            children,
            frontier,
        }))
    }

    /// The next commit, and whether it is a bottleneck: what has not been passed is then all below it, and what has,
    /// all above.
    fn next(&mut self) -> Option<(CommitId, bool)> {
        let id = self.ready.pop()?;
        Some((id, self.frontier.len() == 1))
    }

    fn pass(&mut self, id: CommitId) {
        self.frontier.remove(&id);
        let parents = self.commits.get(&id).map(|past| past.parents.clone());
        for parent in parents.unwrap_or_default() {
            self.frontier.insert(parent);
            if let Some(left) = self.children.get_mut(&parent) {
                *left -= 1;
                if *left == 0 {
                    self.ready.push(parent);
                }
            }
        }
    }
}

/// Of what a node has changed since a common tree long ago, that which it brings along when it comes back: what it
/// created and what it edited. It removes nothing and moves nothing: what has become of the rest since, it cannot
/// know.
///
/// A file that was saved by replacing it is an edit: the old one goes, as far as nobody else has edited it.
pub fn imported(changes: &Changes) -> Changes {
    let is_file = |placed: &&Placed| placed.entry.kind != Kind::Directory;
    let created = changes.iter().filter(|(_, change)| change.before.is_none());
    let replaced: BTreeSet<(EntryId, &Name)> = created
        .filter_map(|(_, change)| change.after.as_ref())
        .filter(is_file)
        .map(|placed| (placed.parent, &placed.name))
        .collect();
    let brought = |(id, change): (EntryId, &Change)| match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            let mut after = after.clone();
            // a second name is made, not another one
            if after.parent != EntryId::SHARED {
                after.parent = before.parent;
                after.name.clone_from(&before.name);
            }
            let links = &before.entry.attributes.links;
            after.entry.attributes.links.extend(links);
            let before = Some(before.clone());
            let after = Some(after);
            Some((id, Change { before, after }))
        }
        (Some(before), None) => {
            let is_replaced = is_file(&before) && replaced.contains(&(before.parent, &before.name));
            is_replaced.then(|| (id, change.clone()))
        }
        (None, _) => Some((id, change.clone())),
    };
    changes.iter().filter_map(brought).collect()
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
