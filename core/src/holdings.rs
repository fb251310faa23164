//! Which node holds which content, as far as this node has heard: also for disks that are in a drawer.
//!
//! Each incarnation writes one append-only sequence of ±info-hash, its [`Log`]. Everyone keeps everyone's logs
//! and relays them, so positions in a log are comparable on all nodes: whoever is at a higher position knows
//! more.
//!
//! **Nobody is believed about another's disk.** A log is made of [`Statement`]s that its author has signed: records,
//! and now and then a [`Statement::Checkpoint`], which names all that is held by the hashes of its pages. Who is far
//! behind gets the newest checkpoint and its pages, each of which proves itself by its hash; who is not gets the
//! statements it lacks. A checkpoint takes a position of its own, so that everyone hears of it: whoever holds the same
//! to be true needs none of its pages, and may forget what is older.
//!
//! **Each life of a disk has positions of its own.** A process begins with a checkpoint at a position drawn by lot
//! ([`Log::begin`]). A disk that is put back to an older copy, and goes on from there, then says nothing under positions
//! of which others have heard something else; a log is never pieced together from both.
//!
//! An older statement says nothing to who knows a newer one: a true one told again does no harm.
//!
//! Invariant: a log's position never goes back. Survives a crash: what the executor wrote with [`codec`]; a
//! node tells its own position only after that write is durable.

pub mod codec;
mod log;

pub use log::Log;

use crate::ids::{IncarnationId, InfoHash, PublicKey};
use std::collections::{BTreeMap, BTreeSet};

/// Records of one statement, or contents of a page: about 170 KB, some milliseconds on a link.
pub const BATCH_RECORDS_MAX: usize = 8192;

/// Records behind its newest checkpoint that a log may have in any case; more when more is held.
pub const TAIL_RECORDS_MIN: usize = 8192;

/// Statements behind its newest checkpoint that a log may have in any case: some 100 bytes of memory each.
pub const TAIL_STATEMENTS_MIN: usize = 1024;

/// Contents for each further statement: a checkpoint of many contents costs everyone a look at all of them.
const CONTENTS_PER_STATEMENT: usize = 256;

/// Statements in one answer: each costs the asker the check of a signature, some 90 µs.
pub const ANSWER_STATEMENTS_MAX: usize = 64;

/// Bytes after which an answer ends with the statement that it is at.
const ANSWER_BYTES: usize = 200_000;

/// Contents in one log: above what one disk is expected to hold, and 320 MiB of hashes.
pub const LOG_CONTENTS_MAX: usize = 1 << 24;

/// Pages of one checkpoint.
pub const PAGES_MAX: usize = LOG_CONTENTS_MAX / BATCH_RECORDS_MAX;

/// Logs of one volume: every incarnation that ever was.
pub const LOGS_MAX: usize = crate::limits::INCARNATIONS_MAX;

/// Positions from here on are nobody's: more records than a disk will ever make, and 2^24 beginnings.
pub const POSITION_MAX: u64 = 1 << 60;

/// Fewer positions than this are passed over at each beginning. That two lives of a disk which was restored come across
/// the same positions takes a draw of one in 2^36 for each record said in them.
pub const SKIPPED_MAX: u64 = 1 << 36;

/// What became of one content on one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is whole and durable there.
    Held,
    /// It is there no more.
    Dropped,
}

/// One step of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What happened.
    pub operation: Operation,
    /// To which content.
    pub content: InfoHash,
}

/// One page of what is held at a checkpoint: a range of hashes, from behind the page before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageMark {
    /// Its last content.
    pub last: InfoHash,
    /// BLAKE3 of its info-hashes, ascending.
    pub hash: [u8; 32],
}

/// What an author says of its own disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The records from position `from` on.
    Records {
        /// Position before the first of them.
        from: u64,
        /// At most [`BATCH_RECORDS_MAX`].
        records: Vec<Record>,
    },
    /// All that is held at position `at`. Takes one position itself.
    Checkpoint {
        /// Position before it.
        at: u64,
        /// At most [`PAGES_MAX`], ascending.
        pages: Vec<PageMark>,
    },
}

impl Statement {
    /// The position behind it. Fails beyond [`POSITION_MAX`].
    pub fn end(&self) -> Result<u64, HoldingsError> {
        let (from, length) = match self {
            Self::Records { from, records } => (*from, records.len() as u64),
            Self::Checkpoint { at, .. } => (*at, 1),
        };
        let end = from.checked_add(length).filter(|end| *end <= POSITION_MAX);
        end.ok_or(HoldingsError::PositionTooLarge)
    }
}

/// An ed25519 signature (RFC 8032).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// A statement, and its author's signature of [`codec::signed_text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What is said.
    pub statement: Statement,
    /// By whom.
    pub signature: Signature,
}

/// A part of a log on its way to disk or to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// What the author says.
    Signed(Signed),
    /// A page of a checkpoint, which the checkpoint's hash of it proves.
    Page {
        /// The checkpoint's position.
        at: u64,
        /// Which page.
        index: u32,
        /// Ascending, at most [`BATCH_RECORDS_MAX`].
        held: Vec<InfoHash>,
    },
}

/// What to ask for next of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The position that the asker has reached.
    pub from: u64,
    /// The checkpoint whose pages the asker is collecting, and the page it lacks.
    pub page: Option<(u64, u32)>,
}

/// What applying a batch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The log moved on; these contents have one holder more or fewer.
    Moved(BTreeSet<InfoHash>),
    /// A checkpoint some of whose pages are still lacking: ask with [`Log::wanted`].
    Collected,
    /// The like, but an older one than that of which pages were here: who has it may be the only one that can be asked,
    /// and yet it is no progress.
    Restarted,
    /// Nothing new in it.
    Known,
    /// It begins behind what we have: ask again with [`Log::wanted`].
    Gap,
}

