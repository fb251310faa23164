//! `kill -9` of real nodes at any moment, under load, with an observer that knows what was acknowledged.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod creating;
mod kills;
mod ledger;
mod load;
mod moved_on;
mod resuming;
