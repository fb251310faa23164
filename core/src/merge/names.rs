//! Step 3: no two entries of one name in a directory.

use super::Tree;
use super::overlay::{Overlay, Slot, Touched};
use super::settle::{Copies, is_same_content};
use crate::change::Changes;
use crate::conflict::{lost_name, numbered_conflict_name};
use crate::entry::{Kind, Placed, Written};
use crate::ids::EntryId;
use crate::name::Name;
use crate::time::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Settles every place that more than one entry has come to.
///
/// Ends: each round removes an entry or gives it a name that is free, and only what is inside a removed
/// directory comes to a new place.
pub(super) fn tell_apart<T: Tree>(
    tree: &mut Overlay<T>,
    copies: Copies,
    sides: [&Changes; 2],
) -> Result<(), T::Error> {
    drop_copies(tree, sides)?;
    let places = tree.living().filter_map(|(_, t)| t.after.as_ref());
    let mut names = Names {
        waiting: places.map(Slot::of).collect(),
        tree,
        copies,
    };
    while let Some(slot) = names.waiting.pop_first() {
        let occupants = names.tree.occupants(&slot)?;
        if occupants.len() > 1 {
            names.settle_slot(&slot, occupants)?;
        }
    }
    Ok(())
}

/// Where more than two merge, a version may have lost its name to one that turns out, with the next of them, to have the
/// same bytes: a conflict copy that no side has beside its equal goes.
fn drop_copies<T: Tree>(tree: &mut Overlay<T>, sides: [&Changes; 2]) -> Result<(), T::Error> {
    let lost = |(id, touched): (EntryId, &Touched)| {
        let copy = touched.after.as_ref()?;
        let (parent, name) = (copy.parent, lost_name(&copy.name)?);
        Some((id, Slot { parent, name }))
    };
    let copies: Vec<_> = tree.living().filter_map(lost).collect();
    for (copy, slot) in copies {
        let others = tree.occupants(&slot)?;
        if others
            .iter()
            .any(|other| become_equal(tree, sides, copy, *other))
        {
            tree.set(copy, None)?;
        }
    }
    Ok(())
}

/// Two files have equal bytes in the result, and on neither side.
fn become_equal<T: Tree>(
    tree: &Overlay<T>,
    sides: [&Changes; 2],
    one: EntryId,
    other: EntryId,
) -> bool {
    let are_equal_on = |side: &&Changes| {
        let state = |id| side.after(id, tree.before(id));
        is_same_file(state(one), state(other))
    };
    is_same_file(tree.after(one), tree.after(other)) && !sides.iter().any(are_equal_on)
}

/// Files with equal bytes.
fn is_same_file(one: Option<&Placed>, other: Option<&Placed>) -> bool {
    let kinds = one.zip(other);
    kinds.is_some_and(|(one, other)| {
        let kinds = (&one.entry.kind, &other.entry.kind);
        matches!(kinds, (Kind::File(one), Kind::File(other)) if one.content == other.content)
    })
}

struct Names<'o, 't, T: Tree> {
    tree: &'o mut Overlay<'t, T>,
    copies: Copies,
    /// Places that may have more than one entry.
    waiting: BTreeSet<Slot>,
}

impl<T: Tree> Names<'_, '_, T> {
    fn settle_slot(&mut self, slot: &Slot, occupants: Vec<EntryId>) -> Result<(), T::Error> {
        let is_directory = |id: &EntryId| {
            let placed = self.tree.after(*id);
            placed.is_some_and(|placed| placed.entry.kind == Kind::Directory)
        };
        let (directories, files): (Vec<_>, Vec<_>) = occupants.into_iter().partition(is_directory);
        let files = self.unify(files)?;
        if directories.is_empty() {
            return self.rename_all(slot, &files[1..]);
        }
        self.unite(directories)?;
        self.rename_all(slot, &files)
    }

    /// One directory stays, the others' entries move into it: one of the base, since it may be large, then the
    /// one with the smallest id.
    fn unite(&mut self, mut directories: Vec<EntryId>) -> Result<(), T::Error> {
        directories.sort_by_key(|id| (self.tree.before(*id).is_none(), *id));
        let Some((stays, go)) = directories.split_first() else {
            return Ok(());
        };
        for directory in go {
            for child in self.tree.children(*directory)? {
                let placed = self.tree.after(child).cloned();
                let moved = placed.map(|placed| Placed {
                    parent: *stays,
                    ..placed
                });
                self.waiting.extend(moved.as_ref().map(Slot::of));
                self.tree.set(child, moved)?;
            }
            self.tree.set(*directory, None)?;
        }
        Ok(())
    }

    /// Of those with equal bytes one stays. Gives those that stay, the winner of the name first.
    fn unify(&mut self, mut files: Vec<EntryId>) -> Result<Vec<EntryId>, T::Error> {
        files.sort_by_cached_key(|id| Reverse(self.weight(*id)));
        let mut stay: Vec<EntryId> = Vec::new();
        for id in files {
            let is_same = |other: &EntryId| {
                let kind = |id| self.tree.after(id).map(|placed| &placed.entry.kind);
                let kinds = kind(*other).zip(kind(id));
                kinds.is_some_and(|(one, other)| is_same_content(one, other))
            };
            if stay.iter().any(is_same) {
                self.tree.set(id, None)?;
            } else {
                stay.push(id);
            }
        }
        Ok(stay)
    }

    /// What decides who keeps a name: copies never do; then more edits since the base, later ones, the greater
    /// label, the greater content, the smaller id.
    fn weight(&self, id: EntryId) -> Option<Weight> {
        let entry = &self.tree.after(id)?.entry;
        let before = self.tree.before(id);
        let edits_before = before.map_or(0, |before| before.entry.written.edits);
        let Written { edits, at, by } = &entry.written;
        Some((
            !self.copies.contains_key(&id),
            edits.saturating_sub(edits_before),
            *at,
            by.clone(),
            entry.kind.clone(),
            Reverse(id),
        ))
    }

    fn rename_all(&mut self, slot: &Slot, losers: &[EntryId]) -> Result<(), T::Error> {
        for id in losers {
            let Some(placed) = self.tree.after(*id).cloned() else {
                continue;
            };
            let lost = self.copies.get(id).unwrap_or(&slot.name).clone();
            let name = self.free_name(slot.parent, &lost, &placed.entry.written)?;
            self.tree.set(*id, Some(Placed { name, ..placed }))?;
        }
        Ok(())
    }

    /// The first conflict name that no entry has. Ends: a directory has finitely many entries.
    fn free_name(
        &mut self,
        parent: EntryId,
        lost: &Name,
        written: &Written,
    ) -> Result<Name, T::Error> {
        let mut nth = 1;
        loop {
            let name = numbered_conflict_name(lost, written, nth);
            let slot = Slot { parent, name };
            if self.tree.occupants(&slot)?.is_empty() {
                return Ok(slot.name);
            }
            nth += 1;
        }
    }
}

type Weight = (bool, u32, Timestamp, String, Kind, Reverse<EntryId>);
