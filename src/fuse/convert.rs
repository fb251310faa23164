//! Between the kernel's words and ours.

use crate::filesystem::{
    Allocation, FileType, HandleId, Inode, NewNode, OpenFlags, RenameMode, SetTime, Stat, Whence,
};
use delugefs_core::time::Timestamp;
use fuser::{FileAttr, FileHandle, INodeNo, OpenAccMode, RenameFlags, TimeOrNow};
use rustix::fs::{FallocateFlags, FileType as ModeType, OFlags};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes in a block of `statfs`, and the advice of `stat` for reading.
pub(super) const BLOCK_BYTES: u32 = 4096;

/// `__FMODE_EXEC` of the kernel's include/linux/fs.h, among the flags of an open by `execve`.
const OPENED_TO_RUN: i32 = 0x20;

/// Who owns the files, to those who look at them through the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The numbers that the names carry.
    Numeric,
    /// One user and group, whatever the names carry: the numbers of another host mean nothing to someone who
    /// cannot give files away.
    All {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl Owners {
    /// Root sees numeric owners, anyone else sees all files as theirs.
    pub fn for_this_process() -> Self {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            return Self::Numeric;
        }
        Self::All {
            uid: uid.as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// The owner to set, where `chown` asks for one. `None`: it may not be set; the one shown stays.
    pub(super) fn to_set(
        self,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Option<(Option<u32>, Option<u32>)> {
        match self {
            Self::Numeric => Some((uid, gid)),
            Self::All { uid: u, gid: g } => {
                let same = uid.is_none_or(|uid| uid == u) && gid.is_none_or(|gid| gid == g);
                same.then_some((None, None))
            }
        }
    }

    fn shown(self, stat: &Stat) -> (u32, u32) {
        match self {
            Self::Numeric => (stat.uid, stat.gid),
            Self::All { uid, gid } => (uid, gid),
        }
    }
}

pub(super) fn inode(number: INodeNo) -> Inode {
    Inode(number.0)
}

pub(super) fn handle(number: FileHandle) -> HandleId {
    HandleId(number.0)
}

pub(super) fn attributes(stat: &Stat, owners: Owners) -> FileAttr {
    let (uid, gid) = owners.shown(stat);
    FileAttr {
        ino: INodeNo(stat.inode.0),
        size: stat.size,
        blocks: stat.blocks,
        atime: system_time(stat.accessed),
        mtime: system_time(stat.modified),
        ctime: system_time(stat.changed),
        crtime: UNIX_EPOCH,
        kind: file_type(stat.kind),
        perm: stat.mode,
        nlink: stat.links,
        uid,
        gid,
        rdev: device_to_kernel(stat.rdev),
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// What makes the kernel remember that a name does not exist.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub(super) fn file_type(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::File => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharacterDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
    }
}

/// What `mknod` shall make; `None` for what it does not make.
pub(super) fn new_node(mode: u32, device: u32) -> Option<NewNode> {
    match ModeType::from_raw_mode(mode) {
        ModeType::RegularFile => Some(NewNode::File),
        ModeType::Fifo => Some(NewNode::Fifo),
        ModeType::Socket => Some(NewNode::Socket),
        ModeType::CharacterDevice => Some(NewNode::CharacterDevice(device_from_kernel(device))),
        ModeType::BlockDevice => Some(NewNode::BlockDevice(device_from_kernel(device))),
        ModeType::Directory | ModeType::Symlink | ModeType::Unknown => None,
    }
}

/// The permission bits of a mode.
pub(super) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

pub(super) fn open_flags(flags: i32, privileged: bool) -> OpenFlags {
    let mode = fuser::OpenFlags(flags).acc_mode();
    OpenFlags {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        // The kernel knows the end of the file and sends the offset. It also writes back pages of mappings
        // by any handle that may write: these must not land at the end.
        append: false,
        truncate: OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::TRUNC),
        privileged,
        execute: flags & OPENED_TO_RUN != 0,
    }
}

pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

pub(super) fn allocation(mode: i32) -> Option<Allocation> {
    let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
    if mode.is_empty() {
        Some(Allocation::Grow)
    } else if mode == FallocateFlags::KEEP_SIZE {
        Some(Allocation::KeepSize)
    } else if mode == FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE {
        Some(Allocation::PunchHole)
    } else if mode == FallocateFlags::ZERO_RANGE {
        Some(Allocation::Zero)
    } else if mode == FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE {
        Some(Allocation::ZeroKeepSize)
    } else {
        None
    }
}

/// Of `lseek`, only SEEK_DATA and SEEK_HOLE come here; the kernel answers the others.
pub(super) fn whence(whence: i32) -> Option<Whence> {
    match whence {
        3 => Some(Whence::Data),
        4 => Some(Whence::Hole),
        _ => None,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timestamp(time)),
    }
}

/// fuser takes the kernel's seconds and nanoseconds before 1970 both from 1970, where only the seconds count
/// backwards: this undoes it.
fn timestamp(time: SystemTime) -> Timestamp {
    let (seconds, part) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs().cast_signed(), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            let seconds = before.as_secs().cast_signed();
            (seconds.wrapping_neg(), before.subsec_nanos())
        }
    };
    Timestamp {
        seconds,
        nanoseconds: part,
    }
}

