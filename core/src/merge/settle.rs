//! Step 1: each entry by itself. Place, content and every attribute are merged separately.

use super::Tree;
use super::links;
use super::overlay::{Overlay, Touched};
use crate::change::{Change, Changes};
use crate::conflict::{conflict_name, copy_id};
use crate::entry::{Attributes, Content, Entry, File, Kind, Placed};
use crate::ids::{EntryId, InfoHash};
use crate::limits::{PREVIOUS_MAX, XATTRS_BYTES_MAX};
use crate::name::Name;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A version of an entry that cannot keep the entry's identity.
pub(super) struct Loser {
    /// Where the winner is.
    beside: (EntryId, Name),
    entry: Entry,
}

/// Copies of losing versions by id, each with the name it lost.
pub(super) type Copies = BTreeMap<EntryId, Name>;

/// Settles all entries that either side changed, and gives the versions that lost.
pub(super) fn settle<T: Tree>(
    tree: &mut Overlay<T>,
    left: &Changes,
    right: &Changes,
) -> Result<Vec<Loser>, T::Error> {
    let mut losers = Vec::new();
    let ids: BTreeSet<EntryId> = left.iter().chain(right.iter()).map(|(id, _)| id).collect();
    for id in ids {
        let before = before(tree.base(), id, left.get(id), right.get(id))?;
        let side = |changes: &Changes| changes.after(id, before.as_ref()).cloned();
        let sides = [side(left), side(right)].map(|after| {
            let after = identified(id, after);
            keep_root(id, before.as_ref(), after)
        });
        let [left, right] = sides.map(|after| keep_directory(before.as_ref(), after, &mut losers));
        let grave = match (&left, &right) {
            (Some(_), Some(_)) => None,
            (kept, None) | (None, kept) => kept.clone().or_else(|| before.clone()),
        };
        let after = settle_entry(before.as_ref(), left, right, &mut losers);
        let touched = Touched {
            before,
            after,
            grave,
        };
        tree.touch(id, touched);
    }
    Ok(losers)
}

/// The entry in the base. Both sides say; should they disagree, the base itself is asked.
fn before<T: Tree>(
    base: &T,
    id: EntryId,
    left: Option<&Change>,
    right: Option<&Change>,
) -> Result<Option<Placed>, T::Error> {
    match (left, right) {
        (Some(left), Some(right)) if left.before != right.before => base.place(id),
        (Some(change), _) | (None, Some(change)) => Ok(change.before.clone()),
        (None, None) => Ok(None),
    }
}

/// The key of a change is its entry's id, whatever the entry says.
fn identified(id: EntryId, mut after: Option<Placed>) -> Option<Placed> {
    if let Some(placed) = &mut after {
        placed.entry.id = id;
    }
    after
}

/// The root is neither removed nor moved.
fn keep_root(id: EntryId, before: Option<&Placed>, after: Option<Placed>) -> Option<Placed> {
    match (before, after) {
        (Some(before), after) if id == EntryId::ROOT => Some(Placed {
            parent: before.parent,
            name: before.name.clone(),
            entry: after.map_or_else(|| before.entry.clone(), |placed| placed.entry),
        }),
        (_, after) => after,
    }
}

/// A directory stays one: entries may be in it. Whatever else it was made becomes an entry of its own.
fn keep_directory(
    before: Option<&Placed>,
    after: Option<Placed>,
    losers: &mut Vec<Loser>,
) -> Option<Placed> {
    match (before, after) {
        (Some(before), Some(mut after))
            if before.entry.kind == Kind::Directory && after.entry.kind != Kind::Directory =>
        {
            losers.push(Loser {
                beside: (after.parent, after.name.clone()),
                entry: after.entry.clone(),
            });
            after.entry.kind = Kind::Directory;
            after.entry.written = before.entry.written.clone();
            Some(after)
        }
        (_, after) => after,
    }
}

