//! Closed files become contents: hashed, moved into the store, named. Some threads do only this.

use super::shared::{Shared, unix_time};
use crate::bytes::ports::Bytewise;
use crate::filesystem::{Contents, FsError, SealJob, Sealed};
use crate::publishing::panic_text;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads that seal. One large file is hashed on all cores by itself; small files gain from two at a time.
const SEALERS: usize = 2;

/// After a failed seal (a full disk, mostly) the next attempt is made this much later.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Files that are named together at most: hashing them takes less than a sync.
const GROUP_FILES: usize = 32;

/// A file waits at most so long for others to be hashed.
const GROUP_TIME: Duration = Duration::from_millis(20);

/// What it is called when it does not work.
const SEALING: &str = "hashing files";

/// Wakes the sealers.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<Ring>,
    wake: Condvar,
}

#[derive(Default)]
struct Ring {
    rings: u64,
    ended: bool,
}

impl Bell {
    /// There is something to seal.
    pub(super) fn ring(&self) {
        crate::sync_ext::lock(&self.rung).rings += 1;
        self.wake.notify_one();
    }

    /// Nothing will be sealed any more.
    pub(super) fn end(&self) {
        crate::sync_ext::lock(&self.rung).ended = true;
        self.wake.notify_all();
    }

    /// Waits until it was rung after `seen`, or for [`RETRY_AFTER`]. `None`: it is over.
    fn wait(&self, seen: u64) -> Option<u64> {
        let guard = crate::sync_ext::lock(&self.rung);
        let idle = |ring: &mut Ring| ring.rings == seen && !ring.ended;
        let (guard, _) = self
            .wake
            .wait_timeout_while(guard, RETRY_AFTER, idle)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        (!guard.ended).then_some(guard.rings)
    }
}

/// Starts the threads; they end with the bell.
pub(super) fn start(
    shared: &Arc<Shared>,
    bell: &Arc<Bell>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let sealer = |number| {
        let (shared, bell) = (Arc::clone(shared), Arc::clone(bell));
        let name = format!("seal-{number}");
        std::thread::Builder::new()
            .name(name)
            .spawn(move || seal_until_the_end(&shared, &bell))
    };
    (0..SEALERS).map(sealer).collect()
}

fn seal_until_the_end(shared: &Shared, bell: &Bell) {
    let contents = Bytewise(Arc::clone(&shared.replica));
    let mut seen = 0;
    while let Some(rings) = bell.wait(seen) {
        seen = rings;
        let all = || while seal_some(shared, &contents) {};
        if let Err(panic) = catch_unwind(AssertUnwindSafe(all)) {
            shared.stop_publishing(format!("sealing has broken: {}", panic_text(&*panic)));
        }
    }
}

/// Seals some, so that a sync of their contents, where they need one, serves all of them. Whether there may be more.
fn seal_some(shared: &Shared, contents: &Bytewise) -> bool {
    let began = Instant::now();
    let mut sealed = Vec::new();
    while sealed.len() < GROUP_FILES
        && began.elapsed() < GROUP_TIME
        && shared.publishing.goes_on()
        && let Some(job) = shared.filesystem.next_unsealed()
    {
        let outcome = contents.seal(&job.path);
        sealed.push((job, outcome));
    }
    let goes_on = !sealed.is_empty();
    let ended = sealed
        .into_iter()
        .map(|(job, outcome)| end(shared, job, outcome));
    ended.fold(goes_on, |all, one| all && one)
}

/// Names one; whether the next can be tried.
fn end(shared: &Shared, job: SealJob, sealed: Result<Sealed, FsError>) -> bool {
    let content = sealed.as_ref().ok().map(|sealed| sealed.content.info_hash);
    let ended = shared.filesystem.sealed(job, sealed);
    if let Some(info_hash) = content {
        shared.replica.sealed(&info_hash, unix_time());
    }
    match ended {
        Ok(()) => {
            shared.troubles.over(SEALING);
            content.is_some()
        }
        // it was touched meanwhile: at once again
        Err(FsError::Busy) => true,
        Err(error) => {
            let sentence = format!("closed files wait on this disk alone: {error}");
            shared.troubles.tell(SEALING, &sentence);
            false
        }
    }
}
