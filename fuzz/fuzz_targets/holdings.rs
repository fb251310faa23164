//! Batches and files of what disks hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    delugefs_core::holdings::codec::fuzz(bytes);
});
