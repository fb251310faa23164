use super::*;
use bytes::Bytes;
use delugefs_core::entry::Placed;
use delugefs_core::ids::{EntryId, InfoHash, TreeId};
use delugefs_core::name::Name;
use std::collections::BTreeSet;

/// A mounted volume. Cheap to clone: all clones are the same filesystem.
#[derive(Clone)]
pub struct Filesystem(());

#[allow(unused_variables, clippy::todo)]
impl Filesystem {
    /// Starts on a root: replays the journal, recovers staging files.
    pub fn start(config: Config, ports: Ports) -> Result<Self, FsError> {
        todo!()
    }

    // ---- names ----
    /// Finds a name; counts one more reference of the kernel to the inode.
    pub fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Stat, FsError> {
        todo!()
    }
    /// The parent of a directory (for `..`); the root's is itself.
    pub fn parent(&self, inode: Inode) -> Result<Inode, FsError> {
        todo!()
    }
    /// Counts one more reference of the kernel (entries of readdirplus, except `.` and `..`).
    pub fn remember(&self, inode: Inode) -> Result<Stat, FsError> {
        todo!()
    }
    /// The kernel drops `count` references.
    pub fn forget(&self, inode: Inode, count: u64) {
        todo!()
    }
    /// `stat`
    pub fn stat(&self, inode: Inode) -> Result<Stat, FsError> {
        todo!()
    }
    /// `chmod`, `chown`, `truncate`, `utimens`
    pub fn set_attributes(
        &self,
        inode: Inode,
        set: SetAttributes,
    ) -> Result<Answer<Stat>, FsError> {
        todo!()
    }
    /// `readlink`
    pub fn read_link(&self, inode: Inode) -> Result<Vec<u8>, FsError> {
        todo!()
    }
    /// `mkdir`; counts a reference, as all that answer an entry do.
    pub fn make_directory(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u16,
        caller: Caller,
    ) -> Result<Stat, FsError> {
        todo!()
    }
    /// `mknod`
    pub fn make_node(
        &self,
        parent: Inode,
        name: &[u8],
        node: NewNode,
        mode: u16,
        caller: Caller,
    ) -> Result<Stat, FsError> {
        todo!()
    }
    /// `symlink`
    pub fn symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Stat, FsError> {
        todo!()
    }
    /// `link`: not offered yet.
    pub fn link(&self, inode: Inode, parent: Inode, name: &[u8]) -> Result<Stat, FsError> {
        todo!()
    }
    /// `unlink`
    pub fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), FsError> {
        todo!()
    }
    /// `rmdir`
    pub fn remove_directory(&self, parent: Inode, name: &[u8]) -> Result<(), FsError> {
        todo!()
    }
    /// `renameat2`
    pub fn rename(
        &self,
        from: (Inode, &[u8]),
        to: (Inode, &[u8]),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        todo!()
    }

    // ---- files ----
    /// `open(O_CREAT | O_EXCL)`: a new file, open.
    pub fn create(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u16,
        flags: OpenFlags,
        caller: Caller,
    ) -> Result<(Stat, Opened), FsError> {
        todo!()
    }
    /// `open`. `Later` where the bytes must be fetched, or a seal must end, before the file can be written.
    pub fn open(&self, inode: Inode, flags: OpenFlags) -> Result<Answer<Opened>, FsError> {
        todo!()
    }
    /// Gives the entry of an inode a new inode number; open handles keep the old inode and its bytes. For
    /// when an open for writing meets readers whose backing the kernel has got: answer `ESTALE` after it,
    /// and the kernel looks up again and opens the new inode.
    pub fn detach_readers(&self, inode: Inode) -> Result<(), FsError> {
        todo!()
    }
    /// `pread`
    pub fn read(
        &self,
        handle: HandleId,
        offset: u64,
        length: usize,
    ) -> Result<Answer<Bytes>, FsError> {
        todo!()
    }
    /// `pwrite`; with `O_APPEND` at the end, wherever `offset` is. All or nothing but for a full disk.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<usize, FsError> {
        todo!()
    }
    /// `close` of one descriptor: nothing to do, errors have been told.
    pub fn flush(&self, handle: HandleId) -> Result<(), FsError> {
        todo!()
    }
    /// The last descriptor and mapping of a handle is gone. Files and directories.
    pub fn release(&self, handle: HandleId) {
        todo!()
    }
    /// `fsync`: bytes and names survive a power cut on this disk. Blocks.
    pub fn sync(&self, handle: HandleId) -> Result<(), FsError> {
        todo!()
    }
    /// `fsync` of a directory: its names survive a power cut on this disk. Blocks.
    pub fn sync_directory(&self, inode: Inode) -> Result<(), FsError> {
        todo!()
    }
    /// `fallocate`
    pub fn allocate(
        &self,
        handle: HandleId,
        what: Allocation,
        offset: u64,
        length: u64,
    ) -> Result<(), FsError> {
        todo!()
    }
    /// `lseek` for data or holes.
    pub fn seek(&self, handle: HandleId, offset: u64, whence: Whence) -> Result<u64, FsError> {
        todo!()
    }

    // ---- directories ----
    /// `opendir`
    pub fn open_directory(&self, inode: Inode) -> Result<HandleId, FsError> {
        todo!()
    }
    /// The names from `offset` on (0: from the start, afresh), at most `limit` of them.
    pub fn read_directory(
        &self,
        handle: HandleId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<DirectoryEntry>, FsError> {
        todo!()
    }

    // ---- extended attributes ----
    /// `getxattr`
    pub fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, FsError> {
        todo!()
    }
    /// `listxattr`
    pub fn list_xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>, FsError> {
        todo!()
    }
    /// `setxattr`
    pub fn set_xattr(
        &self,
        inode: Inode,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        todo!()
    }
    /// `removexattr`
    pub fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), FsError> {
        todo!()
    }

    /// `statfs`
    pub fn space(&self) -> Space {
        todo!()
    }

    // ---- the node's side ----
    /// The committed tree that the names shown are based on. When the view's tree is another: `rebase`.
    pub fn base(&self) -> TreeId {
        todo!()
    }
    /// Takes what waits to be committed, if anything; give it back with `committed` or `return_group`. One
    /// group at a time.
    pub fn take_group(&self) -> Option<Group> {
        todo!()
    }
    /// The group is in a commit whose tree is exactly the group's base with its changes.
    pub fn committed(&self, sequence: u64, tree: TreeId) -> Result<(), FsError> {
        todo!()
    }
    /// The group could not be committed; it waits again.
    pub fn return_group(&self, group: Group) {
        todo!()
    }
    /// Moves to another committed tree. `commit` is called under the namespace lock with the base and what
    /// is pending: it commits that, and answers the difference from the base to the new view.
    /// On its error nothing has changed and the changes wait again.
    pub fn rebase<E: From<FsError>>(
        &self,
        commit: impl FnOnce(TreeId, Option<&Group>) -> Result<ViewDiff, E>,
    ) -> Result<Vec<Invalidation>, E> {
        todo!()
    }
    /// A closed file to be hashed, if any.
    pub fn next_unsealed(&self) -> Option<SealJob> {
        todo!()
    }
    /// The outcome of a seal. After an error the file waits again, without a new event.
    pub fn sealed(&self, job: SealJob, outcome: Result<Sealed, FsError>) -> Result<(), FsError> {
        todo!()
    }
    /// Makes all that was acknowledged survive a power cut. Blocks.
    pub fn sync_all(&self) -> Result<(), FsError> {
        todo!()
    }
    /// The entry behind an inode.
    pub fn entry(&self, inode: Inode) -> Result<Placed, FsError> {
        todo!()
    }
    /// The path of an entry from the root, for messages; `None` if it is not loaded.
    pub fn path(&self, id: EntryId) -> Option<Vec<Name>> {
        todo!()
    }
    /// Finds an entry by its path from the root; takes no reference.
    pub fn find(&self, path: &[Name]) -> Result<Placed, FsError> {
        todo!()
    }
    /// Contents that open handles or uncommitted changes need.
    pub fn contents_in_use(&self) -> BTreeSet<InfoHash> {
        todo!()
    }
    /// How much work is under way.
    pub fn status(&self) -> Status {
        todo!()
    }
}
