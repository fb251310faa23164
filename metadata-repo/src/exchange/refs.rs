//! Refs: the author chains, and the one that stock git looks at.

use super::ExchangeError;
use delugefs_core::ids::IncarnationId;
use gix::ObjectId;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where author chains are.
pub(super) const AUTHORS: &str = "refs/authors/";

/// What HEAD stands for.
pub(super) const MAIN: &str = "refs/heads/main";

/// The commit that every history of a volume begins with.
pub(super) const GENESIS: &str = "refs/delugefs/genesis";

/// How long to wait for another holder of a ref's lock, which holds it for a few syncs.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// All author chains.
pub(super) fn authors(
    repository: &gix::Repository,
) -> Result<BTreeMap<IncarnationId, ObjectId>, ExchangeError> {
    let platform = repository.references().map_err(ExchangeError::repository)?;
    let references = platform
        .prefixed(AUTHORS)
        .map_err(ExchangeError::repository)?;
    let mut authors = BTreeMap::new();
    for reference in references {
        let reference = reference.map_err(ExchangeError::repository)?;
        let incarnation = parse_author(reference.name().as_bstr());
        if let (Some(incarnation), Some(id)) = (incarnation, reference.target().try_id()) {
            authors.insert(incarnation, id.to_owned());
        }
    }
    Ok(authors)
}

/// The incarnation in an author ref's name, which has one form only.
pub(super) fn parse_author(name: &[u8]) -> Option<IncarnationId> {
    let digits = std::str::from_utf8(name.strip_prefix(AUTHORS.as_bytes())?).ok()?;
    let incarnation: IncarnationId = digits.parse().ok()?;
    (incarnation.to_string() == digits).then_some(incarnation)
}

/// What a ref points to, as it is on disk now.
pub(super) fn target(
    repository: &gix::Repository,
    name: &str,
) -> Result<Option<ObjectId>, ExchangeError> {
    let found = repository.try_find_reference(name);
    let found = found.map_err(ExchangeError::repository)?;
    Ok(found.and_then(|reference| reference.target().try_id().map(ToOwned::to_owned)))
}

/// Commits where this repository's own history was cut.
pub(super) fn cut(repository: &gix::Repository) -> Result<HashSet<ObjectId>, ExchangeError> {
    crate::cut::read(repository).map_err(ExchangeError::repository)
}

/// An author ref that nobody else can move as long as this lives.
pub(super) struct Locked {
    lock: Lock,
    target: PathBuf,
    pub(super) incarnation: IncarnationId,
}

impl Locked {
    /// Waits for the lock of an author's ref. Who locks several takes them in order of their names.
    pub(super) fn take(
        repository: &gix::Repository,
        incarnation: IncarnationId,
    ) -> io::Result<Self> {
        let target = repository
            .common_dir()
            .join(format!("{AUTHORS}{incarnation}"));
        let lock = Lock::take(&target)?;
        Ok(Self {
            lock,
            target,
            incarnation,
        })
    }

    /// Where the ref is.
    pub(super) fn current(
        &self,
        repository: &gix::Repository,
    ) -> Result<Option<ObjectId>, ExchangeError> {
        target(repository, &format!("{AUTHORS}{}", self.incarnation))
    }

    /// Writes where it is to go; the caller syncs the file, then calls [`Self::commit`].
    pub(super) fn write(&self, new: ObjectId) -> io::Result<()> {
        fs::write(&self.lock.path, format!("{new}\n"))
    }

    /// The file that is to be synced. It is not kept open: there may be more refs than files may be open.
    pub(super) fn file(&self) -> &Path {
        &self.lock.path
    }

    /// Moves the ref. The directory is synced by [`sync`], once for many refs.
    pub(super) fn commit(mut self) -> io::Result<()> {
        fs::rename(&self.lock.path, &self.target)?;
        self.lock.held = false;
        Ok(())
    }
}

/// Makes moved author refs durable.
pub(super) fn sync(repository: &gix::Repository) -> io::Result<()> {
    sync_directory(&repository.common_dir().join(AUTHORS))
}

/// Makes names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A lock file; gone when dropped.
struct Lock {
    path: PathBuf,
    held: bool,
}

impl Lock {
    fn take(target: &Path) -> io::Result<Self> {
        let path = target.with_extension("lock");
        let started = Instant::now();
        loop {
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => return Ok(Self { path, held: true }),
                Err(error) if started.elapsed() > LOCK_WAIT_MAX => return Err(error),
                // Git removes a folder of refs when it has packed the last of them
                Err(error) if error.kind() == io::ErrorKind::NotFound => create_parent(&path)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.held {
            // nothing better can be done than what happens when the repository is next opened
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)?;
    sync_directory(parent.parent().unwrap_or(parent))
}
