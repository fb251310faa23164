//! Walks through the commits. Committer dates never go back along a chain, so that a walk in their order may
//! stop early.

use crate::error::Result;
use crate::session::Session;
use gix::ObjectId;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Of some commits, those that no other of them descends from.
pub(crate) fn maximal(
    session: &Session<'_>,
    tips: &BTreeSet<ObjectId>,
) -> Result<BTreeSet<ObjectId>> {
    let mut left = tips.clone();
    if left.len() < 2 {
        return Ok(left);
    }
    let mut seen = BTreeSet::new();
    let mut queue = BinaryHeap::new();
    for tip in tips {
        push_parents(session, *tip, &mut seen, &mut queue)?;
    }
    let mut oldest = oldest(session, &left)?;
    while let Some((time, id)) = queue.pop() {
        if time < oldest || left.len() < 2 {
            break;
        }
        if left.remove(&id) {
            oldest = self::oldest(session, &left)?;
        }
        push_parents(session, id, &mut seen, &mut queue)?;
    }
    Ok(left)
}

fn oldest(session: &Session<'_>, commits: &BTreeSet<ObjectId>) -> Result<i64> {
    let mut oldest = i64::MAX;
    for id in commits {
        oldest = oldest.min(session.commit(*id)?.time);
    }
    Ok(oldest)
}

fn push_parents(
    session: &Session<'_>,
    id: ObjectId,
    seen: &mut BTreeSet<ObjectId>,
    queue: &mut BinaryHeap<(i64, ObjectId)>,
) -> Result<()> {
    for parent in &session.commit(id)?.parents {
        if seen.insert(*parent) {
            queue.push((session.commit(*parent)?.time, *parent));
        }
    }
    Ok(())
}

/// Whether one commit is the other or an ancestor of it.
pub(crate) fn is_ancestor(session: &Session<'_>, ancestor: ObjectId, of: ObjectId) -> Result<bool> {
    let time = session.commit(ancestor)?.time;
    let mut seen = BTreeSet::from([of]);
    let mut queue = BinaryHeap::from([(session.commit(of)?.time, of)]);
    while let Some((newest, id)) = queue.pop() {
        if id == ancestor {
            return Ok(true);
        }
        if newest < time {
            break;
        }
        push_parents(session, id, &mut seen, &mut queue)?;
    }
    Ok(false)
}

/// Whether a commit is here, and where history is cut, whether it lies above that.
pub(crate) fn leads_to_cut(session: &Session<'_>, tip: ObjectId) -> Result<bool> {
    if session.cut()?.is_empty() {
        return session.commit(tip).map(|_| true);
    }
    let mut seen = BTreeSet::from([tip]);
    let mut queue = BinaryHeap::from([(session.commit(tip)?.time, tip)]);
    while let Some((_, id)) = queue.pop() {
        if session.commit(id)?.parents.is_empty() && session.is_beside_cut(id)? {
            return Ok(false);
        }
        push_parents(session, id, &mut seen, &mut queue)?;
    }
    Ok(true)
}

/// Whether all that a commit goes on from leads up to another one, so that nothing of its history lies beside that.
pub(crate) fn leads_to(session: &Session<'_>, tip: ObjectId, at: ObjectId) -> Result<bool> {
    let time = session.commit(at)?.time;
    let mut seen = BTreeSet::from([tip]);
    let mut queue = BinaryHeap::from([(session.commit(tip)?.time, tip)]);
    while let Some((newest, id)) = queue.pop() {
        if id == at {
            continue;
        }
        if newest < time || session.commit(id)?.parents.is_empty() {
            return Ok(false);
        }
        push_parents(session, id, &mut seen, &mut queue)?;
    }
    Ok(true)
}

/// How many commits the longest way down from a commit leads over, for it and all that it goes on from: more than for any
/// of those (gitglossary's generation number).
pub(crate) fn generations(session: &Session<'_>, tip: ObjectId) -> Result<BTreeMap<ObjectId, u64>> {
    let mut generations = BTreeMap::new();
    let mut waiting = vec![tip];
    while let Some(id) = waiting.last().copied() {
        let facts = session.commit(id)?;
        let before = waiting.len();
        let unknown = |parent: &&ObjectId| !generations.contains_key(*parent);
        waiting.extend(facts.parents.iter().filter(unknown));
        if waiting.len() == before {
            let below = facts
                .parents
                .iter()
                .filter_map(|parent| generations.get(parent));
            let generation = below.max().map_or(0, |below| below + 1);
            generations.insert(id, generation);
            waiting.pop();
        }
    }
    Ok(generations)
}

const LEFT: u8 = 1;
const RIGHT: u8 = 2;
const BOTH: u8 = LEFT | RIGHT;
/// An ancestor of a commit that is known to be common.
const BELOW: u8 = 4;

/// The maximal commits that are ancestors of `right` and of any of `left` (or are these themselves).
pub(crate) fn common(
    session: &Session<'_>,
    left: &[ObjectId],
    right: ObjectId,
) -> Result<BTreeSet<ObjectId>> {
    let mut painter = Painter::new(session);
    for id in left {
        painter.paint(*id, LEFT)?;
    }
    painter.paint(right, RIGHT)?;
    painter.run()?;
    let both = painter.flags.iter().filter(|(_, flags)| **flags == BOTH);
    let candidates = both.map(|(id, _)| *id).collect();
    maximal(session, &candidates)
}

/// The commits that a tip has in its history and the known ones have not.
pub(crate) fn news(
    session: &Session<'_>,
    tip: ObjectId,
    known: &BTreeSet<ObjectId>,
) -> Result<Vec<ObjectId>> {
    let mut painter = Painter::new(session);
    painter.paint(tip, LEFT)?;
    for id in known {
        painter.paint(*id, RIGHT)?;
    }
    painter.run()?;
    let left = painter.flags.iter().filter(|(_, flags)| **flags == LEFT);
    Ok(left.map(|(id, _)| *id).collect())
}

struct Painter<'s, 'r> {
    session: &'s Session<'r>,
    flags: BTreeMap<ObjectId, u8>,
    queue: BinaryHeap<(i64, ObjectId)>,
    /// Queued commits that are not known to be below a common one.
    open: BTreeSet<ObjectId>,
}

impl<'s, 'r> Painter<'s, 'r> {
    fn new(session: &'s Session<'r>) -> Self {
        Self {
            session,
            flags: BTreeMap::new(),
            queue: BinaryHeap::new(),
            open: BTreeSet::new(),
        }
    }

    fn paint(&mut self, id: ObjectId, flags: u8) -> Result<()> {
        let painted = self.flags.entry(id).or_default();
        if *painted & flags == flags {
            return Ok(());
        }
        *painted |= flags;
        if *painted & BELOW == 0 {
            self.open.insert(id);
        } else {
            self.open.remove(&id);
        }
        self.queue.push((self.session.commit(id)?.time, id));
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        while !self.open.is_empty() {
            let Some((_, id)) = self.queue.pop() else {
                return Ok(());
            };
            self.open.remove(&id);
            let flags = self.flags.get(&id).copied().unwrap_or_default();
            let pass = if flags & BOTH == BOTH {
                BOTH | BELOW
            } else {
                flags
            };
            for parent in self.session.commit(id)?.parents.clone() {
                self.paint(parent, pass)?;
            }
        }
        Ok(())
    }
}
