//! Adding a commit to this node's own chain.

use super::{Repository, State, View, commit_id, files, object_id, recover, tree_id};
use crate::apply::{Request, apply};
use crate::commit::{self, chain_time};
use crate::error::{RepositoryError, Result};
use crate::history::is_ancestor;
use crate::session::Session;
use crate::signature::Signer;
use crate::view::settings_of;
use delugefs_core::change::Changes;
use delugefs_core::ids::{CommitId, EntryId, InfoHash};
use delugefs_core::name::Name;
use delugefs_core::settings::Settings;
use delugefs_core::time::Timestamp;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use gix::refs::Target;
use gix::refs::transaction::PreviousValue;
use std::collections::BTreeMap;

/// Durable commits after which is noted that all up to here is: bounds what is read after a power cut.
const CHECKPOINT_COMMITS: u32 = 256;

/// What to commit.
#[derive(Clone, Copy)]
pub struct Authoring<'a> {
    /// Has the key of the incarnation whose chain it continues: only its own node does.
    pub signer: &'a dyn Signer,
    /// The node's label, shown as the author's name.
    pub label: &'a str,
    /// The view that the changes start from; its heads become the parents.
    pub base: &'a View,
    /// What changes in it.
    pub changes: &'a Changes,
    /// New settings of the volume.
    pub settings: Option<&'a Settings>,
    /// The raw `info` dictionary of each content that is new.
    pub infos: &'a BTreeMap<InfoHash, Vec<u8>>,
    /// Up to which record the journal is in this commit; less than its predecessor's counts as that.
    pub journal_sequence: u64,
    /// This node's clock.
    pub now: Timestamp,
    /// Whether the commit has to survive a power cut before this returns.
    pub durable: bool,
    /// Whether there is to be a commit even if nothing changes: it puts the base's heads into the chain's history.
    pub even_if_nothing: bool,
    /// The place of a directory that the changes do not touch.
    pub resolve: &'a dyn Fn(EntryId) -> Option<(EntryId, Name)>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authored {
    /// The new commit; `None` when there was nothing to commit.
    pub commit: Option<CommitId>,
    /// What the heads show now, those included that were pulled since the view that the changes started from.
    pub view: View,
}

impl Repository {
    /// Commits changes to this node's own chain. Nothing is committed when nothing changes.
    ///
    /// After [`RepositoryError::NotDurable`] the commit may be there or not; its trailer says so to who asks for
    /// [`Repository::sequence`] after the next start.
    pub fn author(&self, authoring: &Authoring<'_>) -> Result<Authored> {
        let mut state = self.state();
        state.unsynced.check()?;
        let session = self.session();
        let name = files::author_name(authoring.signer.incarnation());
        let own = files::reference(session.git(), &name)?;
        let parents = parents(&session, own, authoring.base)?;
        let base = object_id(authoring.base.tree.as_bytes());
        let tree = write_tree(&session, base, authoring)?;
        if tree == base && !authoring.even_if_nothing {
            let view = self.refresh_in(&session, &mut state)?;
            return Ok(Authored { commit: None, view });
        }
        let commit = self.write_commit(&session, (own, tree, parents), authoring)?;
        files::write_objects(&session, &self.inner.path, &mut state.unsynced)?;
        if authoring.durable {
            state.unsynced.sync(&self.inner.path)?;
        }
        let expected = match own {
            None => PreviousValue::MustNotExist,
            Some(own) => PreviousValue::MustExistAndMatch(Target::Object(own)),
        };
        files::set_reference(session.git(), &name, commit, expected)?;
        self.after_move(&session, &mut state, (&name, authoring.durable))?;
        let shown = self.adopt(&session, &mut state, commit, tree);
        // The chain has moved: an error would have the same changes committed again, from a view without this.
        let view = shown.unwrap_or_else(|error| {
            tracing::error!("the names are committed, but not all is well with them: {error}");
            View {
                heads: [commit_id(commit)].into(),
                commit: Some(commit_id(commit)),
                tree: tree_id(tree),
            }
        });
        Ok(Authored {
            commit: Some(commit_id(commit)),
            view,
        })
    }

