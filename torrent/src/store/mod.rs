//! The content store: `ROOT/data/ab/<info-hash>`, one plain file for each content.
//!
//! Invariants, whenever the process stops (tests/crash proves each step):
//!
//! - A file without `.have` beside it is a complete content; it got there by [`ContentStore::seal`]
//!   (hashed, then renamed) or by [`PartialContent::finish`] (all pieces verified, synced). So `.have` is
//!   the first to come and the last to go, each time with a sync of the directory between.
//! - A complete content is never replaced or removed but by [`ContentStore::remove`], or by the same bytes
//!   when its length shows that it is damaged. Damage makes it incomplete ([`ContentStore::set_back`]).
//! - What [`ContentStore::sync`] or [`PartialContent::finish`] called durable survives a power cut. What
//!   was only sealed may be lost or damaged by one: [`ContentStore::verify`] tells.
//!
//! Changes of one content's files happen under its shard's lock, the index is locked for moments only and
//! never during disk work. Order of locks: finishing, shard, index.

mod bitmap;
mod check;
mod disk;
mod error;
pub(crate) mod have;
mod index;
mod loose;
mod partial;
mod scan;
mod seal;
mod shards;
mod sync;

pub use check::{Check, Checked, is_damage};
pub use disk::{Disk, RealDisk};
pub use error::StoreError;
pub use partial::{FLUSH_BYTES, PartialContent, Phase, Written};
pub use scan::Finding;
pub use sync::{Synced, Verdict};

use crate::metainfo::Info;
use delugefs_core::entry::ContentRef;
use delugefs_core::ids::InfoHash;
use have::{Have, SUFFIX};
use index::{Index, PartialSlot, Slot};
use partial::{Files, lock};
use shards::Shards;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Part of the disk that fetching leaves free, so that names, journal and files being written find room.
const RESERVE_DIVISOR: u64 = 50;

/// The reserve never exceeds this many bytes: more does not help on a large disk.
const RESERVE_BYTES_MAX: u64 = 1 << 30;

/// What is here of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Absent,
    /// Some pieces, perhaps none yet; its room is reserved.
    Partial,
    /// All bytes.
    Complete,
}

/// Room for contents, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Most that contents may use.
    pub capacity: u64,
    /// What they use, incomplete ones with their full length.
    pub used: u64,
    /// What may still be fetched: within the capacity, and with the disk's reserve left alone.
    pub free: u64,
}

/// One content on this disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Info-hash, and length: of the file when complete, of the whole content otherwise.
    pub content: ContentRef,
    /// All its bytes are here.
    pub complete: bool,
}

/// The contents on one disk. Cheap to clone; all methods may be called from any thread, and block on the
/// disk where they say so.
#[derive(Debug, Clone)]
pub struct ContentStore {
    inner: Arc<Inner>,
    findings: Arc<[Finding]>,
}

/// What the store and its partial contents share.
#[derive(Debug)]
pub(crate) struct Inner {
    data: PathBuf,
    disk: Arc<dyn Disk>,
    index: Mutex<Index>,
    shards: Shards,
    syncing: Mutex<()>,
    /// Bytes; `u64::MAX` is: what the disk has.
    capacity: AtomicU64,
}

