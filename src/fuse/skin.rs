//! Each request of the kernel: one call of the filesystem, one reply.

use super::answers::{
    BELIEVE, GENERATION, Skin, answer_empty, answer_open, answer_sized, caller, guarded,
    is_privileged, opened_flags,
};
use super::convert::{
    self, BLOCK_BYTES, allocation, attributes, handle, inode, new_node, open_flags, permissions,
    rename_mode, set_time,
};
use super::errno::refuse;
use crate::filesystem::{Answer, FsError, SetAttributes, XattrMode};
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// Bytes in one request to read or write: as much as the kernel's `max_pages_limit` lets through by default.
const REQUEST_BYTES: u32 = 1 << 20;

/// Reads ahead that may be on the way at one time. The kernel's 16 would let 16 waiting reads hold up all
/// other files.
const BACKGROUND_REQUESTS: u16 = 1024;

/// What the mount asks the kernel for, each where the kernel has it.
const WANTED: [InitFlags; 7] = [
    // Opening with O_TRUNC is one request.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    // The filesystem clears set-user-id bits itself; else each write would cost a `getxattr`.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ASYNC_DIO,
];

<<<<<<< HEAD
/// What fuser calls.
pub(super) struct Skin {
    pub(super) filesystem: Filesystem,
    pub(super) runtime: Handle,
    pub(super) waits: Waits,
    pub(super) resizing: Resizing,
    pub(super) owners: Owners,
    /// Told when the kernel has let go.
    pub(super) ended: watch::Sender<bool>,
}

/// Runs a handler; should it panic, its reply is dropped, which answers EIO, and everyone else goes on.
fn guarded(operation: &'static str, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!(operation, "panicked: answered with an I/O error");
    }
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

/// Root has `CAP_FSETID`; who else has it loses set-user-id bits where they could be kept.
fn is_privileged(request: &Request) -> bool {
    request.uid() == 0
}

/// The kernel's pages of a file are always those of the inode: another version is another inode.
fn opened_flags(flags: i32) -> FopenFlags {
    let writes = open_flags(flags, false).write;
    if writes {
        return FopenFlags::FOPEN_KEEP_CACHE;
    }
    // Who only reads has nothing to be flushed at `close`.
    FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
}

impl Skin {
    fn answer_entry(
        &self,
        operation: &'static str,
        result: Result<Stat, FsError>,
        reply: ReplyEntry,
    ) {
        match result {
            Ok(stat) => {
                let attributes = attributes(&stat, self.owners);
                reply.entry(&BELIEVE, &attributes, GENERATION);
            }
            Err(error) => reply.error(refuse(operation, &error)),
        }
    }

