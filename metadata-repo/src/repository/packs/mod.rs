//! Packs of our own: objects along history as deltas, the newest version of each whole.
//!
//! [`plan`] decides which packs become one, so that they stay few and bytes are rarely copied. [`table`] lists what
//! is in them, [`pairs`] finds by commits which object came after which, [`repack`] writes: what is a delta
//! already, or stays whole, is copied as it is; an object that a newer one has replaced becomes a delta on that.
//! [`live`] marks what references reach, [`cruft`] keeps the rest for a while in a pack of its own.
//!
//! Invariant: a pack is complete in itself, and its chains of deltas are at most [`CHAIN_MAX`] long.

pub(crate) mod cache;
pub(super) mod cruft;
pub(crate) mod delta;
pub(crate) mod index;
pub(super) mod live;
pub(super) mod pairs;
pub(super) mod plan;
pub(super) mod repack;
pub(crate) mod table;
pub(crate) mod writer;

/// Deltas between an object and one that is whole: what is read to read it.
pub(crate) const CHAIN_MAX: u8 = 50;
