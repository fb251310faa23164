//! One function for each parser of foreign bytes, for the fuzz targets.

use crate::link::codec;
use crate::net::sniff::{PREFIX_BYTES_MAX, Verdict, sniff};
use bytes::{Bytes, BytesMut};

/// Any bytes as a journal: `ROOT/journal` may come from another version or a failing disk.
pub fn journal(bytes: &[u8]) {
    crate::filesystem::journal::fuzz(bytes);
}

/// Any bytes as what a peer sends on a control stream, and as one message: whatever is read can be written,
/// and reads the same again.
pub fn link(bytes: &[u8]) {
    message(Bytes::copy_from_slice(bytes));
    let mut incoming = BytesMut::from(bytes);
    while let Ok(Some(frame)) = codec::split_frame(&mut incoming) {
        message(frame);
    }
}

fn message(frame: Bytes) {
    let Ok(Some(message)) = codec::decode(frame) else {
        return;
    };
    let Ok(again) = codec::encode(&message) else {
        panic!("what was read cannot be written: {message:?}");
    };
    let again = codec::decode(again.slice(codec::FRAME_LENGTH_BYTES..));
    assert_eq!(again.ok().flatten(), Some(message));
}

/// The first bytes of a connection, as they come in: the verdict falls within the prefix and then stays.
pub fn first_bytes(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(2 * PREFIX_BYTES_MAX)];
    let mut before = Verdict::Undecided;
    for end in 0..=bytes.len() {
        let now = sniff(&bytes[..end]);
        assert!(before == Verdict::Undecided || now == before);
        assert!(now != Verdict::Undecided || end < PREFIX_BYTES_MAX);
        before = now;
    }
}
