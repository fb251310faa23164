//! Reading directories: a listing is taken when reading starts, and stays as it was until it is read again.

use super::handles::{Handle, HandleKind};
use super::inode::file_type;
use super::state::State;
use super::{DirectoryEntry, FileType, Filesystem, FsError, HandleId, Inode};
use std::sync::Arc;

impl Filesystem {
    /// `opendir`
    pub fn open_directory(&self, inode: Inode) -> Result<HandleId, FsError> {
        let mut state = self.lock();
        state.names.load(inode)?;
        state.names.node_mut(inode)?.handles += 1;
        Ok(state.handles.insert(Handle {
            inode,
            kind: HandleKind::Directory(None),
        }))
    }

    /// The names from `offset` on (0: from the start, afresh), at most `limit` of them. `.` and `..` first.
    pub fn read_directory(
        &self,
        handle: HandleId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<DirectoryEntry>, FsError> {
        let listing = self.lock().listing(handle, offset)?;
        let from = listing.len().min(offset as usize);
        Ok(listing[from..].iter().take(limit).cloned().collect())
    }
}

impl State {
    fn listing(
        &mut self,
        handle: HandleId,
        offset: u64,
    ) -> Result<Arc<Vec<DirectoryEntry>>, FsError> {
        let Handle { inode, kind } = self.handles.get(handle)?.clone();
        let HandleKind::Directory(listing) = kind else {
            return Err(FsError::NotDirectory);
        };
        if offset > 0
            && let Some(listing) = listing
        {
            return Ok(listing);
        }
        let listing = Arc::new(self.list(inode)?);
        self.handles.get_mut(handle)?.kind = HandleKind::Directory(Some(Arc::clone(&listing)));
        Ok(listing)
    }

    fn list(&mut self, inode: Inode) -> Result<Vec<DirectoryEntry>, FsError> {
        let place = self.names.node(inode)?.place.as_ref();
        let parent = place.map_or(inode, |(parent, _)| *parent);
        let mut listing = vec![
            line(b".", inode, FileType::Directory),
            line(b"..", parent, FileType::Directory),
        ];
        let children = self.names.children(inode)?;
        let children: Vec<_> = children.iter().map(|(n, i)| (n.clone(), *i)).collect();
        for (name, child) in children {
            // the kernel refuses a listing with a name that has a slash
            if name.is_shared() {
                continue;
            }
            let kind = file_type(&self.names.node(child)?.entry.kind);
            listing.push(line(name.as_bytes(), child, kind));
        }
        for (entry, next) in listing.iter_mut().zip(1..) {
            entry.next = next;
        }
        Ok(listing)
    }
}

fn line(name: &[u8], inode: Inode, kind: FileType) -> DirectoryEntry {
    DirectoryEntry {
        next: 0,
        name: name.to_vec(),
        inode,
        kind,
    }
}
