//! Engines against engines, over loopback.
#![allow(clippy::unwrap_used)]

mod download;
pub(crate) mod support;
