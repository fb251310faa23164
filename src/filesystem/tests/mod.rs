//! The filesystem without FUSE, Git or network.
#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod fakes;
mod model;
mod operations;
mod publishing;
mod remote;
mod sealing;
