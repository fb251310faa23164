#![allow(clippy::unwrap_used)]

mod stock;
pub(crate) mod support;
mod trees;
