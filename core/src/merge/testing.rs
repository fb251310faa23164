//! Random work on trees, as users do it: always from one proper tree to another.

#![allow(clippy::unwrap_used)]

use crate::change::{Change, Changes};
use crate::entry::{Attributes, Content, Entry, File, Kind, Placed, Written};
use crate::ids::EntryId;
use crate::links::{link, share, shared_directory};
use crate::memory_tree::MemoryTree;
use crate::name::Name;
use crate::time::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Cases of each property in the everyday suite: a few seconds for all of them.
const CASES: u32 = 4000;

/// How many cases to try of each property; `CASES=n` asks for another number.
pub(crate) fn cases() -> u32 {
    let asked = std::env::var("CASES").ok();
    asked.map_or(CASES, |text| text.parse().expect("CASES=number"))
}

/// Few names, so that they clash.
const NAMES: [&str; 4] = ["a", "b.txt", "c", "d"];

pub(super) fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

/// One piece of work, in numbers that mean something only beside a tree: so any will do, and shrink well.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    what: u8,
    which: u8,
    target: u8,
    name: u8,
}

fn work(what: impl Strategy<Value = u8>) -> impl Strategy<Value = Work> {
    (what, any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(what, which, target, name)| Work {
        what,
        which,
        target,
        name,
    })
}

/// Everything that users do.
pub(super) fn works(most: usize) -> impl Strategy<Value = Vec<Work>> {
    proptest::collection::vec(work(0..26_u8), 0..=most)
}

/// Everything but hard links.
pub(super) fn works_without_links(most: usize) -> impl Strategy<Value = Vec<Work>> {
    proptest::collection::vec(work(0..22_u8), 0..=most)
}

/// Only writing, now and then renaming or removing, what is there.
pub(super) fn edits(most: usize) -> impl Strategy<Value = Vec<Work>> {
    let what = prop_oneof![6 => Just(8_u8), 1 => Just(12_u8), 1 => Just(17_u8)];
    proptest::collection::vec(work(what), 0..=most)
}

/// Somebody who works on a tree.
#[derive(Debug, Clone)]
pub(super) struct Author {
    number: u8,
    done: u32,
}

impl Author {
    pub(super) fn new(number: u8) -> Self {
        Self { number, done: 0 }
    }

    pub(super) fn play(&mut self, tree: &mut MemoryTree, works: &[Work]) {
        for work in works {
            self.done += 1;
            let changes = self.changes(tree, *work).unwrap_or_default();
            tree.apply(&changes).unwrap();
            self.list_links(tree, &changes);
            tree.check().unwrap();
            check_links(tree);
        }
    }

    fn changes(&self, tree: &MemoryTree, work: Work) -> Option<Changes> {
        match work.what {
            0..=3 => self.create(tree, work, Kind::File(self.file(work))),
            4..=6 => self.create(tree, work, Kind::Directory),
            7 => self.create(tree, work, Kind::Symlink(vec![work.target % 2])),
            8..=11 => self.write(tree, work),
            12..=15 => self.rename(tree, work),
            16 => Self::exchange(tree, work),
            17..=19 => Some(remove(tree, chosen(tree, work.which)?)),
            20..22 => Some(self.set_attributes(tree, work)),
            _ => self.link(tree, work),
        }
    }

    /// Gives something a second name, or one more.
    fn link(&self, tree: &MemoryTree, work: Work) -> Option<Changes> {
        let placed = chosen(tree, work.which)?;
        let parent = directory(tree, work.target);
        let name = name(NAMES[usize::from(work.name) % NAMES.len()]);
        if placed.entry.kind == Kind::Directory || tree.list(parent).any(|it| it.name == name) {
            return None;
        }
        let mut changes = Changes::new();
        let mut shared = placed.entry.id;
        if let Kind::Link(there) = placed.entry.kind {
            shared = there;
        } else {
            changes.extend(sharing(tree, placed));
        }
        let id = self.new_id();
        let entry = link(id, shared, &placed.entry.written);
        let after = Placed {
            parent,
            name,
            entry,
        };
        changes.extend(one(tree, id, Some(after)));
        Some(changes)
    }

    /// Whoever changes a link changes what it leads to: that lists its links, and goes with the last.
    fn list_links(&self, tree: &mut MemoryTree, changes: &Changes) {
        let both = changes.iter().flat_map(|(_, it)| [&it.before, &it.after]);
        let concerned: BTreeSet<EntryId> = both.flatten().filter_map(target).collect();
        for shared in concerned {
            list_links(tree, shared, self.now());
        }
    }

