//! The filesystem in our words: what the mount shows, from the moment it is acknowledged.
//!
//! It owns the names in memory, the open files, `ROOT/journal` and `ROOT/staging/`. It knows neither FUSE nor
//! Git nor the network: names come from [`Names`], bytes from [`Contents`].
//!
//! Invariants: what an operation has answered for is in the journal (bytes: in a staging file) before the
//! answer; one lock guards everything, and no file's bytes are moved under it but a small file's; what is
//! shown is the committed tree `base`, with the pending changes, with the files that are being written.
//!
//! A crash loses nothing that was answered: the next start replays the journal onto the committed tree and
//! takes up the staging files as closed ones. A power cut loses what was not synced, never more.

mod attributes;
mod directories;
mod error;
mod files;
mod handles;
mod inode;
pub(crate) mod journal;
mod names;
mod namespace;
mod node;
mod open;
mod pending;
mod ports;
mod rebase;
mod recovery;
mod sealing;
mod staging;
mod state;
mod sync;
#[cfg(test)]
mod tests;
mod types;
mod xattrs;

pub use error::FsError;
pub use ports::{
    BaseView, BoxFuture, ContentReader, Contents, Events, Group, Listed, Names, Ports, Sealed,
    Source, TOKEN_BYTES_MAX, ViewDiff,
};
pub use types::{
    Allocation, Answer, Caller, Config, DirectoryEntry, FileType, HandleId, Inode, Invalidation,
    NewNode, OpenFlags, Opened, Recovered, RenameMode, SealJob, SetAttributes, SetTime, Space,
    Stat, Status, Whence, XattrMode,
};

use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A mounted volume. Cheap to clone: all clones are the same filesystem.
#[derive(Clone)]
pub struct Filesystem(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Told whenever a seal has ended.
    sealed: tokio::sync::Notify,
    /// Up to which sequence the journal is on the disk. Held while it is being synced, so that all who wait
    /// meanwhile are served by the next sync.
    durable: Mutex<u64>,
    /// Of the folder of staging files.
    folder: sync::SharedSync,
}

impl Filesystem {
    /// Starts on a root: replays the journal, takes up the staging files.
    pub fn start(config: Config, ports: Ports) -> Result<Self, FsError> {
        let state = recovery::start(config, ports)?;
        Ok(Self(Arc::new(Shared {
            state: Mutex::new(state),
            sealed: tokio::sync::Notify::new(),
            durable: Mutex::new(0),
            folder: sync::SharedSync::default(),
        })))
    }

    /// A panic under the lock has been answered with an error; whoever comes after goes on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
