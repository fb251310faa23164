//! Commits that have to be signed, and the header that holds a signature.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_metadata_repo::fuzzing::signed_commit(bytes);
});
