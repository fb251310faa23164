//! What the handlers share: replies at once, replies later, listings.

use super::convert::{Owners, attributes, open_flags};
use super::errno::refuse;
use super::waits::{Resizing, Waits};
use crate::filesystem::{
    Answer, BoxFuture, Caller, DirectoryEntry, Filesystem, FsError, HandleId, Inode, Opened,
    SetAttributes, Stat,
};
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyXattr, Request,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How long the kernel may believe what it was told. What changes elsewhere is invalidated at once.
pub(super) const BELIEVE: Duration = Duration::from_hours(1);

/// Names taken from a listing at a time: about as many as one reply holds.
const LISTED_AT_ONCE: usize = 32;

/// Inode numbers are never reused.
pub(super) const GENERATION: Generation = Generation(0);

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
pub(super) fn guarded(operation: &'static str, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!(operation, "panicked: answered with an I/O error");
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

/// Root has `CAP_FSETID`; who else has it loses set-user-id bits where they could be kept.
pub(super) fn is_privileged(request: &Request) -> bool {
    request.uid() == 0
}

/// The kernel's pages of a file are always those of the inode: another version is another inode.
pub(super) fn opened_flags(flags: i32) -> FopenFlags {
    let writes = open_flags(flags, false).write;
    if writes {
        return FopenFlags::FOPEN_KEEP_CACHE;
    }
    // Who only reads has nothing to be flushed at `close`.
    FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
}

impl Skin {
    pub(super) fn answer_entry(
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
    pub(super) fn later<T: Send + 'static>(
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
    pub(super) fn blocking(
        &self,
        operation: &'static str,
        reply: ReplyEmpty,
        work: impl FnOnce(&Filesystem) -> Result<(), FsError> + Send + 'static,
    ) {
        let filesystem = self.filesystem.clone();
        let job = move || answer_empty(operation, work(&filesystem), reply);
        self.runtime.spawn_blocking(job);
    }

    pub(super) fn set(
        &self,
        request: &Request,
        inode: Inode,
        set: SetAttributes,
        reply: ReplyAttr,
    ) {
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
    pub(super) fn list(
        &self,
        handle: HandleId,
        mut offset: u64,
        mut add: impl FnMut(&DirectoryEntry) -> bool,
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
    pub(super) fn add_known(
        &self,
        parent: Inode,
        entry: &DirectoryEntry,
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

pub(super) fn answer_empty(
    operation: &'static str,
    result: Result<(), FsError>,
    reply: ReplyEmpty,
) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

pub(super) fn answer_open(opened: &Opened, flags: i32, reply: ReplyOpen) {
    reply.opened(FileHandle(opened.handle.0), opened_flags(flags));
}

pub(super) fn answer_sized(value: &[u8], size: u32, reply: ReplyXattr) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
