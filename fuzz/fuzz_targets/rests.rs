//! Words and lists of who rests on what.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_core::past::rests::codec::fuzz(bytes);
});
