//! Step 2: every living entry is in a living directory, and no directory is inside itself.

use super::Tree;
use super::overlay::Overlay;
use crate::entry::{Kind, Placed};
use crate::ids::EntryId;
use std::collections::BTreeSet;

/// Removed directories that something lives in live again, where the side that kept them has them.
pub(super) fn revive<T: Tree>(tree: &mut Overlay<T>) -> Result<(), T::Error> {
    let living: Vec<EntryId> = tree.living().map(|(id, _)| id).collect();
    for id in living {
        revive_above(tree, id)?;
    }
    Ok(())
}

fn revive_above<T: Tree>(tree: &mut Overlay<T>, id: EntryId) -> Result<(), T::Error> {
    let mut child = id;
    while let Some(parent) = tree.after(child).map(|placed| placed.parent) {
        if tree.is_living_directory(parent)? {
            return Ok(());
        }
        let dead = tree.touched(parent).filter(|t| t.after.is_none());
        let grave = dead.and_then(|touched| touched.grave.clone());
        match grave.filter(|placed| placed.entry.kind == Kind::Directory) {
            Some(placed) => tree.set(parent, Some(placed))?,
            // no side has such a directory: the changes are not those of a tree
            None => put_in_root(tree, child)?,
        }
        child = parent;
    }
    Ok(())
}

fn put_in_root<T: Tree>(tree: &mut Overlay<T>, id: EntryId) -> Result<(), T::Error> {
    let placed = tree.after(id).cloned().map(|placed| Placed {
        parent: EntryId::ROOT,
        ..placed
    });
    tree.set(id, placed)
}

/// Undoes moves until no directory is inside itself: of the moved directories on a cycle, the one with the
/// smallest id goes back to where it was in the base.
///
/// Ends: an entry goes back once at most, and in the base there is no cycle.
pub(super) fn untangle<T: Tree>(tree: &mut Overlay<T>) -> Result<(), T::Error> {
    let moved: Vec<EntryId> = tree
        .living()
        .filter(|(_, touched)| {
            let parent = |placed: &Option<Placed>| placed.as_ref().map(|p| p.parent);
            parent(&touched.before) != parent(&touched.after)
        })
        .map(|(id, _)| id)
        .collect();
    let mut rooted = BTreeSet::new();
    for id in moved {
        while let Some(cycle) = find_cycle(tree, id, &mut rooted)? {
            undo_one(tree, &cycle)?;
        }
    }
    Ok(())
}

/// Goes up from an entry. Gives the cycle it comes into, or adds what it passed to what is below the root.
fn find_cycle<T: Tree>(
    tree: &mut Overlay<T>,
    start: EntryId,
    rooted: &mut BTreeSet<EntryId>,
) -> Result<Option<Vec<EntryId>>, T::Error> {
    let mut path = Vec::new();
    let mut passed = BTreeSet::new();
    let mut at = start;
    while at != EntryId::ROOT && !rooted.contains(&at) {
        if !passed.insert(at) {
            let from = path.iter().position(|id| *id == at).unwrap_or(0);
            return Ok(Some(path.split_off(from)));
        }
        path.push(at);
        at = tree.get(at)?.map_or(EntryId::ROOT, |placed| placed.parent);
    }
    rooted.extend(path);
    Ok(None)
}

fn undo_one<T: Tree>(tree: &mut Overlay<T>, cycle: &[EntryId]) -> Result<(), T::Error> {
    let back = |id: &EntryId| {
        let (before, after) = (tree.before(*id)?, tree.after(*id)?);
        let placed = Placed {
            parent: before.parent,
            name: before.name.clone(),
            entry: after.entry.clone(),
        };
        (before.parent != after.parent).then_some((*id, placed))
    };
    match cycle.iter().filter_map(back).min_by_key(|(id, _)| *id) {
        Some((id, placed)) => {
            tree.set(id, Some(placed))?;
            revive_above(tree, id)
        }
        // nothing on it was in the base: the changes are not those of a tree
        None => match cycle.iter().min() {
            Some(id) => put_in_root(tree, *id),
            None => Ok(()),
        },
    }
}
