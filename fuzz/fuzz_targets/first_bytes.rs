//! What a connection is, from its first bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs::fuzzing::first_bytes(bytes);
});
