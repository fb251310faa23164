//! Names in Git trees, both ways.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_metadata_repo::fuzzing::names(bytes);
});
