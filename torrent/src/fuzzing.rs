//! One function for each parser of foreign bytes, for the fuzz targets and the mutation tests.

use crate::metainfo::Info;
use crate::store::have::Have;

/// Whatever [`Info::parse`] takes, [`Info::encode`] gives back.
pub fn info(bytes: &[u8]) {
    if let Ok(info) = Info::parse(bytes) {
        assert_eq!(info.encode(), bytes);
    }
}

/// Whatever the parser of `.have` files takes is written back the same.
pub fn have(bytes: &[u8]) {
    if let Ok(have) = Have::parse(bytes) {
        assert_eq!(have.encode(), bytes);
    }
}

/// Bytes from a peer after its handshake, and the extension messages in them.
pub fn peer_messages(bytes: &[u8]) {
    crate::swarm::parse_messages(bytes);
}
