//! Reading what is held again and again, before a disk's silent damage meets the loss of the other copies: what is
//! checked next, how fast, when a pass begins, and what is known to be damaged.
//!
//! A pass goes over all held contents in the order of their info-hashes, so that one hash says how far it is; what is
//! added behind it is seen by the next pass. Whoever has a reason to suspect a content comes first. Pure: times are
//! seconds since 1970, and whoever acts on a [`Step`] tells what came of it.

pub mod codec;

use crate::ids::InfoHash;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A pass begins so long after the one before: a disk that loses a sector a month is caught before two copies of one
/// content are likely to have lost the same piece, and a year of passes wears a disk less than one day of backups.
pub const INTERVAL: Duration = Duration::from_hours(4 * 7 * 24);

/// A pass of its own accord takes at most this part of [`INTERVAL`], as long as that is within [`RATE_MAX`].
const PART_OF_INTERVAL: u64 = 2;

/// Bytes per second of a pass of its own accord, at least: a few percent of what any disk reads.
pub const RATE_MIN: u64 = 4 << 20;

/// Bytes per second at most, also when a pass was asked for: a fast disk keeps room for its readers, and hashing takes
/// a quarter of one core.
pub const RATE_MAX: u64 = 256 << 20;

/// Suspects that wait: a peer that complains without end costs no memory. The next pass sees what is left out.
pub const SUSPECTS_MAX: usize = 1024;

/// Damaged contents that are remembered one by one: a disk with more is to be replaced.
pub const DAMAGED_MAX: usize = 65_536;

/// A content that somebody has a reason to doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// Which.
    pub content: InfoHash,
    /// Only this piece of it.
    pub piece: Option<u32>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Check a suspect, at [`RATE_MAX`]; tell [`Scrub::found`] if it is damaged.
    Suspect(Suspect),
    /// List held contents in ascending order, after this one or from the first; tell [`Scrub::listed`].
    List(Option<InfoHash>),
    /// Check a content, at [`Scrub::rate`]; tell [`Scrub::read`] and [`Scrub::checked`], and [`Scrub::found`] if it is
    /// damaged.
    Check {
        /// Which.
        content: InfoHash,
        /// From this piece on: those before it were read by an earlier process.
        from: u32,
    },
    /// Nothing is due for so long.
    Rest(Duration),
}

/// One pass over everything held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Passes so far, this one included; 0: none has begun.
    pub number: u64,
    /// Somebody has asked for it: it runs at [`RATE_MAX`].
    pub asked: bool,
    /// When it began.
    pub started: u64,
    /// When it ended, if it has.
    pub finished: Option<u64>,
    /// The last content that was checked.
    pub after: Option<InfoHash>,
    /// What is being read of the next one: up to before this piece.
    pub within: Option<(InfoHash, u32)>,
    /// Contents checked.
    pub contents: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Contents that could not be checked: gone meanwhile, without a name, or in a trouble that says nothing of them.
    pub unchecked: u64,
    /// Contents found damaged since it began, by whatever way.
    pub found: u64,
    /// Contents repaired since it began.
    pub repaired: u64,
}

/// What is being done about a damaged content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Repair {
    /// Nothing yet.
    #[default]
    Due,
    /// It is being fetched.
    UnderWay,
    /// Nobody who is connected has it: it waits for one.
    Waiting,
}

/// A content that is damaged on this disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Pieces that are not right, as far as was seen; all of them when its file was gone.
    pub pieces: u32,
    /// When it was found.
    pub found: u64,
    /// What is being done about it.
    pub repair: Repair,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Scrub {
    pass: Pass,
    listed: VecDeque<InfoHash>,
    /// What the last step was about.
    checking: Option<InfoHash>,
    suspects: VecDeque<Suspect>,
    damaged: BTreeMap<InfoHash, Damage>,
}

impl Scrub {
    /// Goes on where an earlier process was.
    pub fn resume(pass: Pass, damaged: BTreeMap<InfoHash, Damage>) -> Self {
        Self {
            pass,
            damaged,
            ..Self::default()
        }
    }

    /// The pass under way, or the last one.
    pub fn pass(&self) -> &Pass {
        &self.pass
    }

    /// A pass is under way.
    pub fn is_running(&self) -> bool {
        self.pass.number > 0 && self.pass.finished.is_none()
    }

    /// What is damaged now.
    pub fn damaged(&self) -> &BTreeMap<InfoHash, Damage> {
        &self.damaged
    }

