#![allow(clippy::unwrap_used)]

mod several;
mod stock;
pub(crate) mod support;
mod timing;
mod trees;
