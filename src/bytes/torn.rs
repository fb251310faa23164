//! What a power cut may have torn: files that have their place and length, but not all their bytes.
//!
//! Contents are synced in groups, and the own holdings log names them only then. So after a power cut a complete file
//! that the log does not name is in doubt: it is read whole before it is shown, served or told of. `ROOT/boot` says
//! under which boot of the machine the rest was last found sound. It is written after all is checked, so a start that
//! is cut off checks again; a root without it is in doubt.

use super::replica::Replica;
use crate::cli::units::show_size;
use crate::durable;
use crate::sync_ext::lock;
use delugefs_core::holdings::Operation;
use delugefs_core::ids::InfoHash;
use delugefs_torrent::metainfo::Info;
use delugefs_torrent::store::StoreError;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

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

    /// Says durably that the root is sound under this boot.
    fn store(&self) -> io::Result<()> {
        let Some(now) = self.now else { return Ok(()) };
        durable::replace(&self.path, &line(now))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

/// The version, and the boot in hexadecimal.
fn line(boot: [u8; 16]) -> Vec<u8> {
    format!("1 {:032x}\n", u128::from_be_bytes(boot)).into_bytes()
}

impl Replica {
    /// Reads the contents that a power cut may have torn, and tells of those that are whole. Of a damaged one the good
    /// pieces stay where a descriptor names it; it is then fetched like any damaged content. To be called after
    /// [`Replica::learn`] and before anything is shown. Fails where the disk gives no answer: what is not known to be
    /// right is not shown. Blocks.
    pub fn check_torn(&self, now: u64) -> io::Result<()> {
        let doubtful = std::mem::take(&mut *lock(&self.doubtful));
        if doubtful.is_empty() {
            return self.boot.store();
        }
        let lengths = doubtful.iter().filter_map(|one| self.store.length(one));
        let (count, size) = (doubtful.len(), show_size(lengths.sum()));
        tracing::info!(
            "the machine was started anew since this disk was last used: {count} contents not known to be safe from a power cut are read, {size}"
        );
        let (mut whole, mut torn) = (Vec::new(), 0_usize);
        for content in doubtful {
            match self.is_whole(&content, now).map_err(io::Error::other)? {
                true => whole.push(content),
                false => torn += 1,
            }
        }
        tracing::info!("{} of them are whole, {torn} are damaged", whole.len());
        if !whole.is_empty() {
            self.declare_now(&whole)?;
        }
        self.boot.store()
    }

    fn declare_now(&self, whole: &[InfoHash]) -> io::Result<()> {
        let records = whole.iter().map(|content| (Operation::Held, *content));
        let pushed = lock(&self.holdings).push(records);
        pushed.map_err(io::Error::other)
    }

    /// Whether its bytes are right; afterwards it is not complete if they are not.
    fn is_whole(&self, content: &InfoHash, now: u64) -> Result<bool, StoreError> {
        match self.info(content) {
            Ok(Some(info)) => self.is_whole_by(&info, now),
            Ok(None) => self.is_whole_by_itself(content),
            Err(error) => {
                tracing::warn!("{error}");
                self.is_whole_by_itself(content)
            }
        }
    }

    fn is_whole_by(&self, info: &Info, now: u64) -> Result<bool, StoreError> {
        let mut check = self.store.check(info, None)?;
        while check.step()?.is_some() {}
        let checked = check.end();
        if checked.is_good() {
            return Ok(true);
        }
        self.store.set_back(info, &checked)?;
        let bad = (checked.bad.len() as u32).max(1);
        self.scrub.found(info.info_hash(), bad, now);
        Ok(false)
    }

    /// No committed name says what its pieces are: only the whole can be compared, with the info-hash. Such a content
    /// was never told of, so no other disk can mend it.
    fn is_whole_by_itself(&self, content: &InfoHash) -> Result<bool, StoreError> {
        if self.store.is_named_right(content)? {
            return Ok(true);
        }
        tracing::error!(
            "the power cut has damaged the content {content}, which has no committed name; it is removed"
        );
        self.store.remove(content)?;
        Ok(false)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use delugefs_core::ids::{IncarnationId, VolumeId};
    use delugefs_core::settings::Settings;
    use delugefs_metadata_repo::Repository;
    use delugefs_torrent::store::{ContentStore, State};

    const BEFORE: Boot = Some([1; 16]);
    const AFTER: Boot = Some([2; 16]);

    fn open(root: &Path, boot: Boot) -> Replica {
        let store = ContentStore::open(root).unwrap();
        let names = root.join("metadata.git");
        let settings = Settings::new(VolumeId::new([1; 16]), "test".to_owned());
        let repository = if names.exists() {
            Repository::open(&names).unwrap()
        } else {
            Repository::create(&names, &settings).unwrap()
        };
        Replica::open(root, store, repository, IncarnationId::new([1; 16]), boot).unwrap()
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
        replica.check_torn(1).unwrap();
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
        replica.check_torn(1).unwrap();
        assert!(replica.claims(&whole));
        assert!(!replica.claims(&torn));
        assert_eq!(replica.store.state(&torn), State::Absent);
    }

    #[test]
    fn a_start_that_is_cut_off_leaves_the_doubt() {
        let root = tempfile::tempdir().unwrap();
        let (_, torn) = cut(root.path());
        drop(open(root.path(), AFTER));
        let replica = open(root.path(), AFTER);
        replica.check_torn(1).unwrap();
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
        replica.check_torn(1).unwrap();
        assert!(!replica.claims(&torn));
    }
}
