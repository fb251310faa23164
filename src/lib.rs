//! One node of DelugeFS: the composition of names, bytes, peers and the mount.
//!
//! The decisions are in `delugefs_core`; Git, BitTorrent and mDNS are behind their crates; here they are wired
//! together, and given a command line, a filesystem in our words, and a FUSE skin.

pub mod bytes;
pub mod cli;
pub mod control;
mod durable;
pub mod filesystem;
pub mod fuse;
pub mod fuzzing;
pub mod link;
mod mountinfo;
pub mod net;
pub mod node;
mod process;
pub mod publishing;
pub mod root;
mod sync_ext;
