//! Frames and messages of the peer link.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs::fuzzing::link(bytes);
});
