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
            let entry = self
                .filesystem
                .make_node(parent, name, node, mode, caller(request));
            self.answer_entry("mknod", entry, reply);
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
            let entry = self
                .filesystem
                .make_directory(parent, name, mode, caller(request));
            self.answer_entry("mkdir", entry, reply);
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
            let entry = self
                .filesystem
                .symlink(parent, name, target, caller(request));
            self.answer_entry("symlink", entry, reply);
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
            let from = (inode(parent), name.as_bytes().to_vec());
            let to = (inode(new_parent), new_name.as_bytes().to_vec());
            self.blocking("rename", reply, move |filesystem| {
                filesystem.rename((from.0, &from.1), (to.0, &to.1), mode)
            });
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

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        guarded("listxattr", || {
            let privileged = is_privileged(request);
            match self.filesystem.list_xattrs(inode(number), privileged) {
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
