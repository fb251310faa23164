//! What makes acknowledged things survive a power cut: one sync of the journal serves all who wait for it.

use super::journal::Record;
use super::{Filesystem, FsError, HandleId, Inode};
use std::fs::File;
use std::sync::{Arc, PoisonError};

impl Filesystem {
    /// `fsync`: bytes and names survive a power cut on this disk. Blocks.
    pub fn sync(&self, handle: HandleId) -> Result<(), FsError> {
        let inode = self.lock().handle_inode(handle)?;
        if !self.sync_file(inode)? {
            self.sync_contents()?;
        }
        self.sync_journal()
    }

    /// `fsync` of a directory: its names, and the files that are closed in it, survive a power cut on this disk. Blocks.
    pub fn sync_directory(&self, inode: Inode) -> Result<(), FsError> {
        let children: Vec<Inode> = {
            let state = self.lock();
            let names = state.names.loaded(inode);
            names.map_or_else(Vec::new, |names| names.values().copied().collect())
        };
        self.sync_files(children)
    }

    /// Makes all that was acknowledged survive a power cut. Blocks.
    pub fn sync_all(&self) -> Result<(), FsError> {
        let all = self.lock().names.iter().map(|(inode, _)| inode).collect();
        self.sync_files(all)
    }

    /// Lets go of staging files that only wait for the journal to be on the disk. Blocks, when there are any.
    pub fn sync_leaving(&self) -> Result<(), FsError> {
        let none = self.lock().leaving.is_empty();
        if none { Ok(()) } else { self.sync_journal() }
    }

    fn sync_files(&self, mut inodes: Vec<Inode>) -> Result<(), FsError> {
        inodes.sort_unstable();
        for inode in inodes {
            self.sync_file(inode)?;
        }
        // what was hashed already, or meanwhile
        self.sync_contents()?;
        self.sync_journal()
    }

    /// Makes what has left its staging file durable.
    pub(super) fn sync_contents(&self) -> Result<(), FsError> {
        let contents = Arc::clone(&self.lock().ports.contents);
        contents.sync()
    }

    /// Makes a staging file durable. Whether the file still has it: if not, its bytes are a content.
    fn sync_file(&self, inode: Inode) -> Result<bool, FsError> {
        let Some((file, staging)) = self.staged_file(inode) else {
            return Ok(false);
        };
        file.sync_data()?;
        let mut state = self.lock();
        let Ok(node) = state.names.node(inode) else {
            return Ok(false);
        };
        let (id, attached) = (node.entry.id, node.place.is_some());
        let Some(staged) = node.staged().filter(|s| Arc::ptr_eq(&s.file, &file)) else {
            return Ok(false);
        };
        if !staged.synced && attached {
            staging.sync_folder()?;
            state.append(Record {
                synced: vec![id],
                ..Record::default()
            })?;
            if let Some(staged) = state.names.node_mut(inode)?.staged_mut() {
                staged.synced = true;
            }
        }
        Ok(true)
    }

    fn staged_file(&self, inode: Inode) -> Option<(Arc<File>, super::staging::Staging)> {
        let state = self.lock();
        let staged = state.names.node(inode).ok()?.staged()?;
        Some((Arc::clone(&staged.file), state.staging.clone()))
    }

    fn sync_journal(&self) -> Result<(), FsError> {
        let wanted = self.lock().journal.sequence();
        let mut durable = self
            .0
            .durable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *durable >= wanted {
            return Ok(());
        }
        let (file, sequence, publishing) = {
            let state = self.lock();
            // a sync after one that failed says nothing: the kernel has forgotten what it could not write
            state.check_publishing()?;
            let publishing = state.ports.publishing.clone();
            (state.journal.file(), state.journal.sequence(), publishing)
        };
        if let Err(error) = file.sync_data() {
            publishing.stop(format!(
                "the journal of this disk cannot be synced: {error}"
            ));
            return Err(error.into());
        }
        *durable = sequence;
        self.lock().is_durable_to(sequence);
        Ok(())
    }
}
