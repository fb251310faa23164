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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Made from docs/FORMATS.md by another program.
    fn seed(name: &str) -> Vec<u8> {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/record");
        std::fs::read(seeds.join(name)).unwrap()
    }

    #[test]
    fn golden_registry_file() {
        let peer = FileRecord::parse(&seed("file"), NETWORK).unwrap();
        assert_eq!(peer.volume.to_string(), "ab".repeat(16));
        assert_eq!(peer.node.to_string(), "cd".repeat(16));
        assert_eq!(peer.volume_name, "big");
        let addresses = ["127.0.0.1:9", "[::1]:9"].map(|text| text.parse().unwrap());
        assert_eq!(peer.addresses, addresses);
        assert!(FileRecord::parse(&seed("file"), "elsewhere").is_none());
    }

    #[test]
    fn golden_txt() {
        let text = String::from_utf8(seed("txt")).unwrap();
        let values: Vec<&str> = text.lines().collect();
        let peer = peer_from_txt(values[0], values[1], values[2], values[3]).unwrap();
        assert_eq!((peer.volume_name.as_str(), peer.addresses), ("big", vec![]));
        assert!(peer_from_txt("2", values[1], values[2], values[3]).is_none());
    }
}
