//! What has to be so before a mount: checked first, so that each lack has its own sentence.

use super::connection::Switch;
use crate::mountinfo::{self, Mounted, mounted_on};
use rustix::fs::{Access, Mode, access, major, minor};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The kernel's type of our mounts, less its `fuse.`.
pub(super) const SUBTYPE: &str = "delugefs";

/// Mounts that were left behind on top of one another: each start after a kill leaves at most one.
const STALE_MOUNTS_MAX: usize = 16;

const DEVICE: &str = "/dev/fuse";

/// Its number (Linux, Documentation/admin-guide/devices.txt). Containers put other things in its place.
const DEVICE_NUMBER: (u32, u32) = (10, 229);

const FUSE_CONF: &str = "/etc/fuse.conf";
const HELPER: &str = "fusermount3";

/// Why nothing can be mounted there.
#[derive(Debug, thiserror::Error)]
pub enum PointError {
    /// No such folder.
    #[error("mount point {}: there is no such folder; make it first", .0.display())]
    Missing(PathBuf),
    /// Not a folder.
    #[error("mount point {}: not a folder", .0.display())]
    NotADirectory(PathBuf),
    /// What is in it would be hidden.
    #[error("mount point {}: the folder is not empty, and what is in it would be hidden", .0.display())]
    NotEmpty(PathBuf),
    /// A live mount is there.
    #[error("mount point {}: {} ({}) is mounted there already", .point.display(), .source_of_it.display(), .kind)]
    Busy {
        /// The mount point.
        point: PathBuf,
        /// The mount's filesystem type.
        kind: String,
        /// What is mounted: of one of our own mounts, the node's root.
        source_of_it: PathBuf,
    },
    /// The one is inside the other.
    #[error("mount point {} and root {}: one must not be inside the other", .point.display(), .root.display())]
    Overlaps {
        /// The mount point.
        point: PathBuf,
        /// The node's root.
        root: PathBuf,
    },
    /// A dead mount is there, and stays.
    #[error("mount point {}: a dead mount is there that cannot be taken away: {error}", .point.display())]
    Stale {
        /// The mount point.
        point: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The system refused to say.
    #[error("mount point {}: {error}", .point.display())]
    Unreadable {
        /// The mount point.
        point: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No FUSE in the kernel.
    #[error(
        "{DEVICE} is missing: load the kernel's fuse module (modprobe fuse), or give it to this container"
    )]
    NoDevice,
    /// FUSE is there, but not for this user.
    #[error("{DEVICE}: permission denied: give this user access to it, or mount as root")]
    DeviceDenied,
    /// A user who is not root needs it.
    #[error("{HELPER} is missing: install the package fuse3, or mount as root")]
    NoHelper,
    /// The helper lets users mount only on folders of theirs.
    #[error("mount point {}: the folder is not this user's to write in; choose one that is, or mount as root", .0.display())]
    NotYours(PathBuf),
    /// `--allow-other` as a user.
    #[error("--allow-other: only root may, unless {FUSE_CONF} has a line user_allow_other")]
    AllowOtherRefused,
}

/// Checks a mount point, takes away dead mounts on it, and gives its absolute path.
pub fn prepare(point: &Path, root: &Path, allow_other: bool) -> Result<PathBuf, PointError> {
    check_device()?;
    if !rustix::process::geteuid().is_root() {
        check_user(allow_other)?;
    }
    let point = absolute(point)?;
    clear(&point, root)?;
    check_apart(&point, root)?;
    check_folder(&point)?;
    if !rustix::process::geteuid().is_root() {
        check_yours(&point)?;
    }
    Ok(point)
}

/// As the helper does it, but before anything is made: what a user mounts on has to be writable to them, and theirs
/// where others may write, too (as in /tmp).
fn check_yours(point: &Path) -> Result<(), PointError> {
    let metadata = fs::metadata(point).map_err(|error| PointError::Unreadable {
        point: point.into(),
        error,
    })?;
    let is_shared = metadata.mode() & Mode::SVTX.bits() != 0;
    let is_owner = metadata.uid() == rustix::process::geteuid().as_raw();
    match access(point, Access::WRITE_OK) {
        Ok(()) if is_owner || !is_shared => Ok(()),
        _ => Err(PointError::NotYours(point.into())),
    }
}

