//! Missing pieces in the order in which replication asks for them: what fewest peers have comes first.

use super::super::piece_set::PieceSet;
use std::collections::BTreeSet;

/// Consecutive pieces that are ordered as one: disks on both sides like neighbours, while different nodes
/// should still begin at different places.
const NEIGHBOURS: u32 = 16;

/// Pieces by availability. Peers that have everything count for none: they change no order.
#[derive(Debug)]
pub(super) struct Rarity {
    /// Peers, complete ones apart, that have a piece.
    availability: Vec<u16>,
    /// Missing pieces, once replication has begun.
    order: Option<BTreeSet<(u16, u32, u32)>>,
    seed: u32,
}

impl Rarity {
    pub(super) fn new(pieces: u32, seed: u32) -> Self {
        Self {
            availability: vec![0; pieces as usize],
            order: None,
            seed,
        }
    }

    /// From now on keeps the order of `missing`; or no longer.
    pub(super) fn set_order(&mut self, missing: Option<&mut dyn Iterator<Item = u32>>) {
        self.order = missing.map(|pieces| pieces.map(|piece| self.key(piece)).collect());
    }

    fn key(&self, piece: u32) -> (u16, u32, u32) {
        // What no partial peer has is left to complete ones, last: they can be asked at any time.
        let rank = self.availability[piece as usize].wrapping_sub(1);
        let mixed = (piece / NEIGHBOURS) ^ self.seed;
        (rank, mixed.wrapping_mul(0x9E37_79B1).rotate_left(13), piece)
    }

    pub(super) fn add_peer(&mut self, has: &PieceSet) {
        if !has.is_full() {
            has.iter().for_each(|piece| self.shift(piece, 1));
        }
    }

    /// `counted`: what was added of it.
    pub(super) fn remove_peer(&mut self, counted: impl Iterator<Item = u32>) {
        counted.for_each(|piece| self.shift(piece, -1));
    }

    /// One peer more (1) or fewer (-1) has it.
    pub(super) fn shift(&mut self, piece: u32, by: i16) {
        let old = self.key(piece);
        let count = &mut self.availability[piece as usize];
        *count = count.saturating_add_signed(by);
        let new = self.key(piece);
        if let Some(order) = &mut self.order
            && order.remove(&old)
        {
            order.insert(new);
        }
    }

    /// The piece is missing again.
    pub(super) fn insert(&mut self, piece: u32) {
        let key = self.key(piece);
        if let Some(order) = &mut self.order {
            order.insert(key);
        }
    }

    /// The piece is under way or here.
    pub(super) fn remove(&mut self, piece: u32) {
        let key = self.key(piece);
        if let Some(order) = &mut self.order {
            order.remove(&key);
        }
    }

    /// Missing pieces, rarest first; none unless replication is on.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.order.iter().flatten().map(|(_, _, piece)| *piece)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_rarest_comes_first_and_follows_what_peers_tell() {
        let mut rarity = Rarity::new(4, 7);
        rarity.set_order(Some(&mut (0..4)));
        rarity.add_peer(&PieceSet::from_fn(4, |piece| piece != 3));
        rarity.add_peer(&PieceSet::from_fn(4, |piece| piece == 0 || piece == 2));
        rarity.add_peer(&PieceSet::from_fn(4, |_| true));
        assert_eq!(rarity.iter().collect::<Vec<_>>(), [1, 0, 2, 3]);
        rarity.shift(3, 1);
        rarity.shift(1, 1);
        rarity.shift(1, 1);
        rarity.remove(0);
        assert_eq!(rarity.iter().collect::<Vec<_>>(), [3, 2, 1]);
    }
}
