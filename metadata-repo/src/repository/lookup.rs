//! Commits by their ids.

use super::{Repository, files, object_id};
use crate::error::{RepositoryError, Result};
use crate::history::is_ancestor;
use delugefs_core::ids::{CommitId, IncarnationId};

impl Repository {
    /// Whether a commit is in the history of what this node has.
    pub fn is_known(&self, commit: CommitId) -> Result<bool> {
        let session = self.session();
        let wanted = object_id(commit.as_bytes());
        if let Err(RepositoryError::Missing(_)) = session.commit(wanted) {
            return Ok(false);
        }
        for head in files::authors(session.git())?.into_values() {
            if is_ancestor(&session, wanted, head)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an author's chain, as it is here, has come as far as a commit of it: which is in its history, or was,
    /// before that was cut. A commit of the others' history, which is here, too.
    pub fn has_come_to(&self, author: IncarnationId, commit: CommitId) -> Result<bool> {
        let session = self.session();
        let Some(head) = files::reference(session.git(), &files::author_name(author))? else {
            return Ok(false);
        };
        let commit = object_id(commit.as_bytes());
        if is_ancestor(&session, commit, head)? {
            return Ok(true);
        }
        let place = |id| {
            let facts = session.commit(id)?;
            Ok::<_, RepositoryError>((facts.sequence, facts.time))
        };
        Ok(place(commit)? < place(head)?)
    }
}
