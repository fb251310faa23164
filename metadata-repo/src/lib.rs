//! The volume's names: entries as bytes, trees, commits, views; the only crate that knows Git.

mod bencode;
pub mod codec;
pub mod escape;
