//! Choosing blocks for a peer that has room for requests.

use super::super::layout::Block;
use super::super::limits::{DUPLICATE_AFTER, DUPLICATES_MAX};
use super::peer::{Asked, Peer};
use super::piece::{Active, Status};
use super::{Effect, PeerKey, Scheduler};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

impl Scheduler {
    /// Fills every peer's queue, the fastest first: what is needed most goes to whom delivers soonest.
    pub(super) fn fill_all(&mut self, now: Instant) {
        self.fill_where(now, |peer| peer.room() > 0);
    }

    pub(super) fn fill_hungry(&mut self, now: Instant) {
        self.fill_where(now, Peer::hungry);
    }

    fn fill_where(&mut self, now: Instant, which: impl Fn(&Peer) -> bool) {
        let mut keys: Vec<(u64, PeerKey)> = (self.peers.iter())
            .filter(|(_, peer)| which(peer))
            .map(|(key, peer)| (u64::MAX - peer.speed(), *key))
            .collect();
        keys.sort_unstable();
        for (_, key) in keys {
            self.fill(key, now);
        }
    }

    /// Asks a peer for as many blocks as it has room for.
    pub(super) fn fill(&mut self, key: PeerKey, now: Instant) {
        let room = self.peers.get(&key).map_or(0, Peer::room);
        let mut left = room;
        while left > 0 {
            let Some(piece) = self.next_piece(key) else {
                return;
            };
            let asked = self.ask_piece(key, piece, left, now);
            debug_assert!(asked > 0, "a piece without free blocks was chosen");
            left -= asked.clamp(1, left);
        }
    }

    /// The piece of which this peer should be asked for blocks next.
    fn next_piece(&self, key: PeerKey) -> Option<u32> {
        let peer = self.peers.get(&key)?;
        let can_start = self.can_start();
        let open = |piece: &u32| self.is_open(*piece, key, peer);
        let begun = |piece: &u32| can_start || self.status[*piece as usize] == Status::Active;
        self.needed()
            .find(open)
            .or_else(|| self.upcoming().filter(begun).find(open))
            .or_else(|| self.started().find(open))
            .or_else(|| self.rarity.iter().filter(begun).find(open))
    }

    fn needed(&self) -> impl Iterator<Item = u32> {
        self.needs.values().flat_map(|need| need.pieces.clone())
    }

    fn upcoming(&self) -> impl Iterator<Item = u32> {
        self.windows.values().cloned().flatten()
    }

    /// Begun pieces: all, when the whole content is wanted; else they wait until somebody wants them.
    fn started(&self) -> impl Iterator<Item = u32> {
        let wanted = self.fetch.then_some(&self.unfilled);
        wanted.into_iter().flatten().copied()
    }

    /// Keeps account of begun pieces with blocks that nobody is asked for.
    pub(super) fn note_free(&mut self, piece: u32) {
        let open = self.status[piece as usize] == Status::Active
            && self.active.get(&piece).is_some_and(Active::has_free);
        if open {
            self.unfilled.insert(piece);
        } else {
            self.unfilled.remove(&piece);
        }
    }

    fn can_start(&self) -> bool {
        let most = self.memory / u64::from(self.layout.piece_length());
        (self.active.len() as u64) < most.max(2)
    }

    /// The peer has the piece, and may be asked for a block of it that nobody else is asked for.
    fn is_open(&self, piece: u32, key: PeerKey, peer: &Peer) -> bool {
        if !peer.has.contains(piece) {
            return false;
        }
        match self.status[piece as usize] {
            Status::Missing => true,
            Status::Active => self
                .active
                .get(&piece)
                .is_some_and(|active| may_join(active, key, peer) && has_open(active, piece, peer)),
            Status::Verifying | Status::Have => false,
        }
    }

    fn ask_piece(&mut self, key: PeerKey, piece: u32, most: usize, now: Instant) -> usize {
        let Some(peer) = self.peers.get(&key) else {
            return 0;
        };
        let exclusive = peer.suspected.then_some(key);
        let blocks = self.layout.blocks(piece);
        let active = (self.active.entry(piece)).or_insert_with(|| Active::new(blocks, exclusive));
        let open = active
            .free_blocks()
            .map(|index| Block { piece, index })
            .filter(|block| !peer.outstanding.contains_key(block));
        let chosen: Vec<Block> = open.take(most).collect();
        self.status[piece as usize] = Status::Active;
        self.rarity.remove(piece);
        for block in &chosen {
            self.ask(key, *block, now);
        }
        self.note_free(piece);
        chosen.len()
    }

