//! Room on this disk, for writers who ask at each write.
//!
//! The disk is asked now and then; what is promised in between is taken off its answer, so that a fast writer
//! neither fills the reserve, which the names and the journal need, nor exceeds the capacity.

use crate::cli::units::show_size;
use crate::filesystem::Space;
use crate::sync_ext::lock;
use delugefs_torrent::store::ContentStore;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How old the disk's answer may be: asking costs a system call for each write otherwise.
const AGE_MAX: Duration = Duration::from_millis(200);

/// That a disk is full is said at most so often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A disk with less than this part free is short of room...
const SHORT_DIVISOR: u64 = 20;

/// ...unless so many bytes are free: on a large disk, a part is much.
const SHORT_BYTES_MAX: u64 = 10 << 30;

/// Bytes of a block in `stat` (POSIX leaves it open; Linux says 512).
const STAT_BLOCK: u64 = 512;

/// What is known of the room.
#[derive(Debug)]
pub(super) struct Room {
    staging: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    asked: Option<(Instant, Space)>,
    told: Option<Instant>,
}

impl Room {
    /// Of a root.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            staging: root.join("staging"),
            known: Mutex::default(),
        }
    }

    /// At most a moment old.
    pub(super) fn space(&self, store: &ContentStore) -> Space {
        self.fresh(&mut lock(&self.known), store)
    }

    /// Takes so much, if there is as much.
    pub(super) fn take(&self, store: &ContentStore, bytes: u64) -> bool {
        let mut known = lock(&self.known);
        let mut space = self.fresh(&mut known, store);
        if space.free < bytes {
            // what was taken may not have been needed: bytes overwritten, files removed
            known.asked = None;
            space = self.fresh(&mut known, store);
        }
        let there_is = bytes <= space.free;
        match &mut known.asked {
            Some((_, space)) if there_is => space.free -= bytes,
            _ => known.tell(&space),
        }
        there_is
    }

    /// Bytes that this disk should have free and has not.
    pub(super) fn short(&self, store: &ContentStore) -> u64 {
        let space = self.space(store);
        let wanted = (space.total / SHORT_DIVISOR).min(SHORT_BYTES_MAX);
        wanted.saturating_sub(space.free)
    }

    fn fresh(&self, known: &mut Known, store: &ContentStore) -> Space {
        match known.asked {
            Some((at, space)) if at.elapsed() < AGE_MAX => space,
            _ => {
                let space = self.ask(store);
                known.asked = Some((Instant::now(), space));
                space
            }
        }
    }

    fn ask(&self, store: &ContentStore) -> Space {
        let space = match store.space() {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!("{error}");
                return Space::default();
            }
        };
        let mut free = space.free;
        if store.is_limited() {
            // the disk itself counts what is being written, a capacity does not
            let used = space
                .used
                .saturating_add(staged(&self.staging).unwrap_or(0));
            free = free.min(space.capacity.saturating_sub(used));
        }
        Space {
            total: space.capacity,
            free,
        }
    }
}

impl Known {
    fn tell(&mut self, space: &Space) {
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let (free, total) = (show_size(space.free), show_size(space.total));
        tracing::warn!("this disk is full ({free} free of {total}): writers are told so");
    }
}

/// Bytes on disk of the files being written.
fn staged(staging: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(staging)? {
        // one that is gone meanwhile has been sealed
        bytes += entry?
            .metadata()
            .map_or(0, |file| file.blocks() * STAT_BLOCK);
    }
    Ok(bytes)
}
