//! What the cutting of the past asks of the repository.

use super::{Repository, commit_id, files, object_id};
use crate::error::{RepositoryError, Result};
use crate::history::maximal;
use crate::session::Session;
use delugefs_core::ids::{CommitId, IncarnationId};
use delugefs_core::past::{self, History, Past};
use gix::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

impl Repository {
    /// The heads of the view, if that shows all that is here, durably: no head was left out, and none has come since.
    pub fn rests_on(&self) -> Result<Option<BTreeSet<CommitId>>> {
        let mut state = self.state();
        let session = self.session();
        let tips: BTreeSet<ObjectId> = files::authors(session.git())?.into_values().collect();
        let heads = maximal(&session, &tips)?.into_iter().map(commit_id);
        let heads: BTreeSet<CommitId> = heads.collect();
        if heads != self.view().heads {
            return Ok(None);
        }
        state.unsynced.sync(&self.inner.path)?;
        Ok(Some(heads))
    }

    /// When each author last committed, in seconds since 1970, by the chains' time: it does not go ahead of the newest
    /// commits by more than minutes, whatever a node's clock says.
    pub fn times(&self) -> Result<BTreeMap<IncarnationId, i64>> {
        let session = self.session();
        let mut times = BTreeMap::new();
        for (author, tip) in files::authors(session.git())? {
            times.insert(author, session.commit(tip)?.time);
        }
        Ok(times)
    }

    /// The newest commit below which history may be cut, as `core::past::boundary` finds it: no newer than `until`
    /// (seconds since 1970), with what every node rests on.
    pub fn boundary(&self, rests: &[BTreeSet<CommitId>], until: i64) -> Result<Option<CommitId>> {
        let session = self.session();
        let tips = files::authors(session.git())?.into_values();
        let tips = tips.map(commit_id).collect();
        past::boundary(&Commits(&session), &tips, rests, until)
    }
}

struct Commits<'s, 'r>(&'s Session<'r>);

impl History for Commits<'_, '_> {
    type Error = RepositoryError;

    fn commit(&self, id: CommitId) -> Result<Option<Past>> {
        match self.0.commit(object_id(id.as_bytes())) {
            Ok(facts) => Ok(Some(Past {
                parents: facts.parents.iter().copied().map(commit_id).collect(),
                time: facts.time,
            })),
            Err(RepositoryError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
