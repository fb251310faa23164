//! Makes a pull visible, after all checks: the pack as it came, with its index, then the refs.

use super::super::quarantine::Received;
use super::super::refs::Locked;
use super::super::{ExchangeError, GitStore};
use gix::ObjectId;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use tempfile::NamedTempFile;

/// Most threads that sync at once: the filesystem makes one journal commit of them.
const SYNC_THREADS_MAX: usize = 4;

/// Where history is cut from now on, if that is new, and the refs that are to move.
type Moves<'a> = (Option<&'a HashSet<ObjectId>>, Vec<Locked>);

/// Makes the pack part of the repository, then writes down where history is cut, if that is new, then moves the refs,
/// each durably before the next. The pack comes before its index: without an index nobody looks at it.
pub(super) fn install(
    store: &dyn GitStore,
    received: Option<Received>,
    moves: Moves<'_>,
) -> Result<(), ExchangeError> {
    let received = received.filter(|received| received.objects() > 0);
    store.sync()?;
    place(store, received, moves).map_err(ExchangeError::repository)
}

fn place(
    store: &dyn GitStore,
    received: Option<Received>,
    (cut, refs): Moves<'_>,
) -> io::Result<()> {
    let repository = store.git();
    let objects = repository.objects.store_ref().path().to_owned();
    let mut files: Vec<_> = refs.iter().map(Locked::file).collect();
    if let Some(received) = &received {
        files.extend([received.index.path(), received.pack.path()]);
    }
    sync_files(&files)?;
    if let Some(received) = received {
        let directory = objects.join("pack");
        std::fs::create_dir_all(&directory)?;
        let name = directory.join(format!("pack-{}.pack", received.trailer));
        persist(received.pack, &name)?;
        persist(received.index, &name.with_extension("idx"))?;
        super::super::refs::sync_directory(&directory)?;
        // whoever sees a ref has to find what it points to
        store.refresh();
    }
    if let Some(cut) = cut {
        store.begin_at(cut).map_err(io::Error::other)?;
    }
    refs.into_iter().try_for_each(Locked::commit)?;
    super::super::refs::sync(&repository)
}

fn sync_files(files: &[&Path]) -> io::Result<()> {
    let each = files.len().div_ceil(SYNC_THREADS_MAX).max(1);
    std::thread::scope(|scope| {
        let sync = |files: &[&Path]| {
            files
                .iter()
                .try_for_each(|file| File::open(file)?.sync_all())
        };
        let threads: Vec<_> = files
            .chunks(each)
            .map(|some| scope.spawn(move || sync(some)))
            .collect();
        let died = |_| Err(io::Error::other("a syncing thread died"));
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(died))
    })
}

/// Gives a file its name, readable as other packs are.
fn persist(file: NamedTempFile, name: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o444))?;
    file.persist(name).map(drop).map_err(|error| error.error)
}
