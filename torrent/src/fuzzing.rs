//! One function for each parser of foreign bytes, for the fuzz targets and the mutation tests.

use crate::metainfo::Info;
use crate::store::have::Have;
use crate::swarm::wire::{
    self, ExtendedHandshake, HANDSHAKE_BYTES, Handshake, Message, MetadataMessage,
};
use bytes::BytesMut;

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

/// Any bytes as what a peer sends after its handshake, for a content of so many pieces: no panic, and what is
/// a message is written back as the bytes it was read from.
pub fn wire_frames(bytes: &[u8], pieces: u32) {
    let mut buffer = BytesMut::from(bytes);
    loop {
        let before = buffer.clone();
        let Ok(Some(message)) = wire::decode(&mut buffer, pieces) else {
            return;
        };
        if matches!(message, Message::Unknown(_)) {
            continue;
        }
        let mut again = BytesMut::new();
        wire::encode(&message, &mut again);
        assert_eq!(again, before[..before.len() - buffer.len()]);
    }
}

/// Any bytes as a handshake (BEP 3). Reserved bits apart, what is taken is written back the same.
pub fn wire_handshake(bytes: &[u8]) {
    let Some(first) = bytes.first_chunk::<HANDSHAKE_BYTES>() else {
        return;
    };
    if let Some(handshake) = Handshake::decode(first) {
        let again = handshake.encode();
        assert_eq!(again[..20], first[..20]);
        assert_eq!(again[28..], first[28..]);
    }
}

/// Any bytes as an extended handshake and as a metadata message (BEP 10, 9): no panic, no answer beyond a part.
pub fn wire_extended(bytes: &[u8]) {
    let _ = ExtendedHandshake::decode(bytes);
    if let Some(MetadataMessage::Request { part }) = MetadataMessage::decode(bytes) {
        let answer = MetadataMessage::answer(part, Some(&vec![0; 40_000]));
        assert!(answer.len() <= 16 * 1024 + 100);
    }
}
