//! The volume's names.

pub mod exchange;
