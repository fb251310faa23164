//! Who holds what, on disk: one file for each incarnation's log in `ROOT/holdings`.
//!
//! Every batch is appended as it is applied. Our own log is signed, and synced before its new position is told. Of others'
//! logs is taken only what their authors have signed, whoever brings it; they can be asked for again. A file that is
//! damaged is set aside: its log is learned again from the others, our own is written anew from what is in the content
//! store.

use crate::durable;
use crate::link::keys::verify;
use delugefs_core::holdings::codec::{self, Recovered};
use delugefs_core::holdings::{
    Applied, BATCH_RECORDS_MAX, Batch, Holdings, HoldingsError, Log, Operation, Record,
    SKIPPED_MAX, Signature, Signed, Statement, Wanted,
};
use delugefs_core::ids::{IncarnationId, InfoHash, PublicKey};
use ed25519_dalek::{Signer as _, SigningKey};
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
    /// Something that the log's author has not signed.
    #[error("they are forged: the disk has not signed them")]
    Forged,
}

/// What an answer with a part of a log has brought.
#[derive(Debug, Default)]
pub struct Brought {
    /// These contents have one holder more or fewer.
    pub moved: BTreeSet<InfoHash>,
    /// Whether it brought anything.
    pub progressed: bool,
    /// Proof that this disk has said more than it knows of: up to this position.
    pub ahead: Option<u64>,
}

/// All logs, in memory and on disk.
pub struct HoldingsFiles {
    folder: PathBuf,
    key: SigningKey,
    own: IncarnationId,
    /// How many positions this process passes over where it goes on with its log.
    skipped: u64,
    has_begun: bool,
    holdings: Holdings,
    files: BTreeMap<IncarnationId, OpenFile>,
}

struct OpenFile {
    file: File,
    bytes: u64,
}

impl HoldingsFiles {
    /// Reads all logs in a folder, which is made if it is missing. Our own is signed with `key`, and goes on at a position
    /// of this process's own, which `random` decides.
    pub fn open(folder: &Path, key: SigningKey, random: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut files = Self {
            folder: folder.to_owned(),
            own: public(&key).incarnation(),
            key,
            skipped: random % SKIPPED_MAX,
            has_begun: false,
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
            Ok(recovered) if self.path(recovered.log.author().incarnation()) == path => {
                self.take(path, recovered)
            }
            Ok(_) => Self::set_aside(path, "it has another incarnation's name"),
            Err(error) => Self::set_aside(path, &error.to_string()),
        }
    }