    fn after_move(
        &self,
        session: &Session<'_>,
        state: &mut State,
        (name, durable): (&str, bool),
    ) -> Result<()> {
        if !durable {
            return Ok(());
        }
        let path = &self.inner.path;
        let synced = files::sync_file(&path.join(name))
            .and_then(|()| files::sync_file(&path.join(files::AUTHORS)));
        state.unsynced.believe(path, synced)?;
        state.since_checkpoint += 1;
        if state.since_checkpoint >= CHECKPOINT_COMMITS {
            match recover::checkpoint(session, path, &state.boot) {
                Ok(()) => state.since_checkpoint = 0,
                // it only saves reading after a power cut
                Err(error) => tracing::warn!("no checkpoint of the names for now: {error}"),
            }
        }
        Ok(())
    }

    fn adopt(
        &self,
        session: &Session<'_>,
        state: &mut State,
        commit: ObjectId,
        tree: ObjectId,
    ) -> Result<View> {
        state.judged.insert(commit, true);
        state.views.insert([commit].into(), tree, 1);
        self.refresh_in(session, state)
    }

    pub(super) fn write_commit(
        &self,
        session: &Session<'_>,
        (own, tree, mut parents): (Option<ObjectId>, ObjectId, Vec<ObjectId>),
        authoring: &Authoring<'_>,
    ) -> Result<ObjectId> {
        let mut newest = None;
        for parent in &parents {
            newest = newest.max(Some(session.commit(*parent)?.time));
        }
        if parents.is_empty() {
            if session.is_beside_cut(self.inner.genesis)? {
                return Err(RepositoryError::Rules {
                    commit: self.inner.genesis.to_string(),
                    problem: "the changes start from before where history is cut".to_owned(),
                });
            }
            parents.push(self.inner.genesis);
        }
        // What an earlier commit has of the journal, this one has too.
        let before = match own {
            Some(own) => session.commit(own)?.sequence,
            None => None,
        };
        let commit = commit::authored(commit::Authored {
            tree,
            parents,
            signer: authoring.signer,
            label: authoring.label,
            subject: subject(authoring),
            sequence: authoring.journal_sequence.max(before.unwrap_or_default()),
            now: authoring.now,
            time: chain_time(authoring.now.seconds, newest),
        })?;
        session.put(ObjectKind::Commit, commit)
    }
}

/// What a commit on a base comes after: the base's heads. The chain must go on from its own last commit; where that
/// one was made from this very base and has changed nothing, it takes the place of the base's heads.
fn parents(session: &Session<'_>, own: Option<ObjectId>, base: &View) -> Result<Vec<ObjectId>> {
    let heads = base.heads.iter().map(|head| object_id(head.as_bytes()));
    let heads: Vec<ObjectId> = heads.collect();
    let Some(own) = own else {
        return Ok(heads);
    };
    for head in &heads {
        if is_ancestor(session, own, *head)? {
            return Ok(heads);
        }
    }
    let facts = session.commit(own)?;
    if facts.parents == heads && facts.tree == object_id(base.tree.as_bytes()) {
        return Ok(vec![own]);
    }
    Err(RepositoryError::Rules {
        commit: own.to_string(),
        problem: "the changes start from a view without it".to_owned(),
    })
}

fn write_tree(
    session: &Session<'_>,
    base: ObjectId,
    authoring: &Authoring<'_>,
) -> Result<ObjectId> {
    if authoring.changes.is_empty() && authoring.settings.is_none() {
        return Ok(base);
    }
    let settings = match authoring.settings {
        Some(new) => Some(with_boundary(new, &settings_of(session, base)?)),
        None => None,
    };
    let request = Request {
        base,
        changes: authoring.changes,
        settings: settings.as_ref(),
        resolve: authoring.resolve,
        info: &|hash| Ok(authoring.infos.get(hash).cloned()),
    };
    apply(session, &request)
}

/// New settings with the boundary that is recorded already, if that is the later one: whoever changes a setting may not
/// have seen it.
fn with_boundary(new: &Settings, before: &Settings) -> Settings {
    Settings {
        boundary: new.boundary.max(before.boundary),
        ..new.clone()
    }
}

fn subject(authoring: &Authoring<'_>) -> String {
    match (authoring.changes.len(), authoring.settings) {
        (0, None) => "Continued".to_owned(),
        (0, Some(_)) => "Settings".to_owned(),
        (1, _) => "1 change".to_owned(),
        (number, _) => format!("{number} changes"),
    }
}
