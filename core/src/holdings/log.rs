//! One incarnation's sequence, as its author writes it and as others follow it.

use super::{
    ANSWER_BYTES, ANSWER_STATEMENTS_MAX, Applied, BATCH_RECORDS_MAX, Batch, CONTENTS_PER_STATEMENT,
    HoldingsError, LOG_CONTENTS_MAX, Operation, POSITION_MAX, PageMark, Record, Signed, Statement,
    TAIL_RECORDS_MIN, TAIL_STATEMENTS_MIN, Wanted, codec,
};
use crate::ids::{InfoHash, PublicKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// A checkpoint some of whose pages have arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Collecting {
    at: u64,
    pages: Vec<PageMark>,
    checkpoint: Signed,
    /// The first of the pages.
    here: Vec<Vec<InfoHash>>,
}

/// One incarnation's sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    author: PublicKey,
    held: BTreeSet<InfoHash>,
    position: u64,
    /// The newest checkpoint and all behind it; before it, for those who are a little behind, some of what was said then.
    pub(super) tail: VecDeque<Signed>,
    /// Where in `tail` the newest checkpoint is. Without one, the tail begins at position 0.
    base: Option<usize>,
    /// Of each content that has changed since the newest checkpoint, whether it was held then.
    since: BTreeMap<InfoHash, bool>,
    collecting: Option<Collecting>,
}

impl Log {
    /// A log in which nothing was said yet.
    pub fn new(author: PublicKey) -> Self {
        Self {
            author,
            held: BTreeSet::new(),
            position: 0,
            tail: VecDeque::new(),
            base: None,
            since: BTreeMap::new(),
            collecting: None,
        }
    }

    /// The key that signs it.
    pub fn author(&self) -> PublicKey {
        self.author
    }

    /// How far it has come: each record and each checkpoint takes a position, and some are passed over.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What is held now.
    pub fn held(&self) -> &BTreeSet<InfoHash> {
        &self.held
    }

    // ---- for its author ----

    /// What is to be said of these, for the author to sign; `None` where all is so already. Of several records of one
    /// content the last counts. At most [`BATCH_RECORDS_MAX`].
    pub fn records(&self, records: &[Record]) -> Option<Statement> {
        let last: BTreeMap<_, _> = records
            .iter()
            .map(|record| (record.content, record.operation))
            .collect();
        let is_news = |(content, operation): &(InfoHash, Operation)| {
            self.held.contains(content) != (*operation == Operation::Held)
        };
        let news: Vec<_> = last
            .into_iter()
            .filter(is_news)
            .map(|(content, operation)| Record { operation, content })
            .collect();
        (!news.is_empty()).then_some(Statement::Records {
            from: self.position,
            records: news,
        })
    }

    /// The checkpoint that is to be said next, for the author to sign, if it is time for one.
    pub fn due_checkpoint(&self) -> Option<Statement> {
        let is_due = self.records_behind() > self.records_most()
            || self.statements_behind() > self.statements_most();
        is_due.then(|| self.checkpoint())
    }

    /// A checkpoint of what is held now, for the author to sign.
    pub fn checkpoint(&self) -> Statement {
        self.checkpoint_at(self.position)
    }

    /// What a process says first of its disk, for the author to sign: all that is held, at a position that is drawn anew,
    /// `skipped` further on. The disk may have been restored from an older copy, and has then said other things under the
    /// positions in between: what one life says is never taken for the continuation of another.
    pub fn begin(&self, skipped: u64) -> Option<Statement> {
        self.leap_over(self.position, skipped)
    }

    /// The same, where others have proof of what the author said up to position `heard`, and the author does not know of
    /// it any more. Everyone then learns anew what is true.
    pub fn leap(&self, heard: u64, skipped: u64) -> Option<Statement> {
        let is_ahead = heard > self.position;
        is_ahead.then(|| self.leap_over(heard, skipped)).flatten()
    }

    fn leap_over(&self, position: u64, skipped: u64) -> Option<Statement> {
        let at = position.checked_add(skipped);
        let at = at.filter(|at| *at < POSITION_MAX)?;
        Some(self.checkpoint_at(at))
    }

    fn checkpoint_at(&self, at: u64) -> Statement {
        let pages = self.marks();
        Statement::Checkpoint { at, pages }
    }

    // ---- for those who have some of it ----

    /// What a node that has `wanted` is to be given next.
    pub fn answer(&self, wanted: &Wanted) -> Vec<Batch> {
        let checkpoint = self.base.map(|base| &self.tail[base]);
        let begins = self.tail.front().map_or(self.position, start);
        match (checkpoint, wanted.page) {
            (Some(checkpoint), Some((at, index))) if start(checkpoint) == at => {
                self.page(at, index).into_iter().collect()
            }
            (Some(checkpoint), _) if wanted.from < begins => {
                vec![Batch::Signed(checkpoint.clone())]
            }
            _ => self.statements(wanted.from),
        }
    }

