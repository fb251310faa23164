//! Reading what is here again: does it still hold what it should? And what follows when it does not.
//!
//! Damage takes a content back to the state of one that is being fetched: its good pieces stay, the others are missing
//! in its `.have`. Nothing is removed: while nobody else has the content, what is left of it may be all there is.

use super::have::Have;
use super::index::Slot;
use super::partial::lock;
use super::{ContentStore, Inner, PartialContent, StoreError, scan};
use crate::hash::{PieceHashes, hash_piece, list_hash};
use crate::metainfo::Info;
use delugefs_core::ids::InfoHash;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// What a disk says of bytes that it cannot give: input/output error, and what file systems and block devices make of
/// checksums and sectors that are wrong (`EIO`, `ENODATA`, `EBADMSG`, `EILSEQ`, `EUCLEAN`).
const DAMAGE: [i32; 5] = [5, 61, 74, 84, 117];

/// Whether an error of reading says that the bytes are damaged; others (too many open files, say) tell nothing of them.
pub fn is_damage(error: &io::Error) -> bool {
    let ended = error.kind() == io::ErrorKind::UnexpectedEof;
    ended
        || error
            .raw_os_error()
            .is_some_and(|code| DAMAGE.contains(&code))
}

/// A complete content being read again, one piece at each [`Check::step`], so that the caller sets the pace.
#[derive(Debug)]
pub struct Check {
    store: Arc<Inner>,
    info: Info,
    file: File,
    inode: (u64, u64),
    length: u64,
    pieces: Range<u32>,
    next: u32,
    hashes: Vec<[u8; 32]>,
    bad: Vec<u32>,
    buffer: Vec<u8>,
}

/// What a [`Check`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Pieces that are not as they should be.
    pub bad: Vec<u32>,
    /// The file is longer or shorter than the content.
    pub wrong_length: bool,
    inode: (u64, u64),
}

impl Checked {
    /// All that was looked at is right.
    pub fn is_good(&self) -> bool {
        self.bad.is_empty() && !self.wrong_length
    }
}