    fn new_id(&self) -> EntryId {
        let seed = [&[self.number][..], &self.done.to_le_bytes()].concat();
        EntryId::from_slice(&blake3::hash(&seed).as_bytes()[..16]).unwrap()
    }

    /// Bytes nobody else writes; now and then some that others write too.
    fn file(&self, work: Work) -> File {
        let text = if work.target.is_multiple_of(8) {
            format!("same {}", work.name % 2)
        } else {
            format!("{} {}", self.number, self.done)
        };
        File {
            content: Content::Inline(text.into_bytes()),
            previous: Vec::new(),
        }
    }

    /// A clock that stands still most of the time, so that times are equal often.
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(i64::from(self.done / 4))
    }

    fn written(&self, edits: u32) -> Written {
        Written {
            edits,
            at: self.now(),
            by: format!("node{}", self.number % 3),
        }
    }

    fn create(&self, tree: &MemoryTree, work: Work, kind: Kind) -> Option<Changes> {
        let parent = directory(tree, work.which);
        let name = name(NAMES[usize::from(work.name) % NAMES.len()]);
        if tree.list(parent).any(|placed| placed.name == name) {
            return None;
        }
        let id = self.new_id();
        let entry = Entry {
            id,
            kind,
            attributes: Attributes {
                changed: self.now(),
                modified: self.now(),
                ..Attributes::default()
            },
            written: self.written(1),
        };
        let after = Placed {
            parent,
            name,
            entry,
        };
        Some(one(tree, id, Some(after)))
    }

    fn write(&self, tree: &MemoryTree, work: Work) -> Option<Changes> {
        let files: Vec<_> = tree
            .iter()
            .filter(|placed| matches!(placed.entry.kind, Kind::File(_)))
            .collect();
        let mut placed = (*files.get(usize::from(work.which) % files.len().max(1))?).clone();
        placed.entry.kind = Kind::File(self.file(work));
        placed.entry.written = self.written(placed.entry.written.edits + 1);
        placed.entry.attributes.modified = self.now();
        placed.entry.attributes.changed = self.now();
        let mut changes = one(tree, placed.entry.id, Some(placed.clone()));
        // by one of its names
        let links: Vec<_> = placed.entry.attributes.links.iter().collect();
        if let Some(link) = links.get(usize::from(work.name) % links.len().max(1)) {
            let mut link = tree.get(**link).unwrap().clone();
            link.entry.written = placed.entry.written.clone();
            changes.extend(one(tree, link.entry.id, Some(link)));
        }
        Some(changes)
    }

    fn rename(&self, tree: &MemoryTree, work: Work) -> Option<Changes> {
        let mut placed = chosen(tree, work.which)?.clone();
        let id = placed.entry.id;
        let parent = directory(tree, work.target);
        let name = name(NAMES[usize::from(work.name) % NAMES.len()]);
        if parent == id || tree.descendants(id).contains(&parent) {
            return None;
        }
        let is_directory = |placed: &Placed| placed.entry.kind == Kind::Directory;
        let mut changes = Changes::new();
        if let Some(there) = tree.list(parent).find(|placed| placed.name == name) {
            let is_full = tree.list(there.entry.id).next().is_some();
            if there.entry.id == id || is_full || is_directory(there) != is_directory(&placed) {
                return None;
            }
            changes = one(tree, there.entry.id, None);
        }
        placed.parent = parent;
        placed.name = name;
        placed.entry.attributes.changed = self.now();
        changes.extend(one(tree, id, Some(placed)));
        Some(changes)
    }

    fn exchange(tree: &MemoryTree, work: Work) -> Option<Changes> {
        let (one_side, other) = (chosen(tree, work.which)?, chosen(tree, work.target)?);
        let (first, second) = (one_side.entry.id, other.entry.id);
        if tree.descendants(first).contains(&second) || tree.descendants(second).contains(&first) {
            return None;
        }
        let moved = |from: &Placed, to: &Placed| Placed {
            entry: from.entry.clone(),
            ..to.clone()
        };
        let mut changes = one(tree, first, Some(moved(one_side, other)));
        changes.extend(one(tree, second, Some(moved(other, one_side))));
        Some(changes)
    }

    fn set_attributes(&self, tree: &MemoryTree, work: Work) -> Changes {
        let all: Vec<_> = tree.iter().collect();
        let mut placed = all[usize::from(work.which) % all.len()].clone();
        let attributes = &mut placed.entry.attributes;
        attributes.changed = self.now();
        match work.target % 5 {
            0 => attributes.mode = u16::from(work.name),
            1 => attributes.uid = u32::from(work.name),
            2 => attributes.modified = Timestamp::from_seconds(i64::from(work.name)),
            3 => drop(attributes.xattrs.remove(&vec![work.name % 3])),
            _ => drop(
                attributes
                    .xattrs
                    .insert(vec![work.name % 3], vec![work.name]),
            ),
        }
        one(tree, placed.entry.id, Some(placed))
    }
}

