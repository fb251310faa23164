//! The real kernel: what the mount does is what a folder does.
#![allow(clippy::unwrap_used, clippy::format_push_string)]

mod differential;
mod lifecycle;
mod remote;
mod stuck;
mod support;
#[allow(dead_code, unreachable_pub)]
#[path = "../support/tools.rs"]
mod tools;
mod waiting;
