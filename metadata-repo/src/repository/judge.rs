//! Whether another node's head may take part in the view.
//!
//! A pull has seen to it that everything is there; here it is read. What breaks the rules is left out as a
//! whole, by every node alike, so that nobody builds on it and it keeps nobody else's work from being shown.

use super::State;
use crate::codec::CodecError;
use crate::commit::AHEAD_MAX;
use crate::diff::sides;
use crate::error::{RepositoryError, Result, malformed};
use crate::history::news;
use crate::session::Session;
use crate::view::settings_of;
use gix::ObjectId;
use std::collections::BTreeSet;

/// New commits whose trees are all read. A node that joins or comes back to more reads only the heads':
/// the past has been read by those who built on it.
const TREES_MAX: usize = 2000;

/// What the present view rests on: it need not be read again.
pub(super) struct Known {
    pub(super) tree: ObjectId,
    pub(super) heads: BTreeSet<ObjectId>,
    pub(super) genesis: ObjectId,
}

/// Whether a head is sound; remembered as long as it is a head.
pub(super) fn judge(
    session: &Session<'_>,
    state: &mut State,
    tip: ObjectId,
    known: &Known,
) -> Result<bool> {
    if let Some(judgement) = state.judged.get(&tip) {
        return Ok(*judgement);
    }
    let sound = match read_through(session, tip, known) {
        Ok(()) => true,
        Err(error) if is_authors_fault(&error) => {
            tracing::warn!("leaving out the commit {tip} of another node: {error}");
            false
        }
        Err(error) => return Err(error),
    };
    state.judged.insert(tip, sound);
    Ok(sound)
}

fn read_through(session: &Session<'_>, tip: ObjectId, known: &Known) -> Result<()> {
    let news = news(session, tip, &known.heads)?;
    for id in &news {
        check_place(session, *id, known)?;
    }
    if news.len() <= TREES_MAX {
        for id in &news {
            let facts = session.commit(*id)?;
            let before = match facts.parents.first() {
                Some(parent) => session.commit(*parent)?.tree,
                None => known.tree,
            };
            check_tree(session, before, facts.tree)?;
        }
    }
    check_tree(session, known.tree, session.commit(tip)?.tree)
}

/// A commit's place in history: signed by its author, on others of this volume, at a time that fits theirs; and on what
/// is left of history, where that is cut.
fn check_place(session: &Session<'_>, id: ObjectId, known: &Known) -> Result<()> {
    let rule = |problem: &str| RepositoryError::Rules {
        commit: id.to_string(),
        problem: problem.to_owned(),
    };
    if id == known.genesis {
        return Ok(());
    }
    let facts = session.signed_commit(id)?;
    if !facts.parents.is_sorted_by(|a, b| a < b) {
        return Err(rule("its parents are not sorted"));
    }
    let mut newest = None;
    for parent in facts
        .parents
        .iter()
        .filter(|parent| **parent != known.genesis)
    {
        newest = newest.max(Some(session.commit(*parent)?.time));
    }
    match newest {
        None if session.cut()?.contains(&id) => Ok(()),
        None if facts.parents != [known.genesis] => Err(rule("it is of another volume")),
        None if session.is_beside_cut(id)? => Err(rule("it is older than where history is cut")),
        Some(newest) if !(newest..=newest.saturating_add(AHEAD_MAX)).contains(&facts.time) => {
            Err(rule("its time does not fit its parents'"))
        }
        _ if facts.time < 0 => Err(rule("its time is before the epoch")),
        _ => Ok(()),
    }
}

/// Reads all that one tree has and the other has not.
fn check_tree(session: &Session<'_>, known: ObjectId, tree: ObjectId) -> Result<()> {
    if tree == known {
        return Ok(());
    }
    sides(session, known, tree)?;
    let [ours, theirs] = [known, tree].map(|tree| settings_of(session, tree));
    let (ours, theirs) = (ours?, theirs?);
    if (ours.volume, ours.name) == (theirs.volume, theirs.name) {
        Ok(())
    } else {
        Err(malformed(tree, "of another volume"))
    }
}

fn is_authors_fault(error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Malformed { .. } | RepositoryError::Rules { .. } => true,
        RepositoryError::Codec { source, .. } => match source {
            CodecError::TooLarge
            | CodecError::Bencode(_)
            | CodecError::Newer { .. }
            | CodecError::Missing(_)
            | CodecError::Unexpected(_)
            | CodecError::Invalid(_) => true,
        },
        _ => false,
    }
}
