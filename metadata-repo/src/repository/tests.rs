#![allow(clippy::unwrap_used)]

mod crash;
mod cut;
pub(super) mod faults;
mod halves;
mod import;
mod restored;
mod several;
mod stock;
pub(crate) mod support;
mod timing;
mod trees;
pub(crate) mod upkeep;
