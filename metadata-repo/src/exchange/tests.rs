//! The exchange with stock git, between repositories, and with peers that lie.
#![allow(clippy::unwrap_used)]

mod growth;
mod hostile;
mod mutation;
mod pull;
mod stock;
mod support;
mod volume;
