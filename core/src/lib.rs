//! The decisions of `DelugeFS`: what a tree is, how trees merge, who shall hold which bytes, when nodes talk.
//!
//! Everything here is pure: no clock, disk, socket, thread or async. Time, randomness and identity are
//! arguments. The other crates act on what is decided here.

pub mod budget;
pub mod change;
pub mod conflict;
pub mod entry;
pub mod holdings;
pub mod ids;
mod input;
pub mod limits;
pub mod links;
pub mod memory_tree;
pub mod merge;
pub mod name;
pub mod past;
pub mod plan;
pub mod scrub;
pub mod settings;
pub mod sync;
pub mod time;
