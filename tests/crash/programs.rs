//! Real programs as users: what `cp -a` and `git clone` have ended well is whole, whatever comes then.

use crate::ledger::{Fact, Ledger};
use crate::support::{must, noise};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Bytes of the files that are copied and cloned.
const LENGTHS: [usize; 8] = [0, 1, 100, 4_000, 5_000, 20_000, 70_000, 300_000];

/// A repository outside of any mount.
#[derive(Clone)]
pub struct Source {
    folder: PathBuf,
    files: Arc<Vec<(String, Arc<Vec<u8>>)>>,
}

fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.args([
        "-c",
        "safe.directory=*",
        "-c",
        "user.name=n",
        "-c",
        "user.email=e",
        "-C",
    ]);
    command.arg(folder);
    command
}

impl Source {
    /// Made in an empty folder.
    pub fn new(folder: &Path) -> Self {
        must(git(folder).args(["init", "-q"]));
        let mut files = Vec::new();
        for (nth, length) in LENGTHS.into_iter().enumerate() {
            let (name, bytes) = (
                format!("part{}/file{nth}", nth % 3),
                noise(nth as u64, length),
            );
            fs::create_dir_all(folder.join(&name).parent().unwrap()).unwrap();
            fs::write(folder.join(&name), &bytes).unwrap();
            files.push((name, Arc::new(bytes)));
        }
        must(git(folder).args(["add", "-A"]));
        must(git(folder).args(["commit", "-q", "-m", "all"]));
        Self {
            folder: folder.to_owned(),
            files: Arc::new(files),
        }
    }

    /// `cp -a`
    pub fn copy(&self, mount: &Path, ledger: &Ledger, to: &str) -> io::Result<()> {
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(&self.folder).arg(mount.join(to));
        self.run(copy, mount, ledger, to)
    }

    /// `git clone`
    pub fn clone_to(&self, mount: &Path, ledger: &Ledger, to: &str) -> io::Result<()> {
        let mut clone = git(Path::new("/"));
        clone
            .args(["clone", "-q", "--no-local"])
            .arg(&self.folder)
            .arg(mount.join(to));
        self.run(clone, mount, ledger, to)?;
        ledger.cloned(to);
        Ok(())
    }

    /// Runs it; if it ends well, and the node was there to the end, all files are promised.
    fn run(&self, mut program: Command, mount: &Path, ledger: &Ledger, to: &str) -> io::Result<()> {
        for (name, bytes) in self.files.iter() {
            let (whole, cut_off) = (
                Fact::Bytes(Arc::clone(bytes)),
                Fact::UpTo(Arc::clone(bytes)),
            );
            ledger.begin(&format!("{to}/{name}"), whole, &[cut_off]);
        }
        let quiet = program.stdin(Stdio::null()).stdout(Stdio::null());
        if !quiet.stderr(Stdio::null()).status()?.success() {
            return Err(io::Error::other("it was cut off"));
        }
        rustix::fs::statvfs(mount)?;
        for (name, bytes) in self.files.iter() {
            ledger.done(&format!("{to}/{name}"), Fact::Bytes(Arc::clone(bytes)));
        }
        Ok(())
    }
}

/// A clone is sound, and as it was committed.
pub fn is_sound(clone: &Path) -> bool {
    let sound = git(clone)
        .args(["fsck", "--full", "--strict"])
        .output()
        .unwrap();
    let status = git(clone).args(["status", "--porcelain"]).output().unwrap();
    sound.status.success() && status.status.success() && status.stdout.is_empty()
}
