//! From staging/ into data/.

use super::index::Slot;
use super::partial::{Phase, lock};
use super::{ContentStore, Inner, StoreError};
use crate::hash::hash_file;
use crate::metainfo::Info;
use std::fs::File;
use std::path::Path;

impl ContentStore {
    /// Hashes a file that is no longer written to and moves it into the store; if its content is here
    /// already, the file is removed instead, and whoever was fetching that content has it whole. Not
    /// refused for lack of capacity: the bytes are on this disk already, and acknowledged. It survives
    /// `kill -9` at once, a power cut after [`ContentStore::sync`]. On an error the file is still where it
    /// was, or complete in the store. Blocks for as long as hashing takes.
    pub fn seal(&self, staged: &Path) -> Result<Info, StoreError> {
        let inner = &self.inner;
        let opened = inner.disk.open(staged);
        let file = opened.map_err(StoreError::disk("open", staged))?;
        let info = hash_file(&file).map_err(|source| StoreError::Hash {
            path: staged.into(),
            source,
        })?;
        inner.take_in(staged, file, &info)?;
        Ok(info)
    }
}

impl Inner {
    fn take_in(&self, staged: &Path, file: File, info: &Info) -> Result<(), StoreError> {
        let content = info.info_hash();
        let _shard = lock(self.shard(&content));
        let suspect = lock(&self.index).is_suspect(&content);
        if !suspect && self.open_whole(info)?.is_some() {
            return self.remove_file(staged);
        }
        let live = lock(&self.index).live(&content);
        match (self.move_in(staged, info), live) {
            (Ok(()), live) => {
                if let Err(error) = self.disk.make_read_only(&file) {
                    tracing::debug!("{content} stays writable: {error}");
                }
                live.inspect(|live| live.adopt(file));
                Ok(())
            }
            (Err(error), live) => {
                live.inspect(|live| live.set_phase(Phase::Removed));
                Err(error)
            }
        }
    }

    fn move_in(&self, staged: &Path, info: &Info) -> Result<(), StoreError> {
        let content = info.info_hash();
        let slot_is_partial = matches!(lock(&self.index).get(&content), Some(Slot::Partial(_)));
        if slot_is_partial {
            // Gone before the whole file comes, each step synced: at no moment does the whole file have a
            // `.have` beside it that says it is incomplete.
            self.remove_partial_files(&content)?;
            self.sync_directory(&content)?;
        }
        self.make_directory(&content)?;
        let path = self.path(&content);
        self.disk
            .rename(staged, &path)
            .map_err(StoreError::disk("rename to", path))?;
        lock(&self.index).insert_unsynced(content, info.length());
        Ok(())
    }
}
