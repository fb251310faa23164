//! What survives a power cut, and whether it did.

use super::check::is_damage;
use super::partial::lock;
use super::{ContentStore, Inner, StoreError};
use crate::hash::{HashError, hash_file};
use crate::metainfo::Info;
use delugefs_core::ids::InfoHash;
use rustix::fs::{Advice, fadvise};
use std::collections::BTreeSet;
use std::io;

/// Up to this many contents are synced one by one; for more, one sync of the whole filesystem is cheaper,
/// though it also writes what others have pending.
const SINGLE_SYNCS_MAX: usize = 16;

/// What a sync achieved.
#[derive(Debug, Default)]
pub struct Synced {
    /// Contents that survive a power cut from now on: they may be announced as held.
    pub durable: Vec<InfoHash>,
    /// Contents of which the disk may have lost bytes: not to be announced before
    /// [`ContentStore::verify`] finds them good.
    pub failed: Vec<(InfoHash, StoreError)>,
}

/// What reading a content again showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes are those its info-hash names.
    Good,
    /// They are not; the caller decides when to remove it (nobody else may have better).
    Damaged,
}

impl ContentStore {
    /// Makes all contents sealed so far survive a power cut, as one group, and tells which. Blocks.
    pub fn sync(&self) -> Synced {
        let inner = &self.inner;
        let _one_group = lock(&inner.syncing);
        let group = lock(&inner.index).unsynced();
        let mut synced = Synced::default();
        let whole =
            group.len() > SINGLE_SYNCS_MAX && inner.disk.sync_filesystem(&inner.data).is_ok();
        let mut there = Vec::new();
        for (content, sealing) in group {
            match whole
                .then_some(())
                .map_or_else(|| inner.sync_content(&content), Ok)
            {
                Ok(()) => there.push((content, sealing)),
                Err(error) => synced.failed.push((content, error)),
            }
        }
        if !whole {
            inner.sync_directories(&mut there, &mut synced);
        }
        let mut index = lock(&inner.index);
        for (content, _) in &synced.failed {
            index.set_suspect(*content);
        }
        there.retain(|(content, sealing)| index.set_durable(content, *sealing));
        synced.durable = there.into_iter().map(|(content, _)| content).collect();
        synced
    }

    /// This content is complete and survives a power cut.
    pub fn is_durable(&self, content: &InfoHash) -> bool {
        lock(&self.inner.index).is_durable(content)
    }

    /// Reads a complete content from the disk, past the page cache as far as the kernel allows, and
    /// compares. Blocks for as long as hashing takes.
    pub fn verify(&self, info: &Info) -> Result<Verdict, StoreError> {
        let content = info.info_hash();
        let file = self.open_content(&content)?;
        let path = self.path(&content);
        self.inner
            .disk
            .sync_data(&file)
            .map_err(StoreError::disk("sync", &path))?;
        // Advice: where it is not taken, the cache is read.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let found = match hash_file(&file) {
            Ok(found) => Some(found),
            Err(HashError::Info(_)) => None,
            Err(source) => return Err(StoreError::Hash { path, source }),
        };
        if found.as_ref() != Some(info) {
            return Ok(Verdict::Damaged);
        }
        lock(&self.inner.index).clear_suspect(&content);
        Ok(Verdict::Good)
    }

    /// Reads a complete content whose descriptor is not at hand: whether its bytes are those its info-hash names. Bytes
    /// that the disk cannot give are not. Blocks for as long as hashing takes.
    pub fn is_named_right(&self, content: &InfoHash) -> Result<bool, StoreError> {
        let path = self.path(content);
        let file = self.open_content(content)?;
        // Advice: where it is not taken, the cache is read.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        match hash_file(&file) {
            Ok(found) if found.info_hash() == *content => {
                lock(&self.inner.index).clear_suspect(content);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(HashError::Info(_)) => Ok(false),
            Err(HashError::Read(error)) if is_damage(&error) => Ok(false),
            Err(source) => Err(StoreError::Hash { path, source }),
        }
    }
}

impl Inner {
    fn sync_content(&self, content: &InfoHash) -> Result<(), StoreError> {
        let path = self.path(content);
        let synced = self
            .disk
            .open(&path)
            .and_then(|file| self.disk.sync_data(&file));
        match synced {
            // Removed meanwhile, or taken away: either way the index will not call it durable.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.vanished(content);
                Ok(())
            }
            other => other.map_err(StoreError::disk("sync", path)),
        }
    }

    fn sync_directories(&self, there: &mut Vec<(InfoHash, u64)>, synced: &mut Synced) {
        let shards: BTreeSet<u8> = there.iter().map(|(c, _)| c.as_bytes()[0]).collect();
        for shard in shards {
            let of_shard = |(content, _): &(InfoHash, u64)| content.as_bytes()[0] == shard;
            let Some((first, _)) = there.iter().copied().find(of_shard) else {
                continue;
            };
            if let Err(error) = self.sync_directory(&first) {
                there.retain(|entry| !of_shard(entry));
                // The others of this directory stay unsynced and are tried again.
                synced.failed.push((first, error));
            }
        }
    }
}
