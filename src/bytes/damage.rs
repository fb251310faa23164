//! Contents that are not what they should be: how that is found out, and what this node then says and does of itself.
//!
//! Order: the content is made incomplete on the disk, then nothing serves or reads its file any more, then the holdings
//! log says that this node has dropped it, so that others make copies; then the owner is told, and the bad pieces are
//! fetched (`node::repair`).

use super::replica::Replica;
use delugefs_core::holdings::Operation;
use delugefs_core::ids::InfoHash;
use delugefs_torrent::metainfo::Info;
use delugefs_torrent::store::{Check, State, StoreError};
use std::ops::Range;
use tokio::runtime::Handle;

/// What a check has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All that was read is right.
    Good,
    /// It was damaged, and is incomplete now.
    Damaged,
    /// Nothing is known: it is not here, has no name, or the disk gives no answer.
    Unknown,
}

/// Told of each piece that was read: the next piece, and bytes. `false`: the check is to end.
pub type Pace<'a> = &'a mut dyn FnMut(u32, u64) -> bool;

impl Replica {
    /// Reads a content again, or some of its pieces, and does what follows. Blocks; needs a runtime around it, and must
    /// not be called on one of its threads for tasks.
    pub fn recheck(
        &self,
        content: &InfoHash,
        pieces: Option<Range<u32>>,
        pace: Pace<'_>,
    ) -> Verdict {
        let info = match self.info(content) {
            Ok(Some(info)) => info,
            Ok(None) => return Verdict::Unknown,
            Err(error) => return unknown(&error),
        };
        let checked = match self.store.state(content) {
            State::Complete => self.recheck_complete(&info, pieces, pace),
            _ if self.claims(content) => Err(StoreError::NotComplete(*content)),
            State::Partial => self.recheck_partial(&info, pieces),
            State::Absent => Ok(Verdict::Unknown),
        };
        match checked {
            Ok(verdict) => verdict,
            Err(StoreError::NotComplete(_)) => self.recheck_missing(&info),
            Err(error) => unknown(&error),
        }
    }

    fn recheck_complete(
        &self,
        info: &Info,
        pieces: Option<Range<u32>>,
        pace: Pace<'_>,
    ) -> Result<Verdict, StoreError> {
        let mut check = self.store.check(info, pieces)?;
        if !read(&mut check, pace)? {
            return Ok(Verdict::Unknown);
        }
        let checked = check.end();
        if checked.is_good() {
            return Ok(Verdict::Good);
        }
        if !self.store.set_back(info, &checked)? {
            return Ok(Verdict::Unknown);
        }
        self.damaged(info, checked.bad.len() as u32);
        Ok(Verdict::Damaged)
    }

    /// Incomplete ones are checked as a whole when they become complete; here it is about pieces that cannot be read.
    fn recheck_partial(
        &self,
        info: &Info,
        pieces: Option<Range<u32>>,
    ) -> Result<Verdict, StoreError> {
        let pieces = pieces.unwrap_or(0..info.piece_count());
        let bad = self.store.recheck_partial(info, pieces)?;
        if bad == 0 {
            return Ok(Verdict::Good);
        }
        self.let_go(&info.info_hash());
        Ok(Verdict::Damaged)
    }

    /// This node says that it has it; if so, its file is gone, or has been.
    fn recheck_missing(&self, info: &Info) -> Verdict {
        if !self.claims(&info.info_hash()) {
            return Verdict::Unknown;
        }
        self.damaged(info, info.piece_count());
        Verdict::Damaged
    }

    fn damaged(&self, info: &Info, pieces: u32) {
        let content = info.info_hash();
        self.let_go(&content);
        self.declare(Operation::Dropped, &[content]);
        self.scrub.found(content, pieces, crate::node::unix_time());
    }

    fn let_go(&self, content: &InfoHash) {
        if let Some(swarm) = self.swarm() {
            Handle::current().block_on(swarm.let_go(content));
        }
    }
}

/// Whether it was read to its end.
fn read(check: &mut Check, pace: Pace<'_>) -> Result<bool, StoreError> {
    while let Some(bytes) = check.step()? {
        if !pace(check.position(), bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unknown(error: &dyn std::error::Error) -> Verdict {
    tracing::warn!("a content cannot be checked: {error}");
    Verdict::Unknown
}
