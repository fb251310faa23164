//! What Avahi has told, instance by instance. Pure.
//!
//! Avahi resolves an instance once for each interface and protocol, and tells neither of which a removal
//! speaks nor when an address changes. So the picture is renewed by asking for everything again: what is heard
//! then replaces what was known, and what is not heard any more is gone.

use crate::known::{CLAIMS_MAX, Sighting, Source};
use crate::{ADDRESSES_MAX, Peer};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Picture {
    /// From before the renewal under way; empty when there is none.
    before: BTreeMap<String, Peer>,
    /// Heard since it began.
    heard: BTreeMap<String, Peer>,
}

impl Picture {
    /// Everything is asked for again.
    pub(super) fn renew(&mut self) {
        self.before.append(&mut self.heard);
    }

    /// An instance was resolved, with one more of its addresses. While a renewal is under way the old
    /// addresses stand beside the new ones.
    pub(super) fn seen(&mut self, instance: String, peer: Peer) -> Option<Sighting> {
        if !self.heard.contains_key(&instance) && self.heard.len() >= CLAIMS_MAX {
            return None;
        }
        let mut all = unite(self.heard.remove(&instance), peer);
        self.heard.insert(instance.clone(), all.clone());
        if let Some(before) = self.before.get(&instance) {
            all = unite(Some(before.clone()), all);
        }
        Some(Sighting::Seen(Source::Mdns(instance), all))
    }

    /// The renewal has had its time: what it did not bring is gone.
    pub(super) fn settle(&mut self) -> Vec<Sighting> {
        let before = std::mem::take(&mut self.before);
        let settled = before.into_keys().map(|instance| {
            let heard = self.heard.get(&instance).cloned();
            let source = Source::Mdns(instance);
            match heard {
                Some(peer) => Sighting::Seen(source, peer),
                None => Sighting::Gone(source),
            }
        });
        settled.collect()
    }
}

/// What is newer, with the older addresses behind its own if it is still the same node of the same volume.
fn unite(older: Option<Peer>, newer: Peer) -> Peer {
    let mut united = newer;
    let same = older.filter(|older| older.node == united.node && older.volume == united.volume);
    for address in same.into_iter().flat_map(|older| older.addresses) {
        if united.addresses.len() < ADDRESSES_MAX && !united.addresses.contains(&address) {
            united.addresses.push(address);
        }
    }
    united
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use delugefs_core::ids::{NodeId, VolumeId};

    fn peer(node: u8, addresses: &[&str]) -> Peer {
        Peer {
            volume: VolumeId::new([1; 16]),
            volume_name: "v".into(),
            node: NodeId::new([node; 16]),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    fn shown(sighting: Option<Sighting>) -> Vec<String> {
        match sighting {
            Some(Sighting::Seen(_, peer)) => {
                let mut shown: Vec<_> = peer.addresses.iter().map(ToString::to_string).collect();
                shown.sort();
                shown
            }
            other => panic!("{other:?}"),
        }
    }

    fn gone(sightings: &[Sighting]) -> Vec<&str> {
        let names = sightings.iter().filter_map(|sighting| match sighting {
            Sighting::Gone(Source::Mdns(name)) => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }

    #[test]
    fn addresses_of_all_interfaces_are_united() {
        let mut picture = Picture::default();
        picture.seen("a".into(), peer(1, &["10.0.0.1:7"]));
        let both = picture.seen("a".into(), peer(1, &["[fd00::1]:7"]));
        assert_eq!(shown(both), ["10.0.0.1:7", "[fd00::1]:7"]);
        assert!(picture.settle().is_empty(), "nothing was being renewed");
    }

    #[test]
    fn a_renewal_replaces_addresses_and_drops_what_is_not_heard_again() {
        let mut picture = Picture::default();
        picture.seen("a".into(), peer(1, &["10.0.0.1:7"]));
        picture.seen("b".into(), peer(2, &["10.0.0.2:7"]));
        picture.renew();
        let meanwhile = picture.seen("a".into(), peer(1, &["10.0.0.9:7"]));
        assert_eq!(shown(meanwhile), ["10.0.0.1:7", "10.0.0.9:7"]);
        let mut settled = picture.settle();
        assert_eq!(gone(&settled), ["b"]);
        assert_eq!(shown(Some(settled.remove(0))), ["10.0.0.9:7"]);
        assert!(picture.settle().is_empty());
    }

    #[test]
    fn a_renewal_that_starts_over_forgets_nobody() {
        let mut picture = Picture::default();
        picture.seen("a".into(), peer(1, &["10.0.0.1:7"]));
        picture.renew();
        picture.seen("b".into(), peer(2, &["10.0.0.2:7"]));
        picture.renew();
        assert_eq!(gone(&picture.settle()), ["a", "b"]);
    }

    #[test]
    fn another_node_under_the_same_name_takes_over_nothing() {
        let mut picture = Picture::default();
        picture.seen("a".into(), peer(1, &["10.0.0.1:7"]));
        let other = picture.seen("a".into(), peer(2, &["10.0.0.2:7"]));
        assert_eq!(shown(other), ["10.0.0.2:7"]);
    }

    #[test]
    fn liars_do_not_fill_the_memory() {
        let mut picture = Picture::default();
        for n in 0..CLAIMS_MAX {
            picture.seen(n.to_string(), peer(1, &["10.0.0.1:7"]));
        }
        assert!(
            picture
                .seen("more".into(), peer(2, &["10.0.0.2:7"]))
                .is_none()
        );
        for port in 1..100u16 {
            let address = format!("10.0.0.1:{port}");
            let all = picture.seen("0".into(), peer(1, &[&address]));
            assert!(shown(all).len() <= ADDRESSES_MAX);
        }
    }
}
