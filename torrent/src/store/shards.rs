//! The folders of `ROOT/data`: each is made when the first content comes into it.

use super::{Inner, StoreError};
use delugefs_core::ids::InfoHash;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// One folder `ab`, and the lock for changing its contents.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) changing: Mutex<()>,
    is_made: AtomicBool,
    /// Its own name in `data/` survives a power cut.
    is_durable: AtomicBool,
}

/// All that there can be.
#[derive(Debug)]
pub(crate) struct Shards(Vec<Shard>);

impl Default for Shards {
    fn default() -> Self {
        Self((0..=u8::MAX).map(|_| Shard::default()).collect())
    }
}

impl Shards {
    pub(crate) fn of(&self, content: &InfoHash) -> &Shard {
        &self.0[usize::from(content.as_bytes()[0])]
    }

    /// This folder was there at the start.
    pub(crate) fn found(&self, shard: u8) {
        self.0[usize::from(shard)]
            .is_made
            .store(true, Ordering::Relaxed);
    }

    /// All folders that there are survive a power cut.
    pub(crate) fn are_durable(&self) {
        for shard in &self.0 {
            let is_made = shard.is_made.load(Ordering::Relaxed);
            shard.is_durable.store(is_made, Ordering::Relaxed);
        }
    }
}

/// A folder's name.
pub(crate) fn name(shard: u8) -> String {
    format!("{shard:02x}")
}

/// Which folder has this name.
pub(crate) fn parse(found: &str) -> Option<u8> {
    let shard = u8::from_str_radix(found, 16).ok();
    shard.filter(|shard| name(*shard) == found)
}

impl Inner {
    pub(super) fn shard(&self, content: &InfoHash) -> &Mutex<()> {
        &self.shards.of(content).changing
    }

    pub(super) fn directory(&self, content: &InfoHash) -> PathBuf {
        self.data.join(name(content.as_bytes()[0]))
    }

    /// Makes the folder that a content is about to come into. The caller holds its shard.
    pub(super) fn make_directory(&self, content: &InfoHash) -> Result<(), StoreError> {
        let shard = self.shards.of(content);
        if shard.is_made.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = self.directory(content);
        let made = self.disk.create_directory(&path);
        made.map_err(StoreError::disk("create", path))?;
        shard.is_made.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The names in a content's folder survive a power cut, and so does the folder.
    pub(super) fn sync_directory(&self, content: &InfoHash) -> Result<(), StoreError> {
        let shard = self.shards.of(content);
        let path = self.directory(content);
        let synced = self.disk.sync_directory(&path);
        synced.map_err(StoreError::disk("sync", path))?;
        if !shard.is_durable.load(Ordering::Relaxed) {
            let synced = self.disk.sync_directory(&self.data);
            synced.map_err(StoreError::disk("sync", &self.data))?;
            shard.is_durable.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
