//! One process for each root.

use super::RootError;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process that was killed is gone when its memory, files and threads are: under load that takes a while, and
/// whoever starts it again at once should not be told that it lives.
const DYING_MAX: Duration = Duration::from_secs(3);

/// Between two looks.
const DYING_POLL: Duration = Duration::from_millis(20);

/// The right to use a root, for as long as it lives. The kernel takes it back when the process dies.
#[derive(Debug)]
pub struct RootLock {
    _file: File,
}

impl RootLock {
    /// Takes the lock of an existing root. Waits a little for a process that may be dying.
    pub fn acquire(root: &Path) -> Result<Self, RootError> {
        let path = root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(RootError::io(&path))?;
        let until = Instant::now() + DYING_MAX;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(RootError::io(&path)(error.into())),
            }
            if Instant::now() > until {
                return Err(RootError::InUse(root.to_owned()));
            }
            std::thread::sleep(DYING_POLL);
        }
    }
}
