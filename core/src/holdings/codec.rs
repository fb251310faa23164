//! Batches as bytes, the same on the wire and on disk, version 2; all numbers little-endian.
//!
//! ```text
//! batch     = version:u8=2 kind:u8 body
//! kind 0    = from:u64 count:u32 count × (operation:u8 (0 dropped, 1 held) info-hash:20) signature:64
//! kind 1    = at:u64 count:u32 count × (last info-hash:20 BLAKE3 of the page:32) signature:64
//! kind 2    = at:u64 index:u32 count:u32 count × info-hash:20, ascending
//! file      = "DFSHOLD" version:u8=2 public key:32 frame…
//! frame     = length:u32 batch check:4 (the first bytes of the batch's BLAKE3)
//! answer    = public key:32 count × (length:u32 batch)
//! ```
//!
//! A signature is over "delugefs holdings v1" and the batch up to it. A file grows by whole frames; a torn last frame
//! is what a crash leaves, and is cut off when read.

use super::{
    ANSWER_STATEMENTS_MAX, Applied, BATCH_RECORDS_MAX, Batch, HoldingsError, Log, Operation,
    PAGES_MAX, PageMark, Record, Signature, Signed, Statement,
};
use crate::ids::{InfoHash, PublicKey};
use crate::input::{Input, TooShort};

/// Longest encoded batch in bytes: a full one of records.
pub const BATCH_BYTES_MAX: usize = 2 + 8 + 4 + BATCH_RECORDS_MAX * RECORD_BYTES + SIGNATURE_BYTES;

/// The version that this code writes, and the only one it reads.
pub const VERSION: u8 = 2;

const CONTEXT: &[u8] = b"delugefs holdings v1";
const RECORD_BYTES: usize = 1 + InfoHash::LEN;
const MARK_BYTES: usize = InfoHash::LEN + 32;
const SIGNATURE_BYTES: usize = 64;
const MAGIC: &[u8; 7] = b"DFSHOLD";
const CHECK_BYTES: usize = 4;
const KIND_RECORDS: u8 = 0;
const KIND_CHECKPOINT: u8 = 1;
const KIND_PAGE: u8 = 2;

