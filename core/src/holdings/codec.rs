//! Batches as bytes, the same on the wire and on disk, version 1; all numbers little-endian.
//!
//! ```text
//! batch   = version:u8=1 kind:u8 body
//! kind 0  = from:u64 count:u32 count × (operation:u8 (0 dropped, 1 held) info-hash:20)
//! kind 1  = at:u64 flags:u8 (1 last, 2 has after) [after:20] count:u32 count × info-hash:20, ascending
//! file    = "DFSHOLD" version:u8=1 incarnation:16 frame…
//! frame   = length:u32 batch check:4 (the first bytes of the batch's BLAKE3)
//! ```
//!
//! A file grows by whole frames; a torn last frame is what a crash leaves, and is cut off when read.

use super::{Applied, BATCH_RECORDS_MAX, Batch, HoldingsError, Log, Operation, Record};
use crate::ids::{IncarnationId, InfoHash};

/// Longest encoded batch in bytes: a full one of records.
pub const BATCH_BYTES_MAX: usize = 2 + 8 + 1 + InfoHash::LEN + 4 + BATCH_RECORDS_MAX * RECORD_BYTES;

/// The version that this code writes, and the only one it reads.
pub const VERSION: u8 = 1;

const RECORD_BYTES: usize = 1 + InfoHash::LEN;
const MAGIC: &[u8; 7] = b"DFSHOLD";
const CHECK_BYTES: usize = 4;
const KIND_RECORDS: u8 = 0;
const KIND_PAGE: u8 = 1;
const FLAG_LAST: u8 = 1;
const FLAG_AFTER: u8 = 2;

/// Why bytes are not a batch or a log's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It ends too early, goes on too long, or breaks the format's rules.
    #[error("holdings: malformed {0}")]
    Malformed(&'static str),
    /// Written by a newer program.
    #[error("holdings: version {0} is not known here (this program knows {VERSION})")]
    Version(u8),
    /// The batches of a file do not follow each other, or go beyond a limit.
    #[error("holdings: {0}")]
    Refused(#[from] HoldingsError),
}

/// Encodes one batch.
pub fn encode(batch: &Batch) -> Vec<u8> {
    let mut out = vec![VERSION];
    match batch {
        Batch::Records { from, records } => {
            out.push(KIND_RECORDS);
            out.extend(from.to_le_bytes());
            out.extend((records.len() as u32).to_le_bytes());
            for record in records {
                out.push(u8::from(record.operation == Operation::Held));
                out.extend(record.content.as_bytes());
            }
        }
        Batch::Page {
            at,
            after,
            held,
            last,
        } => {
            out.push(KIND_PAGE);
            out.extend(at.to_le_bytes());
            let flag_after = if after.is_some() { FLAG_AFTER } else { 0 };
            out.push(if *last { FLAG_LAST } else { 0 } | flag_after);
            out.extend(after.iter().flat_map(InfoHash::as_bytes));
            out.extend((held.len() as u32).to_le_bytes());
            out.extend(held.iter().flat_map(InfoHash::as_bytes));
        }
    }
    out
}

/// Decodes one batch, which fills `bytes` exactly.
pub fn decode(bytes: &[u8]) -> Result<Batch, CodecError> {
    let mut input = Input(bytes);
    match input.u8()? {
        VERSION => {}
        version => return Err(CodecError::Version(version)),
    }
    let batch = match input.u8()? {
        KIND_RECORDS => records(&mut input)?,
        KIND_PAGE => page(&mut input)?,
        _ => return Err(CodecError::Malformed("kind")),
    };
    if input.0.is_empty() {
        Ok(batch)
    } else {
        Err(CodecError::Malformed("end"))
    }
}

fn records(input: &mut Input<'_>) -> Result<Batch, CodecError> {
    let from = input.u64()?;
    let count = input.count()?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let operation = match input.u8()? {
            0 => Operation::Dropped,
            1 => Operation::Held,
            _ => return Err(CodecError::Malformed("operation")),
        };
        let content = input.info_hash()?;
        records.push(Record { operation, content });
    }
    Ok(Batch::Records { from, records })
}

