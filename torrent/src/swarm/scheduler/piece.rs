//! A piece that is being assembled from blocks.

use super::PeerKey;
use std::collections::BTreeSet;

/// Where a piece is on its way to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Nothing of it is here or asked for.
    Missing,
    /// Blocks of it are asked for or here.
    Active,
    /// All blocks are here; the disk side is checking and writing it.
    Verifying,
    /// Verified and on disk.
    Have,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody is asked for it.
    Free,
    /// That many peers are asked for it.
    Asked(u8),
    Received,
}

#[derive(Debug)]
pub(super) struct Active {
    blocks: Vec<State>,
    free: u32,
    received: u32,
    pub(super) contributors: BTreeSet<PeerKey>,
    /// Only this peer may deliver blocks of it: so that a wrong piece has one author.
    pub(super) exclusive: Option<PeerKey>,
}

impl Active {
    pub(super) fn new(blocks: u32, exclusive: Option<PeerKey>) -> Self {
        Self {
            blocks: vec![State::Free; blocks as usize],
            free: blocks,
            received: 0,
            contributors: BTreeSet::new(),
            exclusive,
        }
    }

    pub(super) fn has_free(&self) -> bool {
        self.free > 0
    }

    pub(super) fn is_whole(&self) -> bool {
        self.received as usize == self.blocks.len()
    }

    /// Free blocks, in order.
    pub(super) fn free_blocks(&self) -> impl Iterator<Item = u32> {
        (0u32..)
            .zip(&self.blocks)
            .filter_map(|(index, state)| (*state == State::Free).then_some(index))
    }

    /// Blocks that fewer than `most` peers, but somebody, are asked for.
    pub(super) fn asked_blocks(&self, most: u8) -> impl Iterator<Item = u32> {
        (0u32..)
            .zip(&self.blocks)
            .filter_map(move |(index, state)| match state {
                State::Asked(peers) if *peers < most => Some(index),
                _ => None,
            })
    }

    /// One more peer is asked.
    pub(super) fn ask(&mut self, index: u32) {
        let state = &mut self.blocks[index as usize];
        *state = match *state {
            State::Free => {
                self.free -= 1;
                State::Asked(1)
            }
            State::Asked(peers) => State::Asked(peers.saturating_add(1)),
            State::Received => State::Received,
        };
    }

    /// One peer fewer is asked.
    pub(super) fn release(&mut self, index: u32) {
        let state = &mut self.blocks[index as usize];
        *state = match *state {
            State::Asked(1) => {
                self.free += 1;
                State::Free
            }
            State::Asked(peers) => State::Asked(peers - 1),
            other => other,
        };
    }

    /// The block is here; whether it was not before.
    pub(super) fn receive(&mut self, index: u32, from: PeerKey) -> bool {
        let state = &mut self.blocks[index as usize];
        match *state {
            State::Received => return false,
            State::Free => self.free -= 1,
            State::Asked(_) => {}
        }
        *state = State::Received;
        self.received += 1;
        self.contributors.insert(from);
        true
    }
}
