//! Contents of one piece while they arrive: they are here or they are not, so there is nothing to resume and no
//! `.have` to keep. The bytes come into a temporary file, which is renamed when they are verified and synced with the
//! next group. A tree of small files is fetched without waiting for the disk at each of them.

use super::index::{PartialSlot, Slot};
use super::partial::{PartialContent, lock};
use super::{Inner, StoreError, scan};
use crate::metainfo::Info;
use delugefs_core::ids::InfoHash;
use std::path::Path;
use std::sync::Arc;

impl Inner {
    /// Begins to fetch a content of one piece. The caller holds its shard.
    pub(super) fn open_loose(
        self: &Arc<Self>,
        info: &Info,
    ) -> Result<Arc<PartialContent>, StoreError> {
        let (content, length) = (info.info_hash(), info.length());
        self.make_directory(&content)?;
        let place = scan::temporary(&self.path(&content));
        let data = self.open_writable(&place)?;
        self.disk
            .set_length(&data, length)
            .map_err(StoreError::disk("extend", &place))?;
        let partial = Arc::new(PartialContent::loose(self.clone(), info, data, place));
        let slot = PartialSlot {
            length,
            live: Arc::downgrade(&partial),
            loose: true,
        };
        lock(&self.index).insert(content, Slot::Partial(Box::new(slot)));
        Ok(partial)
    }

    /// Makes a verified content one of the store's. The caller holds its shard.
    pub(super) fn keep_loose(
        &self,
        content: &InfoHash,
        length: u64,
        place: &Path,
    ) -> Result<(), StoreError> {
        let path = self.path(content);
        self.disk
            .rename(place, &path)
            .map_err(StoreError::disk("rename to", &path))?;
        lock(&self.index).insert_unsynced(*content, length);
        Ok(())
    }

    /// A handle that is just going away must not take the file of the next one with it. The caller holds the shard.
    pub(super) fn forget_abandoned(&self, content: &InfoHash) {
        let mut index = lock(&self.index);
        if index.is_abandoned(content) {
            index.remove(content);
        }
    }

    /// Whoever fetched a content gives it up. Under the index's lock, for the shard's may be held by who drops.
    pub(super) fn drop_loose(&self, partial: &PartialContent, place: &Path) {
        let content = partial.info().info_hash();
        let mut index = lock(&self.index);
        if !index.is_fetched_by(&content, partial) {
            return;
        }
        index.remove(&content);
        if let Err(error) = self.disk.remove(place) {
            tracing::debug!("{content} leaves a temporary file until the next start: {error}");
        }
    }
}
