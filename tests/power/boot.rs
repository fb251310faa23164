//! Another boot of the machine, as its programs see it.

use crate::support::must;
use crate::support::random::Random;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the kernel tells its boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The boot id that this thread, and whatever it starts from now on, is shown.
pub struct Boot(PathBuf);

impl Boot {
    /// Gives this thread a mount namespace of its own.
    pub fn new(folder: &Path) -> Self {
        leave_the_mount_namespace();
        must(Command::new("mount").args(["--make-rprivate", "/"]));
        let boot = Self(folder.join("boot_id"));
        fs::copy(BOOT_ID, &boot.0).unwrap();
        must(
            Command::new("mount")
                .arg("--bind")
                .args([&boot.0, Path::new(BOOT_ID)]),
        );
        boot
    }

    /// The machine starts again.
    pub fn next(&self, random: &mut Random) {
        let bytes: [u8; 16] = std::array::from_fn(|_| random.below(256) as u8);
        let id = uuid::Uuid::from_bytes(bytes);
        fs::write(&self.0, format!("{id}\n")).unwrap();
        assert_eq!(fs::read_to_string(BOOT_ID).unwrap(), format!("{id}\n"));
    }
}

#[allow(unsafe_code)]
fn leave_the_mount_namespace() {
    // SAFETY: descriptors stay shared; the folder that is current here only is not changed by anyone.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
}