fn check_device() -> Result<(), PointError> {
    let opened = File::options().read(true).write(true).open(DEVICE);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(PointError::DeviceDenied)
        }
        Err(_) => Err(PointError::NoDevice),
        Ok(device) => {
            let number = device.metadata().map(|metadata| metadata.rdev());
            match number.is_ok_and(|number| (major(number), minor(number)) == DEVICE_NUMBER) {
                true => Ok(()),
                false => Err(PointError::NoDevice),
            }
        }
    }
}

fn check_user(allow_other: bool) -> Result<(), PointError> {
    if find_helper(std::env::var_os("PATH").as_deref()).is_none() {
        return Err(PointError::NoHelper);
    }
    let conf = fs::read_to_string(FUSE_CONF).unwrap_or_default();
    if allow_other && !lets_users_allow_other(&conf) {
        return Err(PointError::AllowOtherRefused);
    }
    Ok(())
}

/// Also where a path that is not a user's own leaves out the usual folders, as fuser does it.
fn find_helper(path: Option<&OsStr>) -> Option<PathBuf> {
    let folders = path.into_iter().flat_map(std::env::split_paths);
    let usual = [PathBuf::from("/sbin"), PathBuf::from("/bin")];
    let mut places = folders.chain(usual).map(|folder| folder.join(HELPER));
    places.find(|place| place.is_file())
}

fn lets_users_allow_other(conf: &str) -> bool {
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

/// An absolute path that does not need the mount point itself to answer: a dead mount does not.
fn absolute(point: &Path) -> Result<PathBuf, PointError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => PointError::Missing(point.into()),
        io::ErrorKind::NotADirectory => PointError::NotADirectory(point.into()),
        _ => PointError::Unreadable {
            point: point.into(),
            error,
        },
    };
    let whole = std::path::absolute(point).map_err(unreadable)?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        return fs::canonicalize(&whole).map_err(unreadable);
    };
    let at = fs::canonicalize(parent).map_err(unreadable)?.join(name);
    let is_link = fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_symlink());
    if is_link {
        return fs::canonicalize(&at).map_err(unreadable);
    }
    Ok(at)
}

/// Takes away what a killed node has left there. Whoever calls holds the root's lock: a mount of that root is
/// served by nobody, and asking it anything could wait for ever.
fn clear(point: &Path, root: &Path) -> Result<(), PointError> {
    let unreadable = |error| PointError::Unreadable {
        point: point.into(),
        error,
    };
    for _ in 0..STALE_MOUNTS_MAX {
        let Some(mounted) = mounted_on(point).map_err(unreadable)? else {
            return Ok(());
        };
        if !is_ours(&mounted, root) && !is_dead(point) {
            return Err(PointError::Busy {
                point: point.into(),
                kind: mounted.kind,
                source_of_it: mounted.source,
            });
        }
        tracing::info!(mount = %point.display(), "taking away the dead mount of a node that was killed");
        force(point).map_err(|error| PointError::Stale {
            point: point.into(),
            error,
        })?;
    }
    Ok(())
}

fn is_ours(mounted: &Mounted, root: &Path) -> bool {
    mounted.kind.strip_prefix("fuse.") == Some(SUBTYPE) && mounted.source == root
}

/// Whether the process behind a FUSE mount is gone.
fn is_dead(point: &Path) -> bool {
    let asked = fs::metadata(point);
    asked.is_err_and(|error| error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()))
}

/// Ends all that the kernel waits for in the mounts of a root whose process is dead: a thread of it may be waiting for a
/// folder that is held by a request, which it will not answer any more, and neither of them goes before the other.
pub fn let_go_of_the_dead(root: &Path) {
    let mounts = mountinfo::all().unwrap_or_default();
    for mounted in mounts.iter().filter(|mounted| is_ours(mounted, root)) {
        tracing::info!(mount = %mounted.point.display(), "ending the mount of a node that was killed and could not go");
        // what users may do, who may not force anything
        let aborted = Switch::of(&mounted.device).and_then(|switch| switch.abort());
        let forced = force(&mounted.point);
        tracing::debug!(?aborted, ?forced, "a dead mount");
    }
}

