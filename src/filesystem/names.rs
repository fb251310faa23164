//! Operations on names: lookup, mkdir, mknod, symlink, unlink, rmdir, rename.

use super::inode::{Node, Place};
use super::namespace::parse;
use super::pending::content;
use super::staging::Staged;
use super::state::{Plan, State, Target};
use super::{Caller, Filesystem, FsError, Inode, NewNode, RenameMode, Stat};
use delugefs_core::entry::{Attributes, Content, Entry, File, Kind, Written};
use delugefs_core::limits::SYMLINK_BYTES_MAX;
use delugefs_core::name::Name;

/// The set-group-id bit: on a directory, what is made in it gets its group.
const SET_GID: u16 = 0o2000;

/// The mode of every symbolic link.
const SYMLINK_MODE: u16 = 0o777;

/// The bits that a mode may have.
pub(super) const MODE_BITS: u16 = 0o7777;

impl Filesystem {
    /// Finds a name; counts one more reference of the kernel to the inode.
    pub fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Stat, FsError> {
        let name = parse(name)?;
        let mut state = self.lock();
        let inode = state.names.child(parent, &name)?;
        state.answer_entry(inode.ok_or(FsError::NotFound)?)
    }

    /// The parent of a directory (for `..`); the root's is itself.
    pub fn parent(&self, inode: Inode) -> Result<Inode, FsError> {
        let state = self.lock();
        let place = state.names.node(inode)?.place.as_ref();
        Ok(place.map_or(inode, |(parent, _)| *parent))
    }

    /// Counts one more reference of the kernel (entries of readdirplus, except `.` and `..`).
    pub fn remember(&self, inode: Inode) -> Result<Stat, FsError> {
        self.lock().answer_entry(inode)
    }

    /// The kernel drops `count` references.
    pub fn forget(&self, inode: Inode, count: u64) {
        let mut state = self.lock();
        if let Ok(node) = state.names.node_mut(inode) {
            node.lookups = node.lookups.saturating_sub(count);
            state.names.drop_unused(inode);
        }
    }

    /// `readlink`
    pub fn read_link(&self, inode: Inode) -> Result<Vec<u8>, FsError> {
        match &self.lock().names.node(inode)?.entry.kind {
            Kind::Symlink(target) => Ok(target.clone()),
            _ => Err(FsError::Invalid),
        }
    }

    /// `mkdir`; counts a reference, as all that answer an entry do.
    pub fn make_directory(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u16,
        caller: Caller,
    ) -> Result<Stat, FsError> {
        let mut state = self.lock();
        let place = state.free_place(parent, name)?;
        let inherited = state.names.node(parent)?.entry.attributes.mode & SET_GID;
        state.make(place, Kind::Directory, mode | inherited, caller)
    }

    /// `mknod`
    pub fn make_node(
        &self,
        parent: Inode,
        name: &[u8],
        node: NewNode,
        mode: u16,
        caller: Caller,
    ) -> Result<Stat, FsError> {
        let kind = match node {
            NewNode::File => Kind::File(File {
                content: Content::Inline(Vec::new()),
                previous: Vec::new(),
            }),
            NewNode::Fifo => Kind::Fifo,
            NewNode::Socket => Kind::Socket,
            NewNode::CharacterDevice(rdev) => Kind::CharacterDevice(rdev),
            NewNode::BlockDevice(rdev) => Kind::BlockDevice(rdev),
        };
        let mut state = self.lock();
        let place = state.free_place(parent, name)?;
        state.make(place, kind, mode, caller)
    }

    /// `symlink`
    pub fn symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Stat, FsError> {
        if target.len() > SYMLINK_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        if target.is_empty() {
            return Err(FsError::NotFound);
        }
        let mut state = self.lock();
        let place = state.free_place(parent, name)?;
        state.make(place, Kind::Symlink(target.to_vec()), SYMLINK_MODE, caller)
    }

    /// `link`: not offered yet.
    pub fn link(&self, _inode: Inode, _parent: Inode, _name: &[u8]) -> Result<Stat, FsError> {
        Err(FsError::NotSupported)
    }