fn settle_entry(
    before: Option<&Placed>,
    left: Option<Placed>,
    right: Option<Placed>,
    losers: &mut Vec<Loser>,
) -> Option<Placed> {
    if left == right || right.as_ref() == before {
        return left;
    }
    if left.as_ref() == before {
        return right;
    }
    match (left, right) {
        (Some(left), Some(right)) => Some(combine(before, &left, &right, losers)),
        // removed on one side: what the other did to its bytes lives, what it did else does not
        (Some(one), None) | (None, Some(one)) => is_edited(before, &one).then_some(one),
        (None, None) => None,
    }
}

/// Whether its bytes were written since the base, be it the same bytes again.
fn is_edited(before: Option<&Placed>, placed: &Placed) -> bool {
    before.is_none_or(|before| {
        before.entry.written != placed.entry.written
            || !is_same_content(&before.entry.kind, &placed.entry.kind)
    })
}

/// Equal bytes, targets or devices, whatever came before them.
pub(super) fn is_same_content(one: &Kind, other: &Kind) -> bool {
    match (one, other) {
        (Kind::File(one), Kind::File(other)) => one.content == other.content,
        _ => one == other,
    }
}

/// Merges an entry that is alive on both sides, and differently.
fn combine(
    before: Option<&Placed>,
    left: &Placed,
    right: &Placed,
    losers: &mut Vec<Loser>,
) -> Placed {
    let (winner, other) = by_content(before, left, right);
    let later = later(left, right);
    let place = |placed: &Placed| (placed.parent, placed.name.clone());
    let (parent, name) = pick(
        before.map(place).as_ref(),
        [&place(left), &place(right)],
        later,
    );
    let both_edited = is_edited(before, left) && is_edited(before, right);
    let contested = both_edited && !is_same_content(&left.entry.kind, &right.entry.kind);
    if contested {
        losers.push(Loser {
            beside: (parent, name.clone()),
            entry: other.entry.clone(),
        });
    }
    let mut attributes = combine_attributes(before, left, right);
    if contested || is_edited(before, left) != is_edited(before, right) {
        attributes.modified = winner.entry.attributes.modified;
    }
    let entry = Entry {
        id: winner.entry.id,
        kind: combine_kind(&winner.entry.kind, &other.entry.kind),
        attributes,
        written: winner.entry.written.clone(),
    };
    Placed {
        parent,
        name,
        entry,
    }
}

/// The side whose content stays with the entry, then the other one: what was edited before what was not, then
/// more edits, later ones, the greater label, the greater content.
fn by_content<'p>(
    before: Option<&Placed>,
    left: &'p Placed,
    right: &'p Placed,
) -> (&'p Placed, &'p Placed) {
    let weight = |placed: &'p Placed| {
        let Entry { kind, written, .. } = &placed.entry;
        let is_directory = *kind == Kind::Directory;
        (
            is_directory,
            is_edited(before, placed),
            written,
            kind,
            placed,
        )
    };
    match weight(left).cmp(&weight(right)) {
        Ordering::Less => (right, left),
        _ => (left, right),
    }
}

/// Which side was changed later, as its clock says: `Greater` is left.
fn later(left: &Placed, right: &Placed) -> Ordering {
    let changed = |placed: &Placed| placed.entry.attributes.changed;
    changed(left).cmp(&changed(right))
}

/// The side that differs from the base; if both do, the one changed later, else the greater.
fn pick<V: Ord + Clone>(before: Option<&V>, [left, right]: [&V; 2], later: Ordering) -> V {
    if before == Some(left) {
        return right.clone();
    }
    if before == Some(right) {
        return left.clone();
    }
    match later.then_with(|| left.cmp(right)) {
        Ordering::Less => right.clone(),
        _ => left.clone(),
    }
}

