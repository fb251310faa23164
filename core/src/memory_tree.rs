//! A whole tree in memory: for small trees, and for the tests of everything that makes or takes [`Changes`].

use crate::change::{Change, Changes};
use crate::entry::{Attributes, Entry, Kind, Placed, Written};
use crate::ids::EntryId;
use crate::merge::Tree;
use crate::name::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// Entries by id, and each directory's names. Always has [`EntryId::ROOT`]; no two entries share a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryTree {
    entries: BTreeMap<EntryId, Placed>,
    names: BTreeMap<EntryId, BTreeMap<Name, EntryId>>,
}

/// Why changes do not apply to a tree, or a tree is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A change starts from a state that the tree is not in, or speaks of another id than its own.
    #[error("entry {0} is not in the state that the change starts from")]
    OtherBefore(EntryId),
    /// Two entries would have one name in a directory.
    #[error("entries {0} and {1} would have the same name in a directory")]
    Clash(EntryId, EntryId),
    /// The root would be removed.
    #[error("the root cannot be removed")]
    NoRoot,
    /// An entry's parent is missing or no directory.
    #[error("the parent of entry {0} is no directory of the tree")]
    NoParent(EntryId),
    /// An entry is inside itself.
    #[error("entry {0} is inside itself")]
    Cycle(EntryId),
}

impl Default for MemoryTree {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTree {
    /// An empty tree: the root directory, with default attributes.
    pub fn new() -> Self {
        let root = Placed {
            parent: EntryId::ROOT,
            name: Name::parse(b"root").expect("a valid name"),
            entry: Entry {
                id: EntryId::ROOT,
                kind: Kind::Directory,
                attributes: Attributes::default(),
                written: Written::default(),
            },
        };
        Self {
            entries: BTreeMap::from([(EntryId::ROOT, root)]),
            names: BTreeMap::new(),
        }
    }

    /// An entry and its place.
    pub fn get(&self, id: EntryId) -> Option<&Placed> {
        self.entries.get(&id)
    }

    /// All entries, the root too, in id order.
    pub fn iter(&self) -> impl Iterator<Item = &Placed> {
        self.entries.values()
    }

    /// Number of entries without the root.
    pub fn len(&self) -> usize {
        self.entries.len() - 1
    }

    /// Has only the root.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A directory's entries in name order.
    pub fn list(&self, directory: EntryId) -> impl Iterator<Item = &Placed> {
        let ids = self.names.get(&directory).into_iter().flatten();
        ids.filter_map(|(_, id)| self.entries.get(id))
    }

    /// The entry at a path of names below the root; an empty path is the root.
    pub fn at<N: AsRef<[u8]>>(&self, path: &[N]) -> Option<&Placed> {
        let mut id = EntryId::ROOT;
        for name in path {
            let name = Name::parse(name.as_ref()).ok()?;
            id = *self.names.get(&id)?.get(&name)?;
        }
        self.entries.get(&id)
    }

    /// All paths below the root, names joined by `/` (bytes that are not UTF-8 replaced), with their ids.
    /// Entries that are not reachable from the root are not among them.
    pub fn paths(&self) -> BTreeMap<String, EntryId> {
        let mut paths = BTreeMap::new();
        let mut directories = vec![(String::new(), EntryId::ROOT)];
        while let Some((prefix, directory)) = directories.pop() {
            for placed in self.list(directory) {
                let path = format!("{prefix}{}", placed.name);
                directories.push((format!("{path}/"), placed.entry.id));
                paths.insert(path, placed.entry.id);
            }
        }
        paths
    }

    /// Everything within a directory, at any depth, in no order that matters.
    pub fn descendants(&self, directory: EntryId) -> Vec<EntryId> {
        let mut found: Vec<EntryId> = self.list(directory).map(|p| p.entry.id).collect();
        let mut next = 0;
        while let Some(id) = found.get(next) {
            let inside: Vec<EntryId> = self.list(*id).map(|p| p.entry.id).collect();
            found.extend(inside);
            next += 1;
        }
        found
    }

