//! What the store does to a disk, one call each: the port where tests stop, fail and record it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// A disk. The provided methods are the real thing; a test's disk overrides them to fail.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens for reading.
    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    /// Opens for reading and writing; makes the file when it is missing, keeps its bytes otherwise.
    fn open_or_create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(path)
    }

    /// Reads exactly the buffer's length.
    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(buffer, offset)
    }

    /// Writes all bytes.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Cuts or extends with a hole, in bytes.
    fn set_length(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// Takes away all write permission.
    fn make_read_only(&self, file: &File) -> io::Result<()> {
        file.set_permissions(fs::Permissions::from_mode(0o444))
    }

    /// Gives the owner write permission again.
    fn make_writable(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))
    }

    /// Bytes and length of one file survive a power cut afterwards.
    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// The names in a directory survive a power cut afterwards.
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Everything on the filesystem of `path` survives a power cut afterwards.
    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    /// Makes a directory, if it is not there.
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// Moves within one filesystem, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Total and free bytes of the filesystem of `path`; free to the user we run as.
    fn bytes(&self, path: &Path) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok((bytes(stat.f_blocks), bytes(stat.f_bavail)))
    }
}

/// The disk that the path lies on.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}
