//! One network namespace for each host: real mDNS, real mounts, real links cut and healed.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod copies;
mod crowd;
mod discovery;
mod doubles;
mod endings;
mod halves;
mod hostile;
mod lan;
mod large;
mod liars;
mod past;
mod reading;
mod refusals;
mod rests;
mod room;
mod scrubbing;
mod sharing;
mod tree;
mod users;
mod video;
mod writers;