    /// The statements that go on from a position, as many as fit an answer.
    fn statements(&self, from: u64) -> Vec<Batch> {
        let known = self.tail.partition_point(|signed| end(signed) <= from);
        let mut bytes = 0;
        let news = self.tail.range(known..).take(ANSWER_STATEMENTS_MAX);
        let fitting = news.take_while(|signed| {
            let fits = bytes < ANSWER_BYTES;
            bytes += codec::statement_bytes(&signed.statement);
            fits
        });
        fitting.cloned().map(Batch::Signed).collect()
    }

    /// The whole log, as a compact start of its file on disk.
    pub fn snapshot(&self) -> Vec<Batch> {
        let mut batches = Vec::new();
        if let Some(base) = self.base {
            batches.push(Batch::Signed(self.tail[base].clone()));
            let at = start(&self.tail[base]);
            batches.extend((0..).map_while(|index| self.page(at, index)));
        }
        let behind = self.tail.range(self.behind()..);
        batches.extend(behind.cloned().map(Batch::Signed));
        if let Some(collecting) = &self.collecting {
            batches.push(Batch::Signed(collecting.checkpoint.clone()));
            let at = collecting.at;
            let pages = collecting.here.iter().cloned().zip(0..);
            batches.extend(pages.map(|(held, index)| Batch::Page { at, index, held }));
        }
        batches
    }

    /// How many contents it names: what is held, and what has arrived of a checkpoint.
    pub fn contents(&self) -> usize {
        let collecting = self.collecting.as_ref();
        let arrived = collecting.map_or(0, |pages| pages.here.len() * BATCH_RECORDS_MAX);
        self.held.len() + arrived
    }

    /// What to ask a peer for.
    pub fn wanted(&self) -> Wanted {
        let collecting = self.collecting.as_ref();
        Wanted {
            from: self.position,
            page: collecting.map(|pages| (pages.at, pages.here.len() as u32)),
        }
    }

    /// Whether a batch says something that is not known yet: only then is it worth checking who signed it.
    pub fn is_news(&self, batch: &Batch) -> bool {
        match batch {
            Batch::Signed(signed) => end(signed) > self.position,
            Batch::Page { at, index, .. } => self.wanted().page == Some((*at, *index)),
        }
    }

    /// Takes a batch that its author has made.
    pub(super) fn apply(&mut self, batch: Batch) -> Result<Applied, HoldingsError> {
        match batch {
            Batch::Signed(signed) => self.apply_signed(signed),
            Batch::Page { at, index, held } => self.apply_page(at, index, held),
        }
    }

    fn apply_signed(&mut self, signed: Signed) -> Result<Applied, HoldingsError> {
        if signed.statement.end()? <= self.position {
            return Ok(Applied::Known);
        }
        match &signed.statement {
            Statement::Records { from, records } => {
                let Some(overlap) = self.position.checked_sub(*from) else {
                    return Ok(Applied::Gap);
                };
                let news = records.get(overlap as usize..).unwrap_or_default().to_vec();
                self.apply_records(&news, signed)
            }
            Statement::Checkpoint { at, pages } => {
                let (at, pages) = (*at, pages.clone());
                Ok(self.apply_checkpoint(at, pages, signed))
            }
        }
    }

    fn apply_records(&mut self, news: &[Record], from: Signed) -> Result<Applied, HoldingsError> {
        if self.held.len() + news.len() > LOG_CONTENTS_MAX {
            return Err(HoldingsError::ContentsTooMany);
        }
        if self.records_behind() + news.len() > 2 * self.records_most()
            || self.statements_behind() > 2 * self.statements_most()
        {
            return Err(HoldingsError::TailTooLong);
        }
        let changed = news
            .iter()
            .filter(|record| self.append(**record))
            .map(|record| record.content)
            .collect();
        self.position += news.len() as u64;
        self.tail.push_back(from);
        let collecting = self.collecting.take();
        self.collecting = collecting.filter(|pages| pages.at >= self.position);
        Ok(Applied::Moved(changed))
    }

    fn apply_checkpoint(&mut self, at: u64, pages: Vec<PageMark>, checkpoint: Signed) -> Applied {
        let before = self.collecting.as_ref().map(|pages| pages.at);
        if before == Some(at) {
            return Applied::Known;
        }
        if self.marks() == pages {
            self.adopt(at, checkpoint);
            return Applied::Moved(BTreeSet::new());
        }
        let collecting = Collecting {
            at,
            pages,
            checkpoint,
            here: Vec::new(),
        };
        match self.collect(collecting) {
            Applied::Collected if before > Some(at) => Applied::Restarted,
            collected => collected,
        }
    }

