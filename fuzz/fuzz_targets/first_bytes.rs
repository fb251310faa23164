//! What a connection is, from its first bytes; the answer to the question which volume it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs::fuzzing::first_bytes(bytes);
    delugefs::fuzzing::answer(bytes);
});
