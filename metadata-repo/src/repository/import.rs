//! Coming back from before where history is cut: what this node has made and changed goes over to the history that the
//! others have, and its own is left.

use super::judge::judge;
use super::switch::Switch;
use super::{Authoring, Repository, State, View, commit_id, files, object_id};
use crate::commit::Left;
use crate::error::{RepositoryError, Result};
use crate::exchange::Anew;
use crate::history::{common, is_ancestor, leads_to, maximal};
use crate::session::Session;
use crate::view::{import_tree, new_views, settings_of, tree_of};
use delugefs_core::ids::CommitId;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{MutexGuard, PoisonError};

/// The history that the others have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Today {
    /// Where it begins, and its heads. All of it is here.
    pub history: Anew,
    /// Commits of the history that was here before which it goes on from, below where it begins: since then, what is here
    /// is this node's own. Those that are not here, or not shown, do not matter.
    pub shared: BTreeSet<CommitId>,
    /// The same, of what lay below where history was cut here: what those had who have written it and were left behind.
    /// One of them is enough, and matters only where none of `shared` does.
    pub left: BTreeSet<CommitId>,
}

/// As long as this lives, no object goes.
#[must_use]
pub struct Kept<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>);

impl Repository {
    /// Keeps what no reference leads to; waits for a [`Repository::maintain`] under way.
    pub fn keep_all(&self) -> Kept<'_> {
        let maintaining = self.inner.maintaining.lock();
        // it guards no data
        Kept(maintaining.unwrap_or_else(PoisonError::into_inner))
    }

    /// The part of history that begins at a commit, if not all that the view shows goes on from there.
    pub fn without_what_lies_beside(&self, at: CommitId) -> Result<Option<Today>> {
        let _state = self.state();
        let session = self.session();
        let shown = self.view().heads;
        let shown: Vec<ObjectId> = shown.iter().map(|id| object_id(id.as_bytes())).collect();
        let above = |head| leads_to(&session, head, object_id(at.as_bytes()));
        let mut is_all = true;
        for head in &shown {
            is_all &= above(*head)?;
        }
        if is_all {
            return Ok(None);
        }
        let (mut authors, mut shared) = (BTreeMap::new(), BTreeSet::new());
        for (author, head) in files::authors(session.git())? {
            if above(head)? {
                authors.insert(author, commit_id(head));
                shared.extend(common(&session, &shown, head)?.into_iter().map(commit_id));
            }
        }
        let cut = BTreeSet::from([at]);
        Ok(Some(Today {
            history: Anew { cut, authors },
            shared,
            left: BTreeSet::new(),
        }))
    }

    /// Goes over to the history that the others have, with a commit that brings along what `authoring`'s base has
    /// created and edited: the changes of `authoring` itself have to be in its base. Gives what is shown then.
    ///
    /// On an error all is as before, but after [`RepositoryError::NotDurable`] it is decided at the next start.
    pub fn import(&self, authoring: &Authoring<'_>, today: &Today) -> Result<View> {
        let _no_pull = self.no_pull();
        let mut state = self.state();
        state.unsynced.check()?;
        let session = self.session();
        let path = &self.inner.path;
        check_all_shown(&session, &state, authoring.base)?;
        let base = self.shared_tree(&session, &mut state, (authoring.base, today))?;
        // merged perhaps for this alone
        files::write_objects(&session, path, &mut state.unsynced)?;
        let cut = today.history.cut.iter();
        let cut: HashSet<_> = cut.map(|at| object_id(at.as_bytes())).collect();
        let after = self.session().cut_at(cut.clone());
        let heads = self.sound(&after, &mut state, today)?;
        let theirs = tree_of(&after, &mut new_views(), &heads)?;
        let ours = object_id(authoring.base.tree.as_bytes());
        check_later(&after, ours, theirs)?;
        if is_over(&session, authoring, (today, theirs))? {
            return Ok(authoring.base.clone());
        }
        let tree = import_tree(&after, base, (theirs, ours))?;

        let incarnation = authoring.signer.incarnation();
        let before = files::authors(session.git())?;
        let own = before.get(&incarnation).copied();
        let moved = today.history.authors.iter();
        let moved = moved.map(|(author, head)| (*author, Some(object_id(head.as_bytes()))));
        let mut authors: BTreeMap<_, _> = before.into_keys().map(|author| (author, None)).collect();
        authors.extend(moved);
        // who has written nothing, and brings nothing, has nothing to say
        if own.is_some() || tree != theirs {
            let parents = heads.into_iter().collect();
            let commit = self.write_commit(&after, (own, tree, parents), authoring)?;
            authors.insert(incarnation, Some(commit));
        }
        files::write_objects(&after, path, &mut state.unsynced)?;
        state.unsynced.sync(path)?;
        self.switch(&mut state, &Switch { cut, authors })?;
        state.judged.clear();
        self.inner.refusals.forget();
        let session = self.session();
        // the view rests on what was left
        let known = self.known_first(&session)?;
        self.refresh_from(&session, &mut state, &known)
    }

    /// The tree that both histories have in common.
    fn shared_tree(
        &self,
        session: &Session<'_>,
        state: &mut State,
        (ours, today): (&View, &Today),
    ) -> Result<ObjectId> {
        let mut shared = BTreeSet::new();
        for commit in &today.shared {
            let commit = object_id(commit.as_bytes());
            if is_shown(session, commit, ours)? {
                shared.insert(commit);
            }
        }
        if !shared.is_empty() {
            return tree_of(session, &mut state.views, &maximal(session, &shared)?);
        }
        let mut newest = ((0, 0), session.commit(self.inner.genesis)?.tree);
        for left in &today.left {
            let id = object_id(left.as_bytes());
            let left = Left::decode(id, &session.object(id, ObjectKind::Commit)?)?;
            newest = newest.max(((left.time, left.generation), left.tree));
        }
        Ok(newest.1)
    }

    /// The heads of the others' history that may be shown.
    fn sound(
        &self,
        session: &Session<'_>,
        state: &mut State,
        today: &Today,
    ) -> Result<BTreeSet<ObjectId>> {
        let known = self.known_first(session)?;
        let mut sound = BTreeSet::new();
        for head in today.history.authors.values() {
            let head = object_id(head.as_bytes());
            if judge(session, state, head, &known)? {
                sound.insert(head);
            }
        }
        match sound.is_empty() {
            true => Err(RepositoryError::Missing(
                "a head that can be shown".to_owned(),
            )),
            false => maximal(session, &sound),
        }
    }
}

