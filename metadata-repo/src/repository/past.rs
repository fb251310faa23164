//! What the cutting of the past asks of the repository.

use super::common::Said;
use super::switch::Switch;
use super::{Repository, State, commit_id, files, object_id, open_git, recover};
use crate::error::{RepositoryError, Result};
use crate::history::{is_ancestor, leads_to, leads_to_cut, maximal};
use crate::session::Session;
use crate::view::{new_views, settings_of};
use delugefs_core::ids::{CommitId, IncarnationId};
use delugefs_core::past::{self, Boundary, History, Past};
use gix::ObjectId;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::PoisonError;

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
    /// (seconds since 1970), with what every node rests on, and with at least `least` commits below.
    pub fn boundary(
        &self,
        rests: &[BTreeSet<CommitId>],
        limits: (i64, usize),
    ) -> Result<Option<Boundary>> {
        let session = self.session();
        past::boundary(&Commits(&session), &tips(&session)?, rests, limits)
    }

    /// Whether history may be cut at a commit, by what every node rests on.
    pub fn is_stable(&self, rests: &[BTreeSet<CommitId>], at: CommitId) -> Result<bool> {
        let session = self.session();
        past::is_stable(&Commits(&session), &tips(&session)?, rests, at)
    }

    /// Where history is to be cut, as the view's tree records it, if that commit is here: not one that lies below where it
    /// is cut already. Of two commits of one second the record may name the earlier one.
    pub fn recorded(&self) -> Result<Option<Boundary>> {
        let session = self.session();
        let tree = object_id(self.view().tree.as_bytes());
        let Some(boundary) = settings_of(&session, tree)?.boundary else {
            return Ok(None);
        };
        match is_left(&session, object_id(boundary.commit.as_bytes())) {
            Ok(is_left) => Ok(is_left.then_some(boundary)),
            Err(RepositoryError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where history is cut.
    pub fn cuts(&self) -> Result<BTreeSet<CommitId>> {
        let session = self.session();
        Ok(session.cut()?.iter().copied().map(commit_id).collect())
    }

    /// Whether a head lies below a commit: its author has not gone on since.
    pub fn is_below(&self, author: IncarnationId, at: CommitId) -> Result<bool> {
        let session = self.session();
        let at = object_id(at.as_bytes());
        match files::reference(session.git(), &files::author_name(author))? {
            Some(head) => Ok(head != at && is_ancestor(&session, head, at)?),
            None => Ok(false),
        }
    }

    /// Cuts history below a commit, durably: authors that have not gone on since lose their references, and what
    /// nothing else leads to may go ([`Repository::maintain`]). Whether it is cut there now: not where a head lies
    /// beside, nor where `own`'s lies below, whose place in its journal would be forgotten.
    ///
    /// What those had who are left behind is noted, also by what they have `said` to rest on.
    ///
    /// After [`RepositoryError::NotDurable`] that is decided at the next start.
    pub fn cut(&self, at: CommitId, own: IncarnationId, said: &Said) -> Result<bool> {
        let _no_pull = self.no_pull();
        let mut state = self.state();
        let session = self.session();
        let at = object_id(at.as_bytes());
        if session.cut()?.contains(&at) {
            return Ok(true);
        }
        let Some(below) = below(&session, at)?.filter(|below| !below.contains(&own)) else {
            return Ok(false);
        };
        self.note_left(&session, &mut state, (at, &below), said)?;
        let switch = Switch {
            cut: HashSet::from([at]),
            authors: below.into_iter().map(|author| (author, None)).collect(),
        };
        self.switch(&mut state, &switch)?;
        Ok(true)
    }

    /// Goes over to another history, of which all is durable. Pulls must not go on meanwhile.
    pub(super) fn switch(&self, state: &mut State, switch: &Switch) -> Result<()> {
        let path = &self.inner.path;
        let prepared = switch.prepare(path)?;
        // made before, so that no error comes after; it looks at the disk when it is first used
        let fresh = open_git(path)?;
        let done = prepared.carry_out(&self.git_handle(), path);
        state.unsynced.believe(path, done)?;
        // what was remembered may rest on what goes
        state.views = new_views();
        self.inner.decoders.forget_commits();
        *self
            .inner
            .git
            .write()
            .unwrap_or_else(PoisonError::into_inner) = fresh;
        if let Err(error) = recover::checkpoint(&self.session(), path, &state.boot) {
            // it only saves reading after a power cut
            tracing::warn!("no checkpoint of the names for now: {error}");
        }
        Ok(())
    }
}

/// Whether a commit of this history is not below where that is cut.
fn is_left(session: &Session<'_>, commit: ObjectId) -> Result<bool> {
    let time = session.commit(commit)?.time;
    let mut may_be_below = false;
    for at in session.cut()? {
        may_be_below |= time <= session.commit(*at)?.time;
    }
    Ok(!may_be_below || leads_to_cut(session, commit)?)
}

fn tips(session: &Session<'_>) -> Result<BTreeSet<CommitId>> {
    let tips = files::authors(session.git())?.into_values();
    Ok(tips.map(commit_id).collect())
}

/// Authors whose heads lie below a commit; `None` if a head lies beside it.
fn below(session: &Session<'_>, at: ObjectId) -> Result<Option<BTreeSet<IncarnationId>>> {
    let mut below = BTreeSet::new();
    for (author, head) in files::authors(session.git())? {
        if leads_to(session, head, at)? {
            continue;
        }
        if !is_ancestor(session, head, at)? {
            return Ok(None);
        }
        below.insert(author);
    }
    Ok(Some(below))
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
