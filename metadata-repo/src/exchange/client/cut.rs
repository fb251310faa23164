//! Where a peer's history begins, and whether the trees of its heads say so.

use super::super::history::History;
use super::super::quarantine::{Quarantine, Received};
use super::super::refs;
use super::super::store::Objects;
use super::super::verify::{Here, Move, goes_on, read_commit};
use super::super::{ExchangeError, Foreign, Refusal, Refused, commit_id, object_id};
use crate::codec::settings;
use crate::escape::VOLUME_BLOB;
use delugefs_core::past::Boundary;
use gix::ObjectId;
use gix::objs::{Kind, TreeRefIter};
use std::collections::HashSet;

/// Where history is cut.
pub(super) struct Cut {
    pub(super) commits: HashSet<ObjectId>,
    is_new: bool,
}

impl Cut {
    /// Where it is cut here, and for a newcomer also where it is cut at the peer. Whoever has a past of its own cuts
    /// nothing of it because a peer says so; it goes on as long as what it has meets what the peer has.
    pub(super) fn with(
        repository: &gix::Repository,
        received: Option<&Received>,
        told: &HashSet<ObjectId>,
        (moves, here): (&[Move], &Here<'_>),
    ) -> Result<Self, ExchangeError> {
        let mut cut = Self {
            commits: refs::cut(repository)?,
            is_new: false,
        };
        let Some(received) = received else {
            return Ok(cut);
        };
        let mut objects = Quarantine::new(received, repository.clone())?;
        for at in told {
            let is_here = objects.kind_of(at)? == Some(Kind::Commit);
            if !is_here || cut.commits.contains(at) || has_parents(&mut objects, *at)? {
                continue;
            }
            if !here.authors.is_empty() {
                return match is_earlier(&mut objects, moves, here)? {
                    true => Err(ExchangeError::Cut { at: commit_id(at) }),
                    false => Ok(cut),
                };
            }
            cut.commits.insert(*at);
            cut.is_new = true;
        }
        Ok(cut)
    }

    /// What is to be written down.
    pub(super) fn if_new(&self) -> Option<&HashSet<ObjectId>> {
        self.is_new.then_some(&self.commits)
    }
}

/// Whether what is here is not to be cut later than what the peer has: otherwise it is for the peer to come over.
fn is_earlier(
    objects: &mut dyn Objects,
    moves: &[Move],
    here: &Here<'_>,
) -> Result<bool, ExchangeError> {
    let mut history = History::new(objects, HashSet::new(), moves.len()).with_holes();
    let mut is_earlier = here.boundary.is_none();
    for moved in moves {
        is_earlier |= recorded_by(&mut history, moved.new)? > here.boundary;
    }
    Ok(is_earlier)
}

fn has_parents(objects: &mut dyn Objects, commit: ObjectId) -> Result<bool, ExchangeError> {
    let node = History::new(objects, HashSet::new(), 1).node(commit)?;
    for parent in &node.parents {
        if objects.kind_of(parent)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// History has to begin at or below a commit that some head's tree records: a cut may come later than its record, never
/// before.
pub(super) fn check_recorded(
    history: &mut History<'_>,
    heads: &[Move],
) -> Result<(), ExchangeError> {
    if history.cut().is_empty() {
        return Ok(());
    }
    let mut recorded = Vec::new();
    for head in heads {
        let Some(boundary) = recorded_by(history, head.new)? else {
            continue;
        };
        let at = object_id(boundary.commit);
        if history.objects.kind_of(&at)? == Some(Kind::Commit) {
            recorded.push(at);
        }
    }
    for at in history.cut().clone() {
        let mut is_recorded = false;
        for boundary in &recorded {
            is_recorded |= goes_on(history, *boundary, at)?;
        }
        if !is_recorded {
            return Err(ExchangeError::Unrecorded { at: commit_id(&at) });
        }
    }
    Ok(())
}

/// Of two histories each of which is to be cut without the other, all go on with the one that is to be cut later. Where that
/// is the peer's, it is not enough to refuse what lies beside one's own.
pub(super) fn check_latest(
    history: &mut History<'_>,
    refused: &[Refused],
    here: &Here<'_>,
    foreign: &dyn Foreign,
) -> Result<(), ExchangeError> {
    let is_beside = |one: &&Refused| one.why == Refusal::BesideCut && !here.authors.is_empty();
    for one in refused.iter().filter(is_beside) {
        let head = object_id(one.head);
        let recorded = recorded_by(history, head)?;
        if let Some(at) = recorded.filter(|at| Some(*at) > here.boundary)
            && is_its_authors(history, one, foreign)?
        {
            return Err(ExchangeError::Cut { at: at.commit });
        }
    }
    Ok(())
}

fn is_its_authors(
    history: &mut History<'_>,
    one: &Refused,
    foreign: &dyn Foreign,
) -> Result<bool, ExchangeError> {
    let mut buffer = Vec::new();
    let raw = read_commit(history.objects, &object_id(one.head), &mut buffer)?;
    let checked = foreign
        .check_commit(one.head, raw)
        .and_then(|()| foreign.check_head(one.author, one.head, raw));
    Ok(checked.is_ok())
}

/// Where history is to be cut, as a head's tree records it. What cannot be read records nothing.
fn recorded_by(
    history: &mut History<'_>,
    head: ObjectId,
) -> Result<Option<Boundary>, ExchangeError> {
    let root = history.node(head)?.tree;
    let mut buffer = Vec::new();
    let Some((Kind::Tree, tree)) = history.objects.read(&root, &mut buffer)? else {
        return Ok(None);
    };
    let mut entries = TreeRefIter::from_bytes(tree, root.kind()).filter_map(Result::ok);
    let volume = entries.find(|entry| entry.filename == VOLUME_BLOB);
    let Some(volume) = volume.map(|entry| entry.oid.to_owned()) else {
        return Ok(None);
    };
    let Some((Kind::Blob, raw)) = history.objects.read(&volume, &mut buffer)? else {
        return Ok(None);
    };
    Ok(settings::decode(raw).ok().and_then(|it| it.boundary))
}
