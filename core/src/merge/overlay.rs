//! The tree that results, as far as it differs from the base, while the merge works on it.

use super::Tree;
use crate::change::{Change, Changes};
use crate::entry::{Kind, Placed};
use crate::ids::EntryId;
use crate::name::Name;
use std::collections::{BTreeMap, BTreeSet};

/// A place in the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) parent: EntryId,
    pub(super) name: Name,
}

impl Slot {
    pub(super) fn of(placed: &Placed) -> Self {
        Self {
            parent: placed.parent,
            name: placed.name.clone(),
        }
    }

    pub(super) fn holds(&self, placed: &Placed) -> bool {
        self.parent == placed.parent && self.name == placed.name
    }
}

/// An entry that one of the sides, or the merge itself, has touched.
pub(super) struct Touched {
    /// In the base.
    pub(super) before: Option<Placed>,
    /// In the result, so far.
    pub(super) after: Option<Placed>,
    /// As what it would live again, if it must.
    pub(super) grave: Option<Placed>,
}

/// Invariant: `slots` has exactly the touched entries that are alive, except the root, by their places.
pub(super) struct Overlay<'t, T: Tree> {
    base: &'t T,
    touched: BTreeMap<EntryId, Touched>,
    slots: BTreeMap<EntryId, BTreeMap<Name, BTreeSet<EntryId>>>,
    untouched: BTreeMap<EntryId, Option<Placed>>,
}

impl<'t, T: Tree> Overlay<'t, T> {
    pub(super) fn new(base: &'t T) -> Self {
        Self {
            base,
            touched: BTreeMap::new(),
            slots: BTreeMap::new(),
            untouched: BTreeMap::new(),
        }
    }

    pub(super) fn base(&self) -> &'t T {
        self.base
    }

    /// Adds an entry that has not been touched yet.
    pub(super) fn touch(&mut self, id: EntryId, touched: Touched) {
        if let Some(placed) = &touched.after {
            occupy(&mut self.slots, placed);
        }
        self.touched.insert(id, touched);
    }

    /// Gives an entry another state.
    pub(super) fn set(&mut self, id: EntryId, after: Option<Placed>) -> Result<(), T::Error> {
        if !self.touched.contains_key(&id) {
            let before = self.base.place(id)?;
            self.adopt(id, before);
        }
        if let Some(touched) = self.touched.get_mut(&id) {
            if let Some(placed) = &touched.after {
                vacate(&mut self.slots, placed);
            }
            if let Some(placed) = &after {
                occupy(&mut self.slots, placed);
            }
            touched.after = after;
        }
        Ok(())
    }

    /// Adds an entry as it is in the base.
    pub(super) fn adopt(&mut self, id: EntryId, before: Option<Placed>) {
        let touched = Touched {
            after: before.clone(),
            before,
            grave: None,
        };
        self.touch(id, touched);
    }

    /// An entry in the result, so far.
    pub(super) fn get(&mut self, id: EntryId) -> Result<Option<&Placed>, T::Error> {
        if let Some(touched) = self.touched.get(&id) {
            return Ok(touched.after.as_ref());
        }
        if !self.untouched.contains_key(&id) {
            let placed = self.base.place(id)?;
            self.untouched.insert(id, placed);
        }
        Ok(self.untouched.get(&id).and_then(Option::as_ref))
    }

    /// What is known of an entry that has been touched.
    pub(super) fn touched(&self, id: EntryId) -> Option<&Touched> {
        self.touched.get(&id)
    }

    /// A touched entry in the base.
    pub(super) fn before(&self, id: EntryId) -> Option<&Placed> {
        self.touched.get(&id).and_then(|t| t.before.as_ref())
    }

    /// A touched entry in the result, so far.
    pub(super) fn after(&self, id: EntryId) -> Option<&Placed> {
        self.touched.get(&id).and_then(|t| t.after.as_ref())
    }

    /// All touched entries.
    pub(super) fn all(&self) -> impl Iterator<Item = (EntryId, &Touched)> {
        self.touched.iter().map(|(id, touched)| (*id, touched))
    }

    /// The touched entries that are alive, without the root.
    pub(super) fn living(&self) -> impl Iterator<Item = (EntryId, &Touched)> {
        self.all()
            .filter(|(id, touched)| touched.after.is_some() && *id != EntryId::ROOT)
    }

    /// Whether a directory is in the base. One that was never touched is.
    fn in_base(&self, directory: EntryId) -> bool {
        let touched = self.touched.get(&directory);
        touched.is_none_or(|touched| touched.before.is_some())
    }

    /// The entries that are at a place; untouched ones become touched.
    pub(super) fn occupants(&mut self, slot: &Slot) -> Result<Vec<EntryId>, T::Error> {
        let here = |this: &Self| {
            let names = this.slots.get(&slot.parent);
            let ids = names.and_then(|names| names.get(&slot.name));
            ids.into_iter().flatten().copied().collect::<Vec<_>>()
        };
        let ids = here(self);
        let at_home = |id: &EntryId| self.before(*id).is_some_and(|before| slot.holds(before));
        if ids.iter().any(at_home) || !self.in_base(slot.parent) {
            return Ok(ids);
        }
        match self.base.child(slot.parent, &slot.name)? {
            Some(placed) if !self.touched.contains_key(&placed.entry.id) => {
                self.adopt(placed.entry.id, Some(placed));
                Ok(here(self))
            }
            _ => Ok(ids),
        }
    }

    /// The entries in a directory; untouched ones become touched.
    pub(super) fn children(&mut self, directory: EntryId) -> Result<Vec<EntryId>, T::Error> {
        if self.in_base(directory) {
            for placed in self.base.children(directory)? {
                if !self.touched.contains_key(&placed.entry.id) {
                    self.adopt(placed.entry.id, Some(placed));
                }
            }
        }
        let names = self.slots.get(&directory).into_iter().flatten();
        Ok(names.flat_map(|(_, ids)| ids).copied().collect())
    }

    /// Whether entries can be in it.
    pub(super) fn is_living_directory(&mut self, id: EntryId) -> Result<bool, T::Error> {
        if id == EntryId::ROOT {
            return Ok(true);
        }
        let placed = self.get(id)?;
        Ok(placed.is_some_and(|placed| placed.entry.kind == Kind::Directory))
    }

    pub(super) fn into_changes(self) -> Changes {
        let changes = self.touched.into_iter().map(|(id, touched)| {
            let Touched { before, after, .. } = touched;
            (id, Change { before, after })
        });
        changes.collect()
    }
}

type Slots = BTreeMap<EntryId, BTreeMap<Name, BTreeSet<EntryId>>>;

fn occupy(slots: &mut Slots, placed: &Placed) {
    if placed.entry.id != EntryId::ROOT {
        let names = slots.entry(placed.parent).or_default();
        let ids = names.entry(placed.name.clone()).or_default();
        ids.insert(placed.entry.id);
    }
}

fn vacate(slots: &mut Slots, placed: &Placed) {
    if let Some(names) = slots.get_mut(&placed.parent)
        && let Some(ids) = names.get_mut(&placed.name)
    {
        ids.remove(&placed.entry.id);
        if ids.is_empty() {
            names.remove(&placed.name);
        }
    }
}
