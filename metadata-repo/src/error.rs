//! What can go wrong with the volume's names.

use crate::codec::CodecError;
use delugefs_core::ids::EntryId;
use std::io;

/// Why the repository cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The disk or its filesystem refuses.
    #[error("{doing}: {source}")]
    Io {
        /// What was attempted.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// Git's own files are not as they should be, or cannot be written.
    #[error("{doing}: {cause}")]
    Git {
        /// What was attempted.
        doing: &'static str,
        /// What the Git library said.
        cause: String,
    },
    /// An object that others name is not there.
    #[error("the object {0} is missing")]
    Missing(String),
    /// An object is there, and is not what this program writes.
    #[error("the object {object} is malformed: {problem}")]
    Malformed {
        /// Its id.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// A descriptor, `%dir` or `%volume` that cannot be read.
    #[error("the object {object}: {source}")]
    Codec {
        /// The blob's id.
        object: String,
        /// What is wrong.
        source: CodecError,
    },
    /// Changes that do not start from the tree they are applied to.
    #[error("the change of entry {0} does not start from the present tree")]
    Stale(EntryId),
    /// Changes that would leave an entry without a directory, or a directory within itself.
    #[error("entry {0} would not be reachable from the root")]
    Unreachable(EntryId),
    /// A file's `info` dictionary was neither given nor in the descriptor before.
    #[error("no info dictionary is known for entry {0}")]
    NoInfo(EntryId),
    /// The directory is not a repository of this program.
    #[error("{0} is not a repository of this program")]
    NotOurs(String),
    /// The repository exists already.
    #[error("{0} exists already")]
    Exists(String),
    /// A commit of another node that breaks the rules of authored commits.
    #[error("the commit {commit} breaks the rules: {problem}")]
    Rules {
        /// Its id.
        commit: String,
        /// Which rule.
        problem: &'static str,
    },
}

/// The repository's results.
pub type Result<T> = std::result::Result<T, RepositoryError>;

pub(crate) fn git<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> RepositoryError {
    move |cause| RepositoryError::Git {
        doing,
        cause: cause.to_string(),
    }
}

pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> RepositoryError {
    move |source| RepositoryError::Io {
        doing: doing.into(),
        source,
    }
}

pub(crate) fn malformed(
    object: impl std::fmt::Display,
    problem: impl Into<String>,
) -> RepositoryError {
    RepositoryError::Malformed {
        object: object.to_string(),
        problem: problem.into(),
    }
}