    fn apply_page(
        &mut self,
        at: u64,
        index: u32,
        held: Vec<InfoHash>,
    ) -> Result<Applied, HoldingsError> {
        if self.wanted().page != Some((at, index)) {
            return Ok(Applied::Known);
        }
        let Some(mut collecting) = self.collecting.take() else {
            return Ok(Applied::Known);
        };
        if mark(&held) != collecting.pages.get(collecting.here.len()).copied() {
            self.collecting = Some(collecting);
            return Err(HoldingsError::ForgedPage);
        }
        collecting.here.push(held);
        Ok(self.collect(collecting))
    }

    /// Goes on collecting, or shows what was collected.
    fn collect(&mut self, collecting: Collecting) -> Applied {
        if collecting.here.len() < collecting.pages.len() {
            self.collecting = Some(collecting);
            return Applied::Collected;
        }
        let held = collecting.here.into_iter().flatten().collect();
        let changed = self.held.symmetric_difference(&held).copied().collect();
        self.held = held;
        self.tail.clear();
        self.base = None;
        self.adopt(collecting.at, collecting.checkpoint);
        Applied::Moved(changed)
    }

    /// What is held is what this checkpoint says.
    fn adopt(&mut self, at: u64, checkpoint: Signed) {
        self.forget();
        self.base = Some(self.tail.len());
        self.tail.push_back(checkpoint);
        self.position = at + 1;
        self.since.clear();
        self.collecting = None;
    }

    /// Before a checkpoint, statements are kept for those who are a little behind: as many as there may be behind one.
    fn forget(&mut self) {
        let mut room = self.records_most();
        let newest = self.tail.iter().rev().take(self.statements_most());
        let kept = newest.take_while(|signed| {
            let records = records_in(signed);
            let fits = records <= room;
            room = room.saturating_sub(records);
            fits
        });
        let gone = self.tail.len() - kept.count();
        self.tail.drain(..gone);
    }

    /// What was held at the newest checkpoint, one page of it.
    fn page(&self, at: u64, index: u32) -> Option<Batch> {
        let Statement::Checkpoint { pages, .. } = &self.tail.get(self.base?)?.statement else {
            return None;
        };
        let last = pages.get(index as usize)?.last;
        let before = (index as usize).checked_sub(1).and_then(|at| pages.get(at));
        let after = before.map_or(Bound::Unbounded, |page| Bound::Excluded(page.last));
        let range = (after, Bound::Included(last));
        let unchanged = self.held.range(range);
        let unchanged = unchanged.filter(|content| !self.since.contains_key(*content));
        let changed = self.since.range(range).filter(|(_, was_held)| **was_held);
        let held: BTreeSet<_> = unchanged
            .chain(changed.map(|(content, _)| content))
            .collect();
        let held = held.into_iter().copied().collect();
        Some(Batch::Page { at, index, held })
    }

    /// The pages of what is held now.
    fn marks(&self) -> Vec<PageMark> {
        let all: Vec<_> = self.held.iter().copied().collect();
        all.chunks(BATCH_RECORDS_MAX).filter_map(mark).collect()
    }

    /// Whether what is held differs now.
    fn append(&mut self, record: Record) -> bool {
        let is_held = record.operation == Operation::Held;
        let has_changed = match is_held {
            true => self.held.insert(record.content),
            false => self.held.remove(&record.content),
        };
        if has_changed {
            self.since.entry(record.content).or_insert(!is_held);
        }
        has_changed
    }

    /// Where in the tail the statements behind the newest checkpoint begin.
    fn behind(&self) -> usize {
        self.base.map_or(0, |base| base + 1)
    }

    fn statements_behind(&self) -> usize {
        self.tail.len() - self.behind()
    }

    fn records_behind(&self) -> usize {
        let base = self.base.map_or(0, |base| end(&self.tail[base]));
        (self.position - base) as usize
    }

    fn statements_most(&self) -> usize {
        TAIL_STATEMENTS_MIN.max(self.held.len() / CONTENTS_PER_STATEMENT)
    }

    fn records_most(&self) -> usize {
        TAIL_RECORDS_MIN.max(self.held.len())
    }
}

fn start(signed: &Signed) -> u64 {
    match &signed.statement {
        Statement::Records { from, .. } => *from,
        Statement::Checkpoint { at, .. } => *at,
    }
}

/// Of a statement that was taken: its end is within limits.
fn end(signed: &Signed) -> u64 {
    signed.statement.end().unwrap_or(0)
}

/// How many records it has; a page of a checkpoint counts as one.
fn records_in(signed: &Signed) -> usize {
    match &signed.statement {
        Statement::Records { records, .. } => records.len(),
        Statement::Checkpoint { pages, .. } => pages.len(),
    }
}

fn mark(held: &[InfoHash]) -> Option<PageMark> {
    let mut hash = blake3::Hasher::new();
    for content in held {
        hash.update(content.as_bytes());
    }
    Some(PageMark {
        last: *held.last()?,
        hash: *hash.finalize().as_bytes(),
    })
}