fn combine_attributes(before: Option<&Placed>, left: &Placed, right: &Placed) -> Attributes {
    let later = later(left, right);
    let before = before.map(|placed| &placed.entry.attributes);
    let (left, right) = (&left.entry.attributes, &right.entry.attributes);
    Attributes {
        mode: pick(before.map(|a| &a.mode), [&left.mode, &right.mode], later),
        uid: pick(before.map(|a| &a.uid), [&left.uid, &right.uid], later),
        gid: pick(before.map(|a| &a.gid), [&left.gid, &right.gid], later),
        accessed: pick(
            before.map(|a| &a.accessed),
            [&left.accessed, &right.accessed],
            Ordering::Equal,
        ),
        modified: pick(
            before.map(|a| &a.modified),
            [&left.modified, &right.modified],
            Ordering::Equal,
        ),
        changed: left.changed.max(right.changed),
        xattrs: combine_xattrs(before, left, right, later),
        links: combine_links(before, &left.links, &right.links),
    }
}

/// Those that both sides have, and those that one has added.
fn combine_links(before: Option<&Attributes>, left: &Links, right: &Links) -> Links {
    let is_new = |link: &&EntryId| !before.is_some_and(|before| before.links.contains(link));
    let kept = left.intersection(right);
    let added = left.symmetric_difference(right).filter(is_new);
    kept.chain(added).copied().collect()
}

type Links = BTreeSet<EntryId>;
type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Each attribute by itself; where all together would be too many, one side's.
fn combine_xattrs(
    before: Option<&Attributes>,
    left: &Attributes,
    right: &Attributes,
    later: Ordering,
) -> Xattrs {
    let before = before.map(|a| &a.xattrs);
    let (left, right) = (&left.xattrs, &right.xattrs);
    if left == right {
        return left.clone();
    }
    let names: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    let merged: Xattrs = names
        .into_iter()
        .filter_map(|name| {
            let before = before.map(|xattrs| xattrs.get(name));
            let values = [&left.get(name), &right.get(name)];
            let value = pick(before.as_ref(), values, later)?;
            Some((name.clone(), value.clone()))
        })
        .collect();
    let size = |xattrs: &Xattrs| xattrs.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
    if size(&merged) <= XATTRS_BYTES_MAX {
        merged
    } else {
        pick(before, [left, right], later)
    }
}

/// The winner's content, and what either side remembers of earlier ones.
fn combine_kind(winner: &Kind, other: &Kind) -> Kind {
    match (winner, other) {
        (Kind::File(winner), Kind::File(other)) => {
            let now = match &winner.content {
                Content::Swarm(content) => Some(content.info_hash),
                Content::Inline(_) => None,
            };
            let mut previous: Vec<InfoHash> = Vec::new();
            for info_hash in winner.previous.iter().chain(&other.previous) {
                if Some(*info_hash) != now && !previous.contains(info_hash) {
                    previous.push(*info_hash);
                }
            }
            previous.truncate(PREVIOUS_MAX);
            Kind::File(File {
                content: winner.content.clone(),
                previous,
            })
        }
        _ => winner.clone(),
    }
}

/// Gives the versions that lost entries of their own, beside the winner, unless that was done before.
///
/// A copy that one side removed is made again: the version is alive on the other side, under its entry's name.
pub(super) fn add_copies<T: Tree>(
    tree: &mut Overlay<T>,
    losers: Vec<Loser>,
) -> Result<Copies, T::Error> {
    let mut added: BTreeMap<EntryId, (Placed, Name)> = BTreeMap::new();
    for Loser { beside, mut entry } in losers {
        let shared = entry.id;
        entry.id = copy_id(&entry);
        entry.attributes.links.clear();
        if tree.get(entry.id)?.is_some() {
            continue;
        }
        let (parent, name) = links::visible(tree, shared, beside);
        let placed = Placed {
            parent,
            name: conflict_name(&name, &entry.written),
            entry,
        };
        let copy = added.entry(placed.entry.id);
        let new = (placed, name);
        // one version may lose twice only where both sides break the rules; the same one stays for all
        copy.and_modify(|there| *there = there.clone().max(new.clone()))
            .or_insert(new);
    }
    let mut copies = Copies::new();
    for (id, (placed, name)) in added {
        tree.set(id, Some(placed))?;
        copies.insert(id, name);
    }
    Ok(copies)
}
