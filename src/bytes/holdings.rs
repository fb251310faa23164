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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn own() -> IncarnationId {
        public(&key(1)).incarnation()
    }

    fn hash(byte: u8) -> InfoHash {
        InfoHash::new([byte; 20])
    }

    fn open(folder: &Path, number: u8) -> HoldingsFiles {
        HoldingsFiles::open(folder, key(number), 0).unwrap()
    }

    fn hold(files: &mut HoldingsFiles, byte: u8) {
        let records = [(Operation::Held, hash(byte))];
        files.push(records.into_iter()).unwrap();
    }

    fn take(to: &mut HoldingsFiles, answer: &[u8]) -> Result<Brought, HoldingsFileError> {
        let mut brought = Brought::default();
        to.apply(own(), answer, &mut brought)?;
        Ok(brought)
    }

    /// All that `from` says of the first's log, told to `to`.
    fn tell(from: &HoldingsFiles, to: &mut HoldingsFiles) -> Brought {
        let wanted = to.holdings().wanted(own());
        take(to, &from.answer(own(), &wanted).unwrap()).unwrap()
    }

    fn held_by_first(known: &HoldingsFiles) -> BTreeSet<InfoHash> {
        known.holdings().log(own()).unwrap().held().clone()
    }

    #[test]
    fn what_was_said_and_heard_is_known_after_a_restart() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut first = open(here.path(), 1);
        first.set_own(&[hash(1), hash(2)].into()).unwrap();
        let mut other = open(there.path(), 2);
        assert_eq!(tell(&first, &mut other).moved.len(), 2);
        first
            .push([(Operation::Dropped, hash(1))].into_iter())
            .unwrap();
        tell(&first, &mut other);
        for files in [open(here.path(), 1), open(there.path(), 2)] {
            assert!(files.holdings().holds(own(), &hash(2)));
            assert!(!files.holdings().holds(own(), &hash(1)));
        }
    }

    #[test]
    fn what_a_disk_has_not_signed_is_not_believed_of_it_whoever_brings_it() {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let mut first = open(folders[0].path(), 1);
        hold(&mut first, 1);
        let truth = first.answer(own(), &Wanted::default()).unwrap();
        let behind = Wanted {
            from: 1,
            page: None,
        };
        let record = first.answer(own(), &behind).unwrap();
        let mut other = open(folders[1].path(), 2);
        // each byte changed: the key, the position, the operation, the content, the signature
        for at in 0..record.len() {
            let mut lie = record.clone();
            lie[at] ^= 1;
            assert!(take(&mut other, &lie).is_err(), "byte {at}");
        }
        // signed well, by somebody else
        let mut liar = open(folders[2].path(), 3);
        hold(&mut liar, 2);
        let by = public(&key(3)).incarnation();
        let lie = liar.answer(by, &Wanted::default()).unwrap();
        let refused = take(&mut other, &lie);
        assert!(matches!(refused, Err(HoldingsFileError::Forged)));
        assert_eq!(other.holdings().positions().len(), 0, "no log was begun");
        assert!(take(&mut other, &truth).unwrap().progressed);
        assert!(other.holdings().holds(own(), &hash(1)));
    }

    #[test]
    fn an_old_truth_told_again_changes_nothing() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut first = open(here.path(), 1);
        hold(&mut first, 1);
        let old = first.answer(own(), &Wanted::default()).unwrap();
        first
            .push([(Operation::Dropped, hash(1))].into_iter())
            .unwrap();
        let mut other = open(there.path(), 2);
        tell(&first, &mut other);
        let brought = take(&mut other, &old).unwrap();
        assert!(!brought.progressed && brought.moved.is_empty());
        assert!(!other.holdings().holds(own(), &hash(1)));
    }

    #[test]
    fn a_restored_disk_goes_on_behind_what_others_prove_that_it_has_said() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut first = open(folders[0].path(), 1);
        hold(&mut first, 1);
        let backup = std::fs::read(first.path(own())).unwrap();
        hold(&mut first, 2);
        hold(&mut first, 3);
        let mut other = open(folders[1].path(), 2);
        tell(&first, &mut other);
        std::fs::write(first.path(own()), backup).unwrap();
        let mut first = open(folders[0].path(), 1);
        let ahead = tell(&other, &mut first).ahead;
        assert_eq!(ahead, Some(4));
        assert!(
            !first.holdings().holds(own(), &hash(3)),
            "it does not have it"
        );
        assert!(first.leap(4).unwrap() && !first.leap(4).unwrap());
        hold(&mut first, 4);
        drop(first);
        let first = open(folders[0].path(), 1);
        assert_eq!(first.holdings().positions()[&own()], 6);
        while tell(&first, &mut other).progressed {}
        assert_eq!(held_by_first(&other), [hash(1), hash(4)].into());
    }

    #[test]
    fn what_a_disk_said_before_it_was_restored_is_not_mixed_with_what_it_says_since() {
        for (before, since) in [(1000, 2000), (2000, 1000)] {
            let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
            let mut first = open(folders[0].path(), 1);
            hold(&mut first, 1);
            let path = first.path(own());
            let backup = std::fs::read(&path).unwrap();
            let live = |random| HoldingsFiles::open(folders[0].path(), key(1), random).unwrap();
            let mut first = live(before);
            (2..4).for_each(|byte| hold(&mut first, byte));
            let mut other = open(folders[1].path(), 2);
            while tell(&first, &mut other).progressed {}
            std::fs::write(path, backup).unwrap();
            let mut first = live(since);
            (4..9).for_each(|byte| hold(&mut first, byte));
            // each asks the other, as nodes do with whoever is further
            if let Some(heard) = tell(&other, &mut first).ahead {
                assert!(first.leap(heard).unwrap());
            }
            while tell(&first, &mut other).progressed {}
            assert_eq!(held_by_first(&other), held_by_first(&first));
            assert_eq!(held_by_first(&first).len(), 6);
        }
    }

    #[test]
    fn a_torn_file_is_cut_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = open(folder.path(), 1);
        hold(&mut files, 1);
        hold(&mut files, 2);
        let path = files.path(own());
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut files = open(folder.path(), 1);
        assert_eq!(
            files.set_own(&[hash(1), hash(2)].into()).unwrap(),
            [hash(2)]
        );
        let files = open(folder.path(), 1);
        assert!(files.holdings().holds(own(), &hash(1)) && files.holdings().holds(own(), &hash(2)));
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(format!("{}.log", own()));
        std::fs::write(&log, b"nonsense").unwrap();
        let mut files = open(folder.path(), 1);
        hold(&mut files, 1);
        assert!(log.with_extension("damaged").exists());
        assert!(open(folder.path(), 1).holdings().holds(own(), &hash(1)));
    }

    #[test]
    fn a_file_stays_small_whatever_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = open(folder.path(), 1);
        for round in 0..20_000_u32 {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&round.to_be_bytes());
            let content = InfoHash::new(bytes);
            let records = [(Operation::Held, content)];
            let frames = files
                .say(|log| {
                    log.records(&records.map(|(operation, content)| Record { operation, content }))
                })
                .unwrap();
            files.append(own(), &frames).unwrap();
            let frames = files
                .say(|log| {
                    log.records(&[Record {
                        operation: Operation::Dropped,
                        content,
                    }])
                })
                .unwrap();
            files.append(own(), &frames).unwrap();
            let frames = files.say(Log::due_checkpoint).unwrap();
            files.append(own(), &frames).unwrap();
        }
        let bytes = files.path(own()).metadata().unwrap().len();
        assert!(bytes < 2 * REWRITE_BYTES_MIN, "{bytes}");
    }
}
