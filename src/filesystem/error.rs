//! What an operation may answer instead of a result.

use std::io;

/// Why an operation was refused. Closed: the FUSE skin maps each to its errno.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// No such name, or an inode that no longer exists (`ENOENT`).
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken (`EEXIST`).
    #[error("the name exists already")]
    Exists,
    /// A directory was needed (`ENOTDIR`).
    #[error("not a directory")]
    NotDirectory,
    /// A directory cannot be used so (`EISDIR`).
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries (`ENOTEMPTY`).
    #[error("the directory is not empty")]
    NotEmpty,
    /// A name over 255 bytes, or a link target over `PATH_MAX` (`ENAMETOOLONG`).
    #[error("the name is too long")]
    NameTooLong,
    /// An argument that makes no sense here (`EINVAL`).
    #[error("invalid argument")]
    Invalid,
    /// The disk or the node's capacity is full (`ENOSPC`).
    #[error("no space left")]
    NoSpace,
    /// Beyond the largest file this disk can hold (`EFBIG`).
    #[error("the file would be too large")]
    FileTooBig,
    /// Not for this kind of file (`EPERM`).
    #[error("operation not permitted")]
    NotPermitted,
    /// Not offered (`EOPNOTSUPP`).
    #[error("operation not supported")]
    NotSupported,
    /// No such extended attribute (`ENODATA`).
    #[error("no such attribute")]
    NoAttribute,
    /// An extended attribute, or all of them together, too big (`E2BIG` for the value, `ENOSPC` for all).
    #[error("the attribute is too big")]
    AttributeTooBig,
    /// The inode has been replaced under its name: look up again (`ESTALE`).
    #[error("the file has been replaced")]
    Stale,
    /// A handle that is not open, or not open for this (`EBADF`).
    #[error("bad handle")]
    BadHandle,
    /// The file was changed while it was being hashed: it is to be hashed again (`EBUSY`).
    #[error("the file changed while it was being hashed")]
    Busy,
    /// A program that is running (`ETXTBSY`).
    #[error("the file is being executed")]
    Running,
    /// Nothing there: a seek past the end of data (`ENXIO`).
    #[error("no data beyond that offset")]
    NoData,
    /// The node has stopped publishing: nothing can be changed (`EROFS`).
    #[error("read-only: this node has found itself broken, see its log")]
    ReadOnly,
    /// The bytes are on no connected node (`EIO`).
    #[error("the content is on no connected node")]
    Unavailable,
    /// Waiting for the bytes has ended in vain (`EIO`).
    #[error("waiting for the content has timed out")]
    TimedOut,
    /// Stored names or bytes that contradict themselves (`EIO`).
    #[error("damaged: {0}")]
    Damaged(String),
    /// The disk refused (`EIO`, or the errno it gave).
    #[error("{message}")]
    Io {
        /// As the operating system gave it.
        errno: Option<i32>,
        /// In words.
        message: String,
    },
}

impl From<io::Error> for FsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::FileTooLarge => Self::FileTooBig,
            _ => Self::Io {
                errno: error.raw_os_error(),
                message: error.to_string(),
            },
        }
    }
}

impl From<rustix::io::Errno> for FsError {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}
