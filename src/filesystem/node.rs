//! The node's side: groups on their way into commits, and what other parts may ask.

use super::journal::Record;
use super::pending::content;
use super::staging::Phase;
use super::state::State;
use super::{BaseView, Filesystem, FsError, Group, Inode, Recovered, Status};
use delugefs_core::entry::Placed;
use delugefs_core::ids::{EntryId, InfoHash};
use delugefs_core::name::Name;
use std::collections::{BTreeMap, BTreeSet};

impl Filesystem {
    /// The committed tree that the names shown are based on. When the node's view is another: `rebase`.
    pub fn base(&self) -> BaseView {
        self.lock().pending.base.clone()
    }

    /// Takes what waits to be committed, if anything; give it back with `committed` or `return_group`. One
    /// group at a time.
    pub fn take_group(&self) -> Option<Group> {
        let mut state = self.lock();
        if state.pending.is_in_flight() {
            return None;
        }
        let group = state.group()?;
        state.pending.sent(group.clone());
        Some(group)
    }

    /// The group is in a commit whose tree is exactly the group's base with its changes.
    pub fn committed(&self, view: BaseView) -> Result<(), FsError> {
        let mut state = self.lock();
        state.pending.committed(view.clone());
        let base = Some((view, state.pending.base_sequence));
        let told = state.append(Record {
            base,
            ..Record::default()
        });
        if !state.pending.is_empty() {
            state.ports.events.pending();
        }
        told
    }

    /// The group could not be committed; it waits again, without a new event.
    pub fn return_group(&self) {
        self.lock().pending.returned();
    }

    /// The entry behind an inode; the root's place is in itself, under an arbitrary name.
    pub fn entry(&self, inode: Inode) -> Result<Placed, FsError> {
        self.lock().names.placed(inode).ok_or(FsError::NotFound)
    }

    /// The path of an entry from the root, for messages; `None` if it is not loaded.
    pub fn path(&self, id: EntryId) -> Option<Vec<Name>> {
        let state = self.lock();
        state.names.path(state.names.inode_of(id)?)
    }

    /// The path of a file with this content, from the root, for messages; `None` if none is loaded.
    pub fn path_of_content(&self, info_hash: &InfoHash) -> Option<Vec<Name>> {
        let state = self.lock();
        let mut nodes = state.names.iter();
        nodes.find_map(|(inode, node)| {
            let same = content(&node.entry).as_ref() == Some(info_hash);
            same.then(|| state.names.path(inode)).flatten()
        })
    }

    /// Finds an entry by its path from the root; takes no reference.
    pub fn find(&self, path: &[Name]) -> Result<(Inode, Placed), FsError> {
        let mut state = self.lock();
        let mut at = Inode::ROOT;
        for name in path {
            at = state.names.child(at, name)?.ok_or(FsError::NotFound)?;
        }
        let placed = state.names.placed(at).ok_or(FsError::NotFound)?;
        Ok((at, placed))
    }

    /// Contents that open handles or uncommitted changes need.
    pub fn contents_in_use(&self) -> BTreeSet<InfoHash> {
        let state = self.lock();
        let mut contents = state.pending.contents();
        for (_, node) in state.names.iter() {
            if node.handles > 0 || node.staged().is_some() {
                contents.extend(content(&node.entry));
            }
        }
        contents
    }

    /// The raw `info` dictionaries of contents that no commit names yet.
    pub fn uncommitted_infos(&self) -> BTreeMap<InfoHash, Vec<u8>> {
        self.lock().pending.all().1
    }

    /// What the start found to be done.
    pub fn recovered(&self) -> Recovered {
        self.lock().recovered
    }

    /// How much work is under way.
    pub fn status(&self) -> Status {
        let state = self.lock();
        let mut status = Status {
            uncommitted: state.pending.len(),
            handles: state.handles.len(),
            journal_bytes: state.journal.length(),
            ..Status::default()
        };
        for (_, node) in state.names.iter() {
            match node.staged().map(|staged| staged.phase) {
                Some(Phase::Writing) => status.writing += 1,
                Some(Phase::Unsealed | Phase::Sealing) => status.unsealed += 1,
                None => {}
            }
        }
        status
    }
}

impl State {
    /// What waits, with the places of the directories that it mentions.
    pub(super) fn group(&self) -> Option<Group> {
        let mut group = self.pending.group(self.journal.sequence())?;
        for (_, change) in group.changes.iter() {
            for placed in [&change.before, &change.after].into_iter().flatten() {
                self.names.ancestors(placed.parent, &mut group.places);
            }
        }
        Some(group)
    }
}
