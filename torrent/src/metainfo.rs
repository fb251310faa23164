//! The `info` dictionary (BEP 3) of a content: a pure function of its bytes.
//!
//! There is exactly one encoding for each content, so that the same bytes have the same info-hash on every
//! node. The parser takes nothing else. Beside SHA-1 of the pieces it bears a BLAKE3: two contents that
//! share all SHA-1 hashes still have different info-hashes.

use delugefs_core::entry::ContentRef;
use delugefs_core::ids::InfoHash;
use sha1::{Digest, Sha1};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Smallest piece, in bytes: a reader's first byte waits for one piece.
pub const PIECE_BYTES_MIN: u32 = 64 * 1024;

/// Pieces per content that are aimed at: the list of hashes stays under 320 KiB.
pub const PIECES_TARGET: u64 = 16 * 1024;

/// Up to this many bytes a piece grows to keep [`PIECES_TARGET`]: larger ones make seeking slow.
pub const PIECE_BYTES_COMFORTABLE: u32 = 16 * 1024 * 1024;

/// Most pieces of a content: a bitfield of one more byte would not fit the message that clients accept
/// (about 16.5 KiB).
pub const PIECES_MAX: u64 = 131_072;

/// Most bytes in a content, 256 TiB: beyond it a piece would reach 4 GiB, and the wire's offsets within a
/// piece have 32 bits.
pub const CONTENT_BYTES_MAX: u64 = 1 << 48;

/// Most bytes in an encoded `info`: its hashes and less than 300 bytes around them.
pub const INFO_BYTES_MAX: usize = PIECES_MAX as usize * HASH_LEN + 300;

const HASH_LEN: usize = 20;
const NAME_LEN: usize = 2 * HASH_LEN;
/// Digits in [`CONTENT_BYTES_MAX`], the largest number in an `info`.
const DIGITS_MAX: usize = 15;

/// A piece's SHA-1.
pub type PieceHash = [u8; HASH_LEN];

/// Why a content has no `info`, or some bytes are not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// More than [`INFO_BYTES_MAX`].
    #[error("an info dictionary has at most {INFO_BYTES_MAX} bytes, this has {0}")]
    TooLong(usize),
    /// Not the five keys in canonical bencoding.
    #[error("not an info dictionary of a DelugeFS volume, at byte {at}: expected {expected}")]
    Malformed {
        /// Offset in the bytes given.
        at: usize,
        /// What should have been there.
        expected: &'static str,
    },
    /// Zero, or over [`CONTENT_BYTES_MAX`].
    #[error("a content has 1 to {CONTENT_BYTES_MAX} bytes, this has {0}")]
    Length(u64),
    /// Not what [`piece_length`] gives.
    #[error("{length} bytes have pieces of {expected} bytes, this has {found}")]
    PieceLength {
        /// The content's length in bytes.
        length: u64,
        /// What [`piece_length`] gives.
        expected: u32,
        /// What was said.
        found: u64,
    },
    /// Too few or too many hashes.
    #[error("{expected} pieces were expected, {found} hash bytes found")]
    PieceCount {
        /// How many pieces the length makes.
        expected: u32,
        /// Bytes of hashes given.
        found: u64,
    },
    /// Not the hex SHA-1 of `pieces`.
    #[error("the name is not the hash of the pieces")]
    Name,
}

/// Bytes in each piece but the last, for a content of `length` bytes: a power of two. Fixed for ever, as
/// info-hashes depend on it.
pub fn piece_length(length: u64) -> u32 {
    let mut piece = PIECE_BYTES_MIN;
    while piece < PIECE_BYTES_COMFORTABLE && length.div_ceil(piece.into()) > PIECES_TARGET {
        piece *= 2;
    }
    while piece < 1 << 31 && length.div_ceil(piece.into()) > PIECES_MAX {
        piece *= 2;
    }
    piece
}

/// What identifies and verifies one content. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Info(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    content: ContentRef,
    piece_length: u32,
    pieces: Vec<PieceHash>,
    blake3: [u8; 32],
}

