//! The merged picture: what each source claims, and what the caller has been told. Pure.

use crate::{ADDRESSES_MAX, Event, Peer};
use delugefs_core::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Claims remembered: far more than a volume has nodes; beyond it new ones are ignored.
pub(crate) const CLAIMS_MAX: usize = 4096;

/// One thing that makes a claim: an `mDNS` instance, or a registry file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Mdns(String),
    Registry(String),
}

/// A claim made or withdrawn.
#[derive(Debug)]
pub(crate) enum Sighting {
    Seen(Source, Peer),
    Gone(Source),
}

#[derive(Debug)]
pub(crate) struct Known {
    this: Option<NodeId>,
    claims: BTreeMap<Source, Peer>,
    told: BTreeMap<NodeId, Peer>,
    /// Where our own node is said to be.
    ourselves: BTreeMap<Source, BTreeSet<SocketAddr>>,
}

impl Known {
    /// `this`: our own node, if we announce ourselves.
    pub(crate) fn new(this: Option<NodeId>) -> Self {
        Self {
            this,
            claims: BTreeMap::new(),
            told: BTreeMap::new(),
            ourselves: BTreeMap::new(),
        }
    }

    pub(crate) fn handle(&mut self, sighting: Sighting) -> Vec<Event> {
        match sighting {
            Sighting::Seen(source, peer) => self.seen(source, peer),
            Sighting::Gone(source) => self.gone(&source),
        }
    }

    fn seen(&mut self, source: Source, peer: Peer) -> Vec<Event> {
        if peer.addresses.is_empty() {
            return Vec::new();
        }
        if self.this == Some(peer.node) {
            return self.ourselves(source, peer);
        }
        if !self.claims.contains_key(&source) && self.claims.len() >= CLAIMS_MAX {
            return Vec::new();
        }
        let node = peer.node;
        let before = self.claims.insert(source, peer);
        let mut events = self.tell(node);
        if let Some(before) = before
            && before.node != node
        {
            events.extend(self.tell(before.node));
        }
        events
    }

    /// A copy of this disk has the same name, and mostly the same port: only who answers there can tell it from us.
    fn ourselves(&mut self, source: Source, mut peer: Peer) -> Vec<Event> {
        if !self.ourselves.contains_key(&source) && self.ourselves.len() >= CLAIMS_MAX {
            return Vec::new();
        }
        peer.addresses.truncate(ADDRESSES_MAX);
        let now: BTreeSet<_> = peer.addresses.iter().copied().collect();
        let before = self.ourselves.insert(source, now).unwrap_or_default();
        peer.addresses.retain(|address| !before.contains(address));
        match peer.addresses.is_empty() {
            true => Vec::new(),
            false => vec![Event::Ourselves(peer)],
        }
    }

    fn gone(&mut self, source: &Source) -> Vec<Event> {
        self.ourselves.remove(source);
        match self.claims.remove(source) {
            Some(peer) => self.tell(peer.node),
            None => Vec::new(),
        }
    }

    /// Tells what changed for one node since it was last told.
    fn tell(&mut self, node: NodeId) -> Vec<Event> {
        let now = self.merged(node);
        if now.as_ref() == self.told.get(&node) {
            return Vec::new();
        }
        if let Some(peer) = now {
            self.told.insert(node, peer.clone());
            vec![Event::Found(peer)]
        } else {
            self.told.remove(&node);
            vec![Event::Lost(node)]
        }
    }

    fn merged(&self, node: NodeId) -> Option<Peer> {
        let mut claims = self.claims.values().filter(|peer| peer.node == node);
        let mut merged = claims.next()?.clone();
        for other in claims.filter(|other| other.volume == merged.volume) {
            merged.addresses.extend(&other.addresses);
        }
        merged
            .addresses
            .sort_by_key(|address| (cost(address), *address));
        merged.addresses.dedup();
        merged.addresses.truncate(ADDRESSES_MAX);
        Some(merged)
    }
}

