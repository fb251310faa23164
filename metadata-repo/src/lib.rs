//! The volume's names.

// the repository's own `serve` and `pull` are what uses it outside of tests
#[cfg_attr(not(test), allow(dead_code, unused_imports))]
pub mod exchange;
