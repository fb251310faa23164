//! The journal and its records.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs::fuzzing::journal(bytes);
});
