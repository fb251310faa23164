//! One node's wiring.

pub mod members;