/// Unmounts at once; requests on the way and open files fail.
pub(super) fn force(point: &Path) -> io::Result<()> {
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(point, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => helper(point, &["-u", "-z"]),
        Err(error) => Err(error.into()),
    }
}

/// Unmounts, unless files are open.
pub(super) fn unmount(point: &Path) -> io::Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => helper(point, &["-u"]),
        Err(error) => Err(error.into()),
    }
}

/// What users need the setuid helper for.
fn helper(point: &Path, words: &[&str]) -> io::Result<()> {
    let found = find_helper(std::env::var_os("PATH").as_deref());
    let found = found.ok_or_else(|| io::Error::other(PointError::NoHelper))?;
    let mut command = Command::new(found);
    command
        .args(words)
        .arg("--")
        .arg(point)
        .stdin(Stdio::null());
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if said.contains("busy") {
        io::ErrorKind::ResourceBusy
    } else {
        io::ErrorKind::Other
    };
    Err(io::Error::new(kind, said))
}

fn check_folder(point: &Path) -> Result<(), PointError> {
    let mut names = fs::read_dir(point).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PointError::Missing(point.into()),
        io::ErrorKind::NotADirectory => PointError::NotADirectory(point.into()),
        _ => PointError::Unreadable {
            point: point.into(),
            error,
        },
    })?;
    match names.next() {
        None => Ok(()),
        Some(_) => Err(PointError::NotEmpty(point.into())),
    }
}

/// A root beneath its own mount would wait for itself; a mount inside a root would be taken for its data.
fn check_apart(point: &Path, root: &Path) -> Result<(), PointError> {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.into());
    if root.starts_with(point) || point.starts_with(&root) {
        return Err(PointError::Overlaps {
            point: point.into(),
            root,
        });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_point_and_a_file_have_their_own_sentences() {
        let folder = tempfile::tempdir().unwrap();
        let missing = absolute(&folder.path().join("no")).and_then(|at| check_folder(&at));
        assert!(
            matches!(missing, Err(PointError::Missing(_))),
            "{missing:?}"
        );
        let beneath = absolute(&folder.path().join("no/such"));
        assert!(
            matches!(beneath, Err(PointError::Missing(_))),
            "{beneath:?}"
        );
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let file = absolute(&file).and_then(|at| check_folder(&at));
        assert!(
            matches!(file, Err(PointError::NotADirectory(_))),
            "{file:?}"
        );
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        check_folder(folder.path()).unwrap();
        fs::write(folder.path().join(".hidden"), "x").unwrap();
        let full = check_folder(folder.path());
        assert!(matches!(full, Err(PointError::NotEmpty(_))), "{full:?}");
    }

    #[test]
    fn a_link_to_a_folder_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(absolute(&link).unwrap(), fs::canonicalize(&real).unwrap());
    }

    #[test]
    fn a_live_mount_is_left_alone() {
        let busy = clear(Path::new("/proc"), Path::new("/nowhere"));
        let Err(PointError::Busy { kind, .. }) = busy else {
            panic!("{busy:?}");
        };
        assert_eq!(kind, "proc");
    }

    #[test]
    fn root_and_mount_are_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("ab"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        check_apart(&a, &b).unwrap();
        check_apart(&a, &folder.path().join("a/root")).unwrap_err();
        check_apart(&a.join("mount"), &a).unwrap_err();
        check_apart(&a, &a).unwrap_err();
    }

    #[test]
    fn fuse_conf_is_read_as_the_helper_reads_it() {
        assert!(lets_users_allow_other(
            "mount_max = 10\n user_allow_other \n"
        ));
        assert!(!lets_users_allow_other("#user_allow_other\n"));
        assert!(!lets_users_allow_other(""));
    }

    #[test]
    fn the_helper_is_looked_for_in_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(HELPER);
        fs::write(&place, "").unwrap();
        let found = find_helper(Some(folder.path().as_os_str()));
        assert_eq!(found, Some(place));
    }
}
