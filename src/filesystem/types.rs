//! The words of the filesystem's interface.

use super::{BaseView, BoxFuture, FsError};
use delugefs_core::time::Timestamp;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// A file, directory or node on this node, while it runs. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(pub u64);

impl Inode {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// An open file or directory. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// The type bits of `st_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// `S_IFREG`
    File,
    /// `S_IFDIR`
    Directory,
    /// `S_IFLNK`
    Symlink,
    /// `S_IFIFO`
    Fifo,
    /// `S_IFSOCK`
    Socket,
    /// `S_IFCHR`
    CharacterDevice,
    /// `S_IFBLK`
    BlockDevice,
}

/// What `stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Local number.
    pub inode: Inode,
    /// Type.
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// Permission bits (`0o7777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device nodes, else 0.
    pub rdev: u64,
    /// Links: 1, or 2 and one for each subdirectory; 0 when unlinked.
    pub links: u32,
    /// `st_atim`
    pub accessed: Timestamp,
    /// `st_mtim`
    pub modified: Timestamp,
    /// `st_ctim`
    pub changed: Timestamp,
}

/// Who asks: becomes the owner of what is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// `UTIME_NOW`
    Now,
    /// Exactly.
    At(Timestamp),
}

/// What `chmod`, `chown`, `truncate` and `utimens` change; `None` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttributes {
    /// New permission bits.
    pub mode: Option<u16>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes.
    pub size: Option<u64>,
    /// New `st_atim`.
    pub accessed: Option<SetTime>,
    /// New `st_mtim`.
    pub modified: Option<SetTime>,
    /// Clear set-user-id and set-group-id, as a write by someone without `CAP_FSETID` does.
    pub kill_privileges: bool,
}

/// What `mknod` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewNode {
    /// An empty regular file.
    File,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// With its `rdev`.
    CharacterDevice(u64),
    /// With its `rdev`.
    BlockDevice(u64),
}

/// How `rename` treats what has the new name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// `RENAME_NOREPLACE`
    NoReplace,
    /// `RENAME_EXCHANGE`
    Exchange,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent flags of open(2)"
)]
pub struct OpenFlags {
    /// `O_RDONLY` or `O_RDWR`
    pub read: bool,
    /// `O_WRONLY` or `O_RDWR`
    pub write: bool,
    /// `O_APPEND`
    pub append: bool,
    /// `O_TRUNC`
    pub truncate: bool,
    /// The caller has `CAP_FSETID` (root): writing leaves set-user-id and set-group-id.
    pub privileged: bool,
    /// To be run: while it is, the file cannot be truncated.
    pub execute: bool,
}

/// Ready at once, or later: whoever gets `Later` answers from a task.
pub enum Answer<T> {
    /// Here it is.
    Ready(T),
    /// It has to be waited for.
    Later(BoxFuture<'static, Result<T, FsError>>),
}

impl<T> Answer<T> {
    /// Waits for it.
    pub async fn wait(self) -> Result<T, FsError> {
        match self {
            Self::Ready(value) => Ok(value),
            Self::Later(future) => future.await,
        }
    }
}

/// An open file.
#[derive(Debug, Clone)]
pub struct Opened {
    /// For read, write, release.
    pub handle: HandleId,
    /// The file that holds the bytes, when there is one: a staging file (opened for reading and writing) or
    /// a complete content. All handles of an inode that are open at the same time get the same `Arc`, but
    /// for one case: a writer that opens after readers of a committed content gets the staging file, and
    /// the readers' reads go there too from then on. Whoever has handed the content to the kernel
    /// (passthrough) calls [`super::Filesystem::detach_readers`] before.
    pub backing: Option<Arc<File>>,
}

/// One line of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Where to continue after this one.
    pub next: u64,
    /// Its bytes; `.` and `..` are listed.
    pub name: Vec<u8>,
    /// Local number.
    pub inode: Inode,
    /// Type.
    pub kind: FileType,
}

/// How `setxattr` treats an attribute that is there, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// Either.
    Any,
    /// `XATTR_CREATE`
    Create,
    /// `XATTR_REPLACE`
    Replace,
}

/// What `fallocate` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// Reserve, growing the file.
    Grow,
    /// Reserve, without growing the file (`FALLOC_FL_KEEP_SIZE`).
    KeepSize,
    /// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`
    PunchHole,
    /// `FALLOC_FL_ZERO_RANGE`
    Zero,
    /// `FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE`
    ZeroKeepSize,
}

/// What `lseek` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// Room for bytes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// All that this node may use.
    pub total: u64,
    /// What is left of it.
    pub free: u64,
}

/// How much work is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Files open for writing.
    pub writing: usize,
    /// Files closed but not yet hashed.
    pub unsealed: usize,
    /// Entries changed but in no commit yet.
    pub uncommitted: usize,
    /// Open handles.
    pub handles: usize,
    /// Bytes of the journal.
    pub journal_bytes: u64,
}

/// What the kernel has to forget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Invalidation {
    /// A name now means something else, or nothing.
    Entry {
        /// In this directory.
        parent: Inode,
        /// This name.
        name: Vec<u8>,
    },
    /// A name is gone from a directory (raises the kernel's delete event).
    Deleted {
        /// In this directory.
        parent: Inode,
        /// What it named.
        child: Inode,
        /// This name.
        name: Vec<u8>,
    },
    /// Attributes have changed; bytes have not.
    Attributes(Inode),
}

/// A file to be sealed: give it back with [`super::Filesystem::sealed`], whatever became of it.
#[derive(Debug)]
pub struct SealJob {
    /// The file to give to [`super::Contents::seal`].
    pub path: PathBuf,
    pub(super) inode: Inode,
}

/// How a filesystem starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// ROOT: `journal` and `staging/` are in it.
    pub root: PathBuf,
    /// This node's label, in conflict names.
    pub label: String,
    /// Where to start from when the journal does not know better: this node's own newest commit (that alone
    /// as the only head, with its tree); the view, if it has none.
    pub base: BaseView,
    /// The journal sequence in that commit's trailer; 0 if it has none. Changes up to it are committed.
    pub sequence: u64,
    /// Files up to this many bytes are kept in the names.
    pub inline_max: u32,
}

/// What a start found to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Changes that only the journal has.
    pub changes: usize,
    /// Files that were being written or waited to be hashed, taken up as they were.
    pub taken_up: usize,
    /// Such files that are shown in the version before, as they were not synced before a power cut.
    pub older: usize,
}
