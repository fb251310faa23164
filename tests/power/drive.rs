//! A disk drive with a cache that forgets: what was written since the last flush is lost in a power cut, or not, or
//! in part. It also fails when it is told to.
//!
//! It is one file of a FUSE filesystem, which a process of its own serves (`cable.rs`); ext4 is on it through a loop
//! device, whose flushes arrive there as `fsync`. So the node works on a real filesystem with all that it asks of one,
//! and each sync of each part is seen, however it is made.

use crate::cable::{FOLDER, NAME};
use crate::platter::SIZE;
use crate::support::random::Random;
use crate::support::{eventually, must, run_quietly};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A drive with ext4 on it, mounted while the power is on.
pub struct Drive {
    process: Child,
    orders: BufReader<UnixStream>,
    /// Its files: what is durable, where its file is mounted, and a link to where the ext4 on that is.
    folder: PathBuf,
    point: PathBuf,
}

impl Drive {
    /// A new one, with files of its own in `folder`, mounted on `point`.
    pub fn new(folder: &Path, point: &Path) -> Self {
        let image = folder.join("platter");
        File::create_new(&image).unwrap().set_len(SIZE).unwrap();
        must(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        std::fs::create_dir(folder.join("cable")).unwrap();
        std::os::unix::fs::symlink(point, folder.join("point")).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--ignored", "--nocapture"]);
        command.env(FOLDER, folder).stdout(Stdio::null());
        let process = command.stdin(OwnedFd::from(theirs)).spawn().unwrap();
        let mut drive = Self {
            process,
            orders: BufReader::new(ours),
            folder: folder.to_owned(),
            point: point.to_owned(),
        };
        drive.mount(0);
        std::fs::remove_dir(point.join("lost+found")).unwrap();
        drive
    }

    /// Gives an order; the number that answers it.
    fn order(&mut self, order: &str) -> u64 {
        writeln!(self.orders.get_ref(), "{order}").unwrap();
        let mut answer = String::new();
        self.orders.read_line(&mut answer).unwrap();
        answer.trim().parse().unwrap()
    }

    /// The power fails: from now on nothing becomes durable.
    pub fn cut(&mut self, random: &mut Random) {
        let seed = random.below(u64::MAX >> 8);
        self.order(&format!("cut {seed}"));
    }

    /// After so many more writes and flushes, so many fail with EIO.
    pub fn fail(&mut self, after: u64, count: u64) {
        self.order(&format!("fail {after} {count}"));
    }

    /// From now on a flush takes so long.
    pub fn slow(&mut self, flush: Duration) {
        self.order(&format!("slow {}", flush.as_millis()));
    }

    /// Flushes so far.
    pub fn flushes(&mut self) -> u64 {
        self.order("flushes")
    }

    /// Forgets what the kernel knows, and mounts what is left, whole again if need be. Nobody may have a file open.
    pub fn power_on(&mut self, random: &mut Random) {
        self.unmount();
        self.mount(random.below(OPTIONS.len() as u64) as usize);
    }

    fn mount(&mut self, options: usize) {
        self.order("on");
        let disk = self.folder.join("cable/disk");
        eprintln!("mounted with {}", OPTIONS[options]);
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", OPTIONS[options]]);
        must(command.arg(disk).arg(&self.point));
    }

    fn unmount(&mut self) {
        eventually(SOON, "nobody uses the disk", || {
            run_quietly(Command::new("umount").arg(&self.point))
        });
        eventually(SOON, "its loop device is gone", || {
            run_quietly(Command::new("umount").arg(self.folder.join("cable")))
        });
        self.order("off");
    }
}

impl Drop for Drive {
    /// Its owner may be about to die of a panic, with files open: its process unmounts what is there.
    fn drop(&mut self) {
        let _ = self.orders.get_ref().shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// Names before bytes, and bytes before names; without what ext4 does to spare programs that do not sync. Not with
/// `nodelalloc`: then it gives a file its blocks before their bytes, and shows whose bytes were there before; whoever
/// did not sync sees them on any filesystem above.
const OPTIONS: [&str; 2] = [
    "loop,noauto_da_alloc,data=writeback,commit=1",
    "loop,noauto_da_alloc",
];
