//! Fetching all that a peer has, as a newcomer would, beside a past of one's own that is older: no reference moves yet.

use super::super::refs;
use super::super::verify::{Here, Move};
use super::super::{ExchangeError, GitStore, PullOptions, commit_id};
use super::cut::Cut;
use super::{Plan, begin, checked, fetch, install, sorted};
use delugefs_core::ids::{CommitId, IncarnationId};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

/// A history that is cut later than the one that is here, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anew {
    /// Where it begins; nothing where it is whole.
    pub cut: BTreeSet<CommitId>,
    /// Each author's head in it: all that is needed for them is here and synced.
    pub authors: BTreeMap<IncarnationId, CommitId>,
}

/// Fetches over one connection to a peer whose history is cut, or is to be cut later than what is here. Objects that no
/// reference leads to have to stay meanwhile, and until something is made of it.
pub(in super::super) fn fetch_anew(
    store: &dyn GitStore,
    read: impl Read,
    write: impl Write,
    options: &PullOptions<'_>,
) -> Result<Anew, ExchangeError> {
    let (mut lines, mut write, theirs) = begin(read, write, options)?;
    let to_move = |(incarnation, new): (&IncarnationId, &_)| Move {
        incarnation: *incarnation,
        old: None,
        new: *new,
    };
    let plan = Plan {
        moves: theirs.iter().map(to_move).collect(),
        wants: sorted(theirs.values().copied().collect()),
        haves: Vec::new(),
    };
    let (received, told) = fetch(&mut lines, &mut write, &store.git(), (&plan, options))?;
    let _held = store.hold();
    let repository = store.git();
    let here = Here {
        authors: &BTreeMap::new(),
        genesis: refs::target(&repository, refs::GENESIS)?,
        boundary: None,
    };
    let mut cut = Cut::with(&repository, received.as_ref(), &told, (&plan.moves, &here))?.commits;
    cut.retain(|at| told.contains(at));
    let asked = (&plan.moves[..], &here, &cut);
    let good = checked(
        &repository,
        received.as_ref(),
        asked,
        options,
        |_, verdict| Ok(verdict.good),
    )?;
    install::install(store, received, (None, Vec::new()))?;
    let heads = good
        .iter()
        .map(|one| (one.incarnation, commit_id(&one.new)));
    Ok(Anew {
        cut: cut.iter().map(|at| commit_id(at)).collect(),
        authors: heads.collect(),
    })
}
