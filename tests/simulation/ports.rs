//! What the filesystem of a simulated node stands on: the real content store with faults, a clock and randomness that
//! the seed decides, and word of work.

use bytes::Bytes;
use delugefs::bytes::ports::Bytewise;
use delugefs::filesystem::{
    BoxFuture, ContentReader, Contents, Events, FsError, Sealed, Source, Space,
};
use delugefs_core::entry::ContentRef;
use delugefs_core::ids::InfoHash;
use delugefs_core::time::Timestamp;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// All bytes that were ever sealed, on whatever node: the network's stand-in, and the observer's.
#[derive(Debug, Default)]
pub(crate) struct Archive(Mutex<BTreeMap<InfoHash, Bytes>>);

impl Archive {
    pub(crate) fn get(&self, content: &InfoHash) -> Option<Bytes> {
        self.0.lock().unwrap().get(content).cloned()
    }

    pub(crate) fn all(&self) -> Vec<InfoHash> {
        self.0.lock().unwrap().keys().copied().collect()
    }

    fn keep(&self, content: InfoHash, bytes: Bytes) {
        self.0.lock().unwrap().insert(content, bytes);
    }
}

/// What goes wrong with a node's disk and its reads.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// There is no room.
    pub(crate) is_full: AtomicBool,
    /// Bytes that are not here cannot be had.
    pub(crate) is_alone: AtomicBool,
}

impl Faults {
    pub(crate) fn set_alone(&self, is_alone: bool) {
        self.is_alone.store(is_alone, Ordering::Relaxed);
    }
}

pub(crate) struct SimContents {
    pub(crate) inner: Bytewise,
    pub(crate) faults: Arc<Faults>,
    pub(crate) archive: Arc<Archive>,
}

impl Contents for SimContents {
    fn local(&self, content: &ContentRef) -> Result<Option<File>, FsError> {
        self.inner.local(content)
    }

    fn reader(&self, content: ContentRef) -> Result<Arc<dyn ContentReader>, FsError> {
        let (faults, archive) = (Arc::clone(&self.faults), Arc::clone(&self.archive));
        Ok(Arc::new(SimReader {
            content,
            faults,
            archive,
        }))
    }

    fn seal(&self, staged: &Path) -> Result<Sealed, FsError> {
        if self.faults.is_full.load(Ordering::Relaxed) {
            return Err(FsError::NoSpace);
        }
        let bytes = std::fs::read(staged)?;
        let sealed = self.inner.seal(staged)?;
        self.archive
            .keep(sealed.content.info_hash, Bytes::from(bytes));
        Ok(sealed)
    }

    fn sync(&self) -> Result<(), FsError> {
        self.inner.sync()
    }

    fn is_durable(&self, content: &InfoHash) -> bool {
        self.inner.is_durable(content)
    }

    fn space(&self) -> Space {
        let free = if self.faults.is_full.load(Ordering::Relaxed) {
            0
        } else {
            1 << 40
        };
        Space {
            total: 1 << 41,
            free,
        }
    }
}

struct SimReader {
    content: ContentRef,
    faults: Arc<Faults>,
    archive: Arc<Archive>,
}

impl ContentReader for SimReader {
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'static, Result<Bytes, FsError>> {
        let bytes = match self.faults.is_alone.load(Ordering::Relaxed) {
            true => None,
            false => self.archive.get(&self.content.info_hash),
        };
        Box::pin(async move {
            let bytes = bytes.ok_or(FsError::Unavailable)?;
            let from = bytes.len().min(offset as usize);
            Ok(bytes.slice(from..bytes.len().min(from + length)))
        })
    }
}

/// A node's wall clock and randomness. Survives restarts, as the machine does.
#[derive(Debug)]
pub(crate) struct SimSource {
    /// Nanoseconds since 1970.
    pub(crate) clock: AtomicI64,
    serial: AtomicU64,
    salt: u8,
    /// How often the machine was switched on.
    pub(crate) boots: AtomicU64,
}

impl SimSource {
    pub(crate) fn new(salt: u8) -> Self {
        Self {
            clock: AtomicI64::new(0),
            serial: AtomicU64::new(1),
            salt,
            boots: AtomicU64::new(1),
        }
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.now().seconds.cast_unsigned()
    }
}

impl Source for SimSource {
    fn now(&self) -> Timestamp {
        // two things never happen in one nanosecond
        let nanoseconds = self.clock.fetch_add(1, Ordering::Relaxed);
        Timestamp {
            seconds: nanoseconds / 1_000_000_000,
            nanoseconds: (nanoseconds % 1_000_000_000).unsigned_abs() as u32,
        }
    }

    fn random(&self) -> [u8; 16] {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [self.salt; 16];
        bytes[8..].copy_from_slice(&serial.to_be_bytes());
        bytes
    }

    fn boot(&self) -> Option<[u8; 16]> {
        let boots = self.boots.load(Ordering::Relaxed);
        Some(u128::from(boots).to_be_bytes())
    }
}

/// Whether there is work, until someone looks.
#[derive(Debug, Default)]
pub(crate) struct SimEvents {
    pub(crate) unsealed: AtomicBool,
    pub(crate) pending: AtomicBool,
}

impl Events for SimEvents {
    fn unsealed(&self) {
        self.unsealed.store(true, Ordering::Relaxed);
    }

    fn pending(&self) {
        self.pending.store(true, Ordering::Relaxed);
    }
}
