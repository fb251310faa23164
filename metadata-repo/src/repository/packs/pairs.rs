//! Which object came after which: by each commit, what its tree has in the places where its parent's had another.

use super::table::Table;
use crate::error::{RepositoryError, Result};
use crate::node::Node;
use crate::session::Session;
use gix::ObjectId;
use gix::objs::Kind;

/// Links objects to those that replaced them. Only commits are followed that are not in the first pack, unless
/// that has no deltas: its own were followed when it was written. Only those that are live are linked.
pub(in super::super) fn link(
    table: &mut Table,
    (session, live): (&Session<'_>, &[bool]),
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    let objects = table.objects().iter().zip(live);
    let commits = objects.filter(|(object, live)| {
        let settled = object.pack() == Some(0) && table.has_deltas(0);
        object.kind == Some(Kind::Commit) && **live && !settled
    });
    let commits: Vec<_> = commits.map(|(object, _)| object.id).collect();
    for id in commits {
        if stop() {
            return Err(RepositoryError::Stopped);
        }
        // A commit of a foreign form is merely not worth a delta.
        let Ok(facts) = session.commit(id) else {
            continue;
        };
        let Some(Ok(before)) = facts.parents.first().map(|parent| session.commit(*parent)) else {
            continue;
        };
        link_trees(table, session, (before.tree, facts.tree));
    }
    Ok(())
}

fn link_trees(table: &mut Table, session: &Session<'_>, pair: (ObjectId, ObjectId)) {
    let mut pairs = vec![pair];
    while let Some((old, new)) = pairs.pop() {
        if old == new {
            continue;
        }
        table.link(&old, &new);
        let (Ok(old), Ok(new)) = (session.node(old), session.node(new)) else {
            continue;
        };
        for (old, new, is_tree) in replaced(&old, &new) {
            if is_tree {
                pairs.push((old, new));
            } else {
                table.link(&old, &new);
            }
        }
    }
}

/// Names that both trees have, with another object each.
fn replaced<'n>(
    old: &'n Node,
    new: &'n Node,
) -> impl Iterator<Item = (ObjectId, ObjectId, bool)> + 'n {
    new.items().iter().filter_map(|item| {
        let before = old.find(&item.name, item.is_tree)?;
        (before.id != item.id).then_some((before.id, item.id, item.is_tree))
    })
}
