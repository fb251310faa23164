//! Hard links ([`crate::links`]) in a merge.
//!
//! What is shared and its links are entries like others, settled each by itself. Before that, where one side has shared what the
//! other still has under its own name, base and sides are made to look as if it had been shared all along, so that what was done
//! to the name is done to the link that took its place. Afterwards, what a link leads to lives, and lists the links that live.

use super::Tree;
use super::overlay::{self, Overlay};
use crate::change::{Change, Changes};
use crate::entry::Placed;
use crate::ids::EntryId;
use crate::links::{first_link, share};
use crate::name::Name;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What is shared in the base or on a side, but not everywhere: it and its first link, as the base has them.
pub(super) struct Aligned(BTreeMap<EntryId, Pair>);

/// An entry, and the first link to it.
type Pair = [Option<Placed>; 2];

/// Makes all look as if what is shared anywhere had always been so.
pub(super) fn align<'c, T: Tree>(
    base: &T,
    sides: [&'c Changes; 2],
) -> Result<(Aligned, [Cow<'c, Changes>; 2]), T::Error> {
    let mut aligned = BTreeMap::new();
    for (id, change) in sides.iter().flat_map(|side| side.iter()) {
        let states = [change.before.as_ref(), change.after.as_ref()];
        if !states.into_iter().any(is_shared) || aligned.contains_key(&id) {
            continue;
        }
        let before = base.place(id)?;
        let [left, right] = sides.map(|side| side.after(id, before.as_ref()));
        let living = [before.as_ref(), left, right];
        let is_elsewhere = living
            .iter()
            .flatten()
            .any(|placed| !is_shared(Some(placed)));
        if is_elsewhere {
            let link = sides.iter().find_map(|side| side.get(first_link(id)));
            let link = link.and_then(|change| change.before.clone());
            aligned.insert(id, [before, link]);
        }
    }
    let sides = sides.map(|side| align_side(&aligned, side));
    Ok((Aligned(aligned), sides))
}

fn align_side<'c>(aligned: &BTreeMap<EntryId, Pair>, side: &'c Changes) -> Cow<'c, Changes> {
    if aligned.is_empty() {
        return Cow::Borrowed(side);
    }
    let mut changes = side.clone();
    for (id, pair) in aligned {
        let ids = [*id, first_link(*id)];
        let after = [0, 1].map(|i| side.after(ids[i], pair[i].as_ref()).cloned());
        replace(&mut changes, ids, (shared(pair), shared(&after)));
    }
    Cow::Owned(changes)
}

fn replace(changes: &mut Changes, ids: [EntryId; 2], (before, after): (Pair, Pair)) {
    for ((id, before), after) in ids.into_iter().zip(before).zip(after) {
        changes.remove(id);
        changes.push(id, Change { before, after });
    }
}

/// The same, as if it had been shared.
fn shared(pair: &Pair) -> Pair {
    match pair {
        [Some(placed), _] if !is_shared(Some(placed)) => share(placed).map(Some),
        _ => pair.clone(),
    }
}

impl Aligned {
    /// What neither side has changed since is not as the base has it either.
    pub(super) fn touch<T: Tree>(&self, tree: &mut Overlay<T>) {
        let before = self.0.values().flat_map(shared).flatten();
        for placed in before {
            if tree.touched(placed.entry.id).is_none() {
                tree.adopt(placed.entry.id, Some(placed));
            }
        }
    }

    /// The result, relative to the base as it is.
    pub(super) fn undo(&self, mut changes: Changes) -> Changes {
        for (id, pair) in &self.0 {
            let (ids, before) = ([*id, first_link(*id)], shared(pair));
            let after = [0, 1].map(|i| changes.after(ids[i], before[i].as_ref()).cloned());
            replace(&mut changes, ids, (pair.clone(), after));
        }
        changes
    }
}

fn is_shared(placed: Option<&Placed>) -> bool {
    placed.is_some_and(|placed| placed.parent == EntryId::SHARED)
}

