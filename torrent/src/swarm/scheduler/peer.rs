//! What the scheduler knows of one peer.

use super::super::layout::Block;
use super::super::limits::{
    BLOCK_BYTES, PIPELINE_MIN, PIPELINE_START, PIPELINE_TIME, REQUESTS_QUEUED,
};
use super::super::piece_set::PieceSet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A block that a peer was asked for and has not sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) at: Instant,
    /// It took too long: others may be asked; it is still welcome.
    pub(super) released: bool,
}

#[derive(Debug)]
// Independent of one another: no state of several.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Peer {
    pub(super) has: PieceSet,
    /// Pieces it has and we have not.
    pub(super) useful: u32,
    pub(super) choking: bool,
    pub(super) interested: bool,
    pub(super) outstanding: BTreeMap<Block, Asked>,
    /// Cancelled blocks, which may still arrive.
    pub(super) late: BTreeSet<Block>,
    pub(super) last_block: Instant,
    /// It owed blocks and sent none for [`super::super::limits::STALL`]: nothing new is asked of it.
    pub(super) stalled: bool,
    /// A read has waited in vain for pieces that it has; it has neither sent a block since, nor let us ask anew.
    pub(super) silent: bool,
    /// It was among several who made a wrong piece: it gets whole pieces only, until one is right.
    pub(super) suspected: bool,
    pub(super) wrong: u32,
    queue: usize,
    rate: Rate,
    latency: Option<Duration>,
}

impl Peer {
    pub(super) fn new(pieces: u32, now: Instant) -> Self {
        Self {
            has: PieceSet::empty(pieces),
            useful: 0,
            choking: true,
            interested: false,
            outstanding: BTreeMap::new(),
            late: BTreeSet::new(),
            last_block: now,
            stalled: false,
            silent: false,
            suspected: false,
            wrong: 0,
            queue: REQUESTS_QUEUED,
            rate: Rate::new(now),
            latency: None,
        }
    }

    /// How many requests the peer takes, as it says itself.
    pub(super) fn set_queue(&mut self, requests: usize) {
        self.queue = requests.clamp(1, REQUESTS_QUEUED);
    }

    /// Bytes per second, lately.
    pub(super) fn speed(&self) -> u64 {
        self.rate.value.unwrap_or_default()
    }

    /// Requests it should have at a time: its speed times its latency and a little more.
    pub(super) fn pipeline(&self) -> usize {
        let wanted = match self.rate.value {
            None => PIPELINE_START,
            Some(rate) => {
                let time = PIPELINE_TIME + 2 * self.latency.unwrap_or_default();
                let bytes = u128::from(rate) * time.as_micros() / 1_000_000;
                ((bytes / u128::from(BLOCK_BYTES)) as usize).max(PIPELINE_MIN)
            }
        };
        wanted.min(self.queue)
    }

    /// How many more requests it should get now.
    pub(super) fn room(&self) -> usize {
        if self.choking || self.stalled || self.useful == 0 {
            return 0;
        }
        self.pipeline().saturating_sub(self.outstanding.len())
    }

    /// Enough room that filling it is worth a look at all that is wanted.
    pub(super) fn hungry(&self) -> bool {
        self.room() > self.pipeline() / 8
    }

    /// It sends something: whether it was silent before.
    pub(super) fn answers(&mut self) -> bool {
        self.stalled = false;
        std::mem::replace(&mut self.silent, false)
    }

    pub(super) fn received(&mut self, bytes: u32, asked: Option<Asked>, now: Instant) {
        self.last_block = now;
        self.rate.add(bytes);
        if let Some(asked) = asked {
            let latency = now.saturating_duration_since(asked.at);
            self.latency = Some(self.latency.map_or(latency, |known| known.min(latency)));
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let busy = !self.outstanding.is_empty();
        self.rate.tick(now, busy);
        // Routes change: a minimum once measured may rise again, a percent each tick.
        self.latency = self.latency.map(|latency| latency + latency / 100);
    }
}

/// Speed over the last fraction of a second.
#[derive(Debug)]
struct Rate {
    bytes: u64,
    since: Instant,
    value: Option<u64>,
}

impl Rate {
    /// Shortest time over which a speed means something.
    const PERIOD: Duration = Duration::from_millis(90);

    fn new(now: Instant) -> Self {
        Self {
            bytes: 0,
            since: now,
            value: None,
        }
    }

    fn add(&mut self, bytes: u32) {
        self.bytes += u64::from(bytes);
    }

    /// Time without anything asked says nothing about the peer's speed.
    fn tick(&mut self, now: Instant, busy: bool) {
        let time = now.saturating_duration_since(self.since);
        if time < Self::PERIOD {
            return;
        }
        if busy || self.bytes > 0 {
            let current = self.bytes * 1000 / time.as_millis().max(1) as u64;
            self.value = Some(
                self.value
                    .map_or(current, |old| u64::midpoint(old, current)),
            );
        }
        (self.bytes, self.since) = (0, now);
    }
}
