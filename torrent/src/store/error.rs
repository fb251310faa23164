//! What may go wrong, said to whoever must act on it.

use crate::hash::HashError;
use delugefs_core::ids::InfoHash;
use std::io;
use std::path::{Path, PathBuf};

/// Why the store did not do as asked. Nothing that was complete is lost by any of them.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused; most often full (free space, or lower what this node holds) or broken.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file to seal could not be hashed.
    #[error("cannot seal {}: {source}", path.display())]
    Hash {
        /// The staged file; it is still there.
        path: PathBuf,
        /// Why.
        source: HashError,
    },
    /// Fetching it would go over the capacity, or into the disk's reserve.
    #[error("no room for {needed} bytes, {free} are free: remove files, or raise --capacity")]
    NoRoom {
        /// Bytes the content has.
        needed: u64,
        /// Bytes that may still be used.
        free: u64,
    },
    /// Not here, or not whole.
    #[error("content {0} is not complete on this disk")]
    NotComplete(InfoHash),
    /// These bytes have not arrived.
    #[error("piece {piece} of content {content} is not here yet")]
    NotHere {
        /// The content.
        content: InfoHash,
        /// The first piece that is missing.
        piece: u32,
    },
    /// Beyond the end of the content, or no such piece.
    #[error("content {0} has no such bytes")]
    OutOfRange(InfoHash),
    /// All its pieces passed SHA-1 and yet it is another content: a collision made on purpose, or a
    /// descriptor that lies. Its bytes were discarded.
    #[error("content {0} has the right SHA-1 but the wrong BLAKE3: forged, and discarded")]
    Forged(InfoHash),
    /// Pieces counted as here are damaged on the disk; they are to be fetched again.
    #[error("{pieces} pieces of content {content} were damaged on this disk")]
    Damaged {
        /// The content.
        content: InfoHash,
        /// How many pieces.
        pieces: u32,
    },
    /// Removed, discarded, or given up after a failed sync: begin again.
    #[error("content {0} is no longer being fetched through this handle")]
    Gone(InfoHash),
    /// Written by a newer version of this program.
    #[error("{} has format {version}: a newer version of this program made it", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        version: u32,
    },
}

impl StoreError {
    /// For `map_err`.
    pub(crate) fn disk(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk {
            action,
            path,
            source,
        }
    }

    /// The file the error is about, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Disk { path, .. } | Self::Hash { path, .. } | Self::NewerFormat { path, .. } => {
                Some(path)
            }
            _ => None,
        }
    }

    /// The kind of error the system would say.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Disk { source, .. } => source.kind(),
            Self::Hash { source, .. } => match source {
                HashError::Read(source) => source.kind(),
                HashError::Changed => io::ErrorKind::ResourceBusy,
                HashError::Info(_) => io::ErrorKind::InvalidInput,
            },
            Self::NoRoom { .. } => io::ErrorKind::StorageFull,
            Self::NotComplete(_) | Self::NotHere { .. } | Self::Gone(_) => io::ErrorKind::NotFound,
            Self::OutOfRange(_) => io::ErrorKind::InvalidInput,
            Self::Forged(_) | Self::Damaged { .. } => io::ErrorKind::InvalidData,
            Self::NewerFormat { .. } => io::ErrorKind::Unsupported,
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space on this disk"
        }
        io::ErrorKind::PermissionDenied => "; run as the owner of this node's files",
        io::ErrorKind::CrossesDevices => "; a node's folder must lie on one filesystem",
        io::ErrorKind::ReadOnlyFilesystem => "; the disk may have failed, see the kernel's log",
        _ if error.raw_os_error() == Some(EIO) => "; the disk may be failing, see the kernel's log",
        _ => "",
    }
}

/// Input/output error; it has no stable [`io::ErrorKind`].
const EIO: i32 = 5;
