//! What the history that is here and one that begins later surely have in common.
//!
//! The others' history goes on from what each of its authors had when it last wrote. What that was, is told by what is
//! here of the author, and by what it has said to rest on: if it has written more since. Where history was cut here
//! since then, that is gone; therefore a cut notes what those had whom it leaves behind (`refs/delugefs/left`).
//!
//! It must not be too much. What is taken for common and is not in the others' history counts as removed there, and
//! this node's own work with it. Too little costs conflict copies, and brings back what was removed here.

use super::{Repository, State, Today, commit_id, files, object_id};
use crate::commit::Left;
use crate::error::Result;
use crate::exchange::Anew;
use crate::history::{generations, maximal};
use crate::session::Session;
use crate::view::tree_of;
use delugefs_core::ids::{CommitId, IncarnationId};
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use gix::refs::transaction::PreviousValue;
use std::collections::{BTreeMap, BTreeSet};

/// What each incarnation has said last to rest on.
pub type Said = BTreeMap<IncarnationId, BTreeSet<CommitId>>;

impl Repository {
    /// A history that was fetched, with what it has in common with the one that is here. `own` are the incarnations of
    /// this disk: it may have been restored, and others have another chain of it.
    pub fn today(
        &self,
        history: Anew,
        said: &Said,
        own: &BTreeSet<IncarnationId>,
    ) -> Result<Today> {
        let session = self.session();
        let (heads, notes) = (files::authors(session.git())?, files::left(session.git())?);
        let (mut shared, mut left) = (BTreeSet::new(), BTreeSet::new());
        let others = history.authors.iter();
        for (author, theirs) in others.filter(|(author, _)| !own.contains(author)) {
            let (head, note) = (heads.get(author), notes.get(author));
            let known = place(&session, head.or(note))?;
            // what it has said may be newer than what it last wrote for the others
            if place(&session, Some(&object_id(theirs.as_bytes())))? <= known {
                shared.insert(*theirs);
                continue;
            }
            shared.extend(head.copied().map(commit_id));
            shared.extend(said.get(author).into_iter().flatten());
            left.extend(note.copied().map(commit_id));
        }
        Ok(Today {
            history,
            shared,
            left,
        })
    }

    /// Notes, durably, what those have who are left behind by a cut: whose heads lie below, or who have said to rest on
    /// what does.
    pub(super) fn note_left(
        &self,
        session: &Session<'_>,
        state: &mut State,
        (at, below): (ObjectId, &BTreeSet<IncarnationId>),
        said: &Said,
    ) -> Result<()> {
        let path = &self.inner.path;
        let (heads, before) = (files::authors(session.git())?, files::left(session.git())?);
        let generations = generations(session, at)?;
        let mut notes = BTreeMap::new();
        let silent = said.keys().filter(|author| !heads.contains_key(author));
        for author in below.iter().chain(silent) {
            let head = heads.get(author);
            let rests = said.get(author).into_iter().flatten();
            let rests = rests
                .map(|rest| object_id(rest.as_bytes()))
                .filter(|rest| *rest != at && generations.contains_key(rest));
            let had: BTreeSet<ObjectId> = head.copied().into_iter().chain(rests).collect();
            if !had.is_empty() {
                let sequence = place(session, head.or(before.get(author)))?;
                let left = left(session, state, (&had, &generations), sequence)?;
                let note = session.put(ObjectKind::Commit, left.encode()?)?;
                notes.insert(files::left_name(*author), note);
            }
        }
        files::write_objects(session, path, &mut state.unsynced)?;
        state.unsynced.sync(path)?;
        for (name, note) in &notes {
            files::set_reference(session.git(), name, *note, PreviousValue::Any)?;
        }
        let folder = [files::LEFT.to_owned()];
        files::sync_references(path, notes.into_keys().chain(folder))
    }
}

/// How far an author's journal is in one of its commits, or was in the one that a note tells of.
fn place(session: &Session<'_>, commit: Option<&ObjectId>) -> Result<Option<u64>> {
    match commit {
        Some(commit) => Ok(session.commit(*commit)?.sequence),
        None => Ok(None),
    }
}

/// What one had whose view was made of these commits, or who wrote them.
fn left(
    session: &Session<'_>,
    state: &mut State,
    (had, generations): (&BTreeSet<ObjectId>, &BTreeMap<ObjectId, u64>),
    sequence: Option<u64>,
) -> Result<Left> {
    let mut left = Left {
        tree: tree_of(session, &mut state.views, &maximal(session, had)?)?,
        time: 0,
        generation: 0,
        sequence,
    };
    for commit in had {
        left.time = left.time.max(session.commit(*commit)?.time);
        let generation = generations.get(commit).copied();
        left.generation = left.generation.max(generation.unwrap_or_default());
    }
    Ok(left)
}
