//! The volume's names: a Git repository whose trees are the volume's directories; the only crate that knows
//! Git.
//!
//! Owns everything below `metadata.git/`. Invariant: what a reference names is whole, on disk and readable by
//! stock git. A crash may lose commits that were not asked to be durable, never parts of them.

mod apply;
mod bencode;
mod cache;
pub mod codec;
mod commit;
mod cut;
mod diff;
mod directory;
mod error;
pub mod escape;
pub mod exchange;
pub mod fuzzing;
mod history;
mod node;
mod repository;
mod session;
pub mod signature;
mod view;

pub use bencode::BencodeError;
pub use commit::AHEAD_MAX;
pub use diff::ViewDiff;
pub use error::{RepositoryError, Result};
pub use repository::{Authored, Authoring, Kept, Listed, Repository, Said, Today, Upkeep, View};
