//! `kill -9` of real nodes at any moment, under load, with an observer that knows what was acknowledged.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod creating;
#[path = "../power/database.rs"]
mod database;
mod kills;
mod ledger;
mod load;
mod moved_on;
mod programs;
mod resuming;
mod watched;
