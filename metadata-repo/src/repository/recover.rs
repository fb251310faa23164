//! After a power cut: author references go back to their newest commit that is whole.
//!
//! Commits that were not asked to be durable may be there in part. A checkpoint, `delugefs-synced`, names the
//! boot it was made in and each author's commit that was durable then: under the same boot nothing can be
//! lost, and under another only what is newer has to be read.

use super::files;
use super::repair::Damage;
use crate::error::{RepositoryError, Result, git, io, malformed};
use crate::history::{leads_to_cut, news};
use crate::node::{Item, Node};
use crate::session::Session;
use delugefs_core::ids::IncarnationId;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use gix::refs::transaction::PreviousValue;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "delugefs-synced";

/// First word of the checkpoint: its format.
const FORMAT: &str = "1";

/// Tells one running of the machine from another (`random(4)`); where there is none, every start counts as
/// after a power cut.
pub(super) fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    boot.trim().to_owned()
}

#[derive(Debug, Default)]
struct Checkpoint {
    boot: String,
    authors: BTreeMap<IncarnationId, ObjectId>,
}

/// Notes that all author references are durable, with all they name. They have to be.
pub(super) fn checkpoint(session: &Session<'_>, path: &Path, boot: &str) -> Result<()> {
    let authors = files::authors(session.git())?;
    let mut lines = vec![format!("{FORMAT} {boot}\n")];
    lines.extend(
        authors
            .iter()
            .map(|(author, commit)| format!("{author} {commit}\n")),
    );
    let (temporary, name) = (path.join(format!("{FILE}.lock")), path.join(FILE));
    fs::write(&temporary, lines.concat()).map_err(io("write a checkpoint"))?;
    files::sync_file(&temporary)?;
    fs::rename(&temporary, &name).map_err(io("write a checkpoint"))?;
    files::sync_file(path)
}

/// This boot's writes are not to be believed: the next start reads them. Needs not survive a power cut, after which
/// they are read anyway; where the disk refuses even this, they are only read then.
pub(super) fn distrust(path: &Path) {
    let name = path.join(FILE);
    let Ok(text) = fs::read_to_string(&name) else {
        return;
    };
    let authors = text.split_once('\n').map_or("", |(_, authors)| authors);
    let temporary = path.join(format!("{FILE}.lock"));
    let written = fs::write(&temporary, format!("{FORMAT} -\n{authors}"));
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, &name)) {
        tracing::error!("cannot note that the names are to be read at the next start: {error}");
    }
}

/// What cannot be read counts as none.
fn last_checkpoint(path: &Path) -> Checkpoint {
    let text = fs::read_to_string(path.join(FILE)).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let boot = match lines.next() {
        Some((FORMAT, boot)) => boot.to_owned(),
        _ => return Checkpoint::default(),
    };
    let parse = |(author, commit): (&str, &str)| {
        let commit = ObjectId::from_hex(commit.as_bytes()).ok()?;
        Some((author.parse().ok()?, commit))
    };
    Checkpoint {
        boot,
        authors: lines.filter_map(parse).collect(),
    }
}

/// Brings author references to commits that are whole. Tells whether there was a power cut.
pub(super) fn recover(
    session: &Session<'_>,
    path: &Path,
    (damage, boot): (&Damage, &str),
) -> Result<bool> {
    let last = last_checkpoint(path);
    if !damage.any && last.boot == boot && !boot.is_empty() {
        return Ok(false);
    }
    remove_torn(session, path)?;
    let known: BTreeSet<ObjectId> = last
        .authors
        .values()
        .copied()
        .filter(|id| leads_to_cut(session, *id).unwrap_or(false))
        .collect();
    let mut broken: BTreeSet<IncarnationId> = damage.authors.iter().copied().collect();
    broken.extend(last.authors.keys());
    for (author, tip) in files::authors(session.git())? {
        if is_whole(session, tip, &known)? {
            broken.remove(&author);
        } else {
            broken.insert(author);
        }
    }
    for author in broken {
        go_back(session, author, &known)?;
    }
    // What was found whole may still be in memory only, where this boot is the one that wrote it.
    files::sync_all(path)?;
    checkpoint(session, path, boot)?;
    Ok(true)
}