/// All that is here is in the view that the import is made of, but what cannot be shown.
fn check_all_shown(session: &Session<'_>, state: &State, view: &View) -> Result<()> {
    for head in files::authors(session.git())?.into_values() {
        let is_sound = state.judged.get(&head) != Some(&false);
        if is_sound && !is_shown(session, head, view)? {
            return Err(rule(head, "it has come, and is not shown yet"));
        }
    }
    Ok(())
}

/// Of two histories that are cut, the one that is cut later is where all meet.
fn check_later(session: &Session<'_>, ours: ObjectId, theirs: ObjectId) -> Result<()> {
    let boundary = |tree| Ok(settings_of(session, tree)?.boundary);
    match boundary(ours)? > boundary(theirs)? {
        true => Err(rule(theirs, "what is here is to be cut later")),
        false => Ok(()),
    }
}

/// Whether this node's chain goes on from where the others' history begins, and has come farther than that: of two
/// histories that were fetched at once, the other one was taken up meanwhile, and the chain would fork.
fn is_over(
    session: &Session<'_>,
    authoring: &Authoring<'_>,
    (today, theirs): (&Today, ObjectId),
) -> Result<bool> {
    let own = authoring.signer.incarnation();
    let Some(head) = files::reference(session.git(), &files::author_name(own))? else {
        return Ok(false);
    };
    if today.history.authors.get(&own) == Some(&commit_id(head)) {
        return Ok(false);
    }
    let mut begins = today.history.cut.clone();
    if begins.is_empty() {
        let boundary = settings_of(session, theirs)?.boundary;
        begins.extend(boundary.map(|boundary| boundary.commit));
    }
    for at in begins {
        if leads_to(session, head, object_id(at.as_bytes()))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn rule(id: ObjectId, problem: &str) -> RepositoryError {
    RepositoryError::Rules {
        commit: id.to_string(),
        problem: problem.to_owned(),
    }
}

fn is_shown(session: &Session<'_>, commit: ObjectId, view: &View) -> Result<bool> {
    match session.commit(commit) {
        Err(RepositoryError::Missing(_)) => return Ok(false),
        found => found?,
    };
    for head in &view.heads {
        if is_ancestor(session, commit, object_id(head.as_bytes()))? {
            return Ok(true);
        }
    }
    Ok(false)
}
