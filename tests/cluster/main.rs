//! One network namespace for each host: real mDNS, real mounts, real links cut and healed.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod discovery;
mod reading;
mod sharing;
mod writers;
