//! Who rests on what: the last word of every incarnation of the volume that this disk has ever heard of. From it
//! follows which bottlenecks are stable ([`super::boundary`]).
//!
//! An incarnation, not a node, is what is asked: a disk that was restored or copied goes on as another one, which rests
//! on nothing until it says so, and what it was before counts until it is retired. So nobody can speak for another's
//! disk.
//!
//! Invariant: whoever is known stays in the list, and is asked unless it is retired. A list that was lost begins anew;
//! as long as somebody whom it has forgotten may not have been heard of again, and when it has no more room, it gives no
//! answer, and nothing is cut.

pub mod codec;

pub use codec::{CodecError, Keys, Word};

use crate::ids::{CommitId, IncarnationId};
use crate::limits::INCARNATIONS_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// Heads in one word: a view of more is not told of.
pub const HEADS_MAX: usize = 64;

/// Bytes of all words together: a word takes some hundred, and 16 for each node that its sayer has met.
pub const WORDS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What an incarnation says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rest {
    /// Of two words of one incarnation the higher counts.
    pub number: u64,
    /// All that it ever authors from now on descends from these.
    pub heads: BTreeSet<CommitId>,
    /// All to whom it may have given history: theirs may go on from what it had before.
    pub met: BTreeSet<IncarnationId>,
}

/// What a word has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It goes on to others.
    News,
    /// It is known, or older than what is.
    Known,
    /// This very incarnation has said what this disk does not know of: the disk was restored or copied.
    OwnNewer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// The last sign of life, in seconds since 1970.
    seen: i64,
    word: Option<Word>,
}

/// What all have said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rests {
    own: IncarnationId,
    /// Whoever was known before may be missing (seconds since 1970).
    since: i64,
    /// There was no room for somebody, or for what somebody said.
    full: bool,
    nodes: BTreeMap<IncarnationId, Known>,
    /// To whom this incarnation may have given history.
    met: BTreeSet<IncarnationId>,
}

impl Rests {
    /// The list of an incarnation that has never met anyone.
    pub fn new(own: IncarnationId) -> Self {
        Self::lost(own, i64::MIN)
    }

    /// The list of one that may have forgotten whom it had met before `now` (seconds since 1970).
    pub fn lost(own: IncarnationId, now: i64) -> Self {
        Self {
            own,
            since: now,
            full: false,
            nodes: BTreeMap::new(),
            met: BTreeSet::new(),
        }
    }

    /// Whose list it is.
    pub fn own(&self) -> IncarnationId {
        self.own
    }

    /// Somebody was alive at a time, in seconds since 1970. Whether that one is new here.
    pub fn note(&mut self, incarnation: IncarnationId, seen: i64) -> bool {
        if let Some(known) = self.nodes.get_mut(&incarnation) {
            known.seen = known.seen.max(seen);
            return false;
        }
        if self.nodes.len() >= INCARNATIONS_MAX {
            self.full = true;
            return false;
        }
        let word = None;
        self.nodes.insert(incarnation, Known { seen, word });
        true
    }

    /// Somebody is about to be given history. Whether that has to be written down first.
    pub fn meet(&mut self, incarnation: IncarnationId, now: i64) -> bool {
        self.note(incarnation, now);
        incarnation != self.own && self.met.insert(incarnation)
    }

    /// Takes a word that its incarnation has signed, at a time in seconds since 1970.
    pub fn hear(&mut self, word: Word, now: i64) -> Heard {
        let (by, number) = (word.incarnation(), word.rest().number);
        let known = self.word(by);
        let last = known.map(|known| known.rest().number);
        if known == Some(&word) || last.is_some_and(|last| number < last) {
            return Heard::Known;
        }
        if by == self.own {
            return Heard::OwnNewer;
        }
        // of two that two copies of one disk have said, the first
        if last == Some(number) {
            return Heard::Known;
        }
        for incarnation in &word.rest().met {
            // of one that is known it is no sign of life: everyone goes on saying whom it has ever met
            if !self.nodes.contains_key(incarnation) {
                self.note(*incarnation, now);
            }
        }
        self.keep(word, now);
        Heard::News
    }

    /// What this incarnation has to say when it rests on these heads; `None` if that is nothing new, or its list is not
    /// to be relied on. Counts once it comes back signed, by [`Rests::said`].
    pub fn say(&self, heads: &BTreeSet<CommitId>, now: i64, retire: i64) -> Option<Rest> {
        if !self.is_whole(now, retire) || heads.is_empty() || heads.len() > HEADS_MAX {
            return None;
        }
        let last = self.word(self.own).map(Word::rest);
        let is_said = |last: &Rest| last.heads == *heads && last.met == self.met;
        (!last.is_some_and(is_said)).then(|| Rest {
            number: last.map_or(0, |last| last.number) + 1,
            heads: heads.clone(),
            met: self.met.clone(),
        })
    }

    /// This incarnation's own word, signed.
    pub fn said(&mut self, word: Word, now: i64) {
        debug_assert_eq!(word.incarnation(), self.own);
        self.keep(word, now);
    }

    fn keep(&mut self, word: Word, now: i64) {
        let by = word.incarnation();
        self.note(by, now);
        let others = self.words().filter(|known| known.incarnation() != by);
        let bytes: usize = others.map(|known| known.bytes().len()).sum();
        if bytes + word.bytes().len() > WORDS_BYTES_MAX {
            self.full = true;
        } else if let Some(known) = self.nodes.get_mut(&by) {
            known.word = Some(word);
        }
    }

    /// What everyone rests on who is not retired: has given no sign of life for `retire` seconds before `now`. An empty
    /// set is of one that has not said anything. `None` if somebody may be missing: then nothing may be cut.
    pub fn asked(&self, now: i64, retire: i64) -> Option<Vec<BTreeSet<CommitId>>> {
        if !self.is_whole(now, retire) {
            return None;
        }
        let heads = |incarnation| {
            let word = self.word(incarnation);
            word.map_or_else(BTreeSet::new, |word| word.rest().heads.clone())
        };
        let others = self.nodes.iter().filter(|(other, known)| {
            **other != self.own && now.saturating_sub(known.seen) <= retire
        });
        let others = others.map(|(other, _)| heads(*other));
        Some(others.chain([heads(self.own)]).collect())
    }

    /// Nobody is missing whom this disk could have to ask.
    fn is_whole(&self, now: i64, retire: i64) -> bool {
        !self.full && now.saturating_sub(self.since) > retire
    }

    /// The last word of an incarnation.
    pub fn word(&self, incarnation: IncarnationId) -> Option<&Word> {
        self.nodes.get(&incarnation)?.word.as_ref()
    }

    /// All words.
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        self.nodes.values().filter_map(|known| known.word.as_ref())
    }
}

#[cfg(test)]
mod tests;
