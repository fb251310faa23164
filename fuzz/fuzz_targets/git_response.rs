//! What a Git server answers: greeting and refs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_metadata_repo::fuzzing::git_advertisement(bytes);
    delugefs_metadata_repo::fuzzing::git_refs(bytes);
});
