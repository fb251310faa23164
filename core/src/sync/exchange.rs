//! Holdings logs: who has more of which, and whom to ask. The batches themselves pass by this machine.

use super::agenda::{Agenda, Jitter, pause};
use super::event::{Effect, LinkId, Message, Now, Positions};
use super::limits::{
    HOLDINGS_ASKS_MAX, HOLDINGS_INTERVAL, HOLDINGS_PATIENCE, HOLDINGS_RETRY_MAX, HOLDINGS_RETRY_MIN,
};
use super::told::Told;
use crate::ids::{IncarnationId, NodeId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Peer {
    link: LinkId,
    incarnation: IncarnationId,
    positions: Told<Positions>,
    failures: u32,
    retry_at: Now,
}

impl Peer {
    fn failed(&mut self, now: Now, jitter: &mut Jitter) {
        self.failures += 1;
        let pause = pause(self.failures, HOLDINGS_RETRY_MIN, HOLDINGS_RETRY_MAX);
        self.retry_at = now + jitter.spread(pause);
    }
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    peer: NodeId,
    since: Now,
}

#[derive(Debug)]
pub(super) struct Exchange {
    ours: Positions,
    peers: BTreeMap<NodeId, Peer>,
    asks: BTreeMap<IncarnationId, Ask>,
}

impl Exchange {
    pub(super) fn new(ours: Positions) -> Self {
        let mut exchange = Self {
            ours: Positions::new(),
            peers: BTreeMap::new(),
            asks: BTreeMap::new(),
        };
        exchange.set_ours(ours);
        exchange
    }

    pub(super) fn connect(&mut self, node: NodeId, link: LinkId, incarnation: IncarnationId) {
        self.disconnect(node);
        let peer = Peer {
            link,
            incarnation,
            positions: Told::default(),
            failures: 0,
            retry_at: Now::ZERO,
        };
        self.peers.insert(node, peer);
    }

    pub(super) fn disconnect(&mut self, node: NodeId) {
        self.peers.remove(&node);
        self.asks.retain(|_, ask| ask.peer != node);
    }

    pub(super) fn set_ours(&mut self, positions: Positions) {
        for (incarnation, position) in positions {
            self.raise(incarnation, position);
        }
    }

    pub(super) fn announced(&mut self, node: NodeId, mut positions: Positions, now: Now) {
        positions.retain(|_, position| *position > 0);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.positions.hear(positions, &self.ours, now);
        }
    }

    pub(super) fn applied(&mut self, batch: &BatchEnd, now: Now, jitter: &mut Jitter) {
        self.raise(batch.incarnation, batch.position);
        let asked = self.asks.get(&batch.incarnation);
        if asked.is_none_or(|ask| ask.peer != batch.from) {
            return;
        }
        self.asks.remove(&batch.incarnation);
        if let Some(peer) = self.peers.get_mut(&batch.from) {
            let told = peer.positions.announced.get(&batch.incarnation);
            let is_reached = told.is_none_or(|told| *told <= batch.position);
            if batch.progressed || is_reached {
                peer.failures = 0;
            } else {
                peer.failed(now, jitter);
            }
        }
    }

    pub(super) fn decide(&mut self, agenda: &mut Agenda, jitter: &mut Jitter) {
        self.announce(agenda);
        self.give_up(agenda, jitter);
        self.ask(agenda);
    }

    fn raise(&mut self, incarnation: IncarnationId, position: u64) {
        // An empty log is no log: maps that say the same are to be equal.
        if position == 0 {
            return;
        }
        let ours = self.ours.entry(incarnation).or_default();
        *ours = position.max(*ours);
    }

    fn announce(&mut self, agenda: &mut Agenda) {
        for peer in self.peers.values_mut() {
            if peer.positions.is_due(&self.ours, HOLDINGS_INTERVAL, agenda) {
                agenda.send(peer.link, Message::Holdings(self.ours.clone()));
            }
        }
    }

    fn give_up(&mut self, agenda: &mut Agenda, jitter: &mut Jitter) {
        let peers = &mut self.peers;
        self.asks.retain(|_, ask| {
            let is_over = agenda.due(ask.since + HOLDINGS_PATIENCE);
            if is_over && let Some(peer) = peers.get_mut(&ask.peer) {
                peer.failed(agenda.now, jitter);
            }
            !is_over
        });
    }

    fn ask(&mut self, agenda: &mut Agenda) {
        for (incarnation, peer) in self.best(agenda) {
            if self.asks.len() >= HOLDINGS_ASKS_MAX {
                return;
            }
            let Some(link) = self.peers.get(&peer).map(|peer| peer.link) else {
                continue;
            };
            let since = agenda.now;
            self.asks.insert(incarnation, Ask { peer, since });
            agenda.push(Effect::AskHoldings { link, incarnation });
        }
    }

    /// For each log that is not being asked for, whom to ask: its author, or who has most of it. Our own is among them:
    /// who has more of it than we have said is asked for the proof.
    fn best(&self, agenda: &mut Agenda) -> BTreeMap<IncarnationId, NodeId> {
        let mut best: BTreeMap<IncarnationId, (Reverse<bool>, Reverse<u64>, NodeId)> =
            BTreeMap::new();
        for (node, peer) in &self.peers {
            let news = peer
                .positions
                .announced
                .iter()
                .filter(|(incarnation, position)| {
                    let ours = self.ours.get(incarnation).copied().unwrap_or(0);
                    **position > ours && !self.asks.contains_key(incarnation)
                });
            for (incarnation, position) in news {
                if !agenda.due(peer.retry_at) {
                    break;
                }
                let is_author = peer.incarnation == *incarnation;
                let rank = (Reverse(is_author), Reverse(*position), *node);
                let first = best.entry(*incarnation).or_insert(rank);
                *first = rank.min(*first);
            }
        }
        best.into_iter()
            .map(|(log, (_, _, node))| (log, node))
            .collect()
    }
}

/// The fields of [`super::Event::BatchApplied`], with the link's peer.
#[derive(Debug)]
pub(super) struct BatchEnd {
    pub(super) from: NodeId,
    pub(super) incarnation: IncarnationId,
    pub(super) position: u64,
    pub(super) progressed: bool,
}
