//! What can go wrong with the volume's names.

use crate::codec::CodecError;
use delugefs_core::ids::EntryId;
use std::error::Error;
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
        /// What the Git library said, and what was behind it.
        cause: String,
        /// Whether the disk was full.
        no_space: bool,
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
    /// A sync has failed: what was written since the last one may be lost in a power cut, whatever later syncs say
    /// (the kernel forgets what it could not write). Nothing more is committed until the repository is opened again.
    #[error("the names could not be made durable: {0}")]
    NotDurable(String),
    /// The directory is not a repository of this program.
    #[error("{0} is not a repository of this program")]
    NotOurs(String),
    /// The repository exists already.
    #[error("{0} exists already")]
    Exists(String),
    /// Work that may be left was told to end.
    #[error("stopped before the end")]
    Stopped,
    /// A commit of another node that breaks the rules of authored commits.
    #[error("the commit {commit} breaks the rules: {problem}")]
    Rules {
        /// Its id.
        commit: String,
        /// Which rule.
        problem: String,
    },
}

/// The repository's results.
pub type Result<T> = std::result::Result<T, RepositoryError>;

impl RepositoryError {
    /// Whether the disk was full: then nothing is wrong that room would not mend.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_no_space(source),
            Self::Git { no_space, .. } => *no_space,
            _ => false,
        }
    }
}

fn is_no_space(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::StorageFull || kind == io::ErrorKind::QuotaExceeded
}

pub(crate) fn git<E>(doing: &'static str) -> impl FnOnce(E) -> RepositoryError
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    move |error| {
        let error = error.into();
        let (mut cause, mut no_space) = (String::new(), false);
        let mut next: Option<&(dyn Error + 'static)> = Some(&*error);
        while let Some(error) = next {
            let text = error.to_string();
            if !cause.contains(&text) {
                let colon = if cause.is_empty() { "" } else { ": " };
                cause = format!("{cause}{colon}{text}");
            }
            no_space |= error.downcast_ref().is_some_and(is_no_space);
            next = error.source();
        }
        RepositoryError::Git {
            doing,
            cause,
            no_space,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not write")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_full_disk_is_seen_behind_what_git_says() {
        let outer = |kind: io::ErrorKind| git("move a reference")(Outer(kind.into()));
        let full = outer(io::ErrorKind::StorageFull);
        assert!(full.is_no_space());
        let text = full.to_string();
        assert_eq!(text, "move a reference: could not write: no storage space");
        assert!(!outer(io::ErrorKind::PermissionDenied).is_no_space());
        assert!(io("write")(io::ErrorKind::QuotaExceeded.into()).is_no_space());
    }
}
