//! Packs and trees from a peer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_metadata_repo::fuzzing::git_pack(bytes);
    delugefs_metadata_repo::fuzzing::git_tree(bytes);
});