/// The change of one entry of a tree.
pub(super) fn one(tree: &MemoryTree, id: EntryId, after: Option<Placed>) -> Changes {
    let before = tree.get(id).cloned();
    Changes::from_iter([(id, Change { before, after })])
}

/// An entry and all inside it go.
pub(super) fn remove(tree: &MemoryTree, placed: &Placed) -> Changes {
    let mut ids = tree.descendants(placed.entry.id);
    ids.push(placed.entry.id);
    let mut changes = Changes::new();
    for id in ids {
        changes.extend(one(tree, id, None));
    }
    changes
}

fn chosen(tree: &MemoryTree, which: u8) -> Option<&Placed> {
    let is_hidden = |p: &Placed| p.parent == EntryId::SHARED || p.entry.id == EntryId::SHARED;
    let entries: Vec<_> = tree
        .iter()
        .filter(|p| p.entry.id != EntryId::ROOT && !is_hidden(p))
        .collect();
    entries
        .get(usize::from(which) % entries.len().max(1))
        .copied()
}

fn directory(tree: &MemoryTree, which: u8) -> EntryId {
    let directories: Vec<_> = tree
        .iter()
        .filter(|placed| placed.entry.kind == Kind::Directory)
        .filter(|placed| placed.entry.id != EntryId::SHARED)
        .collect();
    directories[usize::from(which) % directories.len()].entry.id
}

/// The bytes of a regular file.
pub(super) fn bytes(placed: &Placed) -> Option<&[u8]> {
    match &placed.entry.kind {
        Kind::File(File {
            content: Content::Inline(bytes),
            ..
        }) => Some(bytes),
        _ => None,
    }
}

pub(super) fn target(placed: &Placed) -> Option<EntryId> {
    placed.entry.kind.target()
}

/// An entry gets a first link, and the tree a place for what is shared.
pub(super) fn sharing(tree: &MemoryTree, placed: &Placed) -> Changes {
    let directory = tree.get(EntryId::SHARED).cloned();
    let directory = directory.unwrap_or_else(shared_directory);
    let made = share(placed).into_iter().chain([directory]);
    let mut changes = Changes::new();
    for made in made {
        changes.extend(one(tree, made.entry.id, Some(made)));
    }
    changes
}

/// What is shared lists its links, and goes with the last.
pub(super) fn list_links(tree: &mut MemoryTree, shared: EntryId, now: Timestamp) {
    let Some(mut placed) = tree.get(shared).cloned() else {
        return;
    };
    placed.entry.attributes.links = links_to(tree, shared);
    placed.entry.attributes.changed = now;
    let lives = !placed.entry.attributes.links.is_empty();
    let change = one(tree, shared, lives.then_some(placed));
    tree.apply(&change).unwrap();
}

fn links_to(tree: &MemoryTree, shared: EntryId) -> BTreeSet<EntryId> {
    let links = tree.iter().filter(|it| target(it) == Some(shared));
    links.map(|link| link.entry.id).collect()
}

/// Links lead to what is shared, which lists them.
pub(super) fn check_links(tree: &MemoryTree) {
    for placed in tree.iter() {
        let id = placed.entry.id;
        if let Some(shared) = target(placed) {
            let shared = tree.get(shared).expect("a link leads nowhere");
            assert_eq!(shared.parent, EntryId::SHARED, "{id} is not shared");
        }
        let listed = &placed.entry.attributes.links;
        assert_eq!(*listed, links_to(tree, id), "links of {id}");
        let is_shared = placed.parent == EntryId::SHARED;
        assert_eq!(is_shared, !listed.is_empty(), "{id} without a name");
    }
}

/// All bytes that a tree has under some name.
pub(super) fn all_bytes(tree: &MemoryTree) -> std::collections::BTreeSet<Vec<u8>> {
    tree.iter().filter_map(bytes).map(<[u8]>::to_vec).collect()
}
