//! BitTorrent: handshake, frames, extension messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_torrent::fuzzing::wire_handshake(bytes);
    delugefs_torrent::fuzzing::wire_extended(bytes);
    delugefs_torrent::fuzzing::wire_frames(bytes, 1000);
});