impl Info {
    /// Puts together what hashing found. `blake3` is the hash over the pieces' BLAKE3 hashes.
    pub fn new(length: u64, pieces: Vec<PieceHash>, blake3: [u8; 32]) -> Result<Self, InfoError> {
        let piece_length = checked_piece_length(length)?;
        let expected = length.div_ceil(piece_length.into()) as u32;
        if pieces.len() != expected as usize {
            let found = (pieces.len() * HASH_LEN) as u64;
            return Err(InfoError::PieceCount { expected, found });
        }
        let mut inner = Inner {
            content: ContentRef {
                info_hash: InfoHash::new([0; InfoHash::LEN]),
                length,
            },
            piece_length,
            pieces,
            blake3,
        };
        inner.content.info_hash = InfoHash::new(Sha1::digest(inner.encode()).into());
        Ok(Self(Arc::new(inner)))
    }

    /// Reads the bytes that [`Info::encode`] gives, and refuses all others.
    pub fn parse(bytes: &[u8]) -> Result<Self, InfoError> {
        if bytes.len() > INFO_BYTES_MAX {
            return Err(InfoError::TooLong(bytes.len()));
        }
        let mut input = Input { bytes, at: 0 };
        input.expect(b"d6:blake332:", "d6:blake332:")?;
        let blake3 = input.array()?;
        input.expect(b"6:lengthi", "6:lengthi")?;
        let length = input.number(b'e')?;
        input.expect(b"4:name40:", "4:name40:")?;
        let name: [u8; NAME_LEN] = input.array()?;
        input.expect(b"12:piece lengthi", "12:piece lengthi")?;
        let found = input.number(b'e')?;
        check_piece_length(length, found)?;
        input.expect(b"6:pieces", "6:pieces")?;
        let pieces = input.pieces(length)?;
        input.expect(b"e", "e")?;
        input.end()?;
        if name != name_of(&pieces) {
            return Err(InfoError::Name);
        }
        Self::new(length, pieces, blake3)
    }

    /// The bencoded dictionary, canonical.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    /// Info-hash and length.
    pub fn content(&self) -> ContentRef {
        self.0.content
    }

    /// SHA-1 of [`Info::encode`].
    pub fn info_hash(&self) -> InfoHash {
        self.0.content.info_hash
    }

    /// Bytes in the content, at least 1.
    pub fn length(&self) -> u64 {
        self.0.content.length
    }

    /// Bytes in each piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.0.piece_length
    }

    /// Number of pieces, at least 1, at most [`PIECES_MAX`].
    pub fn piece_count(&self) -> u32 {
        self.0.pieces.len() as u32
    }

    /// SHA-1 of each piece.
    pub fn pieces(&self) -> &[PieceHash] {
        &self.0.pieces
    }

    /// BLAKE3 over the list of the pieces' BLAKE3 hashes.
    pub fn blake3(&self) -> &[u8; 32] {
        &self.0.blake3
    }

    /// Where a piece lies in the content, in bytes; `None` beyond the last.
    pub fn piece_range(&self, piece: u32) -> Option<Range<u64>> {
        let start = u64::from(piece) * u64::from(self.piece_length());
        let end = (start + u64::from(self.piece_length())).min(self.length());
        (piece < self.piece_count()).then_some(start..end)
    }

    /// The pieces that hold any of these bytes; empty for an empty range or one beyond the end.
    pub fn pieces_covering(&self, offset: u64, length: u64) -> Range<u32> {
        let end = offset.saturating_add(length).min(self.length());
        if offset >= end {
            return 0..0;
        }
        let piece = u64::from(self.piece_length());
        (offset / piece) as u32..end.div_ceil(piece) as u32
    }

    /// These bytes are this piece, as far as SHA-1 can tell.
    pub fn piece_matches(&self, piece: u32, bytes: &[u8]) -> bool {
        let size = self.piece_range(piece).map(|range| range.end - range.start);
        size == Some(bytes.len() as u64)
            && self.0.pieces[piece as usize] == <PieceHash>::from(Sha1::digest(bytes))
    }
}

