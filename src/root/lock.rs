//! One process for each root.

use super::RootError;
use crate::process::is_dead;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
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

/// Whether the process that holds a root's lock was killed and cannot go: the kernel has it wait for what only it could
/// answer.
pub fn is_held_by_a_dead(root: &Path) -> bool {
    let inode = root.join("lock").metadata().map(|lock| lock.ino());
    let (Ok(inode), Ok(locks)) = (inode, fs::read_to_string("/proc/locks")) else {
        return false;
    };
    // an inode of this number on another disk may be held by somebody who lives: then nobody is taken for dead
    let mut holders = holders(&locks, inode).peekable();
    holders.peek().is_some() && holders.all(is_dead)
}

/// The processes that hold `flock`s of files with this inode, as `/proc/locks` has them (see proc_locks(5)).
fn holders(locks: &str, inode: u64) -> impl Iterator<Item = u32> {
    let end = format!(":{inode}");
    locks.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_flock = fields.next() == Some("FLOCK");
        let (process, file) = (fields.nth(2)?, fields.next()?);
        (is_flock && file.ends_with(&end)).then(|| process.parse().ok())?
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: FLOCK  ADVISORY  WRITE 21708 fe:00:5660801 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 7 fe:00:5660801 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 9 fe:00:801 0 EOF\n";
        assert_eq!(holders(locks, 5_660_801).collect::<Vec<_>>(), [21708]);
        assert_eq!(holders(locks, 801).collect::<Vec<_>>(), [9]);
        assert_eq!(holders(locks, 1).count(), 0);
    }

    #[test]
    fn a_living_holder_is_no_dead_one() {
        let root = tempfile::tempdir().unwrap();
        let _lock = RootLock::acquire(root.path()).unwrap();
        let inode = root.path().join("lock").metadata().unwrap().ino();
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let own = std::process::id();
        assert!(holders(&locks, inode).any(|process| process == own));
        assert!(!is_held_by_a_dead(root.path()));
    }
}
