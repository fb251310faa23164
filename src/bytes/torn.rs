//! What a power cut may have torn: files that have their place and length, but not all their bytes.
//!
//! Contents are synced in groups, and the own holdings log names them only then. So after a power cut a complete file
//! that the log does not name is in doubt: it is read whole before it is shown, served or told of. `ROOT/boot` says
//! under which boot of the machine the rest was last found sound. It is written after all is checked, so a start that
//! is cut off checks again; a root without it is in doubt. So is a disk that could not be synced at the start.

use super::replica::Replica;
use crate::cli::units::show_size;
use crate::durable;
use crate::sync_ext::lock;
use delugefs_core::holdings::Operation;
use delugefs_core::ids::InfoHash;
use delugefs_torrent::metainfo::Info;
use delugefs_torrent::store::{StoreError, Synced};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One running of the machine; `None` where the kernel does not tell, which is never the same one.
pub type Boot = Option<[u8; 16]>;

/// The boot under which a root was last found sound.
pub(super) struct BootFile {
    path: PathBuf,
    now: Boot,
}

impl BootFile {
    pub(super) fn new(root: &Path, now: Boot) -> Self {
        let path = root.join("boot");
        Self { path, now }
    }

    /// Whether the power may have failed since.
    pub(super) fn differs(&self) -> io::Result<bool> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(self.now.is_none_or(|now| bytes != line(now))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Nothing is known to be sound, whatever the boot: a start that is cut off leaves the doubt.
    pub(super) fn forget(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Says durably that the root is sound under this boot.
    fn store(&self) -> io::Result<()> {
        let Some(now) = self.now else { return Ok(()) };
        durable::replace(&self.path, &line(now))?;
        durable::sync_name(&self.path)
    }
}

/// The version, and the boot in hexadecimal.
fn line(boot: [u8; 16]) -> Vec<u8> {
    format!("1 {:032x}\n", u128::from_be_bytes(boot)).into_bytes()
}

/// What reading contents again has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Contents that are right.
    pub whole: usize,
    /// Contents that are not.
    pub damaged: usize,
    /// Bytes that were read.
    pub bytes: u64,
}

/// The owner hears so often how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// How far it is, in bytes.
struct Progress {
    done: u64,
    all: u64,
    told: Instant,
}

impl Progress {
    fn of(all: u64) -> Self {
        let told = Instant::now();
        Self { done: 0, all, told }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let (done, all) = (show_size(self.done), show_size(self.all));
            tracing::info!(
                "what was not known to be safe when this disk was last used is read again: {done} of {all}"
            );
        }
    }
}

/// Raw `info` dictionaries of contents whose names are in no commit yet.
pub type Infos = BTreeMap<InfoHash, Vec<u8>>;

/// What the journal says of a content, if that is true.
fn journaled(content: &InfoHash, infos: &Infos) -> Option<Info> {
    let info = Info::parse(infos.get(content)?).ok()?;
    (info.info_hash() == *content).then_some(info)
}

impl Replica {
    /// Reads the contents that a power cut may have torn, and tells of those that are whole. Of a damaged one the good
    /// pieces stay where a descriptor names it, or the journal does, whose `infos` are given; it is then fetched like any
    /// damaged content. To be called after [`Replica::learn`] and before anything is shown. Fails where the disk gives
    /// no answer: what is not known to be right is not shown. Blocks, for as long as reading them takes.
    pub fn check_torn(&self, infos: &Infos, now: u64) -> io::Result<Checked> {
        let doubtful = std::mem::take(&mut *lock(&self.doubtful));
        let lengths = doubtful.iter().filter_map(|one| self.store.length(one));
        let mut progress = Progress::of(lengths.sum());
        let (mut whole, mut damaged) = (Vec::new(), 0);
        for content in doubtful {
            let is_whole = self.is_whole(&content, infos, now, &mut progress);
            match is_whole.map_err(io::Error::other)? {
                true => whole.push(content),
                false => damaged += 1,
            }
        }
        let checked = Checked {
            whole: whole.len(),
            damaged,
            bytes: progress.done,
        };
        self.declare_whole(whole)?;
        Ok(checked)
    }

    /// Makes complete contents survive a power cut. Where that fails, the next start reads what was not told of, also
    /// under this boot; where the disk refuses even to take note of that, only after the next power cut. Blocks.
    pub fn sync(&self) -> Synced {
        let synced = self.store.sync();
        if !synced.failed.is_empty()
            && let Err(error) = self.boot.forget()
        {
            tracing::error!("cannot note that contents are to be read at the next start: {error}");
        }
        synced
    }