impl Inner {
    fn encode(&self) -> Vec<u8> {
        let hashes = self.pieces.len() * HASH_LEN;
        let mut out = Vec::with_capacity(hashes + 300);
        out.extend_from_slice(b"d6:blake332:");
        out.extend_from_slice(&self.blake3);
        out.extend_from_slice(format!("6:lengthi{}e4:name40:", self.content.length).as_bytes());
        out.extend_from_slice(&name_of(&self.pieces));
        out.extend_from_slice(format!("12:piece lengthi{}e", self.piece_length).as_bytes());
        out.extend_from_slice(format!("6:pieces{hashes}:").as_bytes());
        out.extend_from_slice(self.pieces.as_flattened());
        out.push(b'e');
        out
    }
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("content", &self.0.content)
            .field("piece_length", &self.0.piece_length)
            .finish_non_exhaustive()
    }
}

fn checked_piece_length(length: u64) -> Result<u32, InfoError> {
    if (1..=CONTENT_BYTES_MAX).contains(&length) {
        Ok(piece_length(length))
    } else {
        Err(InfoError::Length(length))
    }
}

fn check_piece_length(length: u64, found: u64) -> Result<(), InfoError> {
    let expected = checked_piece_length(length)?;
    if u64::from(expected) == found {
        return Ok(());
    }
    Err(InfoError::PieceLength {
        length,
        expected,
        found,
    })
}

fn name_of(pieces: &[PieceHash]) -> [u8; NAME_LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut name = [0; NAME_LEN];
    let hash: PieceHash = Sha1::digest(pieces.as_flattened()).into();
    for (pair, byte) in name.chunks_exact_mut(2).zip(hash) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    name
}

/// What is left to parse.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn malformed(&self, expected: &'static str) -> InfoError {
        let at = self.at;
        InfoError::Malformed { at, expected }
    }

    fn expect(&mut self, token: &[u8], expected: &'static str) -> Result<(), InfoError> {
        if !self.rest().starts_with(token) {
            return Err(self.malformed(expected));
        }
        self.at += token.len();
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], InfoError> {
        let Some(array) = self.rest().first_chunk() else {
            return Err(self.malformed("more bytes"));
        };
        let array = *array;
        self.at += N;
        Ok(array)
    }

    /// A decimal without sign or leading zeros, and the byte that ends it.
    fn number(&mut self, end: u8) -> Result<u64, InfoError> {
        const EXPECTED: &str = "a plain number";
        let digits = self.rest().iter().take_while(|b| b.is_ascii_digit());
        let count = digits.take(DIGITS_MAX + 1).count();
        let (digits, rest) = self.rest().split_at(count);
        let padded = count > 1 && digits[0] == b'0';
        if count == 0 || count > DIGITS_MAX || padded || rest.first() != Some(&end) {
            return Err(self.malformed(EXPECTED));
        }
        let add = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
        let value = digits.iter().fold(0, add);
        self.at += count + 1;
        Ok(value)
    }

    fn pieces(&mut self, length: u64) -> Result<Vec<PieceHash>, InfoError> {
        let expected = length.div_ceil(piece_length(length).into()) as u32;
        let found = self.number(b':')?;
        if found != u64::from(expected) * HASH_LEN as u64 {
            return Err(InfoError::PieceCount { expected, found });
        }
        let Some(hashes) = self.rest().get(..found as usize) else {
            return Err(self.malformed("as many hash bytes as announced"));
        };
        let (hashes, _) = hashes.as_chunks::<HASH_LEN>();
        let hashes = hashes.to_vec();
        self.at += found as usize;
        Ok(hashes)
    }

    fn end(&self) -> Result<(), InfoError> {
        if self.rest().is_empty() {
            return Ok(());
        }
        Err(self.malformed("the end"))
    }
}

#[cfg(test)]
mod tests;
