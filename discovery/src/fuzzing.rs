//! One function for each parser of foreign bytes, for the fuzz targets.

use crate::record::{FileRecord, peer_from_txt, volume_name_fits};
use crate::{ADDRESSES_MAX, Peer};

const NETWORK: &str = "boot net:[1]";

/// Any bytes as a registry file, and its lines as the values of a TXT record: no panic, and a peer within its
/// limits.
pub fn record(bytes: &[u8]) {
    if let Some(peer) = FileRecord::parse(bytes, NETWORK) {
        check(&peer);
        assert!(!peer.addresses.is_empty());
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    if let Some(peer) = peer_from_txt(next(), next(), next(), next()) {
        check(&peer);
    }
}

fn check(peer: &Peer) {
    assert!(volume_name_fits(&peer.volume_name));
    assert!(peer.addresses.len() <= ADDRESSES_MAX);
}