/// Times from other nodes may be anything: what this system cannot express is shown as 1970.
fn system_time(time: Timestamp) -> SystemTime {
    let part = Duration::from_nanos(u64::from(time.nanoseconds));
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

/// The kernel's 32-bit form of a device number: 12 bits of major between 8 and 12 bits of minor.
fn device_from_kernel(device: u32) -> u64 {
    let major = (device & 0xf_ff00) >> 8;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    rustix::fs::makedev(major, minor)
}

fn device_to_kernel(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn times_are_shown_as_they_are() {
        let half = Duration::from_millis(500);
        assert_eq!(
            system_time(at(5, 500_000_000)),
            UNIX_EPOCH + Duration::from_secs(5) + half
        );
        assert_eq!(
            system_time(at(-5, 500_000_000)),
            UNIX_EPOCH - Duration::from_secs(4) - half
        );
    }

    #[test]
    fn times_are_taken_as_the_kernel_meant_them() {
        let half = Duration::from_millis(500);
        assert_eq!(timestamp(UNIX_EPOCH + half), at(0, 500_000_000));
        // -5 s and half a second after that, in fuser's words.
        let five_before = UNIX_EPOCH - Duration::from_secs(5) - half;
        assert_eq!(timestamp(five_before), at(-5, 500_000_000));
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(5)), at(-5, 0));
    }

    #[test]
    fn absurd_times_do_no_harm() {
        for seconds in [i64::MIN, i64::MAX] {
            let _ = timestamp(system_time(at(seconds, 999_999_999)));
        }
    }

    #[test]
    fn device_numbers_come_back_as_they_went() {
        for (major, minor) in [(1, 3), (8, 17), (259, 4096), (4095, 0xf_ffff)] {
            let device = rustix::fs::makedev(major, minor);
            assert_eq!(device_from_kernel(device_to_kernel(device)), device);
        }
    }

    #[test]
    fn who_cannot_give_files_away_may_say_so_of_their_own() {
        let mine = Owners::All { uid: 7, gid: 8 };
        assert_eq!(mine.to_set(Some(7), None), Some((None, None)));
        assert_eq!(mine.to_set(Some(7), Some(8)), Some((None, None)));
        assert_eq!(mine.to_set(Some(0), None), None);
        assert_eq!(mine.to_set(None, Some(9)), None);
        let numeric = Owners::Numeric.to_set(Some(0), None);
        assert_eq!(numeric, Some((Some(0), None)));
    }

    #[test]
    fn appending_is_the_kernels_business() {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::TRUNC;
        let flags = open_flags(flags.bits().cast_signed(), false);
        assert!(flags.write && flags.truncate && !flags.append && !flags.read);
    }
}
