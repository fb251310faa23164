//! The volume's names on this disk.
//!
//! Invariants: a reference moves only after everything it names is on disk (and synced, where durability was
//! asked for); `refs/heads/main` is a function of the author references and is never anyone's parent; what
//! was written is never changed.

mod author;
mod common;
mod files;
mod import;
mod judge;
mod lookup;
mod loose;
mod maintain;
pub(crate) mod packs;
mod past;
mod read;
mod recover;
mod refresh;
mod repair;
mod switch;
#[cfg(test)]
pub(crate) mod tests;

pub use author::{Authored, Authoring};
pub use common::Said;
pub use import::{Kept, Today};
pub use maintain::Upkeep;
pub use read::Listed;

pub(crate) use files::sync_file;

use crate::cut;
use crate::error::{RepositoryError, Result, git};
use crate::exchange::Refusals;
use crate::session::{Decoders, Session};
use crate::view::{Views, new_views};
use delugefs_core::ids::{CommitId, IncarnationId, TreeId};
use delugefs_core::settings::Settings;
use gix::ObjectId;
use gix::odb::store::init::Slots;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Packs that may be open at once: each pull leaves one, until they are repacked. Twice as many as there are, and these.
const PACK_SLOTS: Slots = Slots::AsNeededByDiskState {
    multiplier: 2.0,
    minimum: 1024,
};

/// Largest object, in bytes, that is read into memory: a descriptor has at most 4 MiB, a tree a few KiB.
const OBJECT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a volume's heads show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The authored commits that no other descends from; none in a volume nobody has written to.
    pub heads: BTreeSet<CommitId>,
    /// What `refs/heads/main` points to: the one head, or a merge of them that is the same on every node.
    pub commit: Option<CommitId>,
    /// The root directory.
    pub tree: TreeId,
}

/// The repository of one node; clones share it. All calls block.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// Replaced when objects have gone: a handle made before still believes them there.
    git: RwLock<gix::ThreadSafeRepository>,
    /// The commit that every history of the volume begins with.
    genesis: ObjectId,
    decoders: Decoders,
    /// Chains of peers that were refused.
    refusals: Refusals,
    /// Held while references move.
    state: Mutex<State>,
    view: RwLock<Arc<View>>,
    /// Held for reading while a pull relies on what is there, for writing while objects go. Taken before `state`.
    pulls: RwLock<()>,
    /// Held by whoever joins packs.
    maintaining: Mutex<()>,
    /// Commits and pulls since the files were last counted.
    since_maintained: AtomicU32,
}

struct State {
    views: Views,
    /// Written since the last sync.
    unsynced: files::Unsynced,
    /// Author heads that have been read through, and whether they may take part in the view.
    judged: BTreeMap<ObjectId, bool>,
    /// Durable commits since the last checkpoint.
    since_checkpoint: u32,
    /// As given when it was opened.
    boot: String,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Repository").field(&self.inner.path).finish()
    }
}

pub(crate) fn commit_id(id: ObjectId) -> CommitId {
    CommitId::from_slice(id.as_slice()).unwrap_or(CommitId::new([0; 20]))
}

pub(crate) fn tree_id(id: ObjectId) -> TreeId {
    TreeId::from_slice(id.as_slice()).unwrap_or(TreeId::new([0; 20]))
}

pub(crate) fn object_id(bytes: &[u8; 20]) -> ObjectId {
    ObjectId::Sha1(*bytes)
}

impl Repository {
    /// Makes the repository of a volume at a path where there is nothing yet. A volume begins with its id,
    /// its name and the default settings; other settings are authored.
    ///
    /// Every node makes the same first commit from the same id and name, so that a node that joins needs
    /// nothing but these two.
    pub fn create(path: &Path, settings: &Settings) -> Result<Self> {
        if path.exists() {
            return Err(RepositoryError::Exists(path.display().to_string()));
        }
        let settings = Settings::new(settings.volume, settings.name.clone());
        files::create_whole(path, &settings)?;
        Self::open(path)
    }

