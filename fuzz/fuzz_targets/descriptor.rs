//! Descriptors, nodes, directories and settings: blobs of a volume's trees.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_metadata_repo::fuzzing::descriptor(bytes);
    delugefs_metadata_repo::fuzzing::volume_settings(bytes);
});