/// Removes loose objects whose bytes are not all there: each would stand in the way of its own content for ever,
/// since what has a file is not written again. They are few: many are packed, and packs are synced.
fn remove_torn(session: &Session<'_>, path: &Path) -> Result<()> {
    let store = gix::odb::loose::Store::at(path.join("objects"), session.git().object_hash());
    let mut buffer = Vec::new();
    let mut gone = 0;
    for id in store.iter() {
        let id = id.map_err(git("list objects"))?;
        let is_whole = match store.try_find(&id, &mut buffer) {
            Ok(Some(object)) => object.verify_checksum(&id).is_ok(),
            Ok(None) => continue,
            Err(_) => false,
        };
        if !is_whole {
            let file = store.object_path(&id);
            fs::remove_file(&file).map_err(io(format!("remove {}", file.display())))?;
            gone += 1;
        }
    }
    if gone > 0 {
        tracing::warn!(
            "after a power cut, {gone} objects of the names were not whole, and are gone"
        );
    }
    Ok(())
}

/// Moves a reference to its author's newest commit that is whole, wherever that is found.
fn go_back(session: &Session<'_>, author: IncarnationId, known: &BTreeSet<ObjectId>) -> Result<()> {
    let name = files::author_name(author);
    let mut commits = commits_of(session, author)?;
    commits.sort_unstable_by_key(|(sequence, time, id)| Reverse((*sequence, *time, *id)));
    for (_, _, id) in commits {
        if is_whole(session, id, known)? {
            tracing::warn!("after a power cut, author {author} goes on from {id}");
            return files::set_reference(session.git(), &name, id, PreviousValue::Any);
        }
    }
    tracing::warn!("after a power cut, nothing is left of author {author}");
    files::drop_reference(session.git(), &name)
}

/// All commits of an author that are stored and signed by it (what others claim of it may be stored as well), as (journal sequence, time, id).
fn commits_of(session: &Session<'_>, author: IncarnationId) -> Result<Vec<(u64, i64, ObjectId)>> {
    let mut commits = Vec::new();
    for id in session.git().objects.iter().map_err(git("list objects"))? {
        let id = id.map_err(git("list objects"))?;
        let is_commit = session.git().try_find_header(id);
        if !matches!(is_commit, Ok(Some(header)) if header.kind() == ObjectKind::Commit) {
            continue;
        }
        if let Ok(facts) = session.commit(id)
            && facts.incarnation == Some(author)
            && session.signed_commit(id).is_ok()
        {
            commits.push((facts.sequence.unwrap_or_default(), facts.time, id));
        }
    }
    Ok(commits)
}

/// Whether all that a commit names can be read, apart from what the known ones name.
fn is_whole(session: &Session<'_>, tip: ObjectId, known: &BTreeSet<ObjectId>) -> Result<bool> {
    match read_all(session, tip, known) {
        Ok(()) => Ok(true),
        Err(error @ RepositoryError::Io { .. }) => Err(error),
        Err(_) => Ok(false),
    }
}

fn read_all(session: &Session<'_>, tip: ObjectId, known: &BTreeSet<ObjectId>) -> Result<()> {
    let mut seen = HashSet::new();
    for id in news(session, tip, known)? {
        let facts = session.commit(id)?;
        let before = match facts.parents.first() {
            Some(parent) => Some(session.commit(*parent)?.tree),
            None if session.is_beside_cut(id)? => return Err(malformed(id, "below the cut")),
            None => None,
        };
        read_tree(session, facts.tree, before, &mut seen)?;
    }
    Ok(())
}

/// Reads what a tree has and an earlier one has not.
fn read_tree(
    session: &Session<'_>,
    tree: ObjectId,
    before: Option<ObjectId>,
    seen: &mut HashSet<ObjectId>,
) -> Result<()> {
    let mut trees = vec![(tree, before)];
    while let Some((tree, before)) = trees.pop() {
        // one that was read beside another may come again as what that one was before
        if Some(tree) == before || (before.is_none() && !seen.insert(tree)) {
            continue;
        }
        let node = session.node(tree)?;
        let earlier = match before {
            // The earlier tree may itself be what is broken; it is read in its own turn.
            Some(before) => session.node(before).unwrap_or_default(),
            None => Arc::<Node>::default(),
        };
        let is_new = |item: &&Item| {
            earlier
                .find(&item.name, item.is_tree)
                .is_none_or(|old| old.id != item.id)
        };
        for item in node.items().iter().filter(is_new) {
            if item.is_tree {
                let old = earlier.find(&item.name, true).map(|old| old.id);
                trees.push((item.id, old));
            } else {
                session.object(item.id, ObjectKind::Blob)?;
            }
        }
    }
    Ok(())
}
