//! What is reachable from some tips, down to where history is cut.

use crate::error::{RepositoryError, Result, git};
use crate::node::{Item, Node};
use crate::session::Session;
use gix::ObjectId;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Marks objects, in any number of steps.
pub(in super::super) struct Marker<'s, 'r> {
    session: &'s Session<'r>,
    seen: Seen,
    /// Trees that were gone through whole, not beside an earlier one.
    whole: HashSet<ObjectId>,
}

/// A set of objects: a bit for each that is in a pack known before, 20 bytes for others.
struct Seen {
    packs: Vec<(gix_pack::index::File, Vec<u64>)>,
    others: HashSet<ObjectId>,
}

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, id: ObjectId) -> bool {
        for (index, bits) in &mut self.packs {
            if let Some(place) = index.lookup(id) {
                let bit = 1 << (place % 64);
                let word = &mut bits[place as usize / 64];
                let is_new = *word & bit == 0;
                *word |= bit;
                return is_new;
            }
        }
        self.others.insert(id)
    }

    fn contains(&self, id: &ObjectId) -> bool {
        for (index, bits) in &self.packs {
            if let Some(place) = index.lookup(id) {
                return bits[place as usize / 64] & 1 << (place % 64) != 0;
            }
        }
        self.others.contains(id)
    }
}

impl<'s, 'r> Marker<'s, 'r> {
    /// `packs` are those that most objects will be found in.
    pub(in super::super) fn new<'p>(
        session: &'s Session<'r>,
        packs: impl Iterator<Item = &'p Path>,
    ) -> Result<Self> {
        let mut seen = Seen {
            packs: Vec::new(),
            others: HashSet::new(),
        };
        for pack in packs {
            let index = pack.with_extension("idx");
            let index = gix_pack::index::File::at(index, gix::hash::Kind::Sha1);
            let index = index.map_err(git("open a pack's index"))?;
            let words = (index.num_objects() as usize).div_ceil(64);
            seen.packs.push((index, vec![0; words]));
        }
        let whole = HashSet::new();
        Ok(Self {
            session,
            seen,
            whole,
        })
    }

    /// Marks commits with all that they name. After an error, what is marked is of no use.
    pub(in super::super) fn commits(
        &mut self,
        mut tips: Vec<ObjectId>,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        while let Some(id) = tips.pop() {
            if !self.seen.insert(id) {
                continue;
            }
            if stop() {
                return Err(RepositoryError::Stopped);
            }
            let facts = self.session.commit(id)?;
            let before = match facts.parents.first() {
                Some(parent) => Some(self.session.commit(*parent)?.tree),
                None => None,
            };
            self.tree_after(facts.tree, before)?;
            tips.extend(&facts.parents);
        }
        Ok(())
    }

    /// Marks a tree with all that is in it.
    pub(in super::super) fn tree(&mut self, tree: ObjectId) -> Result<()> {
        self.tree_after(tree, None)
    }

    /// Leaves out what an earlier tree has in the same place, which is marked by itself. That a tree was met beside one
    /// earlier tree does not make it whole: history may come back to it, and be its own earlier tree.
    fn tree_after(&mut self, tree: ObjectId, before: Option<ObjectId>) -> Result<()> {
        let mut waiting = vec![(tree, before)];
        while let Some((tree, before)) = waiting.pop() {
            let is_done = Some(tree) == before || self.whole.contains(&tree);
            if is_done || before.is_none() && !self.whole.insert(tree) {
                continue;
            }
            self.seen.insert(tree);
            let node = self.session.node(tree)?;
            let earlier = match before {
                Some(before) => self.session.node(before)?,
                None => Arc::<Node>::default(),
            };
            each_new(&node, &earlier, |item, before| {
                if item.is_tree {
                    waiting.push((item.id, before));
                } else {
                    self.seen.insert(item.id);
                }
            });
        }
        Ok(())
    }

    /// Whether an object has been marked.
    pub(in super::super) fn is_live(&self, id: &ObjectId) -> bool {
        self.seen.contains(id)
    }
}

/// Items that another tree has not, each with what that has under the name.
fn each_new(node: &Node, earlier: &Node, mut act: impl FnMut(&Item, Option<ObjectId>)) {
    let mut old = earlier.items().iter().peekable();
    for item in node.items() {
        let is_before = |other: &&Item| order(other, item).is_lt();
        while old.next_if(is_before).is_some() {}
        let same = old.next_if(|other| order(other, item).is_eq());
        let before = same.map(|other| other.id);
        if before != Some(item.id) {
            act(item, before);
        }
    }
}

fn order(a: &Item, b: &Item) -> std::cmp::Ordering {
    gix::objs::tree::name_order(&a.name, a.is_tree, &b.name, b.is_tree)
}

/// Of something that may well be gone: nothing is an answer.
pub(in super::super) fn unless_missing<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(RepositoryError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
