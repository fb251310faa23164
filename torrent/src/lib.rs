//! The bytes of `DelugeFS`: what a content is called, how it is hashed, where it lies on this disk, how it
//! moves between nodes.
//!
//! Owns `ROOT/data`. Its invariants: a content that the store calls complete has the bytes its info-hash
//! names; a piece's bit is set after its bytes were verified and written; a claim to hold a content
//! durably is made after its bytes were synced. All of them hold after `kill -9` and, as far as the disk
//! keeps the order of syncs, after a power cut.

pub mod fuzzing;
pub mod hash;
pub mod metainfo;
pub mod store;
pub mod swarm;
