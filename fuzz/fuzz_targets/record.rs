//! Registry files and TXT records.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_discovery::fuzzing::record(bytes);
});