impl ContentStore {
    /// Begins to read some pieces of a complete content again, or all of them.
    pub fn check(&self, info: &Info, pieces: Option<Range<u32>>) -> Result<Check, StoreError> {
        let content = info.info_hash();
        let file = self.open_content(&content)?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(StoreError::disk("stat", self.path(&content)))?;
        let count = info.piece_count();
        let pieces = pieces.unwrap_or(0..count);
        let pieces = pieces.start.min(count)..pieces.end.min(count);
        Ok(Check {
            store: Arc::clone(&self.inner),
            info: info.clone(),
            file,
            inode: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            next: pieces.start,
            pieces,
            hashes: Vec::new(),
            bad: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// Makes an incomplete content of one that was found damaged: its bad pieces are to be fetched again, into the same
    /// file, for whoever has it open. A file that has lost its end is replaced by another, as its readers must see it
    /// end there rather than a hole. `false` if it is no longer what was checked. Blocks.
    pub fn set_back(&self, info: &Info, checked: &Checked) -> Result<bool, StoreError> {
        let (inner, content) = (&self.inner, info.info_hash());
        let _shard = lock(inner.shard(&content));
        if !inner.is_complete_file(&content, checked.inode) {
            return Ok(false);
        }
        let mut have = Have::full(info);
        checked.bad.iter().for_each(|piece| have.clear(*piece));
        inner.write_have(&have)?;
        let (path, length) = (inner.path(&content), info.length());
        inner.replace_cut(&path, length)?;
        if checked.wrong_length {
            let file = inner.open_writable(&path)?;
            let cut = inner.disk.set_length(&file, length);
            cut.map_err(StoreError::disk("cut", path))?;
        }
        Ok(true)
    }

    /// Reads some of the pieces that are here of an incomplete content again; those that are damaged are no longer here.
    /// How many those are. Blocks.
    pub fn recheck_partial(&self, info: &Info, pieces: Range<u32>) -> Result<u32, StoreError> {
        match self.resume(&info.info_hash())? {
            Some(partial) => partial.recheck(pieces),
            None => Ok(0),
        }
    }
}

impl Check {
    /// Reads the next piece, from the disk rather than from memory where the kernel takes advice. How many bytes it has;
    /// `None` at the end. Fails where nothing is learned of the bytes.
    pub fn step(&mut self) -> Result<Option<u64>, StoreError> {
        let piece = self.next;
        let range = self.info.piece_range(piece);
        let Some(range) = range.filter(|_| piece < self.pieces.end) else {
            return Ok(None);
        };
        self.next += 1;
        let bytes = range.end - range.start;
        self.buffer.resize(bytes as usize, 0);
        forget_cached(&self.file, &range);
        let hashes = self
            .store
            .hash_at(&self.info, &self.file, &mut self.buffer, piece)?;
        // read once in weeks: nobody gains by its staying in memory
        forget_cached(&self.file, &range);
        match hashes {
            Some(hashes) => self.hashes.push(hashes.blake3),
            None => self.bad.push(piece),
        }
        Ok(Some(bytes))
    }

    /// The piece that comes next.
    pub fn position(&self) -> u32 {
        self.next
    }

    /// What was found. When all pieces were read and each is right by SHA-1 alone, none of them is.
    pub fn end(self) -> Checked {
        let count = self.info.piece_count();
        let is_whole = self.hashes.len() == count as usize;
        let is_forged = is_whole && list_hash(self.hashes.iter()) != *self.info.blake3();
        let checked = Checked {
            bad: if is_forged {
                (0..count).collect()
            } else {
                self.bad
            },
            wrong_length: self.length != self.info.length(),
            inode: self.inode,
        };
        if is_whole && checked.is_good() {
            lock(&self.store.index).clear_suspect(&self.info.info_hash());
        }
        checked
    }
}

/// Advice: where it is not taken, memory is read.
fn forget_cached(file: &File, range: &Range<u64>) {
    let length = NonZeroU64::new(range.end - range.start);
    let _ = fadvise(file, range.start, length, Advice::DontNeed);
}

impl PartialContent {
    /// Reads pieces that are here again; the damaged ones are missing afterwards, and that is durable. How many.
    pub(crate) fn recheck(&self, pieces: Range<u32>) -> Result<u32, StoreError> {
        let mut buffer = Vec::new();
        let mut damaged = 0;
        for piece in pieces.filter(|piece| self.have(*piece)) {
            if self.hash_on_disk(piece, &mut buffer)?.is_none() {
                self.lose(piece);
                damaged += 1;
            }
        }
        self.forget(damaged)?;
        Ok(damaged)
    }
}

impl Inner {
    /// The hashes of a piece on disk, if its SHA-1 is right. The buffer takes the whole piece.
    pub(super) fn hash_at(
        &self,
        info: &Info,
        file: &File,
        buffer: &mut [u8],
        piece: u32,
    ) -> Result<Option<PieceHashes>, StoreError> {
        let start = info.piece_range(piece).map_or(0, |range| range.start);
        match self.disk.read_at(file, buffer, start) {
            Ok(()) => {}
            Err(error) if is_damage(&error) => {
                tracing::warn!(
                    "{}, piece {piece}: {error}",
                    self.path(&info.info_hash()).display()
                );
                return Ok(None);
            }
            Err(error) => {
                return Err(StoreError::disk("read", self.path(&info.info_hash()))(
                    error,
                ));
            }
        }
        let hashes = hash_piece(buffer);
        Ok((hashes.sha1 == info.pieces()[piece as usize]).then_some(hashes))
    }

    fn is_complete_file(&self, content: &InfoHash, inode: (u64, u64)) -> bool {
        let is_complete = matches!(lock(&self.index).get(content), Some(Slot::Complete(_)));
        let metadata = self.path(content).metadata();
        is_complete && metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == inode)
    }

    /// Puts another file of the whole length in the place of one that is too short.
    pub(super) fn replace_cut(&self, path: &Path, length: u64) -> Result<(), StoreError> {
        let found = path.metadata().map(|metadata| metadata.len());
        let Some(found) = found.ok().filter(|found| *found < length) else {
            return Ok(());
        };
        let free = self.space()?.free;
        if found > free {
            return Err(StoreError::NoRoom {
                needed: found,
                free,
            });
        }
        let temporary = scan::temporary(path);
        let old = self
            .disk
            .open(path)
            .map_err(StoreError::disk("open", path))?;
        let new = self.open_writable(&temporary)?;
        let failed = || StoreError::disk("copy to", &temporary);
        self.disk.set_length(&new, 0).map_err(failed())?;
        if rustix::fs::ioctl_ficlone(&new, &old).is_err() {
            io::copy(&mut &old, &mut &new).map_err(failed())?;
        }
        self.disk.set_length(&new, length).map_err(failed())?;
        self.disk.sync_data(&new).map_err(failed())?;
        self.disk
            .rename(&temporary, path)
            .map_err(StoreError::disk("rename to", path))
    }
}
