//! The view after author references have moved.

use super::judge::{Known, judge};
use super::recover::recover;
use super::repair::Damage;
use super::{Repository, State, View, commit_id, files, object_id, tree_id};
use crate::commit::nobodys;
use crate::error::Result;
use crate::history::maximal;
use crate::session::Session;
use crate::signature;
use crate::view::{new_views, tree_of};
use delugefs_core::ids::{CommitId, IncarnationId, TreeId};
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use gix::refs::transaction::PreviousValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Repository {
    /// Takes up author references that were moved by a pull, and gives what they show now.
    ///
    /// A head that cannot be read as a volume's tree (its author lies, or runs a newer version) is left out,
    /// with a warning, until its author moves on.
    pub fn refresh_view(&self) -> Result<View> {
        let mut state = self.state();
        self.refresh_in(&self.session(), &mut state)
    }

    /// What a set of commits shows, such as the heads of an earlier view. Remembered; moves no reference.
    pub fn view_of(&self, heads: &BTreeSet<CommitId>) -> Result<View> {
        // In this order: no object goes while the state is held, but a handle made before may believe in one.
        let mut state = self.state();
        let session = self.session();
        let heads = heads
            .iter()
            .map(|head| object_id(head.as_bytes()))
            .collect();
        let heads = maximal(&session, &heads)?;
        self.compute(&session, &mut state, &heads)
    }

    /// The public key of each author, as its newest commit has it, in OpenSSH's form: what stock git needs to verify
    /// all its commits (`ssh-ed25519 …`).
    pub fn signers(&self) -> Result<BTreeMap<IncarnationId, String>> {
        let session = self.session();
        let mut signers = BTreeMap::new();
        for (author, tip) in files::authors(session.git())? {
            let commit = session.object(tip, ObjectKind::Commit)?;
            if let Ok(key) = signature::verify(&commit) {
                signers.insert(author, signature::openssh_key(&key));
            }
        }
        Ok(signers)
    }

    /// A commit's tree.
    pub fn tree_of(&self, commit: CommitId) -> Result<TreeId> {
        let facts = self.session().commit(object_id(commit.as_bytes()))?;
        Ok(tree_id(facts.tree))
    }

    /// The first view of this process.
    pub(super) fn start(&self, damage: &Damage, boot: &str) -> Result<()> {
        let session = self.session();
        let mut state = self.state();
        let recovered = recover(&session, &self.inner.path, (damage, boot))?;
        let genesis = session.commit(self.inner.genesis)?.tree;
        self.publish(View {
            heads: BTreeSet::new(),
            commit: Some(commit_id(self.inner.genesis)),
            tree: tree_id(genesis),
        });
        if !recovered {
            self.recall(&session, &mut state);
        }
        self.refresh_in(&session, &mut state).map(drop)
    }

    /// Takes the last view from `refs/heads/main`, which only this node writes: saves merging it again.
    fn recall(&self, session: &Session<'_>, state: &mut State) {
        let Ok(Some(main)) = files::reference(session.git(), files::MAIN) else {
            return;
        };
        let Ok(facts) = session.commit(main) else {
            return;
        };
        let heads: BTreeSet<ObjectId> = match facts.incarnation {
            Some(_) => BTreeSet::from([main]),
            None => facts.parents.iter().copied().collect(),
        };
        // the last run may have gone over to another history, and have ended before it could say what that shows
        let is_known = |head: &ObjectId| self.is_known(commit_id(*head)).unwrap_or(false);
        if !heads.iter().all(is_known) {
            return;
        }
        state.judged.extend(heads.iter().map(|head| (*head, true)));
        self.publish(View {
            heads: heads.iter().map(|head| commit_id(*head)).collect(),
            commit: Some(commit_id(main)),
            tree: tree_id(facts.tree),
        });
        if !heads.is_empty() {
            state.views.insert(heads, facts.tree, 1);
        }
    }

    pub(super) fn refresh_in(&self, session: &Session<'_>, state: &mut State) -> Result<View> {
        self.refresh_from(session, state, &self.known())
    }

    /// The same, where all but what is `known` is read.
    pub(super) fn refresh_from(
        &self,
        session: &Session<'_>,
        state: &mut State,
        known: &Known,
    ) -> Result<View> {
        self.inner.since_maintained.fetch_add(1, Ordering::Relaxed);
        let tips: BTreeSet<ObjectId> = files::authors(session.git())?.into_values().collect();
        state.judged.retain(|tip, _| tips.contains(tip));
        let mut sound = BTreeSet::new();
        for tip in tips {
            if judge(session, state, tip, known)? {
                sound.insert(tip);
            }
        }
        let heads = maximal(session, &sound)?;
        let view = self.compute(session, state, &heads)?;
        let main = view.commit.map(|commit| object_id(commit.as_bytes()));
        if let Some(main) =
            main.filter(|_| files::reference(session.git(), files::MAIN).ok().flatten() != main)
        {
            files::set_reference(session.git(), files::MAIN, main, PreviousValue::Any)?;
        }
        self.publish(view.clone());
        Ok(view)
    }

    fn compute(
        &self,
        session: &Session<'_>,
        state: &mut State,
        heads: &BTreeSet<ObjectId>,
    ) -> Result<View> {
        let (commit, tree) = match heads.first() {
            None => (self.inner.genesis, session.commit(self.inner.genesis)?.tree),
            Some(only) if heads.len() == 1 => (*only, session.commit(*only)?.tree),
            Some(_) => merged(session, state, heads)?,
        };
        let written = files::write_objects(session, &self.inner.path, &mut state.unsynced);
        if written.is_err() {
            // A remembered tree would be taken for written.
            state.views = new_views();
        }
        written?;
        Ok(View {
            heads: heads.iter().map(|head| commit_id(*head)).collect(),
            commit: Some(commit_id(commit)),
            tree: tree_id(tree),
        })
    }

    /// What a newcomer knows.
    pub(super) fn known_first(&self, session: &Session<'_>) -> Result<Known> {
        Ok(Known {
            tree: session.commit(self.inner.genesis)?.tree,
            heads: BTreeSet::from([self.inner.genesis]),
            genesis: self.inner.genesis,
        })
    }

    /// What the present view rests on.
    fn known(&self) -> Known {
        let view = self.view();
        let heads = view.heads.iter().map(|head| object_id(head.as_bytes()));
        Known {
            tree: object_id(view.tree.as_bytes()),
            heads: heads.chain([self.inner.genesis]).collect(),
            genesis: self.inner.genesis,
        }
    }

    fn publish(&self, view: View) {
        *self
            .inner
            .view
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}

/// The merge commit of several heads: parents in order, time of the newest, so that it is the same everywhere.
fn merged(
    session: &Session<'_>,
    state: &mut State,
    heads: &BTreeSet<ObjectId>,
) -> Result<(ObjectId, ObjectId)> {
    let tree = tree_of(session, &mut state.views, heads)?;
    let mut time = 0;
    for head in heads {
        time = time.max(session.commit(*head)?.time);
    }
    let parents = heads.iter().copied().collect();
    let commit = nobodys(tree, parents, time, "Merge")?;
    Ok((session.put(ObjectKind::Commit, commit)?, tree))
}
