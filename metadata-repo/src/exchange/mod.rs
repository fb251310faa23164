//! Names between nodes: a Git protocol v2 server, and the client that pulls author chains.
//!
//! [`serve`] answers stock `git clone git://HOST:PORT/NAME` and other nodes alike, over any pair of blocking
//! streams; timeouts belong to the streams. [`pull`] brings a peer's author chains here.
//!
//! Invariant: a ref moves only to a commit whose whole closure (history, trees, blobs) is here, checked and
//! synced. What a peer sent and what failed a check is never visible in the store: a pack lives in a temporary
//! file until it has passed. A chain that breaks the rules is refused and named, and keeps no other from moving.
//! After a crash there may be `objects/.tmp-pull-*` files (to be removed when the
//! repository is opened), or a whole pack that no ref needs.

mod client;
mod history;
mod limits;
mod object;
mod pack_reader;
mod pack_writer;
mod pktline;
mod progress;
mod quarantine;
mod refs;
mod refusal;
mod request;
mod server;
mod store;
mod tree;
mod verify;
mod volume;

#[cfg(test)]
pub(crate) mod tests;

use delugefs_core::ids::CommitId;
use delugefs_core::past::Boundary;
use std::collections::HashSet;
use std::io;
use std::sync::RwLockReadGuard;

pub use client::{
    Anew, Foreign, PullOptions, PullProgress, Pulled, Trusting, fuzz_advertisement, fuzz_refs,
};
pub use limits::{PullLimits, ServeLimits};
pub use pack_reader::fuzz_pack;
pub use pktline::fuzz_pktline;
pub use refusal::{Refusal, Refused};
pub use request::fuzz_request;
pub use server::{ServeOptions, Served};
pub use tree::fuzz_tree;
pub use volume::{fetch_anew, pull, serve};

use client::pull_into;
pub(crate) use refusal::Refusals;
use server::serve_from;
pub(crate) use tree::takes_name;

/// What the exchange needs of a repository.
pub(crate) trait GitStore {
    /// A handle for this thread.
    fn git(&self) -> gix::Repository;
    /// Objects or refs have changed on disk: later handles must see them.
    fn refresh(&self);
    /// Makes all objects that were written so far survive a power cut: what is received may build on them.
    fn sync(&self) -> Result<(), ExchangeError>;
    /// As long as this is held, objects that are there stay. Handles are made after it is taken.
    fn hold(&self) -> Option<RwLockReadGuard<'_, ()>>;
    /// Where history is to be cut, as the volume's tree records it: a commit that is here.
    fn boundary(&self) -> Result<Option<Boundary>, ExchangeError>;
    /// Cuts the history of a repository that has no chains yet, durably: it begins at these commits.
    fn begin_at(&self, commits: &HashSet<gix::ObjectId>) -> Result<(), ExchangeError>;
    /// The chains that were refused.
    fn refusals(&self) -> &Refusals;
}

/// Why an exchange with a peer came to nothing. Whatever it is, no ref has moved because of it.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The stream failed, or timed out.
    #[error("connection: {0}")]
    Connection(#[source] io::Error),
    /// The stream ended in the middle.
    #[error("the peer closed the connection in the middle of {0}")]
    Truncated(&'static str),
    /// The peer sent what Git's protocol does not allow, or what is not served here.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// The peer answered with an error of its own.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// More of something than is taken.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// The most that is taken.
        limit: u64,
    },
    /// The pack is not a well-formed pack.
    #[error("bad pack: {0}")]
    Pack(String),
    /// An object that breaks the rules of Git or of a volume.
    #[error("bad object {id}: {why}")]
    Object {
        /// Its id, in hex.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The pack is incomplete.
    #[error("incomplete: object {0} is missing")]
    Missing(String),
    /// The peer has commits that this very incarnation has signed and that are not here: this root is a copy or
    /// was restored, and has to continue as a new incarnation.
    #[error("a peer knows commits of this node that this node does not: {theirs}")]
    OwnChainAhead {
        /// Our own head, if there is one.
        ours: Option<CommitId>,
        /// The head that the peer has.
        theirs: CommitId,
    },
    /// The peer's history begins at a commit whose parents are not here, or is to begin at one that is later than where
    /// that which is here is to be cut; and what is here lies beside.
    #[error("the peer's history begins at {at}, and what is here lies beside")]
    Cut {
        /// Where.
        at: CommitId,
    },
    /// The peer's history begins at a commit, and no tree of it says that it is to be cut there.
    #[error("the peer's history begins at {at}, where it is not recorded to be cut")]
    Unrecorded {
        /// Where.
        at: CommitId,
    },
    /// This node's own repository failed.
    #[error("own repository: {0}")]
    Repository(String),
}

impl ExchangeError {
    fn protocol(why: impl Into<String>) -> Self {
        Self::Protocol(why.into())
    }

    fn repository(error: impl std::fmt::Display) -> Self {
        Self::Repository(error.to_string())
    }

    fn object(id: &gix::oid, why: impl Into<String>) -> Self {
        Self::Object {
            id: id.to_string(),
            why: why.into(),
        }
    }
}

/// A commit's id in the core's words. Repositories here are SHA-1 only.
fn commit_id(id: &gix::oid) -> CommitId {
    CommitId::from_slice(id.as_bytes()).unwrap_or(CommitId::new([0; 20]))
}

/// A commit's id in gix's words.
fn object_id(id: CommitId) -> gix::ObjectId {
    gix::ObjectId::Sha1(*id.as_bytes())
}
