//! What the filesystem needs from the rest of the node. Tests put fakes here.

use super::{FsError, Space};
use crate::publishing::Publishing;
use bytes::Bytes;
use delugefs_core::change::Changes;
use delugefs_core::entry::{ContentRef, Entry};
use delugefs_core::ids::{EntryId, InfoHash, TreeId};
use delugefs_core::name::Name;
use delugefs_core::time::Timestamp;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

/// A result that arrives later.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One name in a directory of the committed tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// What it names.
    pub entry: Entry,
    /// A directory's own tree; `None` for anything else.
    pub tree: Option<TreeId>,
}

/// The committed names: local, blocking.
pub trait Names: Send + Sync {
    /// All entries of a directory.
    fn directory(&self, tree: TreeId) -> Result<Vec<Listed>, FsError>;
    /// The root directory's own entry, in the tree of a commit. Fails when that tree is not to be had.
    fn root(&self, tree: TreeId) -> Result<Entry, FsError>;
}

/// A content that [`Contents::seal`] has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What it is called now.
    pub content: ContentRef,
    /// Its raw `info` dictionary.
    pub info: Vec<u8>,
}

/// The bytes.
pub trait Contents: Send + Sync {
    /// A content's file, opened for reading, when all of it is here. Called under the namespace lock: it
    /// must not wait.
    fn local(&self, content: &ContentRef) -> Result<Option<File>, FsError>;
    /// A reader over a content that is not wholly here; it reads that also when no name has it any more. Must not wait.
    /// [`FsError::Stale`] where no name has it now.
    fn reader(&self, content: ContentRef) -> Result<Arc<dyn ContentReader>, FsError>;
    /// Reading these bytes of a content's file has failed, or ended early: looks what is wrong, so that afterwards a
    /// [`Contents::reader`] gives the right ones, or none.
    fn reread(&self, _content: ContentRef, _bytes: Range<u64>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Hashes a staging file and takes it over: afterwards it is gone from `staged`, and complete here.
    /// On an error it is still at `staged`. Takes its time; never called under a lock.
    fn seal(&self, staged: &Path) -> Result<Sealed, FsError>;
    /// Makes all contents that were sealed so far survive a power cut, names and bytes. Blocks.
    fn sync(&self) -> Result<(), FsError> {
        Ok(())
    }
    /// Whether a power cut takes nothing of what is here of a content. Called under the namespace lock: must not wait.
    fn is_durable(&self, _content: &InfoHash) -> bool {
        true
    }
    /// Room on this disk, already less the reserve and within the capacity.
    fn space(&self) -> Space;
    /// Takes so many bytes of that room for what is about to be written, if there are as many. Called for each
    /// write that the filesystem serves itself: must be cheap.
    fn take_room(&self, bytes: u64) -> bool {
        bytes <= self.space().free
    }
}

/// Reads a content while it arrives.
pub trait ContentReader: Send + Sync {
    /// Bytes at `offset`: at least one and at most `length`, none only at the end of the content. Waits for
    /// them to arrive; fails when the wait ends in vain. Dropping the future gives up.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'static, Result<Bytes, FsError>>;
}

/// Time and randomness.
pub trait Source: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// 16 random bytes: identities of entries and names of staging files.
    fn random(&self) -> [u8; 16];
    /// Tells one running of the machine from another, and so whether the power may have failed; `None` where the
    /// kernel does not tell.
    fn boot(&self) -> Option<[u8; 16]> {
        super::recovery::boot_id()
    }
}

/// Who wants to know that there is work. Called under the namespace lock: must return at once and must not
/// call the filesystem.
pub trait Events: Send + Sync {
    /// A file waits to be sealed: [`super::Filesystem::next_unsealed`].
    fn unsealed(&self);
    /// Changes wait to be committed: [`super::Filesystem::take_group`].
    fn pending(&self);
}

/// All ports together.
#[derive(Clone)]
pub struct Ports {
    /// The committed names.
    pub names: Arc<dyn Names>,
    /// The bytes.
    pub contents: Arc<dyn Contents>,
    /// Time and randomness.
    pub source: Arc<dyn Source>,
    /// Who is told of work.
    pub events: Arc<dyn Events>,
    /// Ended by a journal that cannot be written or synced; once ended, changes are refused.
    pub publishing: Publishing,
}

/// A committed tree that the filesystem was moved to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseView {
    /// The node's own description of it (the heads that were merged), at most [`TOKEN_BYTES_MAX`] bytes: kept
    /// in the journal and given back as it was.
    pub token: Vec<u8>,
    /// Its tree.
    pub tree: TreeId,
}

/// Bytes of a [`BaseView`]'s token: room for the heads of fifty thousand nodes.
pub const TOKEN_BYTES_MAX: usize = 1 << 20;

/// Changes on their way into a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The committed tree that they are relative to.
    pub base: BaseView,
    /// The changes, each complete.
    pub changes: Changes,
    /// Raw `info` dictionaries of contents that are new in `changes`.
    pub infos: BTreeMap<InfoHash, Vec<u8>>,
    /// Where each directory that `changes` mentions as a parent, and each of its ancestors, is in the tree
    /// that results.
    pub places: BTreeMap<EntryId, (EntryId, Name)>,
    /// The journal goes up to here with these changes.
    pub sequence: u64,
}

/// How the committed tree has moved on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewDiff {
    /// The new one.
    pub view: BaseView,
    /// All entries that differ from the tree that the filesystem was based on (`base`).
    pub changes: Changes,
    /// Every directory whose tree differs, with its new tree.
    pub directories: Vec<(EntryId, TreeId)>,
}