impl ContentStore {
    /// Opens or makes the store in a node's folder. Reads the names and lengths of all files, removes
    /// leftovers of a crash, and syncs the filesystem once, so that whatever is complete now is durable; where
    /// that fails ([`Finding::SyncFailed`]), no content is before it was read again. Blocks. The caller holds the folder's lock: two stores on one folder are not allowed.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_on(root, Arc::new(RealDisk))
    }

    /// Like [`ContentStore::open`], on a disk of the caller's.
    pub fn open_on(root: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let data = root.join("data");
        let scan::Scanned {
            index,
            shards,
            findings,
        } = scan::scan(&data, disk.as_ref())?;
        let inner = Inner {
            data,
            disk,
            index: Mutex::new(index),
            shards,
            syncing: Mutex::default(),
            capacity: AtomicU64::new(u64::MAX),
        };
        Ok(Self {
            inner: Arc::new(inner),
            findings: findings.into(),
        })
    }

    /// What was odd when the store was opened.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether the sync at the opening has succeeded.
    pub fn was_synced(&self) -> bool {
        let failed = |finding: &Finding| matches!(finding, Finding::SyncFailed(_));
        !self.findings.iter().any(failed)
    }

    /// Sets the most bytes that contents may use; `None`: as many as the disk has, less the reserve.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        let bytes = bytes.unwrap_or(u64::MAX);
        self.inner.capacity.store(bytes, Ordering::Relaxed);
    }

    /// Whether a capacity was set.
    pub fn is_limited(&self) -> bool {
        self.inner.capacity.load(Ordering::Relaxed) != u64::MAX
    }

    /// What is here of a content. Does not touch the disk.
    pub fn state(&self, content: &InfoHash) -> State {
        match lock(&self.inner.index).get(content) {
            None => State::Absent,
            Some(Slot::Partial(_)) => State::Partial,
            Some(Slot::Complete(_)) => State::Complete,
        }
    }

    /// A content's length in bytes, if any of it is here. Does not touch the disk.
    pub fn length(&self, content: &InfoHash) -> Option<u64> {
        lock(&self.inner.index).get(content).map(Slot::length)
    }

    /// All contents, in no order. Does not touch the disk.
    pub fn list(&self) -> Vec<Held> {
        let held = |(info_hash, slot): (&InfoHash, &Slot)| Held {
            content: ContentRef {
                info_hash: *info_hash,
                length: slot.length(),
            },
            complete: matches!(slot, Slot::Complete(_)),
        };
        lock(&self.inner.index).iter().map(held).collect()
    }

    /// Opens a complete content for reading. The file stays readable when the content is removed.
    pub fn open_content(&self, content: &InfoHash) -> Result<File, StoreError> {
        self.inner.open_complete(content)
    }

    /// Where a content's file is or would be.
    pub fn path(&self, content: &InfoHash) -> PathBuf {
        self.inner.path(content)
    }

    /// Starts or goes on to fetch a content; all who do so at the same time get the same handle. Of a
    /// complete content the handle is in [`Phase::Complete`] at once.
    pub fn begin(&self, info: &Info) -> Result<Arc<PartialContent>, StoreError> {
        self.inner.begin(info)
    }

    /// Goes on to fetch a content of which only the info-hash is at hand. `None` if nothing of use is here.
    pub fn resume(&self, content: &InfoHash) -> Result<Option<Arc<PartialContent>>, StoreError> {
        if let Some(live) = lock(&self.inner.index).live(content) {
            return Ok(Some(live));
        }
        let have = self.inner.load_have(content)?;
        have.map(|have| self.begin(&have.info)).transpose()
    }

    /// Makes all pieces of all contents written so far survive a restart. To be called every second or so
    /// while anything is fetched. Goes on after an error and gives the first.
    pub fn flush(&self) -> Result<(), StoreError> {
        let live: Vec<_> = {
            let index = lock(&self.inner.index);
            let hashes = index.iter().map(|(content, _)| content);
            hashes.filter_map(|content| index.live(content)).collect()
        };
        let mut result = Ok(());
        for partial in live {
            result = result.and(partial.flush());
        }
        result
    }

    /// Removes a content; open handles keep what they have. True if there was one.
    pub fn remove(&self, content: &InfoHash) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let _shard = lock(inner.shard(content));
        let complete = match lock(&inner.index).get(content) {
            None => return Ok(false),
            Some(Slot::Complete(_)) => true,
            Some(Slot::Partial(_)) => false,
        };
        if complete {
            inner.remove_file(&inner.path(content))?;
            lock(&inner.index).remove(content);
        } else {
            inner.remove_partial(content, Phase::Removed)?;
        }
        Ok(true)
    }

    /// Room for contents. Asks the filesystem.
    pub fn space(&self) -> Result<Space, StoreError> {
        self.inner.space()
    }
}

impl Inner {
    fn path(&self, content: &InfoHash) -> PathBuf {
        self.directory(content).join(content.to_string())
    }

    fn have_path(&self, content: &InfoHash) -> PathBuf {
        self.directory(content).join(format!("{content}{SUFFIX}"))
    }

    fn open_complete(&self, content: &InfoHash) -> Result<File, StoreError> {
        let complete = match lock(&self.index).get(content) {
            Some(Slot::Complete(_)) => true,
            _ => return Err(StoreError::NotComplete(*content)),
        };
        let path = self.path(content);
        match self.disk.open(&path) {
            Err(error) if complete && error.kind() == io::ErrorKind::NotFound => {
                Err(self.vanished(content))
            }
            other => other.map_err(StoreError::disk("open", path)),
        }
    }

