//! Power cuts under a real, mounted node, with an observer that knows what was promised to outlive them.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod boot;
mod cable;
mod cuts;
mod database;
mod drive;
mod faults;
mod group;
mod killed;
mod ledger;
mod load;
mod platter;