    fn take(&mut self, path: &Path, recovered: Recovered) -> io::Result<()> {
        let file = File::options().append(true).open(path)?;
        file.set_len(recovered.valid as u64)?;
        if let Err(error) = self.holdings.insert(recovered.log) {
            tracing::warn!("{} is passed over: {error}", path.display());
        }
        Ok(())
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
        let records: Vec<_> = records
            .map(|(operation, content)| Record { operation, content })
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        let mut frames = Vec::new();
        if !self.has_begun {
            let skipped = self.skipped;
            frames.extend(self.say(|log| log.begin(skipped))?);
            self.has_begun = true;
        }
        for some in records.chunks(BATCH_RECORDS_MAX) {
            frames.extend(self.say(|log| log.records(some))?);
            frames.extend(self.say(Log::due_checkpoint)?);
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

    /// Signs what there is to say next of this disk, if anything, and takes it. What is to be written down.
    fn say(
        &mut self,
        next: impl FnOnce(&Log) -> Option<Statement>,
    ) -> Result<Vec<u8>, HoldingsFileError> {
        let author = public(&self.key);
        let said = match self.holdings.log(self.own) {
            Some(log) => next(log),
            None => next(&Log::new(author)),
        };
        let Some(statement) = said else {
            return Ok(Vec::new());
        };
        let signature = self.key.sign(&codec::signed_text(&statement));
        let batch = Batch::Signed(Signed {
            statement,
            signature: Signature(signature.to_bytes()),
        });
        let frame = codec::frame(&batch);
        self.holdings.apply(author, batch)?;
        Ok(frame)
    }

    /// Lets our own log go on behind what others have proved to have heard of it. Answers whether it had to.
    pub fn leap(&mut self, heard: u64) -> Result<bool, HoldingsFileError> {
        let skipped = self.skipped;
        let leaps = !self.say(|log| log.leap(heard, skipped))?.is_empty();
        if leaps {
            self.has_begun = true;
            self.rewrite(self.own)?;
        }
        Ok(leaps)
    }

    /// Makes room for a log that is not here yet, if there is none: logs of incarnations that are nobody's any more go.
    pub fn make_room(&mut self, known: impl Fn(&IncarnationId) -> bool) {
        if !self.holdings.is_full() {
            return;
        }
        let own = self.own;
        for gone in self.holdings.retain(|one| *one == own || known(one)) {
            self.files.remove(&gone);
            if let Err(error) = std::fs::remove_file(self.path(gone)) {
                tracing::debug!("the log of {gone} comes back at the next start: {error}");
            }
        }
    }

    /// Takes an answer with a part of a log, as far as it is news and its author has signed it.
    pub fn apply(
        &mut self,
        incarnation: IncarnationId,
        answer: &[u8],
        brought: &mut Brought,
    ) -> Result<(), HoldingsFileError> {
        let (author, batches) = codec::decode_answer(answer)?;
        if author.incarnation() != incarnation {
            return Err(HoldingsFileError::Forged);
        }
        for batch in batches {
            let is_news = match self.holdings.log(incarnation) {
                Some(log) => log.is_news(&batch),
                None => matches!(batch, Batch::Signed(_)),
            };
            if is_news && !is_genuine(author, &batch) {
                return Err(HoldingsFileError::Forged);
            }
            if is_news && incarnation == self.own {
                brought.ahead = brought.ahead.max(end(&batch));
            } else if is_news {
                self.take_news(author, batch, brought)?;
            }
        }
        Ok(())
    }

    fn take_news(
        &mut self,
        author: PublicKey,
        batch: Batch,
        brought: &mut Brought,
    ) -> Result<(), HoldingsFileError> {
        let frame = codec::frame(&batch);
        let applied = self.holdings.apply(author, batch)?;
        brought.progressed |= applied.is_progress();
        if applied.is_kept() {
            self.append(author.incarnation(), &frame)?;
        }
        if let Applied::Moved(changed) = applied {
            brought.moved.extend(changed);
        }
        Ok(())
    }

    /// The answer to who asks for a log.
    pub fn answer(&self, incarnation: IncarnationId, wanted: &Wanted) -> Option<Vec<u8>> {
        let log = self.holdings.log(incarnation)?;
        Some(codec::encode_answer(log.author(), &log.answer(wanted)))
    }

    fn append(
        &mut self,
        incarnation: IncarnationId,
        frames: &[u8],
    ) -> Result<(), HoldingsFileError> {
        let path = self.path(incarnation);
        let failed = |source| HoldingsFileError::Io { path, source };
        let contents = self
            .holdings
            .log(incarnation)
            .map_or(0, |log| log.contents() as u64);
        let open = self.open_file(incarnation)?;
        let appended = open.file.write_all(frames);
        open.bytes += frames.len() as u64;
        let bytes = open.bytes;
        appended.map_err(failed)?;
        if bytes > REWRITE_BYTES_MIN && bytes > 4 * CONTENT_BYTES * contents {
            self.rewrite(incarnation)?;
        }
        Ok(())
    }

    fn rewrite(&mut self, incarnation: IncarnationId) -> Result<(), HoldingsFileError> {
        let path = self.path(incarnation);
        let Some(log) = self.holdings.log(incarnation) else {
            return Ok(());
        };
        let text = codec::file(log);
        self.files.remove(&incarnation);
        let replaced = durable::replace(&path, &text).and_then(|()| durable::sync_name(&path));
        replaced.map_err(|source| HoldingsFileError::Io { path, source })
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
            let author = self.holdings.log(incarnation).map(Log::author);
            let opened = author
                .ok_or_else(|| io::ErrorKind::NotFound.into())
                .and_then(|author| open_for_append(&path, author));
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

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::new(key.verifying_key().to_bytes())
}

/// Whether an author has signed it; what is not signed proves itself.
fn is_genuine(author: PublicKey, batch: &Batch) -> bool {
    match batch {
        Batch::Signed(signed) => {
            let text = codec::signed_text(&signed.statement);
            verify(author.as_bytes(), &text, &signed.signature.0)
        }
        Batch::Page { .. } => true,
    }
}

fn end(batch: &Batch) -> Option<u64> {
    match batch {
        Batch::Signed(signed) => signed.statement.end().ok(),
        Batch::Page { .. } => None,
    }
}

/// A new log's name is durable before anything is said in it: a power cut that took it would let this disk say other
/// things under numbers that others have heard.
fn open_for_append(path: &Path, author: PublicKey) -> io::Result<OpenFile> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let mut bytes = file.metadata()?.len();
    if bytes == 0 {
        let header = codec::file_header(author);
        file.write_all(&header)?;
        durable::sync_name(path)?;
        bytes = header.len() as u64;
    }
    Ok(OpenFile { file, bytes })
}

#[cfg(test)]
mod tests;