impl Applied {
    /// Whether whoever sent it has brought something.
    pub fn is_progress(&self) -> bool {
        matches!(self, Self::Moved(_) | Self::Collected)
    }

    /// Whether it is to be written down.
    pub fn is_kept(&self) -> bool {
        self.is_progress() || *self == Self::Restarted
    }
}

/// Why a batch or a log is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoldingsError {
    /// More than [`LOG_CONTENTS_MAX`].
    #[error("a log names more than {LOG_CONTENTS_MAX} contents")]
    ContentsTooMany,
    /// More than [`LOGS_MAX`].
    #[error("there are more than {LOGS_MAX} logs")]
    LogsTooMany,
    /// A position beyond [`POSITION_MAX`].
    #[error("a position in a log is too large")]
    PositionTooLarge,
    /// Its author makes no checkpoints, so that everyone must keep more and more of it.
    #[error("a log has too much behind its newest checkpoint")]
    TailTooLong,
    /// A page is not the one that the author has signed for.
    #[error("a page is not what the log's author has signed")]
    ForgedPage,
}

/// All logs of a volume, and who holds a given content.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    logs: BTreeMap<IncarnationId, Log>,
    /// Each incarnation's number in `index`, which is half the size this way.
    numbers: BTreeMap<IncarnationId, u32>,
    incarnations: Vec<IncarnationId>,
    /// Numbers that nobody has any more.
    free: Vec<u32>,
    index: BTreeSet<(InfoHash, u32)>,
}

impl Holdings {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a log read from disk, in place of what was known of that incarnation.
    pub fn insert(&mut self, log: Log) -> Result<(), HoldingsError> {
        let incarnation = log.author().incarnation();
        let number = self.number(incarnation)?;
        if let Some(old) = self.logs.remove(&incarnation) {
            for content in old.held() {
                self.index.remove(&(*content, number));
            }
        }
        self.index
            .extend(log.held().iter().map(|content| (*content, number)));
        self.logs.insert(incarnation, log);
        Ok(())
    }

    /// Whether a log that is not here yet would be one too many.
    pub fn is_full(&self) -> bool {
        self.logs.len() >= LOGS_MAX
    }

    /// Forgets the logs of incarnations that are not among these. Answers which those were.
    pub fn retain(&mut self, known: impl Fn(&IncarnationId) -> bool) -> Vec<IncarnationId> {
        let gone = self.logs.keys().filter(|id| !known(id));
        let gone: Vec<_> = gone.copied().collect();
        for incarnation in &gone {
            let (log, number) = (
                self.logs.remove(incarnation),
                self.numbers.remove(incarnation),
            );
            if let (Some(log), Some(number)) = (log, number) {
                for content in log.held() {
                    self.index.remove(&(*content, number));
                }
                self.free.push(number);
            }
        }
        gone
    }

    /// Takes a part of the log of the incarnation that has this key: our own, or from whomever it came. **That the
    /// author has signed it is the caller's to check**, with [`codec::signed_text`]; what is not signed proves itself.
    pub fn apply(&mut self, author: PublicKey, batch: Batch) -> Result<Applied, HoldingsError> {
        let incarnation = author.incarnation();
        let number = self.number(incarnation)?;
        let log = self.logs.entry(incarnation);
        let log = log.or_insert_with(|| Log::new(author));
        let applied = log.apply(batch)?;
        if let Applied::Moved(changed) = &applied {
            let states: Vec<_> = changed
                .iter()
                .map(|content| (*content, log.held().contains(content)))
                .collect();
            for (content, is_held) in states {
                self.reindex(content, number, is_held);
            }
        }
        Ok(applied)
    }

    /// How far each log is known here.
    pub fn positions(&self) -> BTreeMap<IncarnationId, u64> {
        let logs = self.logs.iter();
        logs.map(|(id, log)| (*id, log.position())).collect()
    }

    /// What to ask for next of an incarnation's log.
    pub fn wanted(&self, incarnation: IncarnationId) -> Wanted {
        let log = self.logs.get(&incarnation);
        log.map_or_else(Wanted::default, Log::wanted)
    }

    /// An incarnation's log.
    pub fn log(&self, incarnation: IncarnationId) -> Option<&Log> {
        self.logs.get(&incarnation)
    }

    /// Who holds a content.
    pub fn holders(&self, content: &InfoHash) -> impl Iterator<Item = IncarnationId> {
        self.index
            .range((*content, 0)..=(*content, u32::MAX))
            .map(|(_, number)| self.incarnations[*number as usize])
    }

    /// Whether an incarnation holds a content.
    pub fn holds(&self, incarnation: IncarnationId, content: &InfoHash) -> bool {
        let number = self.numbers.get(&incarnation);
        number.is_some_and(|number| self.index.contains(&(*content, *number)))
    }

    fn reindex(&mut self, content: InfoHash, number: u32, is_held: bool) {
        if is_held {
            self.index.insert((content, number));
        } else {
            self.index.remove(&(content, number));
        }
    }

    fn number(&mut self, incarnation: IncarnationId) -> Result<u32, HoldingsError> {
        if let Some(number) = self.numbers.get(&incarnation) {
            return Ok(*number);
        }
        if self.is_full() {
            return Err(HoldingsError::LogsTooMany);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.incarnations.push(incarnation);
            self.incarnations.len() as u32 - 1
        });
        self.incarnations[number as usize] = incarnation;
        self.numbers.insert(incarnation, number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests;
