//! Who holds what, on disk: one file for each incarnation's log in `ROOT/holdings`.
//!
//! Every batch is appended as it is applied. Our own log is synced before its new position is told; the logs of
//! others can be asked for again. A file that is damaged is set aside: its log is learned again from the others, our
//! own is written anew from what is in the content store.

use crate::durable;
use delugefs_core::holdings::codec::{self, Recovered};
use delugefs_core::holdings::{
    Applied, Batch, Holdings, HoldingsError, Log, Operation, Record, Wanted,
};
use delugefs_core::ids::{IncarnationId, InfoHash};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A log's file is written anew when it is larger than this and four times what it needs to be.
const REWRITE_BYTES_MIN: u64 = 1 << 20;

/// Bytes that a content takes in a file that was just written anew.
const CONTENT_BYTES: u64 = InfoHash::LEN as u64;

/// Files open for appending at once; more are opened as they are needed.
const OPEN_FILES_MAX: usize = 64;

/// Why a log could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum HoldingsFileError {
    /// The disk said no.
    #[error("cannot write what disks hold to {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A log breaks its limits.
    #[error(transparent)]
    Refused(#[from] HoldingsError),
    /// Bytes that are no batch.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
}

/// All logs, in memory and on disk.
pub struct HoldingsFiles {
    folder: PathBuf,
    own: IncarnationId,
    holdings: Holdings,
    files: BTreeMap<IncarnationId, OpenFile>,
}

struct OpenFile {
    file: File,
    bytes: u64,
}

impl HoldingsFiles {
    /// Reads all logs in a folder, which is made if it is missing.
    pub fn open(folder: &Path, own: IncarnationId) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut files = Self {
            folder: folder.to_owned(),
            own,
            holdings: Holdings::new(),
            files: BTreeMap::new(),
        };
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                files.load(&path)?;
            }
        }
        Ok(files)
    }

    fn load(&mut self, path: &Path) -> io::Result<()> {
        let bytes = std::fs::read(path)?;
        match codec::read_file(&bytes) {
            Ok(recovered) if self.path(recovered.incarnation) == path => self.take(path, recovered),
            Ok(_) => Self::set_aside(path, "it has another incarnation's name"),
            Err(error) => Self::set_aside(path, &error.to_string()),
        }
    }

    fn take(&mut self, path: &Path, recovered: Recovered) -> io::Result<()> {
        let file = File::options().append(true).open(path)?;
        file.set_len(recovered.valid as u64)?;
        let inserted = self.holdings.insert(recovered.incarnation, recovered.log);
        inserted.map_err(io::Error::other)
    }

    fn set_aside(path: &Path, why: &str) -> io::Result<()> {
        tracing::warn!(
            "{} is damaged ({why}); what it says will be learned anew",
            path.display()
        );
        std::fs::rename(path, path.with_extension("damaged"))
    }

    fn path(&self, incarnation: IncarnationId) -> PathBuf {
        self.folder.join(format!("{incarnation}.log"))
    }

    /// The logs.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Makes our own log say what is true, and makes that durable. Answers what had changed.
    pub fn set_own(
        &mut self,
        held: &BTreeSet<InfoHash>,
    ) -> Result<Vec<InfoHash>, HoldingsFileError> {
        let said = self
            .holdings
            .log(self.own)
            .map(Log::held)
            .cloned()
            .unwrap_or_default();
        let gained = held
            .difference(&said)
            .map(|content| (Operation::Held, *content));
        let lost = said
            .difference(held)
            .map(|content| (Operation::Dropped, *content));
        let records: Vec<_> = gained.chain(lost).collect();
        let changed = records.iter().map(|(_, content)| *content).collect();
        self.push(records.into_iter())?;
        Ok(changed)
    }

    /// Appends to our own log and makes that durable.
    pub fn push(
        &mut self,
        records: impl Iterator<Item = (Operation, InfoHash)>,
    ) -> Result<(), HoldingsFileError> {
        let mut frames = Vec::new();
        for (operation, content) in records {
            let record = Record { operation, content };
            if let Some(batch) = self.holdings.push(self.own, record)? {
                frames.extend(codec::frame(&batch));
            }
        }
        if frames.is_empty() {
            return Ok(());
        }
        self.append(self.own, &frames)?;
        let path = self.path(self.own);
        let file = self.open_file(self.own)?;
        file.file
            .sync_data()
            .map_err(|source| HoldingsFileError::Io { path, source })
    }

    /// Lets our own log go on behind what others have heard of it. Answers whether it had to.
    pub fn leap(&mut self, heard: u64) -> Result<bool, HoldingsFileError> {
        let leaps = self.holdings.leap(self.own, heard)?;
        if leaps {
            self.rewrite(self.own)?;
        }
        Ok(leaps)
    }

    /// Takes a batch of another incarnation's log.
    pub fn apply(
        &mut self,
        incarnation: IncarnationId,
        bytes: &[u8],
    ) -> Result<Applied, HoldingsFileError> {
        if incarnation == self.own {
            return Ok(Applied::Known);
        }
        let batch = codec::decode(bytes)?;
        let applied = self.holdings.apply(incarnation, &batch)?;
        if matches!(applied, Applied::Moved(_) | Applied::Collected) {
            self.append(incarnation, &codec::frame(&batch))?;
        }
        Ok(applied)
    }

    /// The answer to who asks for a log.
    pub fn batch(&self, incarnation: IncarnationId, wanted: &Wanted) -> Option<Batch> {
        self.holdings.batch(incarnation, wanted)
    }

    fn append(
        &mut self,
        incarnation: IncarnationId,
        frames: &[u8],
    ) -> Result<(), HoldingsFileError> {
        let path = self.path(incarnation);
        let failed = |source| HoldingsFileError::Io { path, source };
        let held = self
            .holdings
            .log(incarnation)
            .map_or(0, |log| log.held().len() as u64);
        let open = self.open_file(incarnation)?;
        let appended = open.file.write_all(frames);
        open.bytes += frames.len() as u64;
        let bytes = open.bytes;
        appended.map_err(failed)?;
        if bytes > REWRITE_BYTES_MIN && bytes > 4 * CONTENT_BYTES * held {
            self.rewrite(incarnation)?;
        }
        Ok(())
    }

    fn rewrite(&mut self, incarnation: IncarnationId) -> Result<(), HoldingsFileError> {
        let path = self.path(incarnation);
        let Some(log) = self.holdings.log(incarnation) else {
            return Ok(());
        };
        let text = codec::file(incarnation, log);
        self.files.remove(&incarnation);
        durable::replace(&path, &text).map_err(|source| HoldingsFileError::Io { path, source })
    }

    fn open_file(
        &mut self,
        incarnation: IncarnationId,
    ) -> Result<&mut OpenFile, HoldingsFileError> {
        let path = self.path(incarnation);
        if !self.files.contains_key(&incarnation) {
            if self.files.len() >= OPEN_FILES_MAX {
                self.files.clear();
            }
            let opened = open_for_append(&path, incarnation);
            let open = opened.map_err(|source| HoldingsFileError::Io {
                path: path.clone(),
                source,
            })?;
            self.files.insert(incarnation, open);
        }
        let closed = || HoldingsFileError::Io {
            path,
            source: io::ErrorKind::NotFound.into(),
        };
        self.files.get_mut(&incarnation).ok_or_else(closed)
    }
}

