//! What a Git client asks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_metadata_repo::fuzzing::git_request(bytes);
});