    /// Someone took the file away behind our back: from now on the content counts as absent.
    fn vanished(&self, content: &InfoHash) -> StoreError {
        let still_gone = !self.path(content).exists();
        let mut index = lock(&self.index);
        if still_gone && matches!(index.get(content), Some(Slot::Complete(_))) {
            tracing::warn!(
                "{} has vanished from the disk",
                self.path(content).display()
            );
            index.remove(content);
        }
        StoreError::NotComplete(*content)
    }

    fn begin(self: &Arc<Self>, info: &Info) -> Result<Arc<PartialContent>, StoreError> {
        let content = info.info_hash();
        let _shard = lock(self.shard(&content));
        let live = lock(&self.index).live(&content);
        if let Some(live) = live.filter(|live| live.phase() == Phase::Fetching) {
            return Ok(live);
        }
        if let Some(file) = self.open_whole(info)? {
            return Ok(Arc::new(PartialContent::complete(self.clone(), info, file)));
        }
        self.forget_abandoned(&content);
        if lock(&self.index).get(&content).is_none() {
            self.check_room(info)?;
            if info.piece_count() == 1 {
                return self.open_loose(info);
            }
            return self.open_partial(&self.begin_have(info)?);
        }
        let usable = self.load_have(&content)?.filter(|_| self.has_length(info));
        let have = match usable {
            Some(have) => have,
            None => self.begin_have(info)?,
        };
        self.open_partial(&have)
    }

    /// The data file is as it was when bits were set. If not, no bit may be believed: neither now nor
    /// after the next restart.
    fn has_length(&self, info: &Info) -> bool {
        let metadata = self.path(&info.info_hash()).metadata();
        metadata.is_ok_and(|metadata| metadata.len() == info.length())
    }

