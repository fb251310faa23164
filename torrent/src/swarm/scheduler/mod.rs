//! Which block to ask of which peer, for one content: pure decisions, events in, effects out.
//!
//! Order of asking: what readers wait for, in the order of their calls; what they will read next; pieces
//! that are begun; then, when the content is being replicated, the rarest first. A block is asked from one
//! peer, until it takes too long. Invariants: a piece is `Have` only after the disk side said so; a block's
//! number of askers is that of peers with an unreleased request for it.

mod peer;
mod pick;
mod piece;
mod rarity;
#[cfg(test)]
mod tests;
mod wants;

use super::layout::{Block, Layout};
use super::limits::{ASSEMBLY_BYTES_MAX, STALL, WRONG_PIECES_MAX};
use super::piece_set::PieceSet;
use peer::Peer;
use piece::{Active, Status};
use rarity::Rarity;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};
use wants::Need;

/// A connected peer, as long as it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerKey(pub(crate) u64);

/// A read that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NeedId(pub(crate) u64);

/// Somebody who reads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReaderId(pub(crate) u64);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A peer is there: it has nothing yet, and chokes us.
    Joined(PeerKey),
    Left(PeerKey),
    /// All it has (its bitfield).
    Has(PeerKey, PieceSet),
    HasPiece(PeerKey, u32),
    Choked(PeerKey),
    Unchoked(PeerKey),
    /// How many requests it takes.
    Queue(PeerKey, usize),
    /// A block has arrived; its bytes are with the caller.
    Block(PeerKey, Block),
    /// The piece is right, and on disk.
    Verified(u32),
    /// The piece's hash is wrong.
    Wrong(u32),
    /// The piece could not be written.
    Unwritten(u32),
    /// A read waits for these pieces.
    Need(NeedId, Range<u32>),
    NeedGone(NeedId),
    /// A reader will soon want these pieces (instead of those it wanted before).
    Ahead(ReaderId, Range<u32>),
    ReaderGone(ReaderId),
    /// No reader wants anything ahead, until it says so again.
    AheadGone,
    /// The whole content is wanted, or no longer.
    Fetch(bool),
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Request(PeerKey, Block),
    Cancel(PeerKey, Block),
    /// The block that has just arrived is wanted: keep its bytes.
    Keep(Block),
    /// All blocks of the piece are kept: check and write it.
    Verify(u32),
    /// The kept blocks of the piece are worthless.
    Forget(u32),
    /// Tell the peer whether we are interested.
    Interested(PeerKey, bool),
    /// The peer alone delivered wrong bytes for this piece.
    Ban(PeerKey, u32),
    /// All pieces of a need are here.
    NeedMet(NeedId),
    /// A need has waited in vain.
    NeedExpired(NeedId),
    /// A peer that has all that is missing here begins to answer.
    Holder,
    /// The last piece is here.
    Complete,
}

/// The decisions for one content.
#[derive(Debug)]
pub(crate) struct Scheduler {
    layout: Layout,
    status: Vec<Status>,
    missing: u32,
    active: BTreeMap<u32, Active>,
    /// Active pieces with blocks that nobody is asked for.
    unfilled: BTreeSet<u32>,
    peers: BTreeMap<PeerKey, Peer>,
    needs: BTreeMap<NeedId, Need>,
    windows: BTreeMap<ReaderId, Range<u32>>,
    fetch: bool,
    wait: Duration,
    /// Most bytes of begun pieces, beyond what reads wait for.
    memory: u64,
    rarity: Rarity,
    effects: Vec<Effect>,
}

impl Scheduler {
    /// `have`: what is on disk already. `seed` decides among equally rare pieces.
    pub(crate) fn new(layout: Layout, have: &PieceSet, seed: u32) -> Self {
        let pieces = layout.pieces();
        let status = |piece| {
            if have.contains(piece) {
                Status::Have
            } else {
                Status::Missing
            }
        };
        Self {
            layout,
            status: (0..pieces).map(status).collect(),
            missing: pieces - have.count(),
            active: BTreeMap::new(),
            unfilled: BTreeSet::new(),
            peers: BTreeMap::new(),
            needs: BTreeMap::new(),
            windows: BTreeMap::new(),
            fetch: false,
            wait: Duration::MAX,
            memory: ASSEMBLY_BYTES_MAX,
            rarity: Rarity::new(pieces, seed),
            effects: Vec::new(),
        }
    }