fn page(input: &mut Input<'_>) -> Result<Batch, CodecError> {
    let at = input.u64()?;
    let flags = input.u8()?;
    if flags & !(FLAG_LAST | FLAG_AFTER) != 0 {
        return Err(CodecError::Malformed("flags"));
    }
    let has_after = flags & FLAG_AFTER != 0;
    let after = has_after.then(|| input.info_hash()).transpose()?;
    let count = input.count()?;
    let mut held = Vec::with_capacity(count);
    let mut previous = after;
    for _ in 0..count {
        let content = input.info_hash()?;
        if previous.is_some_and(|previous| previous >= content) {
            return Err(CodecError::Malformed("order"));
        }
        previous = Some(content);
        held.push(content);
    }
    let last = flags & FLAG_LAST != 0;
    if held.is_empty() && !last {
        return Err(CodecError::Malformed("empty page"));
    }
    Ok(Batch::Page {
        at,
        after,
        held,
        last,
    })
}

/// The start of a log's file.
pub fn file_header(incarnation: IncarnationId) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.extend(incarnation.as_bytes());
    out
}

/// A batch as it is appended to a log's file.
pub fn frame(batch: &Batch) -> Vec<u8> {
    let body = encode(batch);
    let mut out = (body.len() as u32).to_le_bytes().to_vec();
    out.extend(&body);
    out.extend(&blake3::hash(&body).as_bytes()[..CHECK_BYTES]);
    out
}

/// A log's file, rewritten as compactly as possible: about 20 bytes a content.
pub fn file(incarnation: IncarnationId, log: &Log) -> Vec<u8> {
    let mut out = file_header(incarnation);
    for page in log.snapshot() {
        out.extend(frame(&page));
    }
    out
}

/// What a log's file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is.
    pub incarnation: IncarnationId,
    /// The log.
    pub log: Log,
    /// Bytes of the file that are whole; what is behind them is to be cut off before appending.
    pub valid: usize,
}

/// Reads a log's file up to the first torn frame.
pub fn read_file(bytes: &[u8]) -> Result<Recovered, CodecError> {
    let mut input = Input(bytes);
    if input.take(MAGIC.len())? != MAGIC {
        return Err(CodecError::Malformed("magic"));
    }
    match input.u8()? {
        VERSION => {}
        version => return Err(CodecError::Version(version)),
    }
    let incarnation = IncarnationId::from_slice(input.take(IncarnationId::LEN)?)
        .ok_or(CodecError::Malformed("incarnation"))?;
    let mut log = Log::new();
    let mut valid = bytes.len() - input.0.len();
    while let Some(body) = next_frame(&mut input) {
        if log.apply(&decode(body)?)? == Applied::Gap {
            return Err(CodecError::Malformed("sequence"));
        }
        valid = bytes.len() - input.0.len();
    }
    Ok(Recovered {
        incarnation,
        log,
        valid,
    })
}

/// Any bytes as a batch and as a log's file, for the fuzz target: a batch that is taken is written back the
/// same, and what a file says can be written anew.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(batch) = decode(bytes) {
        assert_eq!(encode(&batch), bytes);
        // the file's check sums are beyond a fuzzer: give it the frame
        let owner = IncarnationId::new([1; IncarnationId::LEN]);
        recover(&[file_header(owner), frame(&batch)].concat());
    }
    recover(bytes);
}

fn recover(bytes: &[u8]) {
    if let Ok(recovered) = read_file(bytes) {
        assert!(recovered.valid <= bytes.len());
        let again = read_file(&file(recovered.incarnation, &recovered.log));
        let position = |log: &Log| (log.held().clone(), log.position());
        assert_eq!(
            again.ok().map(|again| position(&again.log)),
            Some(position(&recovered.log))
        );
    }
}

fn next_frame<'a>(input: &mut Input<'a>) -> Option<&'a [u8]> {
    let length = input.u32().ok()? as usize;
    if length > BATCH_BYTES_MAX {
        return None;
    }
    let body = input.take(length).ok()?;
    let check = input.take(CHECK_BYTES).ok()?;
    (check == &blake3::hash(body).as_bytes()[..CHECK_BYTES]).then_some(body)
}

/// Bytes yet to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let (head, tail) = self
            .0
            .split_at_checked(length)
            .ok_or(CodecError::Malformed("length"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let bytes = self.take(N)?;
        bytes
            .try_into()
            .map_err(|_| CodecError::Malformed("length"))
    }

    fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn info_hash(&mut self) -> Result<InfoHash, CodecError> {
        Ok(InfoHash::new(self.array()?))
    }

    /// A number of items, each at least an info-hash long, all of them still to come.
    fn count(&mut self) -> Result<usize, CodecError> {
        let count = self.u32()? as usize;
        if count > BATCH_RECORDS_MAX || count > self.0.len() / InfoHash::LEN {
            return Err(CodecError::Malformed("count"));
        }
        Ok(count)
    }
}
