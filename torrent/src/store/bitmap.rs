//! Which pieces are here: bits that any thread may read while others set them.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// One bit for each piece, in the order of BEP 3's bitfield.
#[derive(Debug)]
pub(crate) struct Bitmap {
    bytes: Vec<AtomicU8>,
    missing: AtomicU32,
}

/// Bytes that a bitmap of so many pieces has.
pub(crate) fn bitmap_len(pieces: u32) -> usize {
    pieces.div_ceil(8) as usize
}

/// The right length, and no bit beyond the last piece.
pub(crate) fn is_bitmap(bytes: &[u8], pieces: u32) -> bool {
    let spare = match pieces % 8 {
        0 => 0,
        used => 0xff_u8 >> used,
    };
    bytes.len() == bitmap_len(pieces) && bytes.last().is_none_or(|last| last & spare == 0)
}

impl Bitmap {
    /// From bytes for which [`is_bitmap`] holds.
    pub(crate) fn new(bytes: &[u8], pieces: u32) -> Self {
        assert!(is_bitmap(bytes, pieces), "checked where it is parsed");
        let held: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
        Self {
            bytes: bytes.iter().map(|byte| AtomicU8::new(*byte)).collect(),
            missing: AtomicU32::new(pieces - held),
        }
    }

    pub(crate) fn full(pieces: u32) -> Self {
        let bitmap = Self::new(&vec![0; bitmap_len(pieces)], pieces);
        bitmap.fill(pieces);
        bitmap
    }

    pub(crate) fn fill(&self, pieces: u32) {
        (0..pieces).for_each(|piece| self.set(piece));
    }

    pub(crate) fn get(&self, piece: u32) -> bool {
        let byte = self.bytes.get(piece as usize / 8);
        byte.is_some_and(|byte| byte.load(Ordering::Acquire) & mask(piece) != 0)
    }

    pub(crate) fn set(&self, piece: u32) {
        let byte = &self.bytes[piece as usize / 8];
        if byte.fetch_or(mask(piece), Ordering::AcqRel) & mask(piece) == 0 {
            self.missing.fetch_sub(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn clear(&self, piece: u32) {
        let byte = &self.bytes[piece as usize / 8];
        if byte.fetch_and(!mask(piece), Ordering::AcqRel) & mask(piece) != 0 {
            self.missing.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn missing(&self) -> u32 {
        self.missing.load(Ordering::Acquire)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let load = |byte: &AtomicU8| byte.load(Ordering::Acquire);
        self.bytes.iter().map(load).collect()
    }
}

fn mask(piece: u32) -> u8 {
    0x80 >> (piece % 8)
}