/// Which address to try first: this host, then IPv4, then routable IPv6, then link-local.
fn cost(address: &SocketAddr) -> u8 {
    match address.ip() {
        ip if ip.is_loopback() => 0,
        IpAddr::V4(ip) if ip.is_link_local() => 3,
        IpAddr::V4(_) => 1,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => 4,
        IpAddr::V6(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use delugefs_core::ids::VolumeId;

    fn peer(node: u8, addresses: &[&str]) -> Peer {
        Peer {
            volume: VolumeId::new([1; 16]),
            volume_name: "v".into(),
            node: NodeId::new([node; 16]),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    fn mdns(name: &str) -> Source {
        Source::Mdns(name.into())
    }

    fn file(name: &str) -> Source {
        Source::Registry(name.into())
    }

    #[test]
    fn merges_sources_and_tells_only_changes() {
        let mut known = Known::new(None);
        let lan = peer(2, &["10.0.0.2:7"]);
        let first = known.handle(Sighting::Seen(mdns("a"), lan.clone()));
        assert_eq!(first, [Event::Found(lan.clone())]);
        assert_eq!(known.handle(Sighting::Seen(mdns("a"), lan.clone())), []);
        let both = known.handle(Sighting::Seen(file("b"), peer(2, &["127.0.0.1:7"])));
        let expected = peer(2, &["127.0.0.1:7", "10.0.0.2:7"]);
        assert_eq!(both, [Event::Found(expected)]);
        let less = known.handle(Sighting::Gone(file("b")));
        assert_eq!(less, [Event::Found(lan)]);
        let lost = known.handle(Sighting::Gone(mdns("a")));
        assert_eq!(lost, [Event::Lost(NodeId::new([2; 16]))]);
        assert_eq!(known.handle(Sighting::Gone(mdns("a"))), []);
    }

    #[test]
    fn an_address_change_is_told_again() {
        let mut known = Known::new(None);
        known.handle(Sighting::Seen(mdns("a"), peer(2, &["[fe80::1%3]:7"])));
        let more = peer(2, &["10.0.0.2:7", "[fd00::1]:7", "[fe80::1%3]:7"]);
        let told = known.handle(Sighting::Seen(mdns("a"), more.clone()));
        assert_eq!(told, [Event::Found(more)]);
    }

    #[test]
    fn each_address_where_we_are_said_to_be_is_told_once() {
        let mut known = Known::new(Some(NodeId::new([9; 16])));
        let own = peer(9, &["10.0.0.2:7"]);
        let told = known.handle(Sighting::Seen(mdns("a"), own.clone()));
        assert_eq!(told, [Event::Ourselves(own.clone())]);
        assert_eq!(known.handle(Sighting::Seen(mdns("a"), own.clone())), []);
        // a copy of this disk on another host: one name, one port
        let both = peer(9, &["10.0.0.2:7", "10.0.0.3:7"]);
        let told = known.handle(Sighting::Seen(mdns("a"), both));
        assert_eq!(told, [Event::Ourselves(peer(9, &["10.0.0.3:7"]))]);
        assert_eq!(known.handle(Sighting::Gone(mdns("a"))), []);
        let told = known.handle(Sighting::Seen(mdns("a"), own.clone()));
        assert_eq!(told, [Event::Ourselves(own)]);
    }

    #[test]
    fn a_source_that_changes_its_node_loses_the_old_one() {
        let mut known = Known::new(None);
        known.handle(Sighting::Seen(mdns("a"), peer(2, &["10.0.0.2:7"])));
        let events = known.handle(Sighting::Seen(mdns("a"), peer(3, &["10.0.0.2:7"])));
        let found = Event::Found(peer(3, &["10.0.0.2:7"]));
        assert_eq!(events, [found, Event::Lost(NodeId::new([2; 16]))]);
    }

    #[test]
    fn liars_fill_neither_memory_nor_address_lists() {
        let mut known = Known::new(None);
        let many: Vec<String> = (0..100).map(|n| format!("10.0.1.{n}:7")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let told = known.handle(Sighting::Seen(mdns("x"), peer(2, &many)));
        let [Event::Found(peer_told)] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!(peer_told.addresses.len(), ADDRESSES_MAX);
        for n in 0..5000 {
            known.handle(Sighting::Seen(
                mdns(&n.to_string()),
                peer(3, &["10.0.0.2:7"]),
            ));
        }
        assert_eq!(known.claims.len(), CLAIMS_MAX);
        assert_eq!(known.handle(Sighting::Seen(mdns("new"), peer(4, &[]))), []);
    }
}
