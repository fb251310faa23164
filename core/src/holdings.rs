//! Which node holds which content, as far as this node has heard: also for disks that are in a drawer.
//!
//! Each incarnation writes one append-only sequence of ±info-hash, its [`Log`]. Everyone keeps everyone's logs
//! and relays them, so positions in a log are comparable on all nodes: whoever is at a higher position knows
//! more. A log keeps its recent records; who asks for older ones gets pages of what is held now.
//!
//! Pages of one snapshot may be taken at different moments, even from different nodes. The snapshot counts as
//! taken at the earliest of them: replaying the records from there on sets each content that changed in
//! between, whichever page it was on, to its last state.
//!
//! Invariant: a log's position never goes back. Survives a crash: what the executor wrote with [`codec`]; a
//! node tells its own position only after that write is durable.

pub mod codec;

use crate::ids::{IncarnationId, InfoHash};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// Records, or contents of a page, in one [`Batch`]: about 170 KB, some milliseconds on a link.
pub const BATCH_RECORDS_MAX: usize = 8192;

/// Records that a log keeps at least, so that peers which were away for a while need no snapshot.
pub const TAIL_RECORDS_MIN: usize = 8192;

/// Contents in one log: above what one disk is expected to hold, and 320 MiB of hashes.
pub const LOG_CONTENTS_MAX: usize = 1 << 24;

/// Logs of one volume: every incarnation that ever was.
pub const LOGS_MAX: usize = crate::limits::INCARNATIONS_MAX;

/// Positions from here on are nobody's: more records than a disk will ever make.
pub const POSITION_MAX: u64 = 1 << 60;

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

/// A part of a log on its way to disk or to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// The records from position `from` on.
    Records {
        /// Position before the first of them.
        from: u64,
        /// At most [`BATCH_RECORDS_MAX`].
        records: Vec<Record>,
    },
    /// All that is held of a range of hashes: behind `after` up to the last given, or to the end when `last`.
    Page {
        /// The log's position when the page was made.
        at: u64,
        /// The previous page's last hash; `None` on the first page.
        after: Option<InfoHash>,
        /// Ascending, at most [`BATCH_RECORDS_MAX`].
        held: Vec<InfoHash>,
        /// Nothing is held behind these.
        last: bool,
    },
}

/// What to ask for next of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The position that the asker has reached.
    pub from: u64,
    /// The last hash of the snapshot that the asker is in the middle of.
    pub after: Option<InfoHash>,
}

/// What applying a batch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The log moved on; these contents have one holder more or fewer.
    Moved(BTreeSet<InfoHash>),
    /// A page of an unfinished snapshot: ask for the next with [`Log::wanted`].
    Collected,
    /// Nothing new in it.
    Known,
    /// It begins behind what we have: ask again with [`Log::wanted`].
    Gap,
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
    /// A position beyond what can be counted.
    #[error("a position in a log does not fit 64 bits")]
    PositionTooLarge,
}

/// A snapshot that has arrived in part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Collecting {
    at: u64,
    cursor: InfoHash,
    held: BTreeSet<InfoHash>,
}

/// One incarnation's sequence.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    held: BTreeSet<InfoHash>,
    /// Position of the first record in `tail`.
    first: u64,
    tail: VecDeque<Record>,
    collecting: Option<Collecting>,
}

impl Log {
    /// A log without records.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records were ever appended.
    pub fn position(&self) -> u64 {
        self.first + self.tail.len() as u64
    }

    /// What is held now.
    pub fn held(&self) -> &BTreeSet<InfoHash> {
        &self.held
    }

    /// Appends what happened on this disk, unless it is so already. The batch of the new record is to be
    /// written down.
    pub fn push(&mut self, record: Record) -> Option<Batch> {
        let is_held = self.held.contains(&record.content);
        if is_held == (record.operation == Operation::Held) {
            return None;
        }
        let from = self.position();
        self.append(record);
        self.compact();
        Some(Batch::Records {
            from,
            records: vec![record],
        })
    }