    /// Opens a repository, removing what a crash may have left: lock files, temporary files, empty objects.
    /// Only one process may have it open.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_in(path, &recover::boot())
    }

    /// As [`Repository::open`]; `boot` names the time since the machine was switched on, by which it is seen whether
    /// the power may have failed.
    pub fn open_in(path: &Path, boot: &str) -> Result<Self> {
        let damage = repair::clean(path)?;
        let git = open_git(path)?;
        let genesis = files::genesis(&git.to_thread_local(), path)?;
        switch::redo(&git.to_thread_local(), path)?;
        let nothing = View {
            heads: BTreeSet::new(),
            commit: Some(commit_id(genesis)),
            tree: TreeId::new([0; 20]),
        };
        let repository = Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                git: RwLock::new(git),
                genesis,
                decoders: Decoders::new(),
                refusals: Refusals::default(),
                state: Mutex::new(State {
                    views: new_views(),
                    unsynced: files::Unsynced::default(),
                    judged: BTreeMap::new(),
                    since_checkpoint: 0,
                    boot: boot.to_owned(),
                }),
                view: RwLock::new(Arc::new(nothing)),
                pulls: RwLock::default(),
                maintaining: Mutex::default(),
                // Earlier processes may have left many.
                since_maintained: AtomicU32::new(maintain::MAINTAIN_EVERY),
            }),
        };
        repository.start(&damage, boot)?;
        Ok(repository)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Each author's newest commit.
    pub fn authors(&self) -> Result<BTreeMap<IncarnationId, CommitId>> {
        let authors = files::authors(&self.git_handle())?;
        Ok(authors
            .into_iter()
            .map(|(author, id)| (author, commit_id(id)))
            .collect())
    }

    /// What the heads show, as of the last [`Repository::refresh_view`] or [`Repository::author`].
    pub fn view(&self) -> View {
        let view = self
            .inner
            .view
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        View::clone(&view)
    }

    /// A handle for this thread.
    pub(crate) fn git_handle(&self) -> gix::Repository {
        let git = self.inner.git.read();
        git.unwrap_or_else(PoisonError::into_inner)
            .to_thread_local()
    }

    /// As long as this is held, objects that are there stay.
    pub(crate) fn hold_objects(&self) -> RwLockReadGuard<'_, ()> {
        let pulls = self.inner.pulls.read();
        pulls.unwrap_or_else(PoisonError::into_inner)
    }

    /// As long as this is held, no pull relies on what is there. Taken before the state.
    pub(crate) fn no_pull(&self) -> RwLockWriteGuard<'_, ()> {
        let pulls = self.inner.pulls.write();
        pulls.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything written so far survive a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        self.state().unsynced.sync(&self.inner.path)
    }

    /// Cuts history at these commits, durably, unless somebody here goes on from before. They have to be durable.
    pub(crate) fn begin_at(&self, commits: &HashSet<ObjectId>) -> Result<()> {
        let _state = self.state();
        if files::authors(&self.git_handle())?.is_empty() {
            return cut::write(&self.inner.path, commits);
        }
        Err(RepositoryError::Exists("history before the cut".to_owned()))
    }

    /// A commit's signature has been verified.
    pub(crate) fn note_signed(&self, id: ObjectId) {
        self.inner.decoders.note_signed(id);
    }

    pub(crate) fn refused(&self) -> &Refusals {
        &self.inner.refusals
    }

    fn session(&self) -> Session<'_> {
        Session::new(&self.inner.decoders, self.git_handle())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic may leave half done here is only remembered results, each complete in itself.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_git(path: &Path) -> Result<gix::ThreadSafeRepository> {
    let limit = format!("gitoxide.objects.allocLimit={OBJECT_BYTES_MAX}");
    gix::open::Options::isolated()
        .open_path_as_is(true)
        .object_store_slots(PACK_SLOTS)
        .config_overrides([limit])
        .open(path)
        .map_err(git("open the repository"))
}
