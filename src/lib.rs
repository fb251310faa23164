//! `DelugeFS`: a filesystem made of spare disks.

pub mod link;
pub mod net;
