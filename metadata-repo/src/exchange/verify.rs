//! Whether author chains may move to where a peer says: everything they need is there, they move forward, and
//! the volume's own rules agree.

use super::history::{History, Query, Selection};
use super::store::Objects;
use super::tree::{Found, walk_new};
use super::{ExchangeError, Foreign, commit_id};
use delugefs_core::ids::IncarnationId;
use gix::ObjectId;
use gix::objs::Kind;
use std::collections::{BTreeMap, HashSet};

/// An author chain that is to move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) incarnation: IncarnationId,
    pub(super) old: Option<ObjectId>,
    pub(super) new: ObjectId,
}

/// What refs point to: its closure is surely here.
pub(super) struct Here<'a> {
    pub(super) authors: &'a BTreeMap<IncarnationId, ObjectId>,
    pub(super) main: Option<ObjectId>,
}

/// Checks all moves, and gives those that are to be made. That an object exists says nothing about what it refers
/// to, so each new commit is followed down to what is surely here.
pub(super) fn verify(
    history: &mut History<'_>,
    moves: &[Move],
    here: &Here<'_>,
    foreign: &dyn Foreign,
) -> Result<Vec<Move>, ExchangeError> {
    let query = Query {
        wants: moves.iter().map(|moved| moved.new).collect(),
        haves: here.authors.values().copied().chain(here.main).collect(),
        ..Query::default()
    };
    let selection = history.select(&query)?;
    check_connected(history, &selection, foreign)?;
    let moves = allowed(history, moves, here.authors)?;
    for moved in &moves {
        let mut buffer = Vec::new();
        let raw = read_commit(history.objects, &moved.new, &mut buffer)?;
        let commit = commit_id(&moved.new);
        foreign
            .check_head(moved.incarnation, commit, raw)
            .map_err(|why| ExchangeError::Rejected { commit, why })?;
    }
    Ok(moves)
}

/// The moves that lose nothing: forward; or aside, from a head that another chain has in its history.
///
/// A chain forks when two disks have gone on with it, one of them copied or restored. What each has added comes back
/// in the history of the chain that it continues with; until then, the fork stays where it is here, and keeps no other
/// chain from moving. An error if it is all that there was.
fn allowed(
    history: &mut History<'_>,
    moves: &[Move],
    authors: &BTreeMap<IncarnationId, ObjectId>,
) -> Result<Vec<Move>, ExchangeError> {
    let mut heads = authors.clone();
    let (mut allowed, mut rivals, mut refused) = (Vec::new(), Vec::new(), None);
    for moved in moves {
        match check_forward(history, moved) {
            Ok(()) => {
                heads.insert(moved.incarnation, moved.new);
                allowed.push(*moved);
            }
            Err(error @ ExchangeError::MovedBack { .. }) => rivals.push((*moved, error)),
            Err(error) => return Err(error),
        }
    }
    for (moved, error) in rivals {
        match aside(history, moved, &heads)? {
            Aside::Moves => {
                heads.insert(moved.incarnation, moved.new);
                allowed.push(moved);
            }
            Aside::Stays => {}
            Aside::Forked => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(error) if allowed.is_empty() => Err(error),
        _ => Ok(allowed),
    }
}

/// What becomes of a chain whose new head does not continue the old one.
enum Aside {
    /// Other chains have all that it leaves.
    Moves,
    /// Other chains have both branches: all nodes keep the same.
    Stays,
    /// Only this chain has what is here.
    Forked,
}

fn aside(
    history: &mut History<'_>,
    moved: Move,
    heads: &BTreeMap<IncarnationId, ObjectId>,
) -> Result<Aside, ExchangeError> {
    let others = heads
        .iter()
        .filter(|(author, _)| **author != moved.incarnation);
    let others: Vec<ObjectId> = others.map(|(_, head)| *head).collect();
    let mut have = |head: ObjectId| {
        let lacking = history.unreachable(&others, HashSet::from([head]))?;
        Ok::<_, ExchangeError>(lacking.is_empty())
    };
    let Some(old) = moved.old else {
        return Ok(Aside::Moves);
    };
    if !have(old)? {
        return Ok(Aside::Forked);
    }
    match moved.new < old && have(moved.new)? {
        true => Ok(Aside::Stays),
        false => Ok(Aside::Moves),
    }
}

fn check_connected(
    history: &mut History<'_>,
    selection: &Selection,
    foreign: &dyn Foreign,
) -> Result<(), ExchangeError> {
    let (mut seen, mut buffer) = (HashSet::new(), Vec::new());
    for id in &selection.commits {
        let raw = read_commit(history.objects, id, &mut buffer)?;
        let commit = commit_id(id);
        foreign
            .check_commit(commit, raw)
            .map_err(|why| ExchangeError::Rejected { commit, why })?;
        let bases = history.bases(selection, *id)?;
        let tree = history.node(*id)?.tree;
        walk_new(history.objects, (tree, bases), &mut seen, &mut check_blob)?;
    }
    Ok(())
}

/// Trees are read by the walk itself; a blob has to be there and be one.
fn check_blob(objects: &mut dyn Objects, found: Found) -> Result<(), ExchangeError> {
    if found.directory {
        return Ok(());
    }
    match objects.kind_of(&found.id)? {
        Some(Kind::Blob) => Ok(()),
        Some(kind) => Err(ExchangeError::object(
            &found.id,
            format!("a {kind} where a blob should be"),
        )),
        None => Err(ExchangeError::Missing(found.id.to_string())),
    }
}

fn read_commit<'a>(
    objects: &mut dyn Objects,
    id: &ObjectId,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], ExchangeError> {
    match objects.read(id, buffer)? {
        Some((Kind::Commit, raw)) => Ok(raw),
        _ => Err(ExchangeError::Missing(id.to_string())),
    }
}

/// Whether the new head continues the old one.
pub(super) fn check_forward(history: &mut History<'_>, moved: &Move) -> Result<(), ExchangeError> {
    let Some(old) = moved.old else { return Ok(()) };
    if history
        .unreachable(&[moved.new], HashSet::from([old]))?
        .is_empty()
    {
        return Ok(());
    }
    Err(ExchangeError::MovedBack {
        incarnation: moved.incarnation,
        ours: commit_id(&old),
        theirs: commit_id(&moved.new),
    })
}
