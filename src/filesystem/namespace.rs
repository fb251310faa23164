//! The names in memory: every directory that anyone has looked into, in its present state.
//!
//! Invariant: beneath an unloaded directory nothing has been changed here. Every attached inode is in its
//! parent's map under its name, and in the index under its entry's id; a detached one is in neither.

use super::inode::{Body, Children, Node, Place, placed};
use super::{FsError, Inode, Names};
use delugefs_core::entry::{Entry, Kind, Placed};
use delugefs_core::ids::{EntryId, TreeId};
use delugefs_core::name::{Name, NameError};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Deepest nesting that is followed upwards: far beyond what there is, so that damage ends the walk.
const FOLLOWED_MAX: usize = 1 << 24;

/// Directories within one another in which something can be made: as many as a path can name. Each change writes all
/// that lie above it, and stock git goes no deeper.
pub(super) const DEPTH_MAX: usize = 2048;

/// All inodes.
pub(super) struct Namespace {
    nodes: HashMap<Inode, Node>,
    index: HashMap<EntryId, Inode>,
    next: u64,
    names: Arc<dyn Names>,
}

impl Namespace {
    pub(super) fn new(names: Arc<dyn Names>, tree: TreeId, root: Entry) -> Self {
        let node = Node::new(None, root, Some(tree));
        Self {
            nodes: HashMap::from([(Inode::ROOT, node)]),
            index: HashMap::from([(EntryId::ROOT, Inode::ROOT)]),
            next: Inode::ROOT.0 + 1,
            names,
        }
    }

    pub(super) fn node(&self, inode: Inode) -> Result<&Node, FsError> {
        self.nodes.get(&inode).ok_or(FsError::NotFound)
    }

    pub(super) fn node_mut(&mut self, inode: Inode) -> Result<&mut Node, FsError> {
        self.nodes.get_mut(&inode).ok_or(FsError::NotFound)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Inode, &Node)> {
        self.nodes.iter().map(|(inode, node)| (*inode, node))
    }

    /// The attached inode of an entry, if it is loaded.
    pub(super) fn inode_of(&self, id: EntryId) -> Option<Inode> {
        self.index.get(&id).copied()
    }

    /// A directory's names, loaded when needed.
    pub(super) fn children(&mut self, inode: Inode) -> Result<&BTreeMap<Name, Inode>, FsError> {
        self.load(inode)?;
        self.loaded(inode).ok_or(FsError::NotDirectory)
    }

    /// A directory's names, if they are loaded.
    pub(super) fn loaded(&self, inode: Inode) -> Option<&BTreeMap<Name, Inode>> {
        match &self.nodes.get(&inode)?.body {
            Body::Directory(Children::Loaded { names, .. }) => Some(names),
            _ => None,
        }
    }

    /// What a name means.
    pub(super) fn child(&mut self, parent: Inode, name: &Name) -> Result<Option<Inode>, FsError> {
        Ok(self.children(parent)?.get(name).copied())
    }

    /// Loads a directory that is not.
    pub(super) fn load(&mut self, inode: Inode) -> Result<(), FsError> {
        let tree = match &self.node(inode)?.body {
            Body::Directory(Children::Unloaded(tree)) => *tree,
            Body::Directory(Children::Loaded { .. }) => return Ok(()),
            _ => return Err(FsError::NotDirectory),
        };
        let listed = self.names.directory(tree)?;
        self.node_mut(inode)?.body = Body::Directory(Children::none());
        for one in listed {
            if self.index.contains_key(&one.entry.id) {
                tracing::warn!(id = %one.entry.id, name = %one.name, "an entry is listed twice");
                continue;
            }
            let node = Node::new(None, one.entry, one.tree);
            let child = self.insert(node);
            self.attach(child, (inode, one.name));
        }
        Ok(())
    }

    /// A directory that has not been loaded is as in this tree from now on.
    pub(super) fn set_tree(&mut self, inode: Inode, tree: TreeId) {
        if let Some(node) = self.nodes.get_mut(&inode)
            && let Body::Directory(Children::Unloaded(old)) = &mut node.body
        {
            *old = tree;
        }
    }

    /// Adds a detached inode.
    pub(super) fn insert(&mut self, node: Node) -> Inode {
        let inode = Inode(self.next);
        self.next += 1;
        self.nodes.insert(inode, node);
        inode
    }

    /// Gives a detached inode a place whose name is free in a loaded directory.
    pub(super) fn attach(&mut self, inode: Inode, place: Place) {
        let (parent, name) = place.clone();
        let Some(node) = self.nodes.get_mut(&inode) else {
            return;
        };
        node.place = Some(place);
        let is_directory = node.is_directory();
        self.index.insert(node.entry.id, inode);
        let parent = self.nodes.get_mut(&parent).map(|node| &mut node.body);
        if let Some(Body::Directory(Children::Loaded { names, directories })) = parent {
            let occupant = names.insert(name, inode);
            assert!(occupant.is_none(), "attached under a name that is taken");
            *directories += u32::from(is_directory);
        } else {
            panic!("attached in a directory that is not loaded");
        }
    }

