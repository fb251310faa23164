//! Engines against engines, over loopback.
#![allow(clippy::unwrap_used)]

mod download;
mod hostile;
pub(crate) mod support;
