//! Chains that are not taken, and why: said once, and not asked for again.

use crate::cache::Cache;
use delugefs_core::ids::{CommitId, IncarnationId};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Refusals remembered, of each of two generations: about 60 bytes each. What is forgotten is fetched and refused anew.
const REFUSALS_MAX: usize = 4096;

/// Why a chain does not move to where a peer says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A commit in its history breaks the volume's rules; most of all: its author has not signed it.
    #[error("commit {commit}: {why}")]
    Rejected {
        /// The commit, perhaps of another author.
        commit: CommitId,
        /// Which rule.
        why: String,
    },
    /// Something of its history or contents is not there, and the peer did not send it. Another peer may.
    #[error("commit {commit} is incomplete: object {object} is missing")]
    Incomplete {
        /// The commit, perhaps of another author.
        commit: CommitId,
        /// What is missing, in hex.
        object: String,
    },
    /// Its author has signed two commits neither of which goes on from the other: a disk that was restored or copied
    /// went on under its old identity.
    #[error(
        "it forks: its author has signed both {ours}, which is here, and {theirs}, and neither goes on from the other"
    )]
    Forked {
        /// Its head here.
        ours: CommitId,
        /// The head that the peer has.
        theirs: CommitId,
    },
    /// History is cut, and what the chain goes on from was never part of what is left.
    #[error("it does not go on from where history is cut here")]
    BesideCut,
    /// Its author is new, and there is no room for more authors. Those that are here go on.
    #[error(
        "its author is new here, and the volume has {limit} authors already, the most that a node takes; a node that makes identities without end is faulty or hostile"
    )]
    Crowded {
        /// Most authors.
        limit: usize,
    },
}

/// A chain that a peer has and that was not taken. Nothing of it counts; other chains are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Whose chain.
    pub author: IncarnationId,
    /// Its head at the peer.
    pub head: CommitId,
    /// What is wrong.
    pub why: Refusal,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { author, head, why } = self;
        write!(f, "the chain of {author} up to {head} is refused: {why}")
    }
}

/// How long a refusal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// A commit never gets better, and authors do not go.
    Ever,
    /// Until other chains have what is here of this one.
    AsLongAsAlone,
}

/// Heads that were refused.
#[derive(Debug)]
pub(crate) struct Refusals(Mutex<Cache<(IncarnationId, CommitId), Lasting>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(Cache::new(REFUSALS_MAX)))
    }
}

impl Refusals {
    pub(super) fn find(&self, author: IncarnationId, head: CommitId) -> Option<Lasting> {
        self.cache().get(&(author, head), |_| 1)
    }

    pub(super) fn add(&self, refused: &Refused) {
        let lasting = match refused.why {
            // says more of the peer than of the chain
            Refusal::Incomplete { .. } => return,
            Refusal::Rejected { .. } | Refusal::BesideCut | Refusal::Crowded { .. } => {
                Lasting::Ever
            }
            Refusal::Forked { .. } => Lasting::AsLongAsAlone,
        };
        self.cache()
            .insert((refused.author, refused.head), lasting, 1);
    }

    /// History has changed: what was refused is looked at again.
    pub(crate) fn forget(&self) {
        *self.cache() = Cache::new(REFUSALS_MAX);
    }

    /// Consistent after each of its calls.
    fn cache(&self) -> std::sync::MutexGuard<'_, Cache<(IncarnationId, CommitId), Lasting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
