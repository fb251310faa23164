//! One content while its pieces arrive, and after.

use super::bitmap::Bitmap;
use super::have::Have;
use super::{Inner, StoreError};
use crate::hash::{PieceHashes, hash_piece, list_hash};
use crate::metainfo::Info;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::watch;

/// Bytes of new pieces after which the bitmap is flushed by whoever wrote the last of them: what a
/// `kill -9` makes us fetch again at most, if nobody calls [`PartialContent::flush`].
pub const FLUSH_BYTES: u64 = 64 * 1024 * 1024;

/// Locks for writing pieces: enough that two writers seldom meet.
const STRIPES: usize = 16;

/// What became of a piece that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is right, and here (perhaps it was here before).
    Stored,
    /// Its SHA-1 or its length is wrong: nothing was written.
    Wrong,
}

/// Where a content stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Pieces are arriving.
    Fetching,
    /// Every byte is here: all was fetched and verified, or the same content was sealed meanwhile.
    Complete,
    /// Right SHA-1, wrong BLAKE3: discarded.
    Forged,
    /// Removed from the store. What was here stays readable through this handle.
    Removed,
    /// A sync failed, so that it is not known what is on the disk: begin again, from the last flush.
    Failed,
}

/// One content's pieces. Shared by all who fetch or read it; every method may be called at the same time
/// by many threads, blocks on the disk only, and `have` and `read` never wait for writers.
#[derive(Debug)]
pub struct PartialContent {
    info: Info,
    store: Arc<Inner>,
    files: Files,
    /// The file sealed from the same bytes, which replaced ours.
    sealed: OnceLock<File>,
    bits: Bitmap,
    /// BLAKE3 of pieces that were written through this handle; the others are read again at the end.
    hashes: Vec<OnceLock<[u8; 32]>>,
    stripes: [Mutex<()>; STRIPES],
    /// Bytes written since the last flush.
    unflushed: AtomicU64,
    flushing: Mutex<()>,
    finishing: Mutex<()>,
    phase: watch::Sender<Phase>,
}

/// What is open.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) data: File,
    /// The `.have` file; a complete content has none.
    pub(crate) have: Option<File>,
    /// Where `data` is until it is complete, if not in its own place.
    pub(crate) loose: Option<PathBuf>,
}

impl PartialContent {
    pub(crate) fn new(store: Arc<Inner>, have: &Have, files: Files) -> Self {
        let count = have.info.piece_count();
        Self::build(store, &have.info, files, Bitmap::new(&have.bitmap, count))
    }

    /// Over a content that is whole already.
    pub(crate) fn complete(store: Arc<Inner>, info: &Info, data: File) -> Self {
        let files = Files {
            data,
            have: None,
            loose: None,
        };
        let partial = Self::build(store, info, files, Bitmap::full(info.piece_count()));
        partial.set_phase(Phase::Complete);
        partial
    }

    /// Nothing of the content is here, and nothing will outlive this handle before all of it is.
    pub(crate) fn loose(store: Arc<Inner>, info: &Info, data: File, place: PathBuf) -> Self {
        let files = Files {
            data,
            have: None,
            loose: Some(place),
        };
        let bits = Bitmap::new(&Have::empty(info).bitmap, info.piece_count());
        Self::build(store, info, files, bits)
    }

    fn build(store: Arc<Inner>, info: &Info, files: Files, bits: Bitmap) -> Self {
        let written_here = match (&files.have, &files.loose) {
            (None, None) => 0,
            _ => info.piece_count(),
        };
        Self {
            store,
            bits,
            files,
            info: info.clone(),
            sealed: OnceLock::new(),
            hashes: (0..written_here).map(|_| OnceLock::new()).collect(),
            stripes: Default::default(),
            unflushed: AtomicU64::new(0),
            flushing: Mutex::default(),
            finishing: Mutex::default(),
            phase: watch::Sender::new(Phase::Fetching),
        }
    }

    /// What is being fetched.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// This piece can be read.
    pub fn have(&self, piece: u32) -> bool {
        self.bits.get(piece)
    }

    /// How many pieces cannot be read yet.
    pub fn missing(&self) -> u32 {
        self.bits.missing()
    }

    /// The pieces that can be read, as BEP 3 sends them.
    pub fn bitfield(&self) -> Vec<u8> {
        self.bits.to_bytes()
    }

    /// Where the content stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Tells of every change of [`PartialContent::phase`]: all pieces may come at once, when the same
    /// bytes are sealed on this node.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Verifies a piece and writes it; then it can be read. What is here already is not written again.
    pub fn write_piece(&self, piece: u32, bytes: &[u8]) -> Result<Written, StoreError> {
        let range = self.range(piece)?;
        if self.have(piece) {
            return Ok(Written::Stored);
        }
        let hashes = hash_piece(bytes);
        let right_length = bytes.len() as u64 == range.end - range.start;
        if !right_length || hashes.sha1 != self.info.pieces()[piece as usize] {
            return Ok(Written::Wrong);
        }
        {
            let _one_writer = lock(&self.stripes[piece as usize % STRIPES]);
            if self.have(piece) {
                return Ok(Written::Stored);
            }
            self.must_be_fetching()?;
            self.store
                .write_at(&self.info, &self.files.data, bytes, range.start)?;
            // Fails only if a damaged piece is written again, whose hash was never set.
            let _ = self.hashes[piece as usize].set(hashes.blake3);
            self.bits.set(piece);
        }
        self.count_unflushed(bytes.len() as u64)?;
        Ok(Written::Stored)
    }

