//! Open files and directories.

use super::{DirectoryEntry, FsError, HandleId, Inode};
use std::collections::HashMap;
use std::sync::Arc;

/// What a handle is open on, and for.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) inode: Inode,
    pub(super) kind: HandleKind,
}

#[derive(Debug, Clone)]
pub(super) enum HandleKind {
    File {
        read: bool,
        write: bool,
        append: bool,
        execute: bool,
    },
    /// A directory, with the listing that is being read.
    Directory(Option<Arc<Vec<DirectoryEntry>>>),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: HashMap<HandleId, Handle>,
    next: u64,
}

impl Handles {
    pub(super) fn insert(&mut self, handle: Handle) -> HandleId {
        self.next += 1;
        self.open.insert(HandleId(self.next), handle);
        HandleId(self.next)
    }

    pub(super) fn get(&self, id: HandleId) -> Result<&Handle, FsError> {
        self.open.get(&id).ok_or(FsError::BadHandle)
    }

    pub(super) fn get_mut(&mut self, id: HandleId) -> Result<&mut Handle, FsError> {
        self.open.get_mut(&id).ok_or(FsError::BadHandle)
    }

    pub(super) fn remove(&mut self, id: HandleId) -> Option<Handle> {
        self.open.remove(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