    /// Goes on behind what others claim to have heard of this log, and answers whether it had to: this disk was restored
    /// from an older copy, or someone lies. Either way everyone then gets a snapshot of what is true. A claim beyond
    /// [`POSITION_MAX`] is no claim.
    pub fn leap(&mut self, heard: u64) -> bool {
        if heard <= self.position() || heard >= POSITION_MAX {
            return false;
        }
        self.first = heard + 1;
        self.tail.clear();
        true
    }

    /// What a node that has `wanted` is to be given next: records, or a page when they are gone here.
    pub fn batch(&self, wanted: &Wanted) -> Batch {
        match usize::try_from(wanted.from.saturating_sub(self.first)) {
            Ok(skip) if wanted.after.is_none() && wanted.from >= self.first => Batch::Records {
                from: wanted.from,
                records: self
                    .tail
                    .iter()
                    .skip(skip)
                    .take(BATCH_RECORDS_MAX)
                    .copied()
                    .collect(),
            },
            _ => self.page(wanted.after),
        }
    }

    /// The whole log in pages, as a compact start of its file on disk.
    pub fn snapshot(&self) -> Vec<Batch> {
        let mut pages = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.page(cursor);
            let Batch::Page { held, last, .. } = &page else {
                return pages;
            };
            cursor = held.last().copied();
            let ended = *last;
            pages.push(page);
            if ended {
                return pages;
            }
        }
    }

    /// What to ask a peer for.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            from: self.position(),
            after: self.collecting.as_ref().map(|c| c.cursor),
        }
    }

    /// Takes a batch from disk or from a peer.
    pub fn apply(&mut self, batch: &Batch) -> Result<Applied, HoldingsError> {
        match batch {
            Batch::Records { from, records } => self.apply_records(*from, records),
            Batch::Page {
                at,
                after,
                held,
                last,
            } => self.apply_page(*at, *after, held, *last),
        }
    }

    fn apply_records(&mut self, from: u64, records: &[Record]) -> Result<Applied, HoldingsError> {
        from.checked_add(records.len() as u64)
            .ok_or(HoldingsError::PositionTooLarge)?;
        let Some(overlap) = self.position().checked_sub(from) else {
            return Ok(Applied::Gap);
        };
        let overlap = usize::try_from(overlap).unwrap_or(usize::MAX);
        let Some(news) = records.get(overlap..).filter(|news| !news.is_empty()) else {
            return Ok(Applied::Known);
        };
        if self.held.len() + news.len() > LOG_CONTENTS_MAX {
            return Err(HoldingsError::ContentsTooMany);
        }
        let changed = news
            .iter()
            .filter(|record| self.append(**record))
            .map(|record| record.content)
            .collect();
        self.compact();
        if self
            .collecting
            .as_ref()
            .is_some_and(|c| c.at <= self.position())
        {
            self.collecting = None;
        }
        Ok(Applied::Moved(changed))
    }

    fn apply_page(
        &mut self,
        at: u64,
        after: Option<InfoHash>,
        held: &[InfoHash],
        last: bool,
    ) -> Result<Applied, HoldingsError> {
        if at <= self.position() {
            return Ok(Applied::Known);
        }
        if after != self.collecting.as_ref().map(|c| c.cursor) && after.is_some() {
            return Ok(Applied::Gap);
        }
        let (earliest, mut all) = match (after, self.collecting.take()) {
            (Some(_), Some(collecting)) => (collecting.at.min(at), collecting.held),
            _ => (at, BTreeSet::new()),
        };
        all.extend(held);
        if all.len() > LOG_CONTENTS_MAX {
            return Err(HoldingsError::ContentsTooMany);
        }
        if let (false, Some(cursor)) = (last, held.last().copied()) {
            self.collecting = Some(Collecting {
                at: earliest,
                cursor,
                held: all,
            });
            return Ok(Applied::Collected);
        }
        let changed = self.held.symmetric_difference(&all).copied().collect();
        self.held = all;
        self.tail.clear();
        self.first = earliest;
        Ok(Applied::Moved(changed))
    }

    fn page(&self, after: Option<InfoHash>) -> Batch {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.held.range((from, Bound::Unbounded));
        let held = rest.by_ref().take(BATCH_RECORDS_MAX).copied().collect();
        Batch::Page {
            at: self.position(),
            after,
            held,
            last: rest.next().is_none(),
        }
    }

    /// Whether what is held differs now.
    fn append(&mut self, record: Record) -> bool {
        self.tail.push_back(record);
        match record.operation {
            Operation::Held => self.held.insert(record.content),
            Operation::Dropped => self.held.remove(&record.content),
        }
    }

    /// Forgets the oldest records when they outweigh a snapshot.
    fn compact(&mut self) {
        let keep = TAIL_RECORDS_MIN.max(self.held.len() / 2);
        if self.tail.len() > 2 * keep {
            let gone = self.tail.len() - keep;
            self.tail.drain(..gone);
            self.first += gone as u64;
        }
    }
}