    /// Takes an inode from its place; it stays until nobody refers to it.
    pub(super) fn detach(&mut self, inode: Inode) {
        let Some(node) = self.nodes.get_mut(&inode) else {
            return;
        };
        let Some((parent, name)) = node.place.take() else {
            return;
        };
        let is_directory = node.is_directory();
        if self.index.get(&node.entry.id) == Some(&inode) {
            self.index.remove(&node.entry.id);
        }
        let parent = self.nodes.get_mut(&parent).map(|node| &mut node.body);
        if let Some(Body::Directory(Children::Loaded { names, directories })) = parent {
            names.remove(&name);
            *directories -= u32::from(is_directory);
        }
    }

    /// Drops a detached inode that nobody refers to, with all that hangs below it.
    pub(super) fn drop_unused(&mut self, inode: Inode) -> Option<Node> {
        let node = self.nodes.get(&inode)?;
        // who hashes it comes back for it, and then takes its staging file away
        let hashed = node.staged().is_some_and(|staged| !staged.is_idle());
        let used = node.place.is_some() || node.lookups > 0 || node.handles > 0 || hashed;
        if used || inode == Inode::ROOT {
            return None;
        }
        let below: Vec<Inode> = self
            .loaded(inode)
            .map(|names| names.values().copied().collect())
            .unwrap_or_default();
        for child in below {
            self.detach(child);
            self.drop_unused(child);
        }
        self.nodes.remove(&inode)
    }

    /// The entry with its place; `None` for a detached inode. The root's place has no meaning.
    pub(super) fn placed(&self, inode: Inode) -> Option<Placed> {
        let node = self.nodes.get(&inode)?;
        if inode == Inode::ROOT {
            return Some(placed_root(&node.entry));
        }
        let (parent, name) = node.place.as_ref()?;
        let parent = self.nodes.get(parent)?;
        Some(placed(parent.entry.id, name, &node.entry))
    }

    /// Whether `inode` is `ancestor` or beneath it.
    pub(super) fn is_beneath(&self, inode: Inode, ancestor: Inode) -> bool {
        let mut at = inode;
        for _ in 0..FOLLOWED_MAX {
            if at == ancestor {
                return true;
            }
            match self.nodes.get(&at).and_then(|node| node.place.as_ref()) {
                Some((parent, _)) => at = *parent,
                None => return false,
            }
        }
        true
    }

    /// [`FsError::NameTooLong`] where a directory lies too deep for anything to be made in it.
    pub(super) fn check_depth(&self, directory: Inode) -> Result<(), FsError> {
        let mut at = directory;
        for _ in 0..DEPTH_MAX {
            match self.nodes.get(&at).and_then(|node| node.place.as_ref()) {
                Some((parent, _)) => at = *parent,
                None => return Ok(()),
            }
        }
        Err(FsError::NameTooLong)
    }

    /// Where a directory and all its ancestors are, added to `places`.
    pub(super) fn ancestors(&self, id: EntryId, places: &mut BTreeMap<EntryId, (EntryId, Name)>) {
        let mut at = id;
        while at != EntryId::ROOT && !places.contains_key(&at) {
            let Some(found) = self.inode_of(at).and_then(|inode| self.placed(inode)) else {
                return;
            };
            places.insert(at, (found.parent, found.name));
            at = found.parent;
        }
    }

    /// The path of an inode from the root.
    pub(super) fn path(&self, inode: Inode) -> Option<Vec<Name>> {
        let mut path = Vec::new();
        let mut at = inode;
        while at != Inode::ROOT {
            let (parent, name) = self.nodes.get(&at)?.place.as_ref()?;
            path.push(name.clone());
            at = *parent;
            if path.len() > FOLLOWED_MAX {
                return None;
            }
        }
        path.reverse();
        Some(path)
    }
}

/// Checks a name that the kernel gave.
pub(super) fn parse(name: &[u8]) -> Result<Name, FsError> {
    Name::parse(name).map_err(|error| match error {
        NameError::TooLong => FsError::NameTooLong,
        NameError::Invalid => FsError::Invalid,
    })
}

/// The root, as changes speak of it.
pub(super) fn placed_root(entry: &Entry) -> Placed {
    let name = Name::parse(b"root").expect("a valid name");
    placed(EntryId::ROOT, &name, entry)
}

/// A new entry's kind has this type's body; a file starts empty.
pub(super) fn is_file(kind: &Kind) -> bool {
    matches!(kind, Kind::File(_))
}
