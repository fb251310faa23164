//! What is wanted: reads that wait, readers that read on, replication.

use super::peer::Peer;
use super::piece::Status;
use super::{Effect, NeedId, ReaderId, Scheduler};
use std::ops::Range;
use std::time::Instant;

/// A read that waits for pieces.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) pieces: Range<u32>,
    since: Instant,
}

impl Scheduler {
    /// Something is wanted that is not here.
    pub(crate) fn wants(&self) -> bool {
        self.missing > 0 && (self.fetch || !self.needs.is_empty() || self.wants_ahead())
    }

    fn wants_ahead(&self) -> bool {
        let missing = |piece: u32| self.status[piece as usize] != Status::Have;
        self.windows.values().cloned().flatten().any(missing)
    }

    /// For each of these pieces that is missing, some connected peer has it.
    pub(crate) fn held(&self, pieces: Range<u32>) -> bool {
        self.missing_of(pieces)
            .all(|piece| self.peers.values().any(|peer| peer.has.contains(piece)))
    }

    /// The same, of peers that no read has just waited for in vain.
    pub(crate) fn answered(&self, pieces: Range<u32>) -> bool {
        let answers = |peer: &Peer, piece| !peer.silent && peer.has.contains(piece);
        self.missing_of(pieces)
            .all(|piece| self.peers.values().any(|peer| answers(peer, piece)))
    }

    /// Nobody who is connected has anything that is missing here.
    pub(crate) fn starving(&self) -> bool {
        self.peers.values().all(|peer| peer.useful == 0)
            || self
                .needs
                .values()
                .any(|need| !self.held(need.pieces.clone()))
    }

    fn missing_of(&self, pieces: Range<u32>) -> impl Iterator<Item = u32> {
        let end = self.layout.pieces();
        (pieces.start..pieces.end.min(end))
            .filter(|piece| self.status[*piece as usize] != Status::Have)
    }

    pub(super) fn need(&mut self, id: NeedId, pieces: Range<u32>, now: Instant) {
        if self.missing_of(pieces.clone()).next().is_none() {
            self.effects.push(Effect::NeedMet(id));
            return;
        }
        self.make_room(pieces.clone());
        self.needs.insert(id, Need { pieces, since: now });
        self.fill_all(now);
    }

    pub(super) fn meet_needs(&mut self, piece: u32) {
        let met: Vec<NeedId> = (self.needs.iter())
            .filter(|(_, need)| need.pieces.contains(&piece))
            .filter(|(_, need)| self.missing_of(need.pieces.clone()).next().is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in met {
            self.needs.remove(&id);
            self.effects.push(Effect::NeedMet(id));
        }
    }

    pub(super) fn ahead(&mut self, reader: ReaderId, pieces: Range<u32>, now: Instant) {
        let end = pieces.end.min(self.layout.pieces());
        self.windows.insert(reader, pieces.start.min(end)..end);
        self.fill_all(now);
    }

    pub(super) fn set_fetch(&mut self, on: bool, now: Instant) {
        if on == self.fetch {
            return;
        }
        self.fetch = on;
        let status = &self.status;
        let mut missing = (0..self.layout.pieces())
            .filter(|piece| matches!(status[*piece as usize], Status::Missing));
        self.rarity.set_order(on.then_some(&mut missing));
        self.fill_all(now);
    }

    /// A need ends when for a whole wait none of those who have its pieces sent anything; and with it those
    /// whose pieces nobody else has.
    pub(super) fn expire(&mut self, now: Instant) {
        let expired = |need: &Need| now.saturating_duration_since(self.progress(need)) >= self.wait;
        let vain: Vec<Range<u32>> = (self.needs.values())
            .filter(|need| expired(need))
            .map(|need| need.pieces.clone())
            .collect();
        if vain.is_empty() {
            return;
        }
        for pieces in &vain {
            self.note_silence(pieces.clone());
        }
        let expired = |need: &Need| now.saturating_duration_since(self.progress(need)) >= self.wait;
        let ended: Vec<NeedId> = (self.needs.iter())
            .filter(|(_, need)| expired(need) || !self.answered(need.pieces.clone()))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.needs.remove(&id);
            self.effects.push(Effect::NeedExpired(id));
        }
    }

    /// Those who have these pieces have been waited for in vain.
    fn note_silence(&mut self, pieces: Range<u32>) {
        let missing: Vec<u32> = self.missing_of(pieces).collect();
        for peer in self.peers.values_mut() {
            peer.silent |= missing.iter().any(|piece| peer.has.contains(*piece));
        }
    }

    fn progress(&self, need: &Need) -> Instant {
        let holders = self.peers.values().filter(|peer| {
            self.missing_of(need.pieces.clone())
                .any(|piece| peer.has.contains(piece))
        });
        holders
            .map(|peer| peer.last_block)
            .fold(need.since, Instant::max)
    }
}