/// All logs of a volume, and who holds a given content.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    logs: BTreeMap<IncarnationId, Log>,
    /// Each incarnation's number in `index`, which is half the size this way.
    numbers: BTreeMap<IncarnationId, u32>,
    incarnations: Vec<IncarnationId>,
    index: BTreeSet<(InfoHash, u32)>,
}

impl Holdings {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a log read from disk, in place of what was known of that incarnation.
    pub fn insert(&mut self, incarnation: IncarnationId, log: Log) -> Result<(), HoldingsError> {
        let number = self.number(incarnation)?;
        if let Some(old) = self.logs.remove(&incarnation) {
            for content in old.held {
                self.index.remove(&(content, number));
            }
        }
        self.index
            .extend(log.held.iter().map(|content| (*content, number)));
        self.logs.insert(incarnation, log);
        Ok(())
    }

    /// Appends to a log (our own), unless it says so already. The batch is to be written down.
    pub fn push(
        &mut self,
        incarnation: IncarnationId,
        record: Record,
    ) -> Result<Option<Batch>, HoldingsError> {
        let number = self.number(incarnation)?;
        let pushed = self.logs.entry(incarnation).or_default().push(record);
        if pushed.is_some() {
            self.reindex(record.content, number, record.operation == Operation::Held);
        }
        Ok(pushed)
    }

    /// Lets a log (our own) go on behind what others have heard of it: see [`Log::leap`].
    pub fn leap(&mut self, incarnation: IncarnationId, heard: u64) -> Result<bool, HoldingsError> {
        self.number(incarnation)?;
        Ok(self.logs.entry(incarnation).or_default().leap(heard))
    }

    /// Takes a part of someone's log, from whomever it came. A node never does so for its own incarnation:
    /// its own log is the authority.
    pub fn apply(
        &mut self,
        incarnation: IncarnationId,
        batch: &Batch,
    ) -> Result<Applied, HoldingsError> {
        let number = self.number(incarnation)?;
        let log = self.logs.entry(incarnation).or_default();
        let applied = log.apply(batch)?;
        if let Applied::Moved(changed) = &applied {
            let states: Vec<_> = changed
                .iter()
                .map(|content| (*content, log.held.contains(content)))
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
        let nothing = Wanted {
            from: 0,
            after: None,
        };
        self.logs.get(&incarnation).map_or(nothing, Log::wanted)
    }

    /// What to answer to who asks for an incarnation's log.
    pub fn batch(&self, incarnation: IncarnationId, wanted: &Wanted) -> Option<Batch> {
        self.logs.get(&incarnation).map(|log| log.batch(wanted))
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
        if self.incarnations.len() >= LOGS_MAX {
            return Err(HoldingsError::LogsTooMany);
        }
        let number = self.incarnations.len() as u32;
        self.incarnations.push(incarnation);
        self.numbers.insert(incarnation, number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests;
