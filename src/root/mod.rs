//! A node's root folder: who the node is, and that only one process uses it.
//!
//! Owns `node.toml` (identity, volume, options that are kept) and the lock. `node.toml` is replaced atomically and
//! synced, so after a crash it is the old or the new one.

mod identity;
mod lock;

pub use identity::{
    Disk, Identity, IncarnationKeys, NodeFile, Renewal, Standing, VolumeName, random,
};
pub use lock::{RootLock, is_held_by_a_dead};

use std::io;
use std::path::{Path, PathBuf};

/// Format of a root. Draft formats are refused by any other version, never migrated.
pub const FORMAT: &str = "draft-4";

/// Why a root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// `--create` or joining on a folder with something else in it.
    #[error(
        "{0} has files in it that are not a DelugeFS root; give an empty or new folder as --root"
    )]
    NotEmpty(PathBuf),
    /// `--create` on a root that is in use for a volume already.
    #[error(
        "{root} already holds a disk of volume {volume}; start it without --create, or give another --root"
    )]
    AlreadyCreated {
        /// The root.
        root: PathBuf,
        /// The volume it belongs to.
        volume: String,
    },
    /// The root belongs to another volume than `--id` says.
    #[error(
        "{root} is a disk of volume {found}, not of {wanted}; give its own name as --id, or another --root"
    )]
    OtherVolume {
        /// The root.
        root: PathBuf,
        /// The volume it belongs to.
        found: String,
        /// What `--id` said.
        wanted: String,
    },
    /// Made by another version.
    #[error(
        "{root} has format {found}, this program knows {FORMAT}: use the version of DelugeFS that made it"
    )]
    OtherFormat {
        /// The root.
        root: PathBuf,
        /// The format that is written there.
        found: String,
    },
    /// Another process has it.
    #[error(
        "{0} is in use by another delugefs process; stop that one first (delugefs stop --root DIR)"
    )]
    InUse(PathBuf),
    /// `node.toml` cannot be understood.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk said no.
    #[error("cannot use {path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl RootError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// What an attempt of ours that was cut off may have left in a folder that is no root yet.
const LEFT_BY_US: [&str; 6] = [
    "lock",
    "log",
    "node.toml.new",
    "data",
    "holdings",
    "lost+found",
];

/// Whether a folder is a root or can become one: there is none yet, or nothing is in it but what is ours.
pub fn check_folder(root: &Path) -> Result<(), RootError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RootError::io(root)(error)),
    };
    let mut is_ours = true;
    for entry in entries {
        let name = entry.map_err(RootError::io(root))?.file_name();
        if name == "node.toml" {
            return Ok(());
        }
        is_ours &= LEFT_BY_US.iter().any(|ours| name == *ours);
    }
    match is_ours {
        true => Ok(()),
        false => Err(RootError::NotEmpty(root.to_owned())),
    }
}

/// Paths inside a root.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of a root folder.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Identity and kept options.
    pub fn node_file(&self) -> PathBuf {
        self.root.join("node.toml")
    }

    /// The names: a bare Git repository.
    pub fn metadata(&self) -> PathBuf {
        self.root.join("metadata.git")
    }

    /// The socket of the control commands.
    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// What each node of the volume holds, as far as this one has heard.
    pub fn holdings(&self) -> PathBuf {
        self.root.join("holdings")
    }

    /// Where a node that runs in the background writes what it has to say.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }
}
