//! How a content divides into pieces and blocks.

use super::limits::{BLOCK_BYTES, PIECES_MAX};
use std::ops::Range;

/// One block: the unit of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    /// The piece it belongs to.
    pub(crate) piece: u32,
    /// Its number within the piece.
    pub(crate) index: u32,
}

/// Length of a content and of its pieces, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    length: u64,
    piece_length: u32,
}

impl Layout {
    /// `None` when the content would be empty, have pieces that are not whole blocks, or too many pieces.
    pub(crate) fn new(length: u64, piece_length: u32) -> Option<Self> {
        let divisible = piece_length > 0 && piece_length.is_multiple_of(BLOCK_BYTES);
        let valid =
            length > 0 && divisible && length.div_ceil(piece_length.into()) <= PIECES_MAX.into();
        valid.then_some(Self {
            length,
            piece_length,
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Number of pieces.
    pub(crate) fn pieces(&self) -> u32 {
        self.length.div_ceil(self.piece_length.into()) as u32
    }

    /// Where a piece begins, in bytes.
    pub(crate) fn offset(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.piece_length)
    }

    /// Bytes of a piece: all are alike, except the last.
    pub(crate) fn piece_size(&self, piece: u32) -> u32 {
        let left = self.length.saturating_sub(self.offset(piece));
        left.min(self.piece_length.into()) as u32
    }

    /// Number of blocks in a piece.
    pub(crate) fn blocks(&self, piece: u32) -> u32 {
        self.piece_size(piece).div_ceil(BLOCK_BYTES)
    }

    /// Bytes of a block.
    pub(crate) fn block_size(&self, block: Block) -> u32 {
        let begin = u64::from(block.index) * u64::from(BLOCK_BYTES);
        let left = u64::from(self.piece_size(block.piece)).saturating_sub(begin);
        left.min(BLOCK_BYTES.into()) as u32
    }

    /// The block that begins there and has this size, if there is one.
    pub(crate) fn block_at(&self, piece: u32, begin: u32, size: usize) -> Option<Block> {
        let block = Block {
            piece,
            index: begin / BLOCK_BYTES,
        };
        let exists = piece < self.pieces() && begin.is_multiple_of(BLOCK_BYTES);
        (exists && size > 0 && self.block_size(block) as usize == size).then_some(block)
    }

    /// The pieces that a range of bytes touches, cut to the content.
    pub(crate) fn pieces_of(&self, offset: u64, length: u64) -> Range<u32> {
        let end = offset.saturating_add(length).min(self.length);
        if offset >= end {
            return 0..0;
        }
        let size = u64::from(self.piece_length);
        (offset / size) as u32..end.div_ceil(size) as u32
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_piece_and_block_are_shorter() {
        let layout = Layout::new(2 * 65_536 + 20_000, 65_536).unwrap();
        assert_eq!((layout.pieces(), layout.piece_size(2)), (3, 20_000));
        assert_eq!((layout.blocks(0), layout.blocks(2)), (4, 2));
        assert_eq!(layout.block_size(Block { piece: 2, index: 1 }), 3_616);
        assert_eq!(
            layout.block_at(2, 16_384, 3_616),
            Some(Block { piece: 2, index: 1 })
        );
        for (piece, begin, size) in [
            (3, 0, 16_384),
            (2, 16_384, 16_384),
            (0, 1, 16_384),
            (2, 32_768, 0),
        ] {
            assert_eq!(layout.block_at(piece, begin, size), None);
        }
    }

    #[test]
    fn ranges_are_cut_to_the_content() {
        let layout = Layout::new(200_000, 65_536).unwrap();
        assert_eq!(layout.pieces_of(0, 1), 0..1);
        assert_eq!(layout.pieces_of(65_535, 2), 0..2);
        assert_eq!(layout.pieces_of(199_999, u64::MAX), 3..4);
        assert_eq!(layout.pieces_of(200_000, 5), 0..0);
        assert_eq!(layout.pieces_of(7, 0), 0..0);
    }

    #[test]
    fn impossible_layouts_are_refused() {
        for (length, piece) in [(0, 65_536), (1, 0), (1, 1000), (u64::MAX, 65_536)] {
            assert_eq!(Layout::new(length, piece), None);
        }
    }
}
