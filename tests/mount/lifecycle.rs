//! Mounting, unmounting, and what stands in their way.

use crate::support::{Lab, PATIENCE, can_mount, eventually};
use delugefs::fuse::{MountError, PointError};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::mount::UnmountFlags;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn table() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn line_of(point: &Path) -> Option<String> {
    let point = format!(" {} ", point.display());
    table()
        .lines()
        .find(|line| line.contains(&point))
        .map(String::from)
}

#[test]
fn a_mount_shows_its_root_and_goes_away() {
    if !can_mount() {
        return;
    }
    let mut lab = Lab::new();
    let line = line_of(lab.point.path()).unwrap();
    let tail = format!("fuse.delugefs {} rw", lab.root.path().display());
    assert!(line.contains(&tail), "{line}");
    fs::write(lab.path("file"), "x").unwrap();
    lab.mount.take().unwrap().unmount().unwrap();
    assert_eq!(line_of(lab.point.path()), None);
    assert_eq!(fs::read_dir(lab.point.path()).unwrap().count(), 0);
}

#[test]
fn a_dropped_mount_is_gone_though_files_are_open() {
    if !can_mount() {
        return;
    }
    let mut lab = Lab::new();
    let open = fs::File::create(lab.path("file")).unwrap();
    lab.mount = None;
    assert_eq!(line_of(lab.point.path()), None);
    let failed = open.metadata().unwrap_err();
    assert_eq!(failed.kind(), std::io::ErrorKind::NotConnected);
}

#[test]
fn unmounting_takes_open_files_away_after_a_while() {
    if !can_mount() {
        return;
    }
    let mut lab = Lab::new();
    let _open = fs::File::create(lab.path("file")).unwrap();
    lab.mount.take().unwrap().unmount().unwrap();
    assert_eq!(line_of(lab.point.path()), None);
}

#[test]
fn umount_from_outside_is_noticed() {
    if !can_mount() {
        return;
    }
    let mut lab = Lab::new();
    let unmounted = lab.mount.as_ref().unwrap().unmounted();
    rustix::mount::unmount(lab.point.path(), UnmountFlags::empty()).unwrap();
    lab.runtime.block_on(async {
        tokio::time::timeout(PATIENCE, unmounted).await.unwrap();
    });
    lab.mount.take().unwrap().unmount().unwrap();
}

#[test]
fn the_dead_mount_of_a_killed_node_is_replaced() {
    if !can_mount() {
        return;
    }
    let mut lab = Lab::new();
    fs::write(lab.path("file"), "still there").unwrap();
    let open = fs::File::open(lab.path("file")).unwrap();
    // Ends the connection, as the end of the process does; the open file keeps the dead mount in place.
    let _ = rustix::mount::unmount(lab.point.path(), UnmountFlags::FORCE);
    eventually("the mount is dead", || {
        let asked = fs::metadata(lab.point.path());
        asked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotConnected)
    });
    let again = lab.try_mount(lab.point.path()).unwrap();
    assert_eq!(fs::read(lab.path("file")).unwrap(), b"still there");
    drop(open);
    // The old one must leave the new one alone.
    lab.mount.take().unwrap().unmount().unwrap();
    assert_eq!(fs::read(lab.path("file")).unwrap(), b"still there");
    again.unmount().unwrap();
}

/// See docs/adr/0008.
#[test]
fn a_node_that_has_stopped_publishing_refuses_changes_with_erofs_and_goes_on_reading() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let (kept, folder) = (lab.path("kept"), lab.path("folder"));
    fs::write(&kept, "x").unwrap();
    fs::create_dir(&folder).unwrap();
    let open = fs::File::open(&kept).unwrap();
    lab.publishing.stop("this test says so");
    let refused = |what: &str, result: std::io::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(30), "{what}: EROFS, not {error}");
    };
    refused("mkdir", fs::create_dir(lab.path("new")));
    refused("create", fs::write(lab.path("new"), "y"));
    refused("open to write", fs::write(&kept, "y"));
    refused("unlink", fs::remove_file(&kept));
    refused("rmdir", fs::remove_dir(&folder));
    refused("rename", fs::rename(&kept, lab.path("new")));
    refused("symlink", std::os::unix::fs::symlink("a", lab.path("new")));
    refused(
        "chmod",
        fs::set_permissions(&kept, Permissions::from_mode(0o600)),
    );
    refused("utimens", open.set_modified(std::time::UNIX_EPOCH));
    refused(
        "fsync of a folder",
        fs::File::open(&folder).unwrap().sync_all(),
    );
    assert_eq!(fs::read(&kept).unwrap(), b"x");
    assert_eq!(fs::read_dir(lab.point.path()).unwrap().count(), 2);
}

/// More often than there are threads that serve it.
#[test]
fn the_lowest_and_highest_times_there_are_end_no_mount() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let file = lab.path("file");
    fs::write(&file, "x").unwrap();
    for tv_sec in [i64::MIN, i64::MAX].repeat(10) {
        let time = Timespec { tv_sec, tv_nsec: 0 };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        // what no clock can show may be refused
        let _ = utimensat(CWD, &file, &times, AtFlags::empty());
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }
    fs::write(lab.path("later"), "x").unwrap();
}

#[test]
fn what_stands_in_the_way_is_said() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let missing = lab.try_mount(&folder.path().join("no"));
    assert!(
        matches!(missing, Err(MountError::Point(PointError::Missing(_)))),
        "{missing:?}"
    );
    fs::write(folder.path().join("x"), "").unwrap();
    let full = lab.try_mount(folder.path());
    assert!(
        matches!(full, Err(MountError::Point(PointError::NotEmpty(_)))),
        "{full:?}"
    );
    let busy = lab.try_mount(Path::new("/proc"));
    assert!(
        matches!(busy, Err(MountError::Point(PointError::Busy { .. }))),
        "{busy:?}"
    );
    let within = lab.root.path().join("within");
    fs::create_dir(&within).unwrap();
    let within = lab.try_mount(&within);
    let overlaps = matches!(within, Err(MountError::Point(PointError::Overlaps { .. })));
    assert!(overlaps, "{within:?}");
}
