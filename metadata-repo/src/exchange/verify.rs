//! Whether author chains may move to where a peer says: everything they need is there, they move forward, and
//! the volume's own rules agree.

use super::history::{History, Query, Selection};
use super::store::Objects;
use super::tree::{Found, walk_new};
use super::{ExchangeError, Foreign, commit_id};
use delugefs_core::ids::IncarnationId;
use gix::ObjectId;
use gix::objs::Kind;
use std::collections::HashSet;

/// An author chain that is to move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) incarnation: IncarnationId,
    pub(super) old: Option<ObjectId>,
    pub(super) new: ObjectId,
}

/// Checks all moves. `known` are commits whose closure is surely here: what refs point to. That an object
/// exists says nothing about what it refers to, so each new commit is followed down to what `known` has.
pub(super) fn verify(
    history: &mut History<'_>,
    moves: &[Move],
    known: Vec<ObjectId>,
    foreign: &dyn Foreign,
) -> Result<(), ExchangeError> {
    let query = Query {
        wants: moves.iter().map(|moved| moved.new).collect(),
        haves: known,
        ..Query::default()
    };
    let selection = history.select(&query)?;
    check_connected(history, &selection, foreign)?;
    for moved in moves {
        check_forward(history, moved)?;
        let mut buffer = Vec::new();
        let raw = read_commit(history.objects, &moved.new, &mut buffer)?;
        let commit = commit_id(&moved.new);
        foreign
            .check_head(moved.incarnation, commit, raw)
            .map_err(|why| ExchangeError::Rejected { commit, why })?;
    }
    Ok(())
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
