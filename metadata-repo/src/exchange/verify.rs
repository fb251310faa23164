//! Whether author chains may move to where a peer says: everything they need is there, they move forward, and
//! the volume's own rules agree.

use super::history::{History, Query, Selection};
use super::store::Objects;
use super::tree::{Found, walk_new};
use super::{
    ExchangeError, Foreign, PullOptions, PullProgress, Refusal, Refused, commit_id, object_id,
};
use delugefs_core::ids::{CommitId, IncarnationId};
use delugefs_core::past::Boundary;
use gix::ObjectId;
use gix::objs::Kind;
use std::collections::{BTreeMap, HashMap, HashSet};

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
    pub(super) genesis: Option<ObjectId>,
    /// Where history is to be cut.
    pub(super) boundary: Option<Boundary>,
}

/// Which chains may move.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) good: Vec<Move>,
    pub(super) refused: Vec<Refused>,
}

/// New commits that break the rules, or descend from such.
type Bad = HashMap<ObjectId, Refusal>;

/// Checks all moves. That an object exists says nothing about what it refers to, so each new commit is followed down
/// to what is surely here.
///
/// A chain that lacks something, or breaks a rule, keeps no other from moving.
pub(super) fn verify(
    history: &mut History<'_>,
    moves: &[Move],
    here: &Here<'_>,
    options: &PullOptions<'_>,
) -> Result<Verdict, ExchangeError> {
    let (moves, mut refused) = above_cut(history, moves, here)?;
    let moves = &moves[..];
    let query = Query {
        wants: moves.iter().map(|moved| moved.new).collect(),
        haves: here.authors.values().copied().chain(here.genesis).collect(),
        ..Query::default()
    };
    let selection = history.select(&query)?;
    let bad = check_commits(history, &selection, options)?;
    let mut sound = Vec::new();
    for moved in moves {
        match rejection(history, moved, &bad, options.foreign)? {
            None => sound.push(*moved),
            Some(why) => refused.push(moved.refused(why)),
        }
    }
    let (good, forked) = allowed(history, &sound, here.authors)?;
    refused.extend(forked);
    Ok(Verdict { good, refused })
}

/// Those chains that go on from where history is cut or is recorded to be, if it is. What lies below, the peer takes to
/// be here, and does not send.
fn above_cut(
    history: &mut History<'_>,
    moves: &[Move],
    here: &Here<'_>,
) -> Result<(Vec<Move>, Vec<Refused>), ExchangeError> {
    let cut = history.cut();
    let ends = here
        .boundary
        .map_or(cut.clone(), |at| HashSet::from([object_id(at.commit)]));
    let mut above = ends.clone();
    if *cut == ends {
        // what is here lies above: it saves walking all that way down
        above.extend(here.authors.values());
    }
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for moved in moves {
        match ends.is_empty() || history.leads_up(moved.new, &mut above)? {
            true => good.push(*moved),
            false => refused.push(moved.refused(Refusal::BesideCut)),
        }
    }
    Ok((good, refused))
}

impl Move {
    fn refused(&self, why: Refusal) -> Refused {
        Refused {
            author: self.incarnation,
            head: commit_id(&self.new),
            why,
        }
    }
}

/// What is wrong with a chain's commits, whatever is here of it.
fn rejection(
    history: &mut History<'_>,
    moved: &Move,
    bad: &Bad,
    foreign: &dyn Foreign,
) -> Result<Option<Refusal>, ExchangeError> {
    if let Some(why) = bad.get(&moved.new) {
        return Ok(Some(why.clone()));
    }
    let mut buffer = Vec::new();
    let raw = read_commit(history.objects, &moved.new, &mut buffer)?;
    let commit = commit_id(&moved.new);
    let checked = foreign.check_head(moved.incarnation, commit, raw);
    Ok(checked.err().map(|why| Refusal::Rejected { commit, why }))
}

