//! The journal: operations acknowledged but not yet in a durable commit.
//!
//! `ROOT/journal` starts with [`MAGIC`]; then records, each its length (4 bytes, little-endian), the first 16
//! bytes of BLAKE3 of what follows, and that. A record is one `write`: it survives the end of this process at
//! once, and a power cut after [`Journal::file`] is synced. What is torn at the end was never acknowledged and
//! is cut off at the next start.

mod codec;
mod record;
#[cfg(test)]
mod tests;

pub(super) use record::{Edit, Record, StagedItem};

use super::FsError;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the file starts with: a name and the format's version (a draft).
const MAGIC: &[u8; 16] = b"delugefs-jrnl-02";

/// Bytes before a record.
const FRAME_BYTES: usize = 4 + CHECK_BYTES;
const CHECK_BYTES: usize = 16;

/// Most bytes in one record: a remote change that touches millions of entries stays below.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// Below this many bytes the journal is never rewritten: it takes a few hundred milliseconds to replay.
const REWRITE_BYTES_MIN: u64 = 8 << 20;

/// It is rewritten when it is so many times as long as after the last time: then most of it is dead.
const REWRITE_FACTOR: u64 = 4;

/// The open journal.
pub(super) struct Journal {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
    /// After the last rewriting.
    compact: u64,
    /// Of the last record.
    sequence: u64,
    /// A write failed and could not be undone: nothing more may be appended to this file.
    broken: bool,
}

impl Journal {
    /// Opens or creates it, and reads what it has. `sequence` is known to have been used.
    pub(super) fn open(root: &Path, sequence: u64) -> Result<(Self, Vec<Record>), FsError> {
        let path = root.join("journal");
        let _ = std::fs::remove_file(root.join("journal.new"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (records, length) = if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            file.set_len(0)?;
            file.write_all_at(MAGIC, 0)?;
            File::open(root)?.sync_all()?;
            (Vec::new(), MAGIC.len())
        } else {
            read_all(&bytes)?
        };
        file.set_len(length as u64)?;
        let last = records.iter().map(|record| record.sequence).max();
        let journal = Self {
            path,
            file: Arc::new(file),
            length: length as u64,
            compact: 0,
            sequence: sequence.max(last.unwrap_or(0)),
            broken: false,
        };
        Ok((journal, records))
    }

    /// Adds a record; answers its sequence. On an error it is as if nothing had been tried.
    pub(super) fn append(&mut self, mut record: Record) -> Result<u64, FsError> {
        if self.broken {
            return Err(FsError::Damaged("the journal cannot be written".into()));
        }
        record.sequence = self.sequence + 1;
        let bytes = frame(&record)?;
        if let Err(error) = self.file.write_all_at(&bytes, self.length) {
            self.broken = self.file.set_len(self.length).is_err();
            return Err(error.into());
        }
        self.length += bytes.len() as u64;
        self.sequence = record.sequence;
        Ok(self.sequence)
    }

    /// Of the last record.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Another file takes its place, such as one that fails.
    #[cfg(test)]
    pub(super) fn use_file(&mut self, file: File) {
        self.file = Arc::new(file);
    }

    /// Bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Syncing this makes all records up to now durable.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Most of it is dead.
    pub(super) fn wants_rewriting(&self) -> bool {
        self.broken || self.length > REWRITE_BYTES_MIN.max(self.compact * REWRITE_FACTOR)
    }

    /// What is in memory is not what the records say: a rewriting has to come before the next record.
    pub(super) fn rewrite_soon(&mut self) {
        self.broken = true;
    }

    /// Replaces everything by one record that says it all, durably.
    pub(super) fn rewrite(&mut self, mut record: Record) -> Result<(), FsError> {
        record.sequence = self.sequence + 1;
        let bytes = frame(&record)?;
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        file.write_all(MAGIC)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(&new, &self.path)?;
        if let Some(root) = self.path.parent() {
            File::open(root)?.sync_all()?;
        }
        self.file = Arc::new(file);
        self.length = (MAGIC.len() + bytes.len()) as u64;
        self.compact = self.length;
        self.sequence = record.sequence;
        self.broken = false;
        Ok(())
    }
}

fn frame(record: &Record) -> Result<Vec<u8>, FsError> {
    let payload = record.encode();
    if payload.len() > RECORD_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(&blake3::hash(&payload).as_bytes()[..CHECK_BYTES]);
    bytes.extend(payload);
    Ok(bytes)
}

/// All whole records, and where the last one ends. A crash tears the end; a record that is damaged with whole ones
/// behind it is the disk's fault: it is passed over, and what is behind it, which was acknowledged too, is kept.
fn read_all(bytes: &[u8]) -> Result<(Vec<Record>, usize), FsError> {
    if !bytes.starts_with(MAGIC) {
        return Err(FsError::Damaged("the journal is of another format".into()));
    }
    let mut records = Vec::new();
    let mut at = MAGIC.len();
    while at < bytes.len() {
        let Some(payload) = next_payload(&bytes[at..]) else {
            match behind_damaged(bytes, at) {
                Some(next) => {
                    tracing::error!(
                        "the journal's record at byte {at} is damaged: the change in it is lost"
                    );
                    at = next;
                    continue;
                }
                None => break,
            }
        };
        let record = Record::decode(payload)
            .map_err(|error| FsError::Damaged(format!("journal at byte {at}: {error}")))?;
        records.push(record);
        at += FRAME_BYTES + payload.len();
    }
    if at < bytes.len() {
        tracing::info!(bytes = bytes.len() - at, "cut off the journal's torn end");
    }
    Ok((records, at))
}

/// Any bytes as a journal, and as the payload of one record, for the fuzz target: what is read as a record
/// means the same when it is written. Tells whether it is also the same bytes.
pub(crate) fn fuzz(bytes: &[u8]) -> bool {
    let _ = read_all(bytes);
    let Ok(record) = Record::decode(bytes) else {
        return false;
    };
    let again = record.encode();
    assert_eq!(Record::decode(&again).ok().as_ref(), Some(&record));
    again == bytes
}

/// Where the record behind a damaged one begins, if that one is whole.
fn behind_damaged(bytes: &[u8], at: usize) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize;
    let next = at.checked_add(FRAME_BYTES)?.checked_add(length)?;
    next_payload(bytes.get(next..)?).map(|_| next)
}

fn next_payload(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (check, rest) = rest.split_first_chunk::<CHECK_BYTES>()?;
    let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
    (blake3::hash(payload).as_bytes()[..CHECK_BYTES] == check[..]).then_some(payload)
}
