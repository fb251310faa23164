//! One TCP port for everything: who may come in, and what the first bytes say it is.

pub mod ask;
pub mod dial;
pub mod listener;
pub mod policy;
pub mod sniff;

pub use dial::connect;
pub use listener::{Accepted, Incoming, Limits, Listener};
pub use policy::{Gate, Policy};
pub use sniff::Protocol;
