//! Staging files: bytes being written, and bytes closed but not yet sealed.
//!
//! Whether a file has been written is told by its staging file's own modification time, because writes may
//! go to it past this program (passthrough, mappings): before it is handed out it gets a time that no clock
//! shows, and any write replaces that. What survives a crash: the file, once its journal record is written;
//! a staging file without a record is removed at the next start.

use super::FsError;
use super::journal::StagedItem;
use delugefs_core::entry::Placed;
use delugefs_core::time::Timestamp;
use rustix::fs::{
    Advice, AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fadvise, utimensat,
};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The modification time of a staging file that nobody has written yet.
const UNWRITTEN: Timestamp = Timestamp {
    seconds: -86_400,
    nanoseconds: 271_828_182,
};

/// The modification time of a staging file whose writes so far are accounted for in its entry.
const SETTLED: Timestamp = Timestamp {
    seconds: -86_400,
    nanoseconds: 314_159_265,
};

/// Where a staged file is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Open for writing.
    Writing,
    /// Closed; waits to be hashed.
    Unsealed,
    /// Being hashed: must not be written.
    Sealing,
}

/// Identifies a staging file: its name in `staging/` is the hex form.
pub(super) type Nonce = [u8; 16];

/// A file's staging file.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each tested alone"
)]
pub(super) struct Staged {
    /// Open for reading and writing.
    pub(super) file: Arc<File>,
    /// Held while its bytes are synced.
    pub(super) syncing: Arc<Mutex<()>>,
    pub(super) nonce: Nonce,
    pub(super) phase: Phase,
    /// Handles open for writing.
    pub(super) writers: u32,
    /// Its bytes differ from the committed ones, as far as accounted for.
    pub(super) written: bool,
    /// The entry has never had committed bytes: it is in no commit and no pending change.
    pub(super) unborn: bool,
    /// Only writers with `CAP_FSETID` have had it open: set-user-id stays.
    pub(super) privileged: bool,
    /// The store may have the same file under another link: it must not be written in place.
    pub(super) shared: bool,
    /// The journal says that it is on the disk, bytes and all that it began with.
    pub(super) synced: bool,
    /// What an unborn file has replaced under its name: other nodes see that until it is born.
    pub(super) replaces: Vec<Placed>,
}

impl Staged {
    pub(super) fn new(file: File, nonce: Nonce) -> Self {
        Self {
            file: Arc::new(file),
            syncing: Arc::default(),
            nonce,
            phase: Phase::Writing,
            writers: 0,
            written: false,
            unborn: false,
            privileged: true,
            shared: false,
            synced: false,
            replaces: Vec::new(),
        }
    }

    /// When it was last written, if that is not accounted for yet.
    pub(super) fn written_at(&self) -> Result<Option<Timestamp>, FsError> {
        let at = modified(&self.file)?;
        Ok((at != UNWRITTEN && at != SETTLED).then_some(at))
    }

    /// From here on `written_at` tells of later writes only.
    pub(super) fn settle(&mut self) -> Result<(), FsError> {
        self.written = true;
        set_modified(&self.file, SETTLED)
    }

    /// For the journal.
    pub(super) fn item(&self, placed: Placed) -> StagedItem {
        StagedItem {
            nonce: self.nonce,
            placed,
            unborn: self.unborn,
            privileged: self.privileged,
            replaces: self.replaces.clone(),
        }
    }

    /// Nobody writes or hashes it.
    pub(super) fn is_idle(&self) -> bool {
        self.writers == 0 && self.phase != Phase::Sealing
    }

    /// A writer may come, without waiting for a seal.
    pub(super) fn is_writable(&self) -> bool {
        self.phase != Phase::Sealing && !self.shared
    }
}

/// The folder of staging files.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    folder: PathBuf,
}

impl Staging {
    pub(super) fn open(root: &Path) -> Result<Self, FsError> {
        let folder = root.join("staging");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self, nonce: &Nonce) -> PathBuf {
        self.folder.join(hex(nonce))
    }

    /// The link that a seal takes away.
    pub(super) fn seal_path(&self, nonce: &Nonce) -> PathBuf {
        self.folder.join(format!("{}.seal", hex(nonce)))
    }

    /// A new empty file. [`mark_unwritten`] before it is handed out.
    pub(super) fn create(&self, nonce: &Nonce) -> Result<File, FsError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path(nonce))?;
        Ok(file)
    }

    /// Takes up a file that was there before a restart; `None` when it is not.
    pub(super) fn recover(&self, nonce: &Nonce) -> Result<Option<Staged>, FsError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(nonce));
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let _ = std::fs::remove_file(self.seal_path(nonce));
        // where a sync has failed, the kernel may still show what the disk does not have
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let at = modified(&file)?;
        let shared = file.metadata()?.nlink() > 1;
        let mut staged = Staged::new(file, *nonce);
        staged.written = at != UNWRITTEN;
        staged.shared = shared;
        staged.phase = Phase::Unsealed;
        Ok(Some(staged))
    }

    /// Gives a seal its own link to the file.
    pub(super) fn link_for_seal(&self, nonce: &Nonce) -> Result<PathBuf, FsError> {
        let link = self.seal_path(nonce);
        let _ = std::fs::remove_file(&link);
        std::fs::hard_link(self.path(nonce), &link)?;
        Ok(link)
    }

    /// Removes the name; whoever has it open keeps the bytes. A name that stays is swept at the next start.
    pub(super) fn remove(&self, nonce: &Nonce) {
        let _ = std::fs::remove_file(self.path(nonce));
        let _ = std::fs::remove_file(self.seal_path(nonce));
    }

    /// Removes every file whose name `keep` does not tell.
    pub(super) fn sweep(&self, keep: impl Fn(&str) -> bool) -> Result<(), FsError> {
        for file in std::fs::read_dir(&self.folder)? {
            let file = file?;
            if !file.file_name().to_str().is_some_and(&keep) {
                std::fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Changes something that means nothing, which a filesystem that has given up refuses. ext4 may answer a sync well
    /// whose transaction has failed: if the sync of another had it committed, and the drive works again.
    pub(super) fn touch_folder(&self) -> io::Result<()> {
        let only = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps {
            last_access: only(UTIME_NOW),
            last_modification: only(UTIME_OMIT),
        };
        // the first may only make it notice
        for _ in 0..2 {
            utimensat(CWD, &self.folder, &times, AtFlags::empty())?;
        }
        Ok(())
    }
}

/// Any write from here on shows.
pub(super) fn mark_unwritten(file: &File) -> Result<(), FsError> {
    set_modified(file, UNWRITTEN)
}

pub(super) fn hex(nonce: &Nonce) -> String {
    use std::fmt::Write;
    nonce.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn modified(file: &File) -> Result<Timestamp, FsError> {
    let metadata = file.metadata()?;
    Ok(Timestamp {
        seconds: metadata.mtime(),
        nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
    })
}

pub(super) fn set_modified(file: &File, at: Timestamp) -> Result<(), FsError> {
    let time = Timespec {
        tv_sec: at.seconds,
        tv_nsec: i64::from(at.nanoseconds),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::futimens(file, &times)?;
    Ok(())
}
