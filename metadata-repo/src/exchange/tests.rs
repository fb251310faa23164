//! The exchange with stock git, between repositories, and with peers that lie.
#![allow(clippy::unwrap_used)]

mod copied;
mod cut;
mod deltas;
mod growth;
mod hostile;
mod joining;
mod mutation;
mod pull;
mod signed;
mod stock;
mod support;
mod volume;

pub(crate) use volume::{exchange as exchange_with, fetch_all};
