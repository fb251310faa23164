//! The first 68 bytes of a connection, both ways (BEP 3).

use delugefs_core::ids::InfoHash;
use std::fmt;

/// Bytes of a handshake.
pub(crate) const HANDSHAKE_BYTES: usize = 68;

/// What a handshake begins with.
pub(crate) const PROTOCOL_PREFIX: &[u8; 20] = b"\x13BitTorrent protocol";

/// Byte and bit of the reserved field that announce extension messages (BEP 10).
const EXTENSION_BYTE: usize = 5;
const EXTENSION_BIT: u8 = 0x10;

/// A peer's name for this run of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) [u8; 20]);

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A handshake's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handshake {
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: PeerId,
    /// The sender takes extension messages (BEP 10).
    pub(crate) extensions: bool,
}

impl Handshake {
    pub(crate) fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut bytes = [0; HANDSHAKE_BYTES];
        bytes[..20].copy_from_slice(PROTOCOL_PREFIX);
        if self.extensions {
            bytes[20 + EXTENSION_BYTE] |= EXTENSION_BIT;
        }
        bytes[28..48].copy_from_slice(self.info_hash.as_bytes());
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// `None` when it is another protocol.
    pub(crate) fn decode(bytes: &[u8; HANDSHAKE_BYTES]) -> Option<Self> {
        let peer_id = bytes[48..].try_into().ok()?;
        (bytes.starts_with(PROTOCOL_PREFIX)).then_some(Self {
            info_hash: InfoHash::from_slice(&bytes[28..48])?,
            peer_id: PeerId(peer_id),
            extensions: bytes[20 + EXTENSION_BYTE] & EXTENSION_BIT != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_has_its_fields_in_place() {
        let handshake = Handshake {
            info_hash: InfoHash::new([7; 20]),
            peer_id: PeerId([9; 20]),
            extensions: true,
        };
        let bytes = handshake.encode();
        assert_eq!(&bytes[..28], b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\0");
        assert_eq!(Handshake::decode(&bytes), Some(handshake));
        let mut other = bytes;
        other[3] ^= 1;
        assert_eq!(Handshake::decode(&other), None);
    }
}