fn target(placed: Option<&Placed>) -> Option<EntryId> {
    placed?.entry.kind.target()
}

/// What is shared, as far as it or a link to it has been touched, with the touched links that live.
fn touched<T: Tree>(tree: &Overlay<T>) -> BTreeMap<EntryId, BTreeSet<EntryId>> {
    let mut links: BTreeMap<EntryId, BTreeSet<EntryId>> = BTreeMap::new();
    for (id, touched) in tree.all() {
        if let Some(shared) = target(touched.after.as_ref()) {
            links.entry(shared).or_default().insert(id);
        }
        if is_shared(touched.after.as_ref()) {
            links.entry(id).or_default();
        }
    }
    links
}

/// The links that what is shared lists from now on: those that live.
fn listed<T: Tree>(
    tree: &Overlay<T>,
    shared: &Placed,
    living: &BTreeSet<EntryId>,
) -> BTreeSet<EntryId> {
    let lives = |link: &EntryId| living.contains(link) || tree.touched(*link).is_none();
    let listed = shared.entry.attributes.links.union(living);
    listed.copied().filter(lives).collect()
}

/// What a link leads to lives. What lives and has lost all its names, each side having removed others, gets one of them back:
/// nobody has removed the last.
pub(super) fn revive<T: Tree>(tree: &mut Overlay<T>) -> Result<(), T::Error> {
    for (shared, living) in touched(tree) {
        match tree.get(shared)?.cloned() {
            None => revive_shared(tree, shared, &living)?,
            Some(placed) if is_shared(Some(&placed)) => {
                if listed(tree, &placed, &living).is_empty() {
                    revive_link(tree, shared)?;
                }
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn revive_shared<T: Tree>(
    tree: &mut Overlay<T>,
    shared: EntryId,
    links: &BTreeSet<EntryId>,
) -> Result<(), T::Error> {
    let grave = tree.touched(shared).and_then(|t| t.grave.clone());
    match grave {
        Some(grave) => tree.set(shared, Some(grave)),
        // no side has it: the changes are not those of a tree
        None => links.iter().try_for_each(|link| tree.set(*link, None)),
    }
}

fn revive_link<T: Tree>(tree: &mut Overlay<T>, shared: EntryId) -> Result<(), T::Error> {
    let mut graves = tree.all().filter_map(|(id, touched)| {
        let grave = touched.grave.as_ref().filter(|_| touched.after.is_none());
        (target(grave) == Some(shared)).then_some((id, grave.cloned()))
    });
    let grave = graves.next();
    drop(graves);
    match grave {
        Some((link, grave)) => tree.set(link, grave),
        // nobody has had one: the changes are not those of a tree
        None => tree.set(shared, None),
    }
}

/// What is shared lists its links.
pub(super) fn list<T: Tree>(tree: &mut Overlay<T>) -> Result<(), T::Error> {
    for (shared, living) in touched(tree) {
        let placed = tree.get(shared)?.cloned();
        if let Some(mut placed) = placed.filter(|placed| is_shared(Some(placed))) {
            placed.entry.attributes.links = listed(tree, &placed, &living);
            if tree.get(shared)? != Some(&placed) {
                tree.set(shared, Some(placed))?;
            }
        }
    }
    Ok(())
}

/// Where a copy of something goes, which would be beside it: beside one of its links, where it is shared.
pub(super) fn visible<T: Tree>(
    tree: &Overlay<T>,
    shared: EntryId,
    (parent, name): (EntryId, Name),
) -> (EntryId, Name) {
    if parent != EntryId::SHARED {
        return (parent, name);
    }
    let place = |touched: &overlay::Touched| {
        let placed = touched.after.as_ref().or(touched.grave.as_ref());
        let placed = placed.filter(|placed| target(Some(*placed)) == Some(shared))?;
        Some((placed.parent, placed.name.clone()))
    };
    let mut places = tree.all().filter_map(|(_, touched)| place(touched));
    places.next().unwrap_or((EntryId::ROOT, name))
}
