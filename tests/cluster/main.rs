//! One network namespace for each host: real mDNS, real mounts, real links cut and healed.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod copies;
mod crowd;
mod discovery;
<<<<<<< HEAD
mod endings;
mod hostile;
mod lan;
mod refusals;
mod room;
=======
mod reading;
>>>>>>> v2
mod sharing;
mod writers;
