//! The kernel's end of a mount: a connection, each with a switch that ends it (Linux,
//! Documentation/filesystems/fuse/fuse.rst, "FUSE control filesystem").

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;

/// Where it usually is mounted.
const CONTROL: &str = "/sys/fs/fuse/connections";

/// Ends a connection: all that waits for an answer fails, in the kernel itself too, and nothing is asked any more.
///
/// It belongs to one connection for good: once that is gone it does nothing, whatever has got its number since. It does
/// not keep the connection or the mount.
#[derive(Debug)]
pub(super) struct Switch(File);

impl Switch {
    /// The switch of a mount with this device number (`major:minor`), for who has mounted it or is root. Where the
    /// control filesystem is mounted nowhere, as in many containers, root gets it without a place.
    pub(super) fn of(device: &str) -> io::Result<Self> {
        let number = device.rsplit(':').next().unwrap_or_default();
        let name = Path::new(number).join("abort");
        let options = File::options().write(true).to_owned();
        let switch = options.open(Path::new(CONTROL).join(&name));
        let switch = switch.or_else(|error| without_a_place(&name).map_err(|_| error));
        switch.map(Self)
    }

    /// The one that this process was given as its standard output; see [`Stdio::from`].
    pub(super) fn of_stdout() -> io::Result<Self> {
        use std::os::fd::AsFd;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self(output.into()))
    }

    /// Another hand on it, for a process to be started.
    pub(super) fn for_child(&self) -> io::Result<Stdio> {
        self.0.try_clone().map(Stdio::from)
    }

    /// Ends the connection.
    pub(super) fn abort(&self) -> io::Result<()> {
        // what is written does not matter
        (&self.0).write_all(b"1")
    }
}

fn without_a_place(name: &Path) -> io::Result<File> {
    let filesystem = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&filesystem)?;
    let mount = fsmount(
        &filesystem,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let switch = openat(mount, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(switch.into())
}
