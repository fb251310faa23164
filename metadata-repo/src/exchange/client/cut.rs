//! Where a peer's history begins, and whether the trees of its heads say so.

use super::super::history::History;
use super::super::quarantine::{Quarantine, Received};
use super::super::refs;
use super::super::store::Objects;
use super::super::verify::{Here, Move, goes_on};
use super::super::{ExchangeError, commit_id, object_id};
use crate::codec::settings;
use crate::escape::VOLUME_BLOB;
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
        here: &Here<'_>,
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
                return Err(ExchangeError::Cut { at: commit_id(at) });
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
        recorded.extend(boundary(history, head.new)?);
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

/// What a head's tree records, if that is here. What cannot be read records nothing.
fn boundary(history: &mut History<'_>, head: ObjectId) -> Result<Option<ObjectId>, ExchangeError> {
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
    let boundary = settings::decode(raw).ok().and_then(|it| it.boundary);
    let Some(at) = boundary.map(|boundary| object_id(boundary.commit)) else {
        return Ok(None);
    };
    let is_here = history.objects.kind_of(&at)? == Some(Kind::Commit);
    Ok(is_here.then_some(at))
}
