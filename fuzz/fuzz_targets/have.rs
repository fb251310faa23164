//! Files `.have` beside incomplete contents.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_torrent::fuzzing::have(bytes);
});
