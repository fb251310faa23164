//! The content store as the engine sees it.

use super::ports::{PieceWritten, Standing, Storage, StoredContent};
use crate::metainfo::{Info, piece_length};
use crate::store::{ContentStore, PartialContent, Phase, State, Written};
use bytes::Bytes;
use delugefs_core::ids::InfoHash;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

impl Storage for ContentStore {
    fn find(&self, info_hash: &InfoHash) -> io::Result<Option<Arc<dyn StoredContent>>> {
        Ok(match self.state(info_hash) {
            State::Absent => None,
            State::Complete => Some(Arc::new(Whole::new(self.open_content(info_hash)?)?)),
            State::Partial => self
                .resume(info_hash)?
                .map(|content| content as Arc<dyn StoredContent>),
        })
    }

    fn begin(&self, info: &Info) -> io::Result<Arc<dyn StoredContent>> {
        Ok(ContentStore::begin(self, info)?)
    }
}

impl StoredContent for PartialContent {
    fn length(&self) -> u64 {
        PartialContent::info(self).length()
    }

    fn piece_length(&self) -> u32 {
        PartialContent::info(self).piece_length()
    }

    fn has(&self, piece: u32) -> bool {
        self.have(piece)
    }

    fn standing(&self) -> Standing {
        match self.phase() {
            Phase::Fetching => Standing::Partial,
            Phase::Complete => Standing::Complete,
            Phase::Forged | Phase::Removed | Phase::Failed => Standing::Gone,
        }
    }

    fn write(&self, piece: u32, bytes: &[u8]) -> io::Result<PieceWritten> {
        Ok(match self.write_piece(piece, bytes)? {
            Written::Stored => PieceWritten::Stored,
            Written::Wrong => PieceWritten::Wrong,
        })
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; length];
        PartialContent::read(self, offset, &mut buffer)?;
        Ok(buffer.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(PartialContent::flush(self)?)
    }

    fn finish(&self) -> io::Result<()> {
        Ok(PartialContent::finish(self)?)
    }

    fn info(&self) -> Option<Vec<u8>> {
        Some(PartialContent::info(self).encode())
    }
}

/// A complete content of which only the bytes are at hand: how it divides follows from its length.
struct Whole {
    file: File,
    length: u64,
}

impl Whole {
    fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

impl StoredContent for Whole {
    fn length(&self) -> u64 {
        self.length
    }

    fn piece_length(&self) -> u32 {
        piece_length(self.length)
    }

    fn has(&self, _piece: u32) -> bool {
        true
    }

    fn standing(&self) -> Standing {
        Standing::Complete
    }

    fn write(&self, _piece: u32, _bytes: &[u8]) -> io::Result<PieceWritten> {
        Ok(PieceWritten::Stored)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        Ok(())
    }

    fn info(&self) -> Option<Vec<u8>> {
        None
    }
}
