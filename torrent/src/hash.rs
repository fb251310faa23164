//! Hashing a file into its [`Info`]: one read, SHA-1 and BLAKE3 of each piece in the same pass, all cores.
//!
//! Memory is bounded by 256 KiB for each thread, plus 52 bytes for each piece.

use crate::metainfo::{CONTENT_BYTES_MAX, Info, InfoError, PieceHash, piece_length};
use sha1::{Digest, Sha1};
use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes read at once by each thread: fits a core's second-level cache, so the second hash finds them there.
const CHUNK_BYTES: usize = 256 * 1024;

/// Hashing threads for one file: beyond it the disk is the limit everywhere we know.
const THREADS_MAX: usize = 32;

/// Bytes that make a further thread worth its start (some 30 µs).
const BYTES_PER_THREAD_MIN: u64 = 1024 * 1024;

/// Why a file has no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Reading failed.
    #[error("reading failed: {0}")]
    Read(#[from] io::Error),
    /// The file was written, cut or extended meanwhile: hash it again once it is quiet.
    #[error("the file changed while it was being hashed")]
    Changed,
    /// Empty, or over [`CONTENT_BYTES_MAX`].
    #[error(transparent)]
    Info(#[from] InfoError),
}

/// A piece's two hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHashes {
    /// SHA-1, as BEP 3 has it.
    pub sha1: PieceHash,
    /// BLAKE3, which goes into the list hash.
    pub blake3: [u8; 32],
}

/// Hashes a file from its first to its last byte. Blocks; uses all cores for a large one.
pub fn hash_file(file: &File) -> Result<Info, HashError> {
    hash_file_on(file, default_threads())
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn hash_file_on(file: &File, threads: usize) -> Result<Info, HashError> {
    let before = fingerprint(file)?;
    let length = before.length;
    if !(1..=CONTENT_BYTES_MAX).contains(&length) {
        return Err(InfoError::Length(length).into());
    }
    let hashes = hash_pieces(file, length, threads)?;
    if fingerprint(file)? != before {
        return Err(HashError::Changed);
    }
    let blake3 = list_hash(hashes.iter().map(|piece| &piece.blake3));
    let pieces = hashes.iter().map(|piece| piece.sha1).collect();
    Ok(Info::new(length, pieces, blake3)?)
}

/// BLAKE3 over the concatenation of the pieces' BLAKE3 hashes.
pub fn list_hash<'a>(pieces: impl Iterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize().into()
}

/// What differs after a write. A write through a mapping shows in the time, too.
#[derive(PartialEq, Eq)]
struct Fingerprint {
    length: u64,
    modified: (i64, i64),
}

fn fingerprint(file: &File) -> io::Result<Fingerprint> {
    let metadata = file.metadata()?;
    Ok(Fingerprint {
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

fn hash_pieces(file: &File, length: u64, threads: usize) -> Result<Vec<PieceHashes>, HashError> {
    let count = length.div_ceil(piece_length(length).into()) as u32;
    let useful = length.div_ceil(BYTES_PER_THREAD_MIN).min(count.into()) as usize;
    let threads = threads.min(useful).clamp(1, THREADS_MAX);
    let work = Work {
        file,
        length,
        count,
        next: AtomicU32::new(0),
        done: Mutex::new(vec![None; count as usize]),
    };
    if threads == 1 {
        work.run()?;
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work.run())).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("hashing does not panic"))
        })?;
    }
    let done = work.done.into_inner().expect("hashing does not panic");
    done.into_iter()
        .map(|hashes| hashes.ok_or(HashError::Changed))
        .collect()
}

struct Work<'a> {
    file: &'a File,
    length: u64,
    count: u32,
    next: AtomicU32,
    done: Mutex<Vec<Option<PieceHashes>>>,
}

impl Work<'_> {
    /// Takes pieces in order until there are none. After an error elsewhere the others end early.
    fn run(&self) -> Result<(), HashError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.count {
                return Ok(());
            }
            match hash_range(self.file, self.range(piece), &mut buffer) {
                Ok(hashes) => {
                    let mut done = self.done.lock().expect("hashing does not panic");
                    done[piece as usize] = Some(hashes);
                }
                Err(error) => {
                    self.next.store(self.count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    }

    fn range(&self, piece: u32) -> std::ops::Range<u64> {
        let size = u64::from(piece_length(self.length));
        let start = u64::from(piece) * size;
        start..(start + size).min(self.length)
    }
}

fn hash_range(
    file: &File,
    range: std::ops::Range<u64>,
    buffer: &mut [u8],
) -> Result<PieceHashes, HashError> {
    let (mut sha1, mut blake3) = (Sha1::new(), blake3::Hasher::new());
    let mut at = range.start;
    while at < range.end {
        let want = (range.end - at).min(buffer.len() as u64) as usize;
        let chunk = &mut buffer[..want];
        file.read_exact_at(chunk, at).map_err(cut_is_change)?;
        sha1.update(&chunk);
        blake3.update(chunk);
        at += want as u64;
    }
    Ok(PieceHashes {
        sha1: sha1.finalize().into(),
        blake3: blake3.finalize().into(),
    })
}

fn cut_is_change(error: io::Error) -> HashError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        HashError::Changed
    } else {
        HashError::Read(error)
    }
}

/// Hashes one piece that is in memory.
pub fn hash_piece(bytes: &[u8]) -> PieceHashes {
    PieceHashes {
        sha1: Sha1::digest(bytes).into(),
        blake3: blake3::hash(bytes).into(),
    }
}

#[cfg(test)]
mod tests;