    fn ask(&mut self, key: PeerKey, block: Block, now: Instant) {
        let asked = Asked {
            at: now,
            released: false,
        };
        if let (Some(active), Some(peer)) =
            (self.active.get_mut(&block.piece), self.peers.get_mut(&key))
        {
            active.ask(block.index);
            peer.outstanding.insert(block, asked);
            peer.late.remove(&block);
            self.effects.push(Effect::Request(key, block));
        }
    }

    /// Before a need with blocks that nobody is asked for: those who could send them drop the requests that
    /// nobody waits for, so that the need does not queue behind them.
    pub(super) fn make_room(&mut self, pieces: Range<u32>) {
        let open = |piece: &u32| match self.status[*piece as usize] {
            Status::Missing => true,
            Status::Active => self.active.get(piece).is_some_and(Active::has_free),
            Status::Verifying | Status::Have => false,
        };
        let Some(first) = pieces.clone().find(open) else {
            return;
        };
        let mut dropped = Vec::new();
        for (key, peer) in &mut self.peers {
            if !peer.has.contains(first) {
                continue;
            }
            let idle = |piece: u32| {
                !pieces.contains(&piece)
                    && !(self.needs.values()).any(|need| need.pieces.contains(&piece))
            };
            let idle = (peer.outstanding.iter())
                .filter(|(block, asked)| !asked.released && idle(block.piece))
                .map(|(block, _)| (*key, *block));
            let idle: Vec<_> = idle.collect();
            for (_, block) in &idle {
                peer.outstanding.remove(block);
                peer.late.insert(*block);
            }
            dropped.extend(idle);
        }
        for (key, block) in dropped {
            if let Some(active) = self.active.get_mut(&block.piece) {
                active.release(block.index);
            }
            self.note_free(block.piece);
            self.effects.push(Effect::Cancel(key, block));
        }
    }

    /// Asks idle peers for what others take long to send: at once late, where somebody waits for it, and at
    /// the end of a replication.
    pub(super) fn duplicate_slow(&mut self, now: Instant) {
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            let room = self.peers.get(&key).map_or(0, Peer::room);
            // A set: several needs may name the same piece.
            let late: BTreeSet<Block> = self.late_blocks(key, now).take(room).collect();
            for block in late {
                self.ask(key, block, now);
            }
        }
    }

    fn late_blocks(&self, key: PeerKey, now: Instant) -> impl Iterator<Item = Block> {
        let peer = self.peers.get(&key).filter(|peer| peer.room() > 0);
        let needed = self.needed().map(|piece| (piece, DUPLICATE_AFTER));
        let ending = (self.active.keys())
            .filter(|_| self.fetch)
            .map(|piece| (*piece, 4 * DUPLICATE_AFTER));
        let pieces = needed.chain(ending);
        let late = move |(piece, after)| {
            let peer = peer?;
            let active = (self.active.get(&piece))
                .filter(|active| peer.has.contains(piece) && may_join(active, key, peer))?;
            let blocks = active
                .asked_blocks(DUPLICATES_MAX)
                .map(move |index| Block { piece, index })
                .filter(move |block| !peer.outstanding.contains_key(block))
                .filter(move |block| self.is_late(*block, now, after));
            Some(blocks)
        };
        pieces.filter_map(late).flatten()
    }

    fn is_late(&self, block: Block, now: Instant, after: std::time::Duration) -> bool {
        let asked = self
            .peers
            .values()
            .filter_map(|peer| peer.outstanding.get(&block));
        let newest = asked.map(|asked| asked.at).max();
        newest.is_some_and(|at| now.saturating_duration_since(at) >= after)
    }
}

/// Who is suspected works alone; and nobody joins such work.
fn may_join(active: &Active, key: PeerKey, peer: &Peer) -> bool {
    match active.exclusive {
        Some(only) => only == key,
        None => !peer.suspected,
    }
}

fn has_open(active: &Active, piece: u32, peer: &Peer) -> bool {
    // Most often nothing of the piece is owed by this peer for too long, and any free block will do.
    active.has_free()
        && active
            .free_blocks()
            .any(|index| !peer.outstanding.contains_key(&Block { piece, index }))
}