    /// Tells of what was found whole, and that all is sound.
    fn declare_whole(&self, mut whole: Vec<InfoHash>) -> io::Result<()> {
        // all are, but where the sync of the whole disk has failed
        let synced = self.sync();
        whole.retain(|content| self.store.is_durable(content));
        if !whole.is_empty() {
            self.declare_now(&whole)?;
        }
        match synced.failed.is_empty() {
            true => self.boot.store(),
            false => Ok(()),
        }
    }

    fn declare_now(&self, whole: &[InfoHash]) -> io::Result<()> {
        let records = whole.iter().map(|content| (Operation::Held, *content));
        let pushed = lock(&self.holdings).push(records);
        pushed.map_err(io::Error::other)
    }

    /// Whether its bytes are right; afterwards it is not complete if they are not.
    fn is_whole(
        &self,
        content: &InfoHash,
        infos: &Infos,
        now: u64,
        progress: &mut Progress,
    ) -> Result<bool, StoreError> {
        let committed = self.info(content).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        });
        if let Some(info) = committed.or_else(|| journaled(content, infos)) {
            return self.is_whole_by(&info, now, progress);
        }
        progress.add(self.store.length(content).unwrap_or(0));
        self.is_whole_by_itself(content)
    }

    fn is_whole_by(
        &self,
        info: &Info,
        now: u64,
        progress: &mut Progress,
    ) -> Result<bool, StoreError> {
        let mut check = self.store.check(info, None)?;
        while let Some(bytes) = check.step()? {
            progress.add(bytes);
        }
        let checked = check.end();
        if checked.is_good() {
            return Ok(true);
        }
        self.store.set_back(info, &checked)?;
        let bad = (checked.bad.len() as u32).max(1);
        self.scrub.found(info.info_hash(), bad, now);
        Ok(false)
    }

    /// Nothing says what its pieces are: only the whole can be compared, with the info-hash. Such a content was never
    /// told of, so no other disk can mend it.
    fn is_whole_by_itself(&self, content: &InfoHash) -> Result<bool, StoreError> {
        if self.store.is_named_right(content)? {
            return Ok(true);
        }
        tracing::error!(
            "the power cut has damaged the content {content}, which has no name; it is removed"
        );
        self.store.remove(content)?;
        Ok(false)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use delugefs_core::ids::VolumeId;
    use delugefs_core::settings::Settings;
    use delugefs_metadata_repo::Repository;
    use delugefs_torrent::store::{ContentStore, Disk, State};
    use std::fs::File;
    use std::sync::Arc;

    const BEFORE: Boot = Some([1; 16]);
    const AFTER: Boot = Some([2; 16]);

    fn open(root: &Path, boot: Boot) -> Replica {
        open_on(root, ContentStore::open(root).unwrap(), boot)
    }

    fn open_on(root: &Path, store: ContentStore, boot: Boot) -> Replica {
        let names = root.join("metadata.git");
        let settings = Settings::new(VolumeId::new([1; 16]), "test".to_owned());
        let repository = if names.exists() {
            Repository::open(&names).unwrap()
        } else {
            Repository::create(&names, &settings).unwrap()
        };
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        Replica::open(root, store, repository, key, (boot, 0)).unwrap()
    }

    fn seal(root: &Path, replica: &Replica, bytes: &[u8]) -> InfoHash {
        let staged = root.join("new");
        std::fs::write(&staged, bytes).unwrap();
        replica.store.seal(&staged).unwrap().info_hash()
    }

    /// Right length, and a block of zeros in the middle.
    fn tear(replica: &Replica, content: &InfoHash) {
        let path = replica.store.path(content);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096..8192].fill(0);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }

    /// Two contents, one of them torn, and neither told of.
    fn cut(root: &Path) -> (InfoHash, InfoHash) {
        let replica = open(root, BEFORE);
        replica.check_torn(&Infos::new(), 1).unwrap();
        let whole = seal(root, &replica, &[7; 10_000]);
        let torn = seal(root, &replica, &[8; 10_000]);
        tear(&replica, &torn);
        (whole, torn)
    }

    #[test]
    fn after_a_power_cut_what_was_not_told_of_is_read_before_it_is_told() {
        let root = tempfile::tempdir().unwrap();
        let (whole, torn) = cut(root.path());
        let replica = open(root.path(), AFTER);
        assert_eq!(replica.held(), 0, "not before it is checked");
        replica.check_torn(&Infos::new(), 1).unwrap();
        assert!(replica.claims(&whole));
        assert!(!replica.claims(&torn));
        assert_eq!(replica.store.state(&torn), State::Absent);
    }

    #[test]
    fn a_torn_content_that_only_the_journal_names_keeps_its_good_pieces() {
        let root = tempfile::tempdir().unwrap();
        let replica = open(root.path(), BEFORE);
        replica.check_torn(&Infos::new(), 1).unwrap();
        let staged = root.path().join("new");
        std::fs::write(&staged, vec![7; 100_000]).unwrap();
        let info = replica.store.seal(&staged).unwrap();
        let content = info.info_hash();
        tear(&replica, &content);
        let infos = Infos::from([(content, info.encode())]);
        let replica = open(root.path(), AFTER);
        replica.check_torn(&infos, 1).unwrap();
        assert!(!replica.claims(&content));
        let partial = replica.store.resume(&content).unwrap().unwrap();
        assert_eq!([0, 1].map(|piece| partial.have(piece)), [false, true]);
        let damaged = replica.scrub.with(|scrub| scrub.damaged()[&content].pieces);
        assert_eq!(damaged, 1);
    }

    #[test]
    fn a_start_that_is_cut_off_leaves_the_doubt() {
        let root = tempfile::tempdir().unwrap();
        let (_, torn) = cut(root.path());
        drop(open(root.path(), AFTER));
        let replica = open(root.path(), AFTER);
        replica.check_torn(&Infos::new(), 1).unwrap();
        assert!(!replica.claims(&torn));
    }

    /// Syncs of everything fail, as those of a dying disk do.
    #[derive(Debug)]
    struct Unsyncable;

    impl Disk for Unsyncable {
        fn sync_filesystem(&self, _: &Path) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(5))
        }
    }

    #[test]
    fn what_could_not_be_synced_at_the_start_is_read_before_it_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        let (whole, torn) = cut(root.path());
        let store = || ContentStore::open_on(root.path(), Arc::new(Unsyncable)).unwrap();
        let replica = open_on(root.path(), store(), BEFORE);
        assert_eq!(replica.held(), 0);
        drop(replica);
        assert_eq!(open(root.path(), BEFORE).held(), 0, "the start was cut off");
        let replica = open_on(root.path(), store(), BEFORE);
        replica.check_torn(&Infos::new(), 1).unwrap();
        assert!(replica.claims(&whole) && !replica.claims(&torn));
        assert_eq!(open(root.path(), BEFORE).held(), 1);
    }

    /// Each sync of a content fails.
    #[derive(Debug)]
    struct Forgetful;

    impl Disk for Forgetful {
        fn sync_data(&self, _: &File) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(5))
        }
    }

    #[test]
    fn after_a_sync_that_failed_the_next_start_reads_under_the_same_boot() {
        let root = tempfile::tempdir().unwrap();
        open(root.path(), BEFORE)
            .check_torn(&Infos::new(), 1)
            .unwrap();
        let store = ContentStore::open_on(root.path(), Arc::new(Forgetful)).unwrap();
        let replica = open_on(root.path(), store, BEFORE);
        let torn = seal(root.path(), &replica, &[8; 10_000]);
        assert_eq!(replica.sync().failed.len(), 1);
        tear(&replica, &torn);
        let replica = open(root.path(), BEFORE);
        replica.check_torn(&Infos::new(), 1).unwrap();
        assert!(!replica.claims(&torn));
    }

    #[test]
    fn under_the_same_boot_nothing_is_read() {
        let root = tempfile::tempdir().unwrap();
        let (whole, torn) = cut(root.path());
        let replica = open(root.path(), BEFORE);
        assert!(replica.claims(&whole) && replica.claims(&torn));
    }

    #[test]
    fn golden() {
        let expected = b"1 02020202020202020202020202020202\n";
        assert_eq!(line([2; 16]), expected);
    }

    #[test]
    fn an_unknown_boot_is_another_one() {
        let root = tempfile::tempdir().unwrap();
        let (_, torn) = cut(root.path());
        let replica = open(root.path(), None);
        replica.check_torn(&Infos::new(), 1).unwrap();
        assert!(!replica.claims(&torn));
    }
}
