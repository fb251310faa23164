//! A disk that fails at the n-th operation, or stops there for good, and keeps a record.

use crate::store::{Disk, RealDisk};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// What was done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Write { inode: u64, offset: u64 },
    SyncData { inode: u64 },
    SyncDirectory,
    Rename(PathBuf),
    Remove(PathBuf),
    Other,
}

#[derive(Debug)]
pub(crate) struct FaultyDisk {
    done: AtomicU32,
    /// The first operation that fails, counted from 1, and how many do.
    failing: Mutex<(u32, u32)>,
    failures: AtomicU32,
    error: i32,
    record: Mutex<Vec<Operation>>,
}

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;

impl Default for FaultyDisk {
    fn default() -> Self {
        Self::failing_with(EIO)
    }
}

impl FaultyDisk {
    pub(crate) fn failing_with(error: i32) -> Self {
        Self {
            done: AtomicU32::new(0),
            failing: Mutex::new((u32::MAX, 0)),
            failures: AtomicU32::new(0),
            error,
            record: Mutex::default(),
        }
    }

    pub(crate) fn operations(&self) -> u32 {
        self.done.load(Ordering::SeqCst)
    }

    /// Operations that change something or make it durable fail from the n-th on, `count` of them.
    pub(crate) fn fail_at(&self, operation: u32, count: u32) {
        *self.failing.lock().unwrap() = (operation, count);
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::SeqCst)
    }

    pub(crate) fn record(&self) -> Vec<Operation> {
        self.record.lock().unwrap().clone()
    }

    fn count(&self, operation: Operation) -> io::Result<()> {
        let number = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        let (first, count) = *self.failing.lock().unwrap();
        if number >= first && number - first < count {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(self.error));
        }
        self.record.lock().unwrap().push(operation);
        Ok(())
    }
}

fn inode(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

impl Disk for FaultyDisk {
    fn open_or_create(&self, path: &Path) -> io::Result<File> {
        self.count(Operation::Other)?;
        RealDisk.open_or_create(path)
    }

    /// A failing write leaves half of its bytes.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let inode = inode(file);
        if let Err(error) = self.count(Operation::Write { inode, offset }) {
            RealDisk.write_at(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        RealDisk.write_at(file, bytes, offset)
    }

    fn set_length(&self, file: &File, length: u64) -> io::Result<()> {
        self.count(Operation::Other)?;
        RealDisk.set_length(file, length)
    }

    fn make_read_only(&self, file: &File) -> io::Result<()> {
        self.count(Operation::Other)?;
        RealDisk.make_read_only(file)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.count(Operation::SyncData { inode: inode(file) })
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.count(Operation::SyncDirectory)
    }

    fn sync_filesystem(&self, _: &Path) -> io::Result<()> {
        self.count(Operation::Other)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.count(Operation::Other)?;
        RealDisk.create_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.count(Operation::Rename(to.into()))?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.count(Operation::Remove(path.into()))?;
        RealDisk.remove(path)
    }
}
