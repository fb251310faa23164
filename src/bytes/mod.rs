//! The volume's bytes on this node: which contents there are, which are here, who else has them, what to fetch and
//! what to let go.

pub mod catalogue;
mod catalogue_file;
pub mod damage;
pub mod holdings;
pub mod ports;
pub mod replica;
pub mod retention;
mod room;
pub mod scrubber;
pub mod torn;