    /// Changes the tree, or leaves it as it is and tells why. Looks only at what changes: see
    /// [`MemoryTree::check`] for the tree as a whole.
    pub fn apply(&mut self, changes: &Changes) -> Result<(), TreeError> {
        self.applicable(changes)?;
        for (id, _) in changes.iter() {
            if let Some(placed) = self.entries.remove(&id) {
                self.forget_name(&placed);
            }
        }
        for (id, change) in changes.iter() {
            if let Some(placed) = &change.after {
                self.insert(id, placed.clone());
            }
        }
        Ok(())
    }

    fn applicable(&self, changes: &Changes) -> Result<(), TreeError> {
        let mut taken = BTreeMap::new();
        for (id, change) in changes.iter() {
            let foreign = change.after.as_ref().is_some_and(|p| p.entry.id != id);
            if foreign || change.before.as_ref() != self.get(id) {
                return Err(TreeError::OtherBefore(id));
            }
            match &change.after {
                None if id == EntryId::ROOT => return Err(TreeError::NoRoot),
                Some(placed) if id != EntryId::ROOT => {
                    let there = self.names.get(&placed.parent);
                    let there = there.and_then(|names| names.get(&placed.name).copied());
                    let stays = there.filter(|other| changes.get(*other).is_none());
                    let other = taken.insert((placed.parent, &placed.name), id).or(stays);
                    other.map_or(Ok(()), |other| Err(TreeError::Clash(other, id)))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn insert(&mut self, id: EntryId, placed: Placed) {
        if id != EntryId::ROOT {
            let names = self.names.entry(placed.parent).or_default();
            names.insert(placed.name.clone(), id);
        }
        self.entries.insert(id, placed);
    }

    fn forget_name(&mut self, placed: &Placed) {
        if placed.entry.id == EntryId::ROOT {
            return;
        }
        if let Some(names) = self.names.get_mut(&placed.parent) {
            names.remove(&placed.name);
            if names.is_empty() {
                self.names.remove(&placed.parent);
            }
        }
    }

    /// What must change in this tree to get the other one.
    pub fn diff(&self, other: &Self) -> Changes {
        let ids: BTreeSet<EntryId> = self
            .entries
            .keys()
            .chain(other.entries.keys())
            .copied()
            .collect();
        ids.into_iter()
            .map(|id| {
                let before = self.get(id).cloned();
                let after = other.get(id).cloned();
                (id, Change { before, after })
            })
            .collect()
    }

    /// Whether this is a tree: every entry's parent is a directory of it, and the root is above all.
    pub fn check(&self) -> Result<(), TreeError> {
        let mut sound = BTreeSet::from([EntryId::ROOT]);
        for id in self.entries.keys() {
            let mut path = Vec::new();
            let mut at = *id;
            while !sound.contains(&at) {
                if path.contains(&at) {
                    return Err(TreeError::Cycle(at));
                }
                path.push(at);
                at = self.parent_directory(at)?;
            }
            sound.extend(path);
        }
        Ok(())
    }

    fn parent_directory(&self, id: EntryId) -> Result<EntryId, TreeError> {
        let parent = self.get(id).and_then(|placed| self.get(placed.parent));
        match parent {
            Some(parent) if parent.entry.kind == Kind::Directory => Ok(parent.entry.id),
            _ => Err(TreeError::NoParent(id)),
        }
    }
}

impl Tree for MemoryTree {
    type Error = Infallible;

    fn place(&self, id: EntryId) -> Result<Option<Placed>, Infallible> {
        Ok(self.get(id).cloned())
    }

    fn child(&self, directory: EntryId, name: &Name) -> Result<Option<Placed>, Infallible> {
        let id = self.names.get(&directory).and_then(|names| names.get(name));
        Ok(id.and_then(|id| self.get(*id)).cloned())
    }

    fn children(&self, directory: EntryId) -> Result<Vec<Placed>, Infallible> {
        Ok(self.list(directory).cloned().collect())
    }
}