/// Why bytes are not a batch or a log's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It ends too early, goes on too long, or breaks the format's rules.
    #[error("holdings: malformed {0}")]
    Malformed(&'static str),
    /// Written by another program.
    #[error("holdings: version {0} is not known here (this program knows {VERSION})")]
    Version(u8),
    /// The batches of a file do not follow each other, or go beyond a limit.
    #[error("holdings: {0}")]
    Refused(#[from] HoldingsError),
}

impl From<TooShort> for CodecError {
    fn from(_: TooShort) -> Self {
        Self::Malformed("length")
    }
}

/// What the author of a statement signs.
pub fn signed_text(statement: &Statement) -> Vec<u8> {
    let mut out = CONTEXT.to_vec();
    encode_statement(&mut out, statement);
    out
}

/// About how many bytes a statement takes.
pub(super) fn statement_bytes(statement: &Statement) -> usize {
    let items = match statement {
        Statement::Records { records, .. } => records.len() * RECORD_BYTES,
        Statement::Checkpoint { pages, .. } => pages.len() * MARK_BYTES,
    };
    SIGNATURE_BYTES + items
}

/// Encodes one batch.
pub fn encode(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    match batch {
        Batch::Signed(signed) => {
            encode_statement(&mut out, &signed.statement);
            out.extend(signed.signature.0);
        }
        Batch::Page { at, index, held } => {
            out.extend([VERSION, KIND_PAGE]);
            out.extend(at.to_le_bytes());
            out.extend(index.to_le_bytes());
            out.extend((held.len() as u32).to_le_bytes());
            out.extend(held.iter().flat_map(InfoHash::as_bytes));
        }
    }
    out
}

fn encode_statement(out: &mut Vec<u8>, statement: &Statement) {
    match statement {
        Statement::Records { from, records } => {
            out.extend([VERSION, KIND_RECORDS]);
            out.extend(from.to_le_bytes());
            out.extend((records.len() as u32).to_le_bytes());
            for record in records {
                out.push(u8::from(record.operation == Operation::Held));
                out.extend(record.content.as_bytes());
            }
        }
        Statement::Checkpoint { at, pages } => {
            out.extend([VERSION, KIND_CHECKPOINT]);
            out.extend(at.to_le_bytes());
            out.extend((pages.len() as u32).to_le_bytes());
            for page in pages {
                out.extend(page.last.as_bytes());
                out.extend(page.hash);
            }
        }
    }
}

/// Decodes one batch, which fills `bytes` exactly. Says nothing of who has signed it.
pub fn decode(bytes: &[u8]) -> Result<Batch, CodecError> {
    let mut input = Input(bytes);
    match input.u8()? {
        VERSION => {}
        version => return Err(CodecError::Version(version)),
    }
    let batch = match input.u8()? {
        KIND_RECORDS => signed(&mut input, records)?,
        KIND_CHECKPOINT => signed(&mut input, checkpoint)?,
        KIND_PAGE => page(&mut input)?,
        _ => return Err(CodecError::Malformed("kind")),
    };
    if input.0.is_empty() {
        Ok(batch)
    } else {
        Err(CodecError::Malformed("end"))
    }
}

fn signed<'a>(
    input: &mut Input<'a>,
    statement: impl FnOnce(&mut Input<'a>) -> Result<Statement, CodecError>,
) -> Result<Batch, CodecError> {
    let statement = statement(input)?;
    let signature = Signature(input.array()?);
    Ok(Batch::Signed(Signed {
        statement,
        signature,
    }))
}

fn records(input: &mut Input<'_>) -> Result<Statement, CodecError> {
    let from = input.u64()?;
    let count = count(input, BATCH_RECORDS_MAX, RECORD_BYTES)?;
    if count == 0 {
        return Err(CodecError::Malformed("no records"));
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let operation = match input.u8()? {
            0 => Operation::Dropped,
            1 => Operation::Held,
            _ => return Err(CodecError::Malformed("operation")),
        };
        let content = InfoHash::new(input.array()?);
        records.push(Record { operation, content });
    }
    Ok(Statement::Records { from, records })
}

fn checkpoint(input: &mut Input<'_>) -> Result<Statement, CodecError> {
    let at = input.u64()?;
    let count = count(input, PAGES_MAX, MARK_BYTES)?;
    let mut pages: Vec<PageMark> = Vec::with_capacity(count);
    for _ in 0..count {
        let (last, hash) = (InfoHash::new(input.array()?), input.array()?);
        if pages.last().is_some_and(|page| page.last >= last) {
            return Err(CodecError::Malformed("order"));
        }
        pages.push(PageMark { last, hash });
    }
    Ok(Statement::Checkpoint { at, pages })
}

fn page(input: &mut Input<'_>) -> Result<Batch, CodecError> {
    let (at, index) = (input.u64()?, input.u32()?);
    let count = count(input, BATCH_RECORDS_MAX, InfoHash::LEN)?;
    let mut held: Vec<InfoHash> = Vec::with_capacity(count);
    for _ in 0..count {
        let content = InfoHash::new(input.array()?);
        if held.last().is_some_and(|previous| *previous >= content) {
            return Err(CodecError::Malformed("order"));
        }
        held.push(content);
    }
    Ok(Batch::Page { at, index, held })
}

/// What a peer that asked for a log is sent.
pub fn encode_answer(author: PublicKey, batches: &[Batch]) -> Vec<u8> {
    let mut out = author.as_bytes().to_vec();
    for batch in batches {
        let body = encode(batch);
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(body);
    }
    out
}

/// Who is said to have made a part of a log, and the part. Says nothing of who has signed it.
pub fn decode_answer(bytes: &[u8]) -> Result<(PublicKey, Vec<Batch>), CodecError> {
    let mut input = Input(bytes);
    let author = PublicKey::new(input.array()?);
    let mut batches = Vec::new();
    while !input.0.is_empty() {
        if batches.len() >= ANSWER_STATEMENTS_MAX {
            return Err(CodecError::Malformed("count"));
        }
        let length = input.u32()? as usize;
        batches.push(decode(input.take(length)?)?);
    }
    Ok((author, batches))
}

/// The start of a log's file.
pub fn file_header(author: PublicKey) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.extend(author.as_bytes());
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
pub fn file(log: &Log) -> Vec<u8> {
    let mut out = file_header(log.author());
    for batch in log.snapshot() {
        out.extend(frame(&batch));
    }
    out
}

/// What a log's file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The log.
    pub log: Log,
    /// Bytes of the file that are whole; what is behind them is to be cut off before appending.
    pub valid: usize,
}

/// Reads a log's file, up to the first frame that is not whole. What it says was verified when it was written.
pub fn read_file(bytes: &[u8]) -> Result<Recovered, CodecError> {
    let mut input = Input(bytes);
    if input.take(MAGIC.len())? != MAGIC {
        return Err(CodecError::Malformed("magic"));
    }
    match input.u8()? {
        VERSION => {}
        version => return Err(CodecError::Version(version)),
    }
    let mut log = Log::new(PublicKey::new(input.array()?));
    let mut valid = bytes.len() - input.0.len();
    while let Some(body) = next_frame(&mut input) {
        if log.apply(decode(body)?)? == Applied::Gap {
            return Err(CodecError::Malformed("sequence"));
        }
        valid = bytes.len() - input.0.len();
    }
    Ok(Recovered { log, valid })
}

/// Any bytes as a batch, an answer and a log's file, for the fuzz target: what is taken is written back the same, and
/// what a file says can be written anew.
pub fn fuzz(bytes: &[u8]) {
    if let Ok((author, batches)) = decode_answer(bytes) {
        assert_eq!(encode_answer(author, &batches), bytes);
    }
    if let Ok(batch) = decode(bytes) {
        assert_eq!(encode(&batch), bytes);
        // the file's check sums are beyond a fuzzer: give it the frame
        let owner = PublicKey::new([1; PublicKey::LEN]);
        recover(&[file_header(owner), frame(&batch)].concat());
    }
    recover(bytes);
}

fn recover(bytes: &[u8]) {
    if let Ok(recovered) = read_file(bytes) {
        assert!(recovered.valid <= bytes.len());
        let again = read_file(&file(&recovered.log));
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

/// A number of items of some length, all of them still to come.
fn count(input: &mut Input<'_>, most: usize, item_bytes: usize) -> Result<usize, CodecError> {
    let count = input.u32()? as usize;
    if count > most || count > input.0.len() / item_bytes {
        return Err(CodecError::Malformed("count"));
    }
    Ok(count)
}
