//! A set of pieces of one content, and its form on the wire.

/// Which pieces somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PieceSet {
    words: Vec<u64>,
    pieces: u32,
    count: u32,
}

impl PieceSet {
    /// None of `pieces`.
    pub(crate) fn empty(pieces: u32) -> Self {
        Self {
            words: vec![0; pieces.div_ceil(64) as usize],
            pieces,
            count: 0,
        }
    }

    /// The pieces for which `has` answers yes.
    pub(crate) fn from_fn(pieces: u32, mut has: impl FnMut(u32) -> bool) -> Self {
        let mut set = Self::empty(pieces);
        for piece in (0..pieces).filter(|piece| has(*piece)) {
            set.insert(piece);
        }
        set
    }

    /// A bitfield message's payload (BEP 3): high bit first, spare bits zero. `None` when it is not that.
    pub(crate) fn from_wire(bytes: &[u8], pieces: u32) -> Option<Self> {
        if bytes.len() != pieces.div_ceil(8) as usize {
            return None;
        }
        let bit = |piece: u32| bytes[(piece / 8) as usize] & (0x80 >> (piece % 8)) != 0;
        let spare = pieces..pieces.next_multiple_of(8);
        (!spare.into_iter().any(bit)).then(|| Self::from_fn(pieces, bit))
    }

    /// A bitfield message's payload.
    pub(crate) fn to_wire(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.pieces.div_ceil(8) as usize];
        for piece in self.iter() {
            bytes[(piece / 8) as usize] |= 0x80 >> (piece % 8);
        }
        bytes
    }

    /// Adds a piece; whether it was missing. A piece beyond the content is never added.
    pub(crate) fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.pieces || self.contains(piece) {
            return false;
        }
        self.words[(piece / 64) as usize] |= 1 << (piece % 64);
        self.count += 1;
        true
    }

    pub(crate) fn contains(&self, piece: u32) -> bool {
        self.words
            .get((piece / 64) as usize)
            .is_some_and(|word| word & (1 << (piece % 64)) != 0)
    }

    /// How many it has.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// It has all.
    pub(crate) fn is_full(&self) -> bool {
        self.count == self.pieces
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().zip(0u32..).flat_map(|(word, index)| {
            let word = *word;
            (0..64)
                .filter(move |bit| word & (1 << bit) != 0)
                .map(move |bit| index * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bitfield_of_wrong_length_or_with_spare_bits_is_refused() {
        assert!(PieceSet::from_wire(&[0xff, 0x80], 9).unwrap().is_full());
        for (bytes, pieces) in [
            (&[0xff][..], 9),
            (&[0xff, 0x80, 0], 9),
            (&[0xff, 0xc0], 9),
            (&[], 1),
        ] {
            assert_eq!(PieceSet::from_wire(bytes, pieces), None);
        }
    }

    proptest! {
        #[test]
        fn the_wire_form_round_trips(bits in proptest::collection::vec(any::<bool>(), 1..300)) {
            let set = PieceSet::from_fn(bits.len() as u32, |piece| bits[piece as usize]);
            prop_assert_eq!(set.count() as usize, bits.iter().filter(|bit| **bit).count());
            prop_assert_eq!(PieceSet::from_wire(&set.to_wire(), bits.len() as u32), Some(set));
        }
    }
}