    /// A whole pass now. One that was asked for and is under way will do. Answers the number of the pass.
    pub fn ask(&mut self, now: u64) -> u64 {
        if !(self.is_running() && self.pass.asked) {
            self.begin(now, true);
        }
        self.pass.number
    }

    /// Somebody doubts a content. Whether there was room for it.
    pub fn suspect(&mut self, suspect: Suspect) -> bool {
        if self.suspects.contains(&suspect) {
            return true;
        }
        let room = self.suspects.len() < SUSPECTS_MAX;
        if room {
            self.suspects.push_back(suspect);
        }
        room
    }

    /// Takes a suspect: they need not wait until a large content is read.
    pub fn take_suspect(&mut self) -> Option<Suspect> {
        self.suspects.pop_front()
    }

    /// What is to be done now.
    pub fn next(&mut self, now: u64) -> Step {
        if let Some(suspect) = self.take_suspect() {
            return Step::Suspect(suspect);
        }
        if !self.is_running() {
            match self.due_in(now) {
                Duration::ZERO => self.begin(now, false),
                rest => return Step::Rest(rest),
            }
        }
        self.checking = self.listed.pop_front();
        match self.checking {
            Some(content) => Step::Check {
                content,
                from: match self.pass.within {
                    Some((within, piece)) if within == content => piece,
                    _ => 0,
                },
            },
            None => Step::List(self.pass.after),
        }
    }

    /// What there is after the place asked for, ascending. Nothing: the pass is over.
    pub fn listed(&mut self, contents: Vec<InfoHash>, now: u64) {
        if contents.is_empty() {
            self.pass.finished = Some(now);
        }
        self.listed = contents.into();
    }

    /// So many bytes more were read of a content, up to before this piece.
    pub fn read(&mut self, content: InfoHash, piece: u32, bytes: u64) {
        if self.checking == Some(content) {
            self.pass.within = Some((content, piece));
            self.pass.bytes += bytes;
        }
    }

    /// The pass is past a content, which was checked or could not be.
    pub fn checked(&mut self, content: InfoHash, was_read: bool) {
        if self.checking.take() != Some(content) {
            // a pass has begun meanwhile, and comes here again
            return;
        }
        self.pass.after = Some(content);
        self.pass.within = None;
        match was_read {
            true => self.pass.contents += 1,
            false => self.pass.unchecked += 1,
        }
    }

    /// A content is damaged. Whether that is news.
    pub fn found(&mut self, content: InfoHash, pieces: u32, now: u64) -> bool {
        if let Some(known) = self.damaged.get_mut(&content) {
            known.pieces = known.pieces.max(pieces);
            known.repair = Repair::Due;
            return false;
        }
        self.pass.found += 1;
        if self.damaged.len() < DAMAGED_MAX {
            let damage = Damage {
                pieces,
                found: now,
                repair: Repair::Due,
            };
            self.damaged.insert(content, damage);
        }
        true
    }

    /// What is being done about a damaged content.
    pub fn set_repair(&mut self, content: &InfoHash, repair: Repair) {
        if let Some(damage) = self.damaged.get_mut(content) {
            damage.repair = repair;
        }
    }

    /// It is whole again. What was damaged of it, if that was known.
    pub fn repaired(&mut self, content: &InfoHash) -> Option<Damage> {
        let damage = self.damaged.remove(content)?;
        self.pass.repaired += 1;
        Some(damage)
    }

    /// Nobody wants it any more.
    pub fn forget(&mut self, content: &InfoHash) {
        self.damaged.remove(content);
    }

    fn begin(&mut self, now: u64, asked: bool) {
        self.listed.clear();
        self.checking = None;
        self.pass = Pass {
            number: self.pass.number + 1,
            asked,
            started: now,
            ..Pass::default()
        };
    }

    /// A clock that was set back does not put the next pass off.
    fn due_in(&self, now: u64) -> Duration {
        if self.pass.number == 0 {
            return Duration::ZERO;
        }
        let since = now.checked_sub(self.pass.started);
        since.map_or(Duration::ZERO, |since| {
            INTERVAL.saturating_sub(Duration::from_secs(since))
        })
    }

    /// Bytes per second at most, while so many bytes are held.
    pub fn rate(&self, held_bytes: u64) -> u64 {
        if self.pass.asked && self.is_running() {
            return RATE_MAX;
        }
        let time = INTERVAL.as_secs() / PART_OF_INTERVAL;
        (held_bytes / time).clamp(RATE_MIN, RATE_MAX)
    }
}

#[cfg(test)]
mod tests;