    fn count_unflushed(&self, bytes: u64) -> Result<(), StoreError> {
        let before = self.unflushed.fetch_add(bytes, Ordering::AcqRel);
        if before < FLUSH_BYTES && before + bytes >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Fills the buffer from `offset`, if all pieces it touches are here.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let content = self.info.info_hash();
        let length = buffer.len() as u64;
        if offset
            .checked_add(length)
            .is_none_or(|end| end > self.info.length())
        {
            return Err(StoreError::OutOfRange(content));
        }
        if self.phase() == Phase::Failed {
            return Err(StoreError::Gone(content));
        }
        let mut pieces = self.info.pieces_covering(offset, length);
        if let Some(piece) = pieces.find(|piece| !self.have(*piece)) {
            return Err(StoreError::NotHere { content, piece });
        }
        self.store.read_at(&self.info, self.file(), buffer, offset)
    }

    /// The file to read pieces from that are here; the others are holes in it.
    pub fn file(&self) -> &File {
        self.sealed.get().unwrap_or(&self.files.data)
    }

    /// Makes all pieces written so far survive a restart and a power cut: syncs them, then sets their bits
    /// on the disk. After an error the handle is [`Phase::Failed`].
    pub fn flush(&self) -> Result<(), StoreError> {
        if self.files.loose.is_some() {
            return Ok(());
        }
        let _one_flush = lock(&self.flushing);
        if self.phase() != Phase::Fetching || self.unflushed.swap(0, Ordering::AcqRel) == 0 {
            return Ok(());
        }
        // Taken before the sync: later pieces are not covered by it.
        let bits = self.bits.to_bytes();
        self.sync_data()?;
        self.write_bits(&bits)
    }

    fn write_bits(&self, bits: &[u8]) -> Result<(), StoreError> {
        let Some(have) = &self.files.have else {
            return Ok(());
        };
        let offset = Have::bitmap_offset(&self.info);
        self.store.write_at(&self.info, have, bits, offset)
    }

    fn sync_data(&self) -> Result<(), StoreError> {
        let synced = self.store.sync_data(&self.info, &self.files.data);
        if synced.is_err() && self.phase() == Phase::Fetching {
            self.set_phase(Phase::Failed);
        }
        synced
    }

    /// Once every piece is here: verifies the whole, makes it survive a power cut, and marks it complete. A content
    /// of one piece survives a power cut after the next [`super::ContentStore::sync`], as a sealed one.
    /// Pieces found damaged on the disk are missing afterwards ([`StoreError::Damaged`]).
    pub fn finish(&self) -> Result<(), StoreError> {
        let _one_finisher = lock(&self.finishing);
        if self.phase() == Phase::Complete {
            return Ok(());
        }
        self.must_be_fetching()?;
        if let Some(piece) = (0..self.info.piece_count()).find(|piece| !self.have(*piece)) {
            let content = self.info.info_hash();
            return Err(StoreError::NotHere { content, piece });
        }
        self.hash_resumed_pieces()?;
        let found = list_hash(self.hashes.iter().filter_map(OnceLock::get));
        if found != *self.info.blake3() {
            return self.store.discard_forged(self);
        }
        if self.files.loose.is_none() {
            self.sync_data()?;
        }
        self.store.mark_complete(self)
    }

    /// Reads the pieces that an earlier process wrote.
    fn hash_resumed_pieces(&self) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        let mut damaged = 0;
        for piece in 0..self.info.piece_count() {
            if self.hashes[piece as usize].get().is_some() {
                continue;
            }
            if let Some(hashes) = self.hash_on_disk(piece, &mut buffer)? {
                let _ = self.hashes[piece as usize].set(hashes.blake3);
            } else {
                self.lose(piece);
                damaged += 1;
            }
        }
        self.forget(damaged)?;
        match damaged {
            0 => Ok(()),
            pieces => Err(StoreError::Damaged {
                content: self.info.info_hash(),
                pieces,
            }),
        }
    }

    /// The hashes of a piece as it is on the disk, if it is right.
    pub(super) fn hash_on_disk(
        &self,
        piece: u32,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<PieceHashes>, StoreError> {
        let range = self.range(piece)?;
        buffer.resize((range.end - range.start) as usize, 0);
        self.store.hash_at(&self.info, self.file(), buffer, piece)
    }

    /// A piece that was here is damaged.
    pub(super) fn lose(&self, piece: u32) {
        self.bits.clear(piece);
    }

    /// Makes the loss of pieces survive a restart.
    pub(super) fn forget(&self, damaged: u32) -> Result<(), StoreError> {
        if damaged == 0 {
            return Ok(());
        }
        self.unflushed.fetch_add(1, Ordering::AcqRel);
        self.flush()
    }

    /// The same bytes were sealed: from now on they are read from that file.
    pub(crate) fn adopt(&self, sealed: File) {
        // Before the bits: whoever sees a bit that was set here must find the file.
        let _ = self.sealed.set(sealed);
        self.bits.fill(self.info.piece_count());
        self.set_phase(Phase::Complete);
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn must_be_fetching(&self) -> Result<(), StoreError> {
        match self.phase() {
            Phase::Fetching => Ok(()),
            _ => Err(StoreError::Gone(self.info.info_hash())),
        }
    }

    pub(crate) fn data(&self) -> &File {
        &self.files.data
    }

    pub(crate) fn loose_place(&self) -> Option<&Path> {
        self.files.loose.as_deref()
    }

    fn range(&self, piece: u32) -> Result<Range<u64>, StoreError> {
        let range = self.info.piece_range(piece);
        range.ok_or(StoreError::OutOfRange(self.info.info_hash()))
    }
}

impl Drop for PartialContent {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!("pieces of a content will be fetched again: {error}");
        }
        if let Some(place) = &self.files.loose {
            self.store.drop_loose(self, place);
        }
    }
}

/// Nothing panics while holding one of our locks; if it did, what they guard is still consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