    /// The file of a complete content, unless its length is wrong.
    fn open_whole(&self, info: &Info) -> Result<Option<File>, StoreError> {
        let content = info.info_hash();
        let file = match self.open_complete(&content) {
            Ok(file) => file,
            Err(StoreError::NotComplete(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = self.path(&content);
        let metadata = file.metadata();
        let length = metadata.map_err(StoreError::disk("stat", &path))?.len();
        if length == info.length() {
            return Ok(Some(file));
        }
        tracing::warn!(
            "{} is damaged: {length} bytes, not {}",
            path.display(),
            info.length()
        );
        Ok(None)
    }

    fn check_room(&self, info: &Info) -> Result<(), StoreError> {
        let (needed, free) = (info.length(), self.space()?.free);
        if needed > free {
            return Err(StoreError::NoRoom { needed, free });
        }
        Ok(())
    }

    /// What the `.have` file says; `None` if there is none, or none that can be used.
    fn load_have(&self, content: &InfoHash) -> Result<Option<Have>, StoreError> {
        let have = scan::read_have(&self.have_path(content), self.disk.as_ref())?;
        Ok(have.filter(|have| have.info.info_hash() == *content))
    }

    fn begin_have(&self, info: &Info) -> Result<Have, StoreError> {
        let have = Have::empty(info);
        self.write_have(&have)?;
        Ok(have)
    }

    /// First of all that a fetch leaves on the disk: without it the data file would count as complete.
    fn write_have(&self, have: &Have) -> Result<(), StoreError> {
        let content = have.info.info_hash();
        self.make_directory(&content)?;
        let (path, disk) = (self.have_path(&content), &self.disk);
        let temporary = scan::temporary(&path);
        let file = disk
            .open_or_create(&temporary)
            .and_then(|file| disk.set_length(&file, 0).map(|()| file))
            .map_err(StoreError::disk("create", &temporary))?;
        disk.write_at(&file, &have.encode(), 0)
            .and_then(|()| disk.sync_data(&file))
            .map_err(StoreError::disk("write", &temporary))?;
        let slot = PartialSlot {
            length: have.info.length(),
            live: std::sync::Weak::new(),
            loose: false,
        };
        // Known before it can be there, so that whatever fails next is found and gone over again.
        lock(&self.index).insert(content, Slot::Partial(Box::new(slot)));
        disk.rename(&temporary, &path)
            .map_err(StoreError::disk("rename to", &path))?;
        self.sync_directory(&content)
    }

    fn open_partial(self: &Arc<Self>, have: &Have) -> Result<Arc<PartialContent>, StoreError> {
        let (content, length) = (have.info.info_hash(), have.info.length());
        let path = self.path(&content);
        self.replace_cut(&path, length)?;
        let data = self.open_writable(&path)?;
        self.disk
            .set_length(&data, length)
            .map_err(StoreError::disk("extend", &path))?;
        let have_file = self.open_writable(&self.have_path(&content))?;
        let files = Files {
            data,
            have: Some(have_file),
            loose: None,
        };
        let partial = Arc::new(PartialContent::new(self.clone(), have, files));
        let live = Arc::downgrade(&partial);
        let loose = false;
        let slot = Slot::Partial(Box::new(PartialSlot {
            length,
            live,
            loose,
        }));
        lock(&self.index).insert(content, slot);
        Ok(partial)
    }

    fn open_writable(&self, path: &Path) -> Result<File, StoreError> {
        let file = match self.disk.open_or_create(path) {
            // it was complete once
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let made = self.disk.make_writable(path);
                made.and_then(|()| self.disk.open_or_create(path))
            }
            opened => opened,
        };
        file.map_err(StoreError::disk("open", path))
    }

    /// Takes away an incomplete content. `.have` goes last: what lies beside it is never taken for complete.
    fn remove_partial(&self, content: &InfoHash, phase: Phase) -> Result<(), StoreError> {
        let live = lock(&self.index).live(content);
        if let Some(live) = live {
            live.set_phase(phase);
        }
        self.remove_partial_files(content)
    }

    fn remove_partial_files(&self, content: &InfoHash) -> Result<(), StoreError> {
        if lock(&self.index).is_loose(content) {
            self.remove_file(&scan::temporary(&self.path(content)))?;
            lock(&self.index).remove(content);
            return Ok(());
        }
        self.remove_file(&self.path(content))?;
        self.sync_directory(content)?;
        self.remove_file(&self.have_path(content))?;
        lock(&self.index).remove(content);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<(), StoreError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(StoreError::disk("remove", path)),
        }
    }

    fn space(&self) -> Result<Space, StoreError> {
        let bytes = self.disk.bytes(&self.data);
        let (total, available) = bytes.map_err(StoreError::disk("stat", &self.data))?;
        let reserve = (total / RESERVE_DIVISOR).min(RESERVE_BYTES_MAX);
        let limit = self.capacity.load(Ordering::Relaxed);
        let capacity = limit.min(total.saturating_sub(reserve));
        let used = lock(&self.index).used();
        let free = available.saturating_sub(reserve);
        Ok(Space {
            capacity,
            used,
            free: free.min(capacity.saturating_sub(used)),
        })
    }

    // What partial contents do on the disk.

    fn write_at(&self, info: &Info, file: &File, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        let result = self.disk.write_at(file, bytes, at);
        result.map_err(|error| StoreError::disk("write", self.path(&info.info_hash()))(error))
    }

    fn read_at(
        &self,
        info: &Info,
        file: &File,
        buffer: &mut [u8],
        at: u64,
    ) -> Result<(), StoreError> {
        let result = self.disk.read_at(file, buffer, at);
        result.map_err(|error| StoreError::disk("read", self.path(&info.info_hash()))(error))
    }

    fn sync_data(&self, info: &Info, file: &File) -> Result<(), StoreError> {
        let result = self.disk.sync_data(file);
        result.map_err(|error| StoreError::disk("sync", self.path(&info.info_hash()))(error))
    }

    fn discard_forged(&self, partial: &PartialContent) -> Result<(), StoreError> {
        let content = partial.info().info_hash();
        let _shard = lock(self.shard(&content));
        partial.must_be_fetching()?;
        self.remove_partial(&content, Phase::Forged)?;
        Err(StoreError::Forged(content))
    }

    /// All pieces are verified and synced.
    fn mark_complete(&self, partial: &PartialContent) -> Result<(), StoreError> {
        let (content, length) = (partial.info().info_hash(), partial.info().length());
        let _shard = lock(self.shard(&content));
        if partial.phase() == Phase::Complete {
            return Ok(());
        }
        partial.must_be_fetching()?;
        if let Err(error) = self.disk.make_read_only(partial.data()) {
            tracing::debug!("{content} stays writable: {error}");
        }
        if let Some(place) = partial.loose_place() {
            self.keep_loose(&content, length, place)?;
            partial.set_phase(Phase::Complete);
            return Ok(());
        }
        self.remove_file(&self.have_path(&content))?;
        match self.sync_directory(&content) {
            Ok(()) => lock(&self.index).insert(content, Slot::Complete(length)),
            Err(error) => {
                tracing::warn!("complete, but not yet safe from a power cut: {error}");
                lock(&self.index).insert_unsynced(content, length);
            }
        }
        partial.set_phase(Phase::Complete);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