    /// `unlink`
    pub fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), FsError> {
        let name = parse(name)?;
        let mut state = self.lock();
        let inode = state.names.child(parent, &name)?.ok_or(FsError::NotFound)?;
        if state.names.node(inode)?.is_directory() {
            return Err(FsError::IsDirectory);
        }
        state.remove(inode, parent)
    }

    /// `rmdir`
    pub fn remove_directory(&self, parent: Inode, name: &[u8]) -> Result<(), FsError> {
        let name = parse(name)?;
        let mut state = self.lock();
        let inode = state.names.child(parent, &name)?.ok_or(FsError::NotFound)?;
        if !state.names.children(inode)?.is_empty() {
            return Err(FsError::NotEmpty);
        }
        state.remove(inode, parent)
    }

    /// `renameat2`. What would be shown after a power cut that keeps this rename is synced first, where something would be
    /// lost otherwise: as ext4 does, and for a new name alone never. Blocks then.
    pub fn rename(
        &self,
        from: (Inode, &[u8]),
        to: (Inode, &[u8]),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let from = (from.0, parse(from.1)?);
        let to = (to.0, parse(to.1)?);
        loop {
            let mut state = self.lock();
            let Some(successor) = state.unsynced_successor(&from, &to, mode)? else {
                return state.rename(&from, to, mode);
            };
            drop(state);
            self.sync_bytes(successor)?;
        }
    }
}

impl State {
    /// Answers an entry to the kernel, which holds a reference to it from now on.
    pub(super) fn answer_entry(&mut self, inode: Inode) -> Result<Stat, FsError> {
        let stat = self.stat(inode)?;
        self.names.node_mut(inode)?.lookups += 1;
        Ok(stat)
    }

    pub(super) fn stat(&mut self, inode: Inode) -> Result<Stat, FsError> {
        if self.names.node(inode)?.is_directory() {
            self.names.load(inode)?;
        }
        self.names.node(inode)?.stat(inode)
    }

    /// A name in a directory that exists, and is free.
    pub(super) fn free_place(&mut self, parent: Inode, name: &[u8]) -> Result<Place, FsError> {
        let name = parse(name)?;
        if self.names.child(parent, &name)?.is_some() {
            return Err(FsError::Exists);
        }
        self.check_takes(parent)?;
        Ok((parent, name))
    }

    /// Something can come into this directory: it is not removed, nor too deep.
    fn check_takes(&self, directory: Inode) -> Result<(), FsError> {
        let node = self.names.node(directory)?;
        if node.place.is_none() && directory != Inode::ROOT {
            return Err(FsError::NotFound);
        }
        self.names.check_depth(directory)
    }

    /// A new entry that is in no place yet.
    pub(super) fn new_entry(
        &self,
        parent: Inode,
        kind: Kind,
        mode: u16,
        caller: Caller,
    ) -> Result<Entry, FsError> {
        let now = self.now();
        let directory = &self.names.node(parent)?.entry.attributes;
        let inherits = directory.mode & SET_GID != 0;
        Ok(Entry {
            id: self.new_id(),
            attributes: Attributes {
                mode: mode & MODE_BITS,
                uid: caller.uid,
                gid: if inherits { directory.gid } else { caller.gid },
                accessed: now,
                modified: now,
                changed: now,
                ..Attributes::default()
            },
            written: Written {
                edits: 1,
                at: now,
                by: self.config.label.clone(),
            },
            kind,
        })
    }

    fn make(
        &mut self,
        place: Place,
        kind: Kind,
        mode: u16,
        caller: Caller,
    ) -> Result<Stat, FsError> {
        let parent = place.0;
        let entry = self.new_entry(parent, kind, mode, caller)?;
        let inode = self.names.insert(Node::new(None, entry.clone(), None));
        let child = Target {
            inode,
            place: Some(place),
            entry,
        };
        let plan = Plan::of(vec![child, self.touched(parent)?]);
        if let Err(error) = self.apply(plan) {
            self.names.drop_unused(inode);
            return Err(error);
        }
        self.answer_entry(inode)
    }

    fn remove(&mut self, inode: Inode, parent: Inode) -> Result<(), FsError> {
        let gone = self.gone(inode)?;
        let plan = Plan::of(vec![gone, self.touched(parent)?]);
        self.apply(plan)?;
        self.let_go(inode);
        Ok(())
    }

    /// An inode that loses its place.
    fn gone(&self, inode: Inode) -> Result<Target, FsError> {
        let mut target = self.target(inode)?;
        target.place = None;
        target.entry.attributes.changed = self.now();
        Ok(target)
    }