    /// How long a need waits while nobody who has its pieces sends anything.
    pub(crate) fn set_wait(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// How many bytes of begun pieces it may hold, beyond what reads wait for; at least two pieces.
    pub(crate) fn set_memory(&mut self, bytes: u64) {
        self.memory = bytes;
    }

    /// Somebody waits for this piece.
    pub(crate) fn is_needed(&self, piece: u32) -> bool {
        (self.needs.values()).any(|need| need.pieces.contains(&piece))
    }

    /// Pieces that are not verified and on disk.
    pub(crate) fn missing(&self) -> u32 {
        self.missing
    }

    /// What follows from an event.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Joined(key) => self.joined(key, now),
            Event::Left(key) => self.left(key, now),
            Event::Has(key, pieces) => self.has(key, pieces, now),
            Event::HasPiece(key, piece) => self.has_piece(key, piece, now),
            Event::Choked(key) => self.choked(key, now),
            Event::Unchoked(key) => self.unchoked(key, now),
            Event::Queue(key, requests) => self.queue(key, requests),
            Event::Block(key, block) => self.block(key, block, now),
            Event::Verified(piece) => self.verified(piece, now),
            Event::Wrong(piece) => self.wrong(piece, now),
            Event::Unwritten(piece) => self.reset(piece),
            Event::Need(id, pieces) => self.need(id, pieces, now),
            Event::NeedGone(id) => drop(self.needs.remove(&id)),
            Event::Ahead(reader, pieces) => self.ahead(reader, pieces, now),
            Event::ReaderGone(reader) => drop(self.windows.remove(&reader)),
            Event::AheadGone => self.windows.clear(),
            Event::Fetch(on) => self.set_fetch(on, now),
            Event::Tick => self.tick(now),
        }
        std::mem::take(&mut self.effects)
    }

    fn joined(&mut self, key: PeerKey, now: Instant) {
        let peer = Peer::new(self.layout.pieces(), now);
        self.peers.insert(key, peer);
    }

    fn left(&mut self, key: PeerKey, now: Instant) {
        self.release_all(key);
        let Some(peer) = self.peers.remove(&key) else {
            return;
        };
        if !peer.has.is_full() {
            self.rarity.remove_peer(peer.has.iter());
        }
        self.forget_orphans(key);
        self.fill_all(now);
    }

    /// Begun pieces that only the peer that left could finish would hold memory for nothing.
    fn forget_orphans(&mut self, gone: PeerKey) {
        let orphaned = |piece: &u32, active: &Active| {
            let holds = |peer: &Peer| !peer.suspected && peer.has.contains(*piece);
            let held = self.peers.values().any(holds);
            let open = match active.exclusive {
                Some(only) => only != gone,
                None => held,
            };
            self.status[*piece as usize] == Status::Active && !open
        };
        let orphans: Vec<u32> = (self.active.iter())
            .filter(|(piece, active)| orphaned(piece, active))
            .map(|(piece, _)| *piece)
            .collect();
        self.reset_each(orphans);
    }

    fn has(&mut self, key: PeerKey, pieces: PieceSet, now: Instant) {
        let status = &self.status;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !peer.has.is_full() {
            self.rarity.remove_peer(peer.has.iter());
        }
        self.rarity.add_peer(&pieces);
        let missing = |piece: &u32| status[*piece as usize] != Status::Have;
        peer.useful = pieces.iter().filter(missing).count() as u32;
        peer.has = pieces;
        self.show_interest(key);
        self.fill(key, now);
    }

    fn has_piece(&mut self, key: PeerKey, piece: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !peer.has.insert(piece) {
            return;
        }
        if peer.has.is_full() {
            // Complete peers count for none: take back what was counted of it.
            let counted = peer.has.iter().filter(|other| *other != piece);
            self.rarity.remove_peer(counted);
        } else {
            self.rarity.shift(piece, 1);
        }
        if self.status[piece as usize] != Status::Have {
            peer.useful += 1;
            self.show_interest(key);
            self.fill(key, now);
        }
    }

    fn show_interest(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.interested != (peer.useful > 0)
        {
            peer.interested = !peer.interested;
            self.effects.push(Effect::Interested(key, peer.interested));
        }
    }

    /// Without the Fast extension a choke drops what was asked (BEP 3).
    fn choked(&mut self, key: PeerKey, now: Instant) {
        self.release_all(key);
        self.reset_exclusive(key);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.choking = true;
            peer.late.clear();
        }
        self.fill_all(now);
    }

    fn unchoked(&mut self, key: PeerKey, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.choking = false;
            peer.answers();
        }
        self.note_holder(key);
        self.fill(key, now);
    }

    fn note_holder(&mut self, key: PeerKey) {
        let has_the_rest = |peer: &Peer| peer.useful == self.missing;
        if self.missing > 0 && self.peers.get(&key).is_some_and(has_the_rest) {
            self.effects.push(Effect::Holder);
        }
    }

    fn queue(&mut self, key: PeerKey, requests: usize) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.set_queue(requests);
        }
    }

    /// Begins anew the pieces that only this peer may deliver: it will not, and others would never be asked.
    fn reset_exclusive(&mut self, key: PeerKey) {
        let pieces = (self.active.iter())
            .filter(|(_, active)| active.exclusive == Some(key))
            .map(|(piece, _)| *piece)
            .filter(|piece| self.status[*piece as usize] == Status::Active);
        self.reset_each(pieces.collect());
    }

    /// Takes back all that a peer was asked for.
    fn release_all(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        for (block, asked) in std::mem::take(&mut peer.outstanding) {
            if !asked.released
                && let Some(active) = self.active.get_mut(&block.piece)
            {
                active.release(block.index);
                self.note_free(block.piece);
            }
        }
    }

    fn block(&mut self, key: PeerKey, block: Block, now: Instant) {
        let size = self.layout.block_size(block);
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let asked = peer.outstanding.remove(&block);
        if asked.is_none() && !peer.late.remove(&block) {
            return;
        }
        let was_silent = peer.answers();
        peer.received(size, asked, now);
        let hungry = peer.hungry();
        if was_silent {
            self.note_holder(key);
        }
        self.receive(key, block, asked.is_some_and(|asked| !asked.released));
        if hungry {
            self.fill(key, now);
        }
    }

    fn receive(&mut self, key: PeerKey, block: Block, was_asked: bool) {
        if self.status[block.piece as usize] != Status::Active {
            return;
        }
        let Some(active) = self.active.get_mut(&block.piece) else {
            return;
        };
        let allowed = active.exclusive.is_none_or(|only| only == key);
        if !allowed || !active.receive(block.index, key) {
            // Its request is gone from the peer, so it no longer counts.
            if was_asked {
                active.release(block.index);
                self.note_free(block.piece);
            }
            return;
        }
        self.effects.push(Effect::Keep(block));
        if active.is_whole() {
            self.status[block.piece as usize] = Status::Verifying;
            self.effects.push(Effect::Verify(block.piece));
        }
        self.note_free(block.piece);
        self.cancel_elsewhere(block);
    }

    fn cancel_elsewhere(&mut self, block: Block) {
        for (key, peer) in &mut self.peers {
            if peer.outstanding.remove(&block).is_some() {
                peer.late.insert(block);
                self.effects.push(Effect::Cancel(*key, block));
            }
        }
    }

    fn verified(&mut self, piece: u32, now: Instant) {
        if self.status[piece as usize] == Status::Have {
            return;
        }
        self.status[piece as usize] = Status::Have;
        self.missing -= 1;
        self.rarity.remove(piece);
        self.clear_suspicion(piece);
        let holders: Vec<PeerKey> = (self.peers.iter_mut())
            .filter(|(_, peer)| peer.has.contains(piece))
            .map(|(key, peer)| {
                peer.useful -= 1;
                *key
            })
            .collect();
        for key in holders {
            self.show_interest(key);
        }
        self.meet_needs(piece);
        if self.missing == 0 {
            self.effects.push(Effect::Complete);
        }
        self.fill_hungry(now);
    }

    fn clear_suspicion(&mut self, piece: u32) {
        let Some(active) = self.active.remove(&piece) else {
            return;
        };
        if let Some(key) = active.exclusive
            && let Some(peer) = self.peers.get_mut(&key)
        {
            peer.suspected = false;
        }
    }

    fn wrong(&mut self, piece: u32, now: Instant) {
        let authors = (self.active.get(&piece))
            .map(|active| active.contributors.clone())
            .unwrap_or_default();
        self.reset(piece);
        let alone = authors.len() == 1;
        for key in authors {
            self.reset_shared(key);
            let Some(peer) = self.peers.get_mut(&key) else {
                continue;
            };
            peer.suspected = true;
            peer.wrong += u32::from(alone);
            if peer.wrong >= WRONG_PIECES_MAX {
                self.effects.push(Effect::Ban(key, piece));
            }
        }
        self.fill_all(now);
    }

    /// Begins anew the pieces to which a suspected peer was to contribute beside others.
    fn reset_shared(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let asked = |piece| peer.outstanding.keys().any(|block| block.piece == piece);
        let shared: Vec<u32> = (self.active.iter())
            .filter(|(piece, active)| {
                active.exclusive.is_none()
                    && self.status[**piece as usize] == Status::Active
                    && (active.contributors.contains(&key) || asked(**piece))
            })
            .map(|(piece, _)| *piece)
            .collect();
        self.reset_each(shared);
    }

    fn reset_each(&mut self, pieces: Vec<u32>) {
        for piece in pieces {
            self.reset(piece);
        }
    }

    /// The piece is missing again, whatever there was of it.
    fn reset(&mut self, piece: u32) {
        let known = matches!(
            self.status[piece as usize],
            Status::Active | Status::Verifying
        );
        if !known {
            return;
        }
        self.active.remove(&piece);
        self.unfilled.remove(&piece);
        self.status[piece as usize] = Status::Missing;
        self.rarity.insert(piece);
        for (key, peer) in &mut self.peers {
            let from = Block { piece, index: 0 };
            let to = Block {
                piece,
                index: u32::MAX,
            };
            let asked: Vec<Block> = (peer.outstanding.range(from..=to))
                .map(|(block, _)| *block)
                .collect();
            for block in asked {
                peer.outstanding.remove(&block);
                peer.late.insert(block);
                self.effects.push(Effect::Cancel(*key, block));
            }
        }
        self.effects.push(Effect::Forget(piece));
    }

    fn tick(&mut self, now: Instant) {
        self.release_stalled(now);
        for peer in self.peers.values_mut() {
            peer.tick(now);
        }
        self.fill_all(now);
        self.duplicate_slow(now);
        self.expire(now);
    }

    fn release_stalled(&mut self, now: Instant) {
        let late = |peer: &Peer| {
            let oldest = peer.outstanding.values().map(|asked| asked.at).min();
            let since = oldest.map(|oldest| oldest.max(peer.last_block));
            since.is_some_and(|since| now.saturating_duration_since(since) >= STALL)
        };
        let stalled: Vec<PeerKey> = (self.peers.iter())
            .filter(|(_, peer)| !peer.stalled && late(peer))
            .map(|(key, _)| *key)
            .collect();
        for key in stalled {
            self.release_late(key);
        }
    }

    /// Others may be asked for what the peer owes; it may still deliver.
    fn release_late(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.stalled = true;
        let owed = peer.outstanding.iter_mut();
        let late: Vec<Block> = owed
            .filter_map(|(block, asked)| {
                (!std::mem::replace(&mut asked.released, true)).then_some(*block)
            })
            .collect();
        let mut reset = Vec::new();
        for block in late {
            if let Some(active) = self.active.get_mut(&block.piece) {
                active.release(block.index);
                if active.exclusive == Some(key) {
                    reset.push(block.piece);
                }
                self.note_free(block.piece);
            }
        }
        self.reset_each(reset);
    }
}
