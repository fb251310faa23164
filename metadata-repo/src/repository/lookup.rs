//! Commits by their ids.

use super::{Repository, files, object_id};
use crate::error::{RepositoryError, Result};
use crate::history::is_ancestor;
use delugefs_core::ids::CommitId;

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
}
