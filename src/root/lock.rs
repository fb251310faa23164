//! One process for each root.

use super::RootError;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;

/// The right to use a root, for as long as it lives. The kernel takes it back when the process dies.
#[derive(Debug)]
pub struct RootLock {
    _file: File,
}

impl RootLock {
    /// Takes the lock of an existing root.
    pub fn acquire(root: &Path) -> Result<Self, RootError> {
        let path = root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(RootError::io(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(RootError::InUse(root.to_owned())),
            Err(error) => Err(RootError::io(&path)(error.into())),
        }
    }
}
