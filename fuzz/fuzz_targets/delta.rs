//! Deltas between objects in packs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_metadata_repo::fuzzing::delta(bytes);
});