    fn rename(&mut self, from: &Place, to: Place, mode: RenameMode) -> Result<(), FsError> {
        let source = self.names.child(from.0, &from.1)?;
        let source = source.ok_or(FsError::NotFound)?;
        let target = self.names.child(to.0, &to.1)?;
        if self.names.is_beneath(to.0, source) {
            return Err(FsError::Invalid);
        }
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists),
            (RenameMode::Exchange, None) => Err(FsError::NotFound),
            (_, Some(target)) if target == source => Ok(()),
            (RenameMode::Exchange, Some(target)) => self.exchange(source, target),
            (_, Some(target)) => {
                self.check_replaceable(source, target)?;
                self.move_to(source, to, Some(target))
            }
            (_, None) => {
                self.check_takes(to.0)?;
                self.move_to(source, to, None)
            }
        }
    }

    /// A file that a power cut may take, if it is to take the place of bytes that it does not take. A staging file may be
    /// lost where it covers committed bytes: then the start shows those, unless it has moved on.
    fn unsynced_successor(
        &mut self,
        from: &Place,
        to: &Place,
        mode: RenameMode,
    ) -> Result<Option<Inode>, FsError> {
        let Some(new) = self.names.child(from.0, &from.1)? else {
            return Ok(None);
        };
        let old = self.names.child(to.0, &to.1)?;
        let exchanged = old.filter(|_| mode == RenameMode::Exchange);
        for moving in [Some(new), exchanged].into_iter().flatten() {
            if self.names.node(moving)?.staged().is_some_and(is_cover) {
                return Ok(Some(moving));
            }
        }
        let Some(old) = old else {
            return Ok(None);
        };
        let (node, old) = (self.names.node(new)?, self.names.node(old)?);
        let is_synced = old.staged().is_some_and(|staged| staged.synced);
        let is_precious = is_synced
            || old.staged().is_some_and(is_cover)
            || old.content().is_some_and(|content| content.length() > 0);
        let is_at_risk = match (node.staged(), content(&node.entry)) {
            (Some(staged), _) => is_synced && !staged.synced,
            (None, Some(content)) => is_precious && !self.ports.contents.is_durable(&content),
            (None, None) => false,
        };
        Ok(is_at_risk.then_some(new))
    }

    fn check_replaceable(&mut self, source: Inode, target: Inode) -> Result<(), FsError> {
        let source = self.names.node(source)?.is_directory();
        match (source, self.names.node(target)?.is_directory()) {
            (true, false) => Err(FsError::NotDirectory),
            (false, true) => Err(FsError::IsDirectory),
            (true, true) if !self.names.children(target)?.is_empty() => Err(FsError::NotEmpty),
            _ => Ok(()),
        }
    }

    fn exchange(&mut self, a: Inode, b: Inode) -> Result<(), FsError> {
        let (mut a, mut b) = (self.target(a)?, self.target(b)?);
        let (Some((parent_a, _)), Some((parent_b, _))) = (&a.place, &b.place) else {
            return Err(FsError::NotFound);
        };
        let parents = (*parent_a, *parent_b);
        if self.names.is_beneath(parents.0, b.inode) {
            return Err(FsError::Invalid);
        }
        std::mem::swap(&mut a.place, &mut b.place);
        let now = self.now();
        a.entry.attributes.changed = now;
        b.entry.attributes.changed = now;
        let mut targets = vec![a, b];
        self.push_touched(&mut targets, parents.0, parents.1)?;
        self.apply(Plan::of(targets))
    }

    fn move_to(
        &mut self,
        source: Inode,
        to: Place,
        replaced: Option<Inode>,
    ) -> Result<(), FsError> {
        let mut moved = self.target(source)?;
        let from = moved.place.as_ref().map_or(to.0, |(parent, _)| *parent);
        let into = to.0;
        moved.place = Some(to);
        moved.entry.attributes.changed = self.now();
        let mut targets = vec![moved];
        if let Some(replaced) = replaced {
            targets.push(self.gone(replaced)?);
        }
        self.push_touched(&mut targets, from, into)?;
        let unborn = self.names.node(source)?.is_unborn();
        let plan = Plan {
            targets,
            replaces: replaced.filter(|_| unborn).map(|old| (source, old)),
            ..Plan::default()
        };
        self.apply(plan)?;
        if let Some(replaced) = replaced {
            self.let_go(replaced);
        }
        Ok(())
    }

    fn push_touched(&self, targets: &mut Vec<Target>, a: Inode, b: Inode) -> Result<(), FsError> {
        targets.push(self.touched(a)?);
        if a != b {
            targets.push(self.touched(b)?);
        }
        Ok(())
    }

    /// The name of an inode, for a message.
    pub(super) fn describe(&self, inode: Inode) -> String {
        let path = self.names.path(inode).unwrap_or_default();
        let names: Vec<String> = path.iter().map(Name::to_string).collect();
        format!("/{}", names.join("/"))
    }
}

/// A power cut may take it, and then what it has replaced is shown again.
fn is_cover(staged: &Staged) -> bool {
    !staged.synced && !staged.replaces.is_empty()
}