fn open_for_append(path: &Path, incarnation: IncarnationId) -> io::Result<OpenFile> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let mut bytes = file.metadata()?.len();
    if bytes == 0 {
        let header = codec::file_header(incarnation);
        file.write_all(&header)?;
        bytes = header.len() as u64;
    }
    Ok(OpenFile { file, bytes })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OWN: IncarnationId = IncarnationId::new([1; 16]);
    const OTHER: IncarnationId = IncarnationId::new([2; 16]);

    fn hash(byte: u8) -> InfoHash {
        InfoHash::new([byte; 20])
    }

    fn open(folder: &Path, own: IncarnationId) -> HoldingsFiles {
        HoldingsFiles::open(folder, own).unwrap()
    }

    /// All that `from` says of its own log, told to `to`.
    fn tell(from: &HoldingsFiles, own: IncarnationId, to: &mut HoldingsFiles) {
        let wanted = to.holdings().wanted(own);
        let batch = from.batch(own, &wanted).unwrap();
        to.apply(own, &codec::encode(&batch)).unwrap();
    }

    #[test]
    fn what_was_said_and_heard_is_known_after_a_restart() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut own = open(here.path(), OWN);
        own.set_own(&[hash(1), hash(2)].into()).unwrap();
        let mut other = open(there.path(), OTHER);
        tell(&own, OWN, &mut other);
        own.push([(Operation::Dropped, hash(1))].into_iter())
            .unwrap();
        tell(&own, OWN, &mut other);
        for files in [open(here.path(), OWN), open(there.path(), OTHER)] {
            assert!(files.holdings().holds(OWN, &hash(2)));
            assert!(!files.holdings().holds(OWN, &hash(1)));
        }
    }

    #[test]
    fn a_log_that_others_know_more_of_goes_on_behind_that() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = open(folder.path(), OWN);
        files
            .push([(Operation::Held, hash(1))].into_iter())
            .unwrap();
        assert!(files.leap(40).unwrap());
        files
            .push([(Operation::Held, hash(2))].into_iter())
            .unwrap();
        drop(files);
        let files = open(folder.path(), OWN);
        assert_eq!(files.holdings().positions()[&OWN], 42);
        assert!(files.holdings().holds(OWN, &hash(1)) && files.holdings().holds(OWN, &hash(2)));
    }

    #[test]
    fn a_torn_file_is_cut_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = open(folder.path(), OWN);
        files
            .push([(Operation::Held, hash(1))].into_iter())
            .unwrap();
        files
            .push([(Operation::Held, hash(2))].into_iter())
            .unwrap();
        let path = files.path(OWN);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut files = open(folder.path(), OWN);
        assert_eq!(
            files.set_own(&[hash(1), hash(2)].into()).unwrap(),
            [hash(2)]
        );
        let files = open(folder.path(), OWN);
        assert!(files.holdings().holds(OWN, &hash(1)) && files.holdings().holds(OWN, &hash(2)));
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(format!("{OWN}.log")), b"nonsense").unwrap();
        let mut files = open(folder.path(), OWN);
        files
            .push([(Operation::Held, hash(1))].into_iter())
            .unwrap();
        assert!(folder.path().join(format!("{OWN}.damaged")).exists());
        assert!(open(folder.path(), OWN).holdings().holds(OWN, &hash(1)));
    }
}
