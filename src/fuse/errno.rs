//! Which errno each refusal becomes.

use crate::filesystem::FsError;
use fuser::Errno;

/// The errno for the caller.
pub(super) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::Invalid => Errno::EINVAL,
        FsError::NoSpace => Errno::ENOSPC,
        FsError::FileTooBig => Errno::EFBIG,
        FsError::NotPermitted => Errno::EPERM,
        FsError::NotSupported => Errno::EOPNOTSUPP,
        FsError::NoAttribute => Errno::ENODATA,
        FsError::AttributeTooBig => Errno::E2BIG,
        // The kernel answers this one itself, by looking the path up again.
        FsError::Stale => Errno::ESTALE,
        FsError::BadHandle => Errno::EBADF,
        FsError::Busy => Errno::EBUSY,
        FsError::Running => Errno::ETXTBSY,
        FsError::NoData => Errno::ENXIO,
        // As after `errors=remount-ro`.
        FsError::ReadOnly => Errno::EROFS,
        // Not ETIMEDOUT or EAGAIN: programs know what a failing disk is, and no `read` of a regular file
        // is expected to ask for another try.
        FsError::Unavailable | FsError::TimedOut | FsError::Damaged(_) => Errno::EIO,
        FsError::Io { errno, .. } => disk(*errno),
    }
}

/// What the node's own disk said, where it means the same to the caller. Anything else (ENOENT for a file of
/// ours that is gone, EMFILE for our own descriptors) would be a lie about the caller's file.
fn disk(errno: Option<i32>) -> Errno {
    let passed = [
        Errno::ENOSPC,
        Errno::EDQUOT,
        Errno::EROFS,
        Errno::EFBIG,
        Errno::ENOMEM,
    ];
    let same = passed
        .into_iter()
        .find(|known| Some(i32::from(*known)) == errno);
    same.unwrap_or(Errno::EIO)
}

/// Says in the log what the owner of this node has to know, and gives the errno.
pub(super) fn refuse(operation: &'static str, error: &FsError) -> Errno {
    match error {
        FsError::Damaged(_) => tracing::error!(operation, %error, "answered with an I/O error"),
        FsError::Io { .. } => tracing::warn!(operation, %error, "the disk refused"),
        // The caller's affair, or told by whoever has waited in vain.
        _ => {}
    }
    errno(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(error: &FsError) -> i32 {
        errno(error).into()
    }

    fn io(errno: i32) -> FsError {
        FsError::from(std::io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn refusals_are_what_posix_says() {
        assert_eq!(number(&FsError::NotFound), 2);
        assert_eq!(number(&FsError::Exists), 17);
        assert_eq!(number(&FsError::NotEmpty), 39);
        assert_eq!(number(&FsError::NoSpace), 28);
        assert_eq!(number(&FsError::NoAttribute), 61);
        assert_eq!(number(&FsError::Stale), 116);
        assert_eq!(number(&FsError::Unavailable), 5);
        assert_eq!(number(&FsError::TimedOut), 5);
        assert_eq!(number(&FsError::ReadOnly), 30);
    }

    #[test]
    fn the_disk_is_believed_about_room_only() {
        assert_eq!(number(&io(28)), 28, "ENOSPC");
        assert_eq!(number(&io(30)), 30, "EROFS");
        assert_eq!(number(&io(2)), 5, "ENOENT of a file of ours");
        assert_eq!(number(&io(24)), 5, "EMFILE of ours");
        assert_eq!(number(&io(4)), 5, "EINTR is nobody's");
        let unknown = FsError::Io {
            errno: None,
            message: "odd".into(),
        };
        assert_eq!(number(&unknown), 5);
    }
}
