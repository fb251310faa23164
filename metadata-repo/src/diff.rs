//! The difference between two trees, by entry id.
//!
//! Walks both trees side by side and skips whatever is the same object. An entry that is gone in one place
//! and has come in another is found by its id; a directory that is only on one side is opened, level by
//! level, until what was in it is found on the other side or known to be new or removed.

use crate::directory::{Child, Directory, child};
use crate::error::{Result, malformed};
use crate::session::Session;
use delugefs_core::change::{Change, Changes};
use delugefs_core::entry::{Entry, Placed};
use delugefs_core::ids::{BlobId, EntryId, TreeId};
use delugefs_core::name::Name;
use gix::ObjectId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ViewDiff {
    /// Every entry that differs. A moved directory's children are not listed, a removed one's are.
    pub changes: Changes,
    /// The descriptor or node of every entry, other than directories, that is new or changed.
    pub blobs: BTreeMap<EntryId, BlobId>,
    /// Every directory whose tree differs or is new, the root too, with its new tree.
    pub directories: Vec<(EntryId, TreeId)>,
}

/// An entry in one of the two trees.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) placed: Placed,
    /// A directory's tree, or the blob.
    pub(crate) object: ObjectId,
    is_tree: bool,
    expanded: bool,
}

/// Entries met in one of the two trees.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) found: BTreeMap<EntryId, Found>,
    /// Directories that the other side may lack.
    queue: VecDeque<EntryId>,
}

/// Both sides, as far as they had to be walked: all that differs, and every directory above it.
#[derive(Debug, Default)]
pub(crate) struct Sides {
    pub(crate) from: Side,
    pub(crate) to: Side,
}

/// The root as an entry; its place has no meaning.
pub(crate) fn placed_root(entry: Entry) -> Result<Placed> {
    let name = Name::parse(b"root").map_err(|error| malformed("the root", error.to_string()))?;
    Ok(Placed {
        parent: EntryId::ROOT,
        name,
        entry,
    })
}

/// Walks two trees.
pub(crate) fn sides(session: &Session<'_>, from: ObjectId, to: ObjectId) -> Result<Sides> {
    let mut walk = Walk {
        session,
        sides: [Side::default(), Side::default()],
        matched: Vec::new(),
    };
    walk.add_root(0, from)?;
    walk.add_root(1, to)?;
    walk.run()?;
    let [from, to] = walk.sides;
    Ok(Sides { from, to })
}

struct Walk<'s, 'r> {
    session: &'s Session<'r>,
    sides: [Side; 2],
    /// Directories that are on both sides and not yet compared.
    matched: Vec<EntryId>,
}

impl Walk<'_, '_> {
    fn run(&mut self) -> Result<()> {
        loop {
            while let Some(id) = self.matched.pop() {
                self.settle(id)?;
            }
            // New directories first: what was moved into one is then not taken for removed.
            let side = if self.sides[1].queue.is_empty() { 0 } else { 1 };
            self.expand_level(side)?;
            self.expand_level(1 - side)?;
            if self.matched.is_empty() && self.sides.iter().all(|side| side.queue.is_empty()) {
                return Ok(());
            }
        }
    }

    fn expand_level(&mut self, side: usize) -> Result<()> {
        while self.matched.is_empty() {
            let Some(id) = self.sides[side].queue.pop_front() else {
                return Ok(());
            };
            if !self.sides[1 - side].found.contains_key(&id) {
                return self.expand(side, id);
            }
        }
        Ok(())
    }

    /// A directory that is on both sides.
    fn settle(&mut self, id: EntryId) -> Result<()> {
        let [Some(from), Some(to)] = [0, 1].map(|side| self.sides[side].found.get(&id)) else {
            return Ok(());
        };
        match (from.expanded, to.expanded) {
            (true, true) => Ok(()),
            (true, false) => self.expand(1, id),
            (false, true) => self.expand(0, id),
            (false, false) if from.object == to.object => Ok(()),
            (false, false) => {
                let trees = [from.object, to.object];
                self.compare(id, trees)
            }
        }
    }

    fn compare(&mut self, id: EntryId, trees: [ObjectId; 2]) -> Result<()> {
        let [from, to] = trees.map(|tree| Directory::open(self.session, tree));
        let (gone, come) = from?.differences(self.session, &to?)?;
        for (side, items) in [gone, come].into_iter().enumerate() {
            for item in items {
                let child = child(self.session, item)?;
                self.add(side, id, child)?;
            }
        }
        Ok(())
    }

    /// Adds all that is in a directory.
    fn expand(&mut self, side: usize, id: EntryId) -> Result<()> {
        let Some(found) = self.sides[side].found.get_mut(&id) else {
            return Ok(());
        };
        found.expanded = true;
        let directory = Directory::open(self.session, found.object)?;
        for child in directory.children(self.session)? {
            self.add(side, id, child)?;
        }
        Ok(())
    }

    fn add_root(&mut self, side: usize, tree: ObjectId) -> Result<()> {
        let entry = Directory::open(self.session, tree)?.meta.entry.clone();
        if entry.id != EntryId::ROOT {
            return Err(malformed(tree, "not the root of a volume"));
        }
        let placed = placed_root(entry)?;
        self.insert(side, placed, tree, true)
    }

    fn add(&mut self, side: usize, parent: EntryId, child: Child) -> Result<()> {
        let Child { item, name, meta } = child;
        let entry = meta.entry.clone();
        self.insert(
            side,
            Placed {
                parent,
                name,
                entry,
            },
            item.id,
            item.is_tree,
        )
    }

    fn insert(
        &mut self,
        side: usize,
        placed: Placed,
        object: ObjectId,
        is_tree: bool,
    ) -> Result<()> {
        let id = placed.entry.id;
        let found = Found {
            placed,
            object,
            is_tree,
            expanded: false,
        };
        if self.sides[side].found.insert(id, found).is_some() {
            return Err(malformed(object, format!("the entry {id} is there twice")));
        }
        if is_tree && self.sides[1 - side].found.contains_key(&id) {
            self.matched.push(id);
        } else if is_tree {
            self.sides[side].queue.push_back(id);
        }
        Ok(())
    }
}

impl Sides {
    /// The ids on either side.
    fn ids(&self) -> BTreeSet<EntryId> {
        self.from
            .found
            .keys()
            .chain(self.to.found.keys())
            .copied()
            .collect()
    }

    /// Entries that differ.
    pub(crate) fn changes(&self) -> Changes {
        let place = |side: &Side, id| side.found.get(&id).map(|found| found.placed.clone());
        let change = |id| Change {
            before: place(&self.from, id),
            after: place(&self.to, id),
        };
        self.ids().into_iter().map(|id| (id, change(id))).collect()
    }

    pub(crate) fn into_view_diff(self) -> ViewDiff {
        let changes = self.changes();
        let mut blobs = BTreeMap::new();
        let mut directories = Vec::new();
        for (id, to) in &self.to.found {
            let object = to.object.as_slice();
            if !to.is_tree {
                let blob = changes.get(*id).and_then(|_| BlobId::from_slice(object));
                blobs.extend(blob.map(|blob| (*id, blob)));
            } else if self
                .from
                .found
                .get(id)
                .is_none_or(|from| from.object != to.object)
            {
                directories.extend(TreeId::from_slice(object).map(|tree| (*id, tree)));
            }
        }
        ViewDiff {
            changes,
            blobs,
            directories,
        }
    }
}
