//! Which link is the one to each peer, and whether the peer is still there.

use super::agenda::Agenda;
use super::event::{Direction, Effect, LinkId, LinkUp, Message, Now, PeerAddress, Reason};
use super::limits::{
    ASLEEP, CROSSING, LINKS_MAX, PEERS_INTERVAL, PEERS_TOLD_MAX, PING_AFTER, SILENCE_MAX,
};
use crate::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug)]
struct Link {
    id: LinkId,
    is_dialled: bool,
    listening: Option<SocketAddr>,
    up_at: Now,
    heard: Now,
    sent: Now,
    /// Peers that it was told of, and when.
    told: (BTreeSet<PeerAddress>, Now),
}

/// What a new link means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The node had no link.
    First,
    /// It takes the place of an older link to the same node.
    Replacing,
    /// It is to be closed.
    Refused(Reason),
}

#[derive(Debug)]
pub(super) struct Links {
    me: NodeId,
    peers: BTreeMap<NodeId, Link>,
    nodes: BTreeMap<LinkId, NodeId>,
    /// Somebody has come of whom not all others have been told.
    has_news: bool,
}

impl Links {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            peers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            has_news: false,
        }
    }

    pub(super) fn node(&self, link: LinkId) -> Option<NodeId> {
        self.nodes.get(&link).copied()
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.peers.contains_key(&node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    pub(super) fn is_full(&self) -> bool {
        self.peers.len() >= LINKS_MAX
    }

    /// Weighs a new link; closes the one that is not to be kept.
    pub(super) fn up(&mut self, up: &LinkUp, agenda: &mut Agenda) -> Arrival {
        let arrival = self.weigh(up, agenda.now);
        if let Arrival::Refused(reason) = arrival {
            let link = up.link;
            agenda.push(Effect::Disconnect { link, reason });
            return arrival;
        }
        let now = agenda.now;
        let link = Link {
            id: up.link,
            is_dialled: up.direction != Direction::Accepted,
            listening: up.listening,
            up_at: now,
            heard: now,
            sent: now,
            told: (BTreeSet::new(), Now::ZERO),
        };
        self.has_news = true;
        self.nodes.insert(up.link, up.peer);
        if let Some(old) = self.peers.insert(up.peer, link) {
            self.nodes.remove(&old.id);
            tell_of_double(old.listening, up, agenda);
            agenda.push(Effect::Disconnect {
                link: old.id,
                reason: Reason::Duplicate,
            });
        }
        arrival
    }

    fn weigh(&self, up: &LinkUp, now: Now) -> Arrival {
        if up.peer == self.me {
            return Arrival::Refused(Reason::Oneself);
        }
        let Some(old) = self.peers.get(&up.peer) else {
            return if self.is_full() {
                Arrival::Refused(Reason::LinksTooMany)
            } else {
                Arrival::First
            };
        };
        let is_dialled = up.direction != Direction::Accepted;
        let has_crossed = old.is_dialled != is_dialled && now < old.up_at + CROSSING;
        // Both ends keep the link that the lower id dialled.
        if has_crossed && is_dialled != (self.me < up.peer) {
            return Arrival::Refused(Reason::Duplicate);
        }
        Arrival::Replacing
    }

    /// Forgets a link; whose it was and how long it lived.
    pub(super) fn down(&mut self, link: LinkId, now: Now) -> Option<(NodeId, Duration)> {
        let node = self.nodes.remove(&link)?;
        let link = self.peers.remove(&node)?;
        Some((node, now.saturating_sub(link.up_at)))
    }

    pub(super) fn heard(&mut self, link: LinkId, now: Now) {
        if let Some(link) = self.get_mut(link) {
            link.heard = now;
        }
    }

    pub(super) fn sent(&mut self, link: LinkId, now: Now) {
        if let Some(link) = self.get_mut(link) {
            link.sent = now;
        }
    }

    /// This machine acted `late` on its timer. If it slept, so did its ears.
    pub(super) fn late(&mut self, late: Duration) {
        if late > ASLEEP {
            for link in self.peers.values_mut() {
                link.heard += late;
            }
        }
    }

    /// Pings the quiet, tells of peers; returns the links that have been silent for too long.
    pub(super) fn decide(&mut self, agenda: &mut Agenda) -> Vec<LinkId> {
        let mut silent = Vec::new();
        for link in self.peers.values() {
            if agenda.due(link.heard + SILENCE_MAX) {
                silent.push(link.id);
            } else if agenda.due(link.sent + PING_AFTER) {
                agenda.send(link.id, Message::Ping);
            }
        }
        self.tell_of_peers(agenda);
        silent
    }

    fn tell_of_peers(&mut self, agenda: &mut Agenda) {
        if !std::mem::take(&mut self.has_news) {
            return;
        }
        let all: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(node, link)| {
                let address = link.listening?;
                is_meaningful_elsewhere(address).then_some(PeerAddress {
                    node: *node,
                    address,
                })
            })
            .collect();
        for (node, link) in &mut self.peers {
            let is_here = link.listening.is_some_and(|at| at.ip().is_loopback());
            let others: BTreeSet<_> = all
                .iter()
                .filter(|other| {
                    other.node != *node && (is_here || !other.address.ip().is_loopback())
                })
                .take(PEERS_TOLD_MAX)
                .copied()
                .collect();
            // Who goes is no news: the others see that themselves.
            if others.is_subset(&link.told.0) {
                continue;
            }
            if !agenda.due(link.told.1 + PEERS_INTERVAL) {
                self.has_news = true;
                continue;
            }
            agenda.send(link.id, Message::Peers(others.iter().copied().collect()));
            link.told = (others, agenda.now);
        }
    }

    fn get_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        let node = self.nodes.get(&link)?;
        self.peers.get_mut(node)
    }
}

/// Who comes while another link of the same node is up may be a copy of it, or it is back after a crash. It is told
/// where the other is, and finds out.
fn tell_of_double(other: Option<SocketAddr>, up: &LinkUp, agenda: &mut Agenda) {
    let is_here = |at: Option<SocketAddr>| at.is_some_and(|at| at.ip().is_loopback());
    if let Some(address) = other
        && other != up.listening
        && is_meaningful_elsewhere(address)
        && is_here(other) == is_here(up.listening)
    {
        let node = up.peer;
        agenda.send(up.link, Message::Peers(vec![PeerAddress { node, address }]));
    }
}

/// Link-local addresses mean something only together with an interface of one host.
fn is_meaningful_elsewhere(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(v4) => !v4.ip().is_link_local(),
        SocketAddr::V6(v6) => !v6.ip().is_unicast_link_local(),
    }
}
