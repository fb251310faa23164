//! The difference between two trees, by entry: what a journal record, a commit and a merge are made of.
//!
//! Changes speak of states, not of operations, so that a group of them folds into one: what was created and
//! deleted within a group is no change at all.

use crate::entry::Placed;
use crate::ids::EntryId;
use std::collections::BTreeMap;

/// One entry before and after. `None` is: not in the tree. Both sides, where given, have the map key's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In the tree that is changed.
    pub before: Option<Placed>,
    /// In the tree that results.
    pub after: Option<Placed>,
}

/// All entries that differ between two trees. A moved directory's children are not listed: their parent is
/// still the same entry. A removed directory's children are, each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes(BTreeMap<EntryId, Change>);

impl Changes {
    /// No difference.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a later change of an entry: the first `before` and the last `after` remain; what comes back to
    /// where it was vanishes.
    pub fn push(&mut self, id: EntryId, change: Change) {
        let before = match self.0.remove(&id) {
            Some(earlier) => earlier.before,
            None => change.before,
        };
        if before != change.after {
            let after = change.after;
            self.0.insert(id, Change { before, after });
        }
    }

    /// Adds all of a later group.
    pub fn extend(&mut self, later: Self) {
        for (id, change) in later.0 {
            self.push(id, change);
        }
    }

    /// Takes an entry's change out.
    pub fn remove(&mut self, id: EntryId) -> Option<Change> {
        self.0.remove(&id)
    }

    /// The change of one entry.
    pub fn get(&self, id: EntryId) -> Option<&Change> {
        self.0.get(&id)
    }

    /// An entry in the tree that results, where the changed tree has it so.
    pub fn after<'c>(&'c self, id: EntryId, before: Option<&'c Placed>) -> Option<&'c Placed> {
        self.get(id).map_or(before, |change| change.after.as_ref())
    }

    /// All, in id order.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, &Change)> {
        self.0.iter().map(|(id, change)| (*id, change))
    }

    /// Number of entries that differ.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(EntryId, Change)> for Changes {
    fn from_iter<T: IntoIterator<Item = (EntryId, Change)>>(changes: T) -> Self {
        let mut all = Self::new();
        for (id, change) in changes {
            all.push(id, change);
        }
        all
    }
}

impl IntoIterator for Changes {
    type Item = (EntryId, Change);
    type IntoIter = std::collections::btree_map::IntoIter<EntryId, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