/// The moves that lose nothing: forward; or aside, from a head that another chain has in its history.
///
/// A chain forks when two disks have gone on with it, one of them copied or restored. What each has added comes back
/// in the history of the chain that it continues with; until then, the fork is refused and stays where it is here,
/// and keeps no other chain from moving.
fn allowed(
    history: &mut History<'_>,
    moves: &[Move],
    authors: &BTreeMap<IncarnationId, ObjectId>,
) -> Result<(Vec<Move>, Vec<Refused>), ExchangeError> {
    let mut heads = authors.clone();
    let (mut good, mut rivals, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for moved in moves {
        match moved.old {
            Some(old) if !goes_on(history, moved.new, old)? => rivals.push((*moved, old)),
            _ => {
                heads.insert(moved.incarnation, moved.new);
                good.push(*moved);
            }
        }
    }
    for (moved, old) in rivals {
        match aside(history, &moved, &heads)? {
            Aside::Moves => {
                heads.insert(moved.incarnation, moved.new);
                good.push(moved);
            }
            Aside::Stays => {}
            Aside::Forked => refused.push(moved.refused(Refusal::Forked {
                ours: commit_id(&old),
                theirs: commit_id(&moved.new),
            })),
        }
    }
    Ok((good, refused))
}

/// What becomes of a chain whose new head does not continue the old one.
enum Aside {
    /// Other chains have all that it leaves.
    Moves,
    /// Another pull has meanwhile brought more of it; or other chains have both branches: all nodes keep the same.
    Stays,
    /// Only this chain has what is here.
    Forked,
}

fn aside(
    history: &mut History<'_>,
    moved: &Move,
    heads: &BTreeMap<IncarnationId, ObjectId>,
) -> Result<Aside, ExchangeError> {
    let Some(old) = moved.old else {
        return Ok(Aside::Moves);
    };
    if goes_on(history, old, moved.new)? {
        return Ok(Aside::Stays);
    }
    let mut have = |head| is_in_others(history, moved.incarnation, head, heads);
    if !have(old)? {
        return Ok(Aside::Forked);
    }
    match moved.new < old && have(moved.new)? {
        true => Ok(Aside::Stays),
        false => Ok(Aside::Moves),
    }
}

/// Whether a chain of another author has a commit in its history.
pub(super) fn is_in_others(
    history: &mut History<'_>,
    author: IncarnationId,
    commit: ObjectId,
    heads: &BTreeMap<IncarnationId, ObjectId>,
) -> Result<bool, ExchangeError> {
    let others = heads.iter().filter(|(other, _)| **other != author);
    let others: Vec<ObjectId> = others.map(|(_, head)| *head).collect();
    let lacking = history.unreachable(&others, HashSet::from([commit]))?;
    Ok(lacking.is_empty())
}

/// Parents come first: what descends from a bad commit is bad for the same reason.
fn check_commits(
    history: &mut History<'_>,
    selection: &Selection,
    options: &PullOptions<'_>,
) -> Result<Bad, ExchangeError> {
    let mut seen = HashSet::new();
    let mut bad = Bad::new();
    for id in &selection.commits {
        let node = history.node(*id)?;
        if let Some(why) = node.parents.iter().find_map(|parent| bad.get(parent)) {
            bad.insert(*id, why.clone());
            continue;
        }
        (options.progress)(PullProgress::Checking);
        let checked = check_commit(history, (selection, *id), options.foreign, &mut seen);
        if let Some(why) = refusal(commit_id(id), checked)? {
            bad.insert(*id, why);
        }
    }
    Ok(bad)
}

/// What is wrong with a commit's own contents, if that is what an error is about.
fn refusal(
    commit: CommitId,
    checked: Result<(), ExchangeError>,
) -> Result<Option<Refusal>, ExchangeError> {
    match checked {
        Ok(()) => Ok(None),
        Err(ExchangeError::Missing(object)) => Ok(Some(Refusal::Incomplete { commit, object })),
        Err(ExchangeError::Object { id, why }) if id == commit.to_string() => {
            Ok(Some(Refusal::Rejected { commit, why }))
        }
        Err(ExchangeError::Object { id, why }) => {
            let why = format!("object {id}: {why}");
            Ok(Some(Refusal::Rejected { commit, why }))
        }
        Err(error) => Err(error),
    }
}

/// A commit with all that it has and its parents have not.
fn check_commit(
    history: &mut History<'_>,
    (selection, id): (&Selection, ObjectId),
    foreign: &dyn Foreign,
    seen: &mut HashSet<ObjectId>,
) -> Result<(), ExchangeError> {
    let mut buffer = Vec::new();
    let raw = read_commit(history.objects, &id, &mut buffer)?;
    let checked = foreign.check_commit(commit_id(&id), raw);
    checked.map_err(|why| ExchangeError::object(&id, why))?;
    let tree = history.node(id)?.tree;
    if history.objects.has_all_of(&tree) {
        return Ok(());
    }
    let bases = history.bases(selection, id)?;
    walk_new(history.objects, (tree, bases), seen, &mut check_blob)
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

pub(super) fn read_commit<'a>(
    objects: &mut dyn Objects,
    id: &ObjectId,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], ExchangeError> {
    match objects.read(id, buffer)? {
        Some((Kind::Commit, raw)) => Ok(raw),
        _ => Err(ExchangeError::Missing(id.to_string())),
    }
}

/// Whether one commit is in the history of the other.
pub(super) fn goes_on(
    history: &mut History<'_>,
    new: ObjectId,
    old: ObjectId,
) -> Result<bool, ExchangeError> {
    Ok(history
        .unreachable(&[new], HashSet::from([old]))?
        .is_empty())
}