    /// Answers when `waiting` completes, or with EINTR when whoever asked shall not wait any more.
    fn later<T: Send + 'static>(
        &self,
        request: &Request,
        waiting: BoxFuture<'static, Result<T, FsError>>,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let interrupted = self.interrupted(request);
        self.runtime.spawn(async move {
            let result = tokio::select! {
                biased;
                done = waiting => done.map_err(|error| refuse("wait", &error)),
                () = interrupted => Err(Errno::EINTR),
            };
            answer(result);
        });
    }

    /// The kernel gives no thread for what it asks on its own account, or for another PID namespace's.
    fn interrupted(&self, request: &Request) -> BoxFuture<'static, ()> {
        match request.pid() {
            0 => Box::pin(std::future::pending()),
            tid => Box::pin(self.waits.interrupted(tid)),
        }
    }

    /// For what blocks on the disk for long.
    fn blocking(
        &self,
        operation: &'static str,
        reply: ReplyEmpty,
        work: impl FnOnce(&Filesystem) -> Result<(), FsError> + Send + 'static,
    ) {
        let filesystem = self.filesystem.clone();
        let job = move || answer_empty(operation, work(&filesystem), reply);
        self.runtime.spawn_blocking(job);
    }

    fn set(&self, request: &Request, inode: Inode, set: SetAttributes, reply: ReplyAttr) {
        let owners = self.owners;
        match self.filesystem.set_attributes(inode, set) {
            Ok(Answer::Ready(stat)) => reply.attr(&BELIEVE, &attributes(&stat, owners)),
            Ok(Answer::Later(waiting)) => {
                let resize = self.resizing.begin(inode);
                self.later(request, waiting, move |result| {
                    match result {
                        Ok(stat) => reply.attr(&BELIEVE, &attributes(&stat, owners)),
                        Err(errno) => reply.error(errno),
                    }
                    drop(resize);
                });
            }
            Err(error) => reply.error(refuse("setattr", &error)),
        }
    }

    /// Fills a reply with a directory's names; `add` says whether it is full.
    fn list(
        &self,
        handle: HandleId,
        mut offset: u64,
        mut add: impl FnMut(&crate::filesystem::DirectoryEntry) -> bool,
    ) -> Result<(), FsError> {
        loop {
            let entries = self
                .filesystem
                .read_directory(handle, offset, LISTED_AT_ONCE)?;
            for entry in &entries {
                if add(entry) {
                    return Ok(());
                }
                offset = entry.next;
            }
            if entries.len() < LISTED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Adds a name with its attributes, as a lookup at this moment: the listing may be older, and the kernel
    /// will believe what it gets. The kernel holds the directory's lock, so no rename comes between.
    fn add_known(
        &self,
        parent: Inode,
        entry: &crate::filesystem::DirectoryEntry,
        reply: &mut ReplyDirectoryPlus,
    ) -> bool {
        let is_dot = matches!(entry.name.as_slice(), b"." | b"..");
        let found = if is_dot {
            self.filesystem.stat(entry.inode)
        } else {
            self.filesystem.lookup(parent, &entry.name)
        };
        let Ok(stat) = found else {
            // It has gone since the listing.
            return false;
        };
        let name = OsStr::from_bytes(&entry.name);
        let attributes = attributes(&stat, self.owners);
        let full = reply.add(
            attributes.ino,
            entry.next,
            name,
            &BELIEVE,
            &attributes,
            GENERATION,
        );
        if full && !is_dot {
            self.filesystem.forget(stat.inode, 1);
        }
        full
    }
}

fn answer_empty(operation: &'static str, result: Result<(), FsError>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

fn answer_open(opened: &Opened, flags: i32, reply: ReplyOpen) {
    reply.opened(FileHandle(opened.handle.0), opened_flags(flags));
}

fn answer_sized(value: &[u8], size: u32, reply: ReplyXattr) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}

=======
>>>>>>> fuse
impl fuser::Filesystem for Skin {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in WANTED {
            // A kernel without it works, only slower.
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_write(REQUEST_BYTES);
        let _ = config.set_max_readahead(REQUEST_BYTES);
        let _ = config.set_max_background(BACKGROUND_REQUESTS);
        Ok(())
    }

    fn destroy(&mut self) {
        self.ended.send_replace(true);
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded("lookup", || {
            match self.filesystem.lookup(inode(parent), name.as_bytes()) {
                // Remembered by the kernel; forgotten when the name is created, here or elsewhere.
                Err(FsError::NotFound) => {
                    reply.entry(&BELIEVE, &convert::nothing(), GENERATION);
                }
                result => self.answer_entry("lookup", result, reply),
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        guarded("forget", || self.filesystem.forget(inode(number), count));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        guarded("getattr", || match self.filesystem.stat(inode(number)) {
            Ok(stat) => reply.attr(&BELIEVE, &attributes(&stat, self.owners)),
            Err(error) => reply.error(refuse("getattr", &error)),
        });
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _mac_changed: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _mac_flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        guarded("setattr", || {
            let Some((uid, gid)) = self.owners.to_set(uid, gid) else {
                return reply.error(Errno::EPERM);
            };
            let set = SetAttributes {
                mode: mode.map(permissions),
                uid,
                gid,
                size,
                accessed: accessed.map(set_time),
                modified: modified.map(set_time),
                kill_privileges: size.is_some() && !is_privileged(request),
            };
            self.set(request, inode(number), set, reply);
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        guarded("readlink", || {
            match self.filesystem.read_link(inode(number)) {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(refuse("readlink", &error)),
            }
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        guarded("mknod", || {
            let Some(node) = new_node(mode, device) else {
                return reply.error(Errno::EPERM);
            };
            let (parent, name, mode) = (inode(parent), name.as_bytes(), permissions(mode));
<<<<<<< HEAD
            let made = self
                .filesystem
                .make_node(parent, name, node, mode, caller(request));
            self.answer_entry("mknod", made, reply);
=======
            let entry = self
                .filesystem
                .make_node(parent, name, node, mode, caller(request));
            self.answer_entry("mknod", entry, reply);
>>>>>>> fuse
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        guarded("mkdir", || {
            let (parent, name, mode) = (inode(parent), name.as_bytes(), permissions(mode));
<<<<<<< HEAD
            let made = self
                .filesystem
                .make_directory(parent, name, mode, caller(request));
            self.answer_entry("mkdir", made, reply);
=======
            let entry = self
                .filesystem
                .make_directory(parent, name, mode, caller(request));
            self.answer_entry("mkdir", entry, reply);
>>>>>>> fuse
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("unlink", || {
            let done = self.filesystem.unlink(inode(parent), name.as_bytes());
            answer_empty("unlink", done, reply);
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("rmdir", || {
            let done = self
                .filesystem
                .remove_directory(inode(parent), name.as_bytes());
            answer_empty("rmdir", done, reply);
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        guarded("symlink", || {
            let target = target.as_os_str().as_bytes();
            let (parent, name) = (inode(parent), name.as_bytes());
<<<<<<< HEAD
            let made = self
                .filesystem
                .symlink(parent, name, target, caller(request));
            self.answer_entry("symlink", made, reply);
=======
            let entry = self
                .filesystem
                .symlink(parent, name, target, caller(request));
            self.answer_entry("symlink", entry, reply);
>>>>>>> fuse
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        guarded("rename", || {
            let Some(mode) = rename_mode(flags) else {
                return reply.error(Errno::EINVAL);
            };
            let from = (inode(parent), name.as_bytes());
            let to = (inode(new_parent), new_name.as_bytes());
            answer_empty("rename", self.filesystem.rename(from, to, mode), reply);
        });
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded("link", || {
            match self
                .filesystem
                .link(inode(number), inode(parent), name.as_bytes())
            {
                // What link(2) says of filesystems without hard links.
                Err(FsError::NotSupported) => reply.error(Errno::EPERM),
                result => self.answer_entry("link", result, reply),
            }
        });
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        guarded("open", || {
            let flags = flags.0;
            let wanted = open_flags(flags, is_privileged(request));
            match self.filesystem.open(inode(number), wanted) {
                Ok(Answer::Ready(opened)) => answer_open(&opened, flags, reply),
                Ok(Answer::Later(waiting)) => {
                    self.later(request, waiting, move |result| match result {
                        Ok(opened) => answer_open(&opened, flags, reply),
                        Err(errno) => reply.error(errno),
                    });
                }
                Err(error) => reply.error(refuse("open", &error)),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        guarded("create", || {
            let wanted = open_flags(flags, is_privileged(request));
            let (parent, name, mode) = (inode(parent), name.as_bytes(), permissions(mode));
            match self
                .filesystem
                .create(parent, name, mode, wanted, caller(request))
            {
                Ok((stat, opened)) => {
                    let attributes = attributes(&stat, self.owners);
                    let number = FileHandle(opened.handle.0);
                    reply.created(
                        &BELIEVE,
                        &attributes,
                        GENERATION,
                        number,
                        opened_flags(flags),
                    );
                }
                Err(error) => reply.error(refuse("create", &error)),
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        _: INodeNo,
        number: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded("read", || {
            match self.filesystem.read(handle(number), offset, size as usize) {
                Ok(Answer::Ready(bytes)) => reply.data(&bytes),
                Ok(Answer::Later(waiting)) => {
                    self.later(request, waiting, move |result| match result {
                        Ok(bytes) => reply.data(&bytes),
                        Err(errno) => reply.error(errno),
                    });
                }
                Err(error) => reply.error(refuse("read", &error)),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        number: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded("write", || {
            match self.filesystem.write(handle(number), offset, data) {
                Ok(count) => reply.written(count as u32),
                Err(error) => reply.error(refuse("write", &error)),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, number: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        guarded("flush", || {
            answer_empty("flush", self.filesystem.flush(handle(number)), reply);
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        number: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        guarded("release", || {
            self.filesystem.release(handle(number));
            reply.ok();
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, number: FileHandle, _: bool, reply: ReplyEmpty) {
        let number = handle(number);
        self.blocking("fsync", reply, move |filesystem| filesystem.sync(number));
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        guarded("opendir", || {
            match self.filesystem.open_directory(inode(number)) {
                Ok(opened) => reply.opened(FileHandle(opened.0), FopenFlags::empty()),
                Err(error) => reply.error(refuse("opendir", &error)),
            }
        });
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        number: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        guarded("readdir", || {
            let listed = self.list(handle(number), offset, |entry| {
                let (inode, kind) = (INodeNo(entry.inode.0), convert::file_type(entry.kind));
                reply.add(inode, entry.next, kind, OsStr::from_bytes(&entry.name))
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(refuse("readdir", &error)),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        parent: INodeNo,
        number: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        guarded("readdirplus", || {
            let listed = self.list(handle(number), offset, |entry| {
                self.add_known(inode(parent), entry, &mut reply)
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(refuse("readdirplus", &error)),
            }
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        number: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        guarded("releasedir", || {
            self.filesystem.release(handle(number));
            reply.ok();
        });
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let number = inode(number);
        self.blocking("fsyncdir", reply, move |filesystem| {
            filesystem.sync_directory(number)
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        guarded("statfs", || {
            let space = self.filesystem.space();
            let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
            let free = blocks(space.free);
            // Names are not limited by number: 0 of 0.
            reply.statfs(
                blocks(space.total),
                free,
                free,
                0,
                0,
                BLOCK_BYTES,
                255,
                BLOCK_BYTES,
            );
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        guarded("setxattr", || {
            let flags = rustix::fs::XattrFlags::from_bits_retain(flags.cast_unsigned());
            let mode = if flags.contains(rustix::fs::XattrFlags::CREATE) {
                XattrMode::Create
            } else if flags.contains(rustix::fs::XattrFlags::REPLACE) {
                XattrMode::Replace
            } else {
                XattrMode::Any
            };
            let set = self
                .filesystem
                .set_xattr(inode(number), name.as_bytes(), value, mode);
            answer_empty("setxattr", set, reply);
        });
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded("getxattr", || {
            match self.filesystem.get_xattr(inode(number), name.as_bytes()) {
                Ok(value) => answer_sized(&value, size, reply),
                Err(error) => reply.error(refuse("getxattr", &error)),
            }
        });
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        guarded("listxattr", || {
            match self.filesystem.list_xattrs(inode(number)) {
                Ok(names) => {
                    let ended = names
                        .into_iter()
                        .flat_map(|name| name.into_iter().chain([0]));
                    answer_sized(&ended.collect::<Vec<u8>>(), size, reply);
                }
                Err(error) => reply.error(refuse("listxattr", &error)),
            }
        });
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("removexattr", || {
            let removed = self.filesystem.remove_xattr(inode(number), name.as_bytes());
            answer_empty("removexattr", removed, reply);
        });
    }

    /// Never asked: the kernel checks permissions itself (`default_permissions`).
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        number: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        guarded("fallocate", || {
            let Some(what) = allocation(mode) else {
                return reply.error(Errno::EOPNOTSUPP);
            };
            let done = self
                .filesystem
                .allocate(handle(number), what, offset, length);
            answer_empty("fallocate", done, reply);
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        number: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        guarded("lseek", || {
            let (Some(whence), Ok(offset)) = (convert::whence(whence), u64::try_from(offset))
            else {
                return reply.error(Errno::ENXIO);
            };
            match self.filesystem.seek(handle(number), offset, whence) {
                Ok(found) => reply.offset(found.cast_signed()),
                Err(error) => reply.error(refuse("lseek", &error)),
            }
        });
    }
}
