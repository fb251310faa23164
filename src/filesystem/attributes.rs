//! `stat`, `chmod`, `chown`, `utimens`, `truncate`, `statfs`.

use super::inode::{FILE_CAPABILITIES, without_privileges};
use super::names::MODE_BITS;
use super::state::{Plan, State};
use super::{Answer, Filesystem, FsError, Inode, OpenFlags, SetAttributes, SetTime, Space, Stat};
use delugefs_core::entry::Attributes;
use delugefs_core::time::Timestamp;

impl Filesystem {
    /// `stat`
    pub fn stat(&self, inode: Inode) -> Result<Stat, FsError> {
        self.lock().stat(inode)
    }

    /// `chmod`, `chown`, `truncate`, `utimens`. `Later` where a new length needs bytes that are not here, or
    /// a seal to end.
    pub fn set_attributes(
        &self,
        inode: Inode,
        set: SetAttributes,
    ) -> Result<Answer<Stat>, FsError> {
        let Some(size) = set.size else {
            return self.lock().set_attributes(inode, &set).map(Answer::Ready);
        };
        let flags = OpenFlags {
            write: true,
            truncate: size == 0,
            privileged: !set.kill_privileges,
            ..OpenFlags::default()
        };
        match self.open(inode, flags)? {
            Answer::Ready(opened) => {
                let stat = self.resize(&opened, inode, size, &set);
                stat.map(Answer::Ready)
            }
            Answer::Later(opening) => {
                let filesystem = self.clone();
                Ok(Answer::Later(Box::pin(async move {
                    let opened = opening.await?;
                    filesystem.resize(&opened, inode, size, &set)
                })))
            }
        }
    }

    fn resize(
        &self,
        opened: &super::Opened,
        inode: Inode,
        size: u64,
        set: &SetAttributes,
    ) -> Result<Stat, FsError> {
        let resized = self.set_length(opened.handle, size);
        let resized = resized.and_then(|()| self.lock().set_attributes(inode, set));
        self.release(opened.handle);
        resized?;
        self.stat(inode)
    }

    /// `statfs`
    pub fn space(&self) -> Space {
        self.lock().ports.contents.space()
    }
}

impl State {
    fn set_attributes(&mut self, inode: Inode, set: &SetAttributes) -> Result<Stat, FsError> {
        let now = self.now();
        let is_directory = self.names.node(inode)?.is_directory();
        self.change_attributes(inode, |attributes| {
            change(attributes, set, is_directory, now);
            Ok(())
        })?;
        self.stat(inode)
    }

    /// Changes what an entry has, after what writing has made of it so far.
    pub(super) fn change_attributes(
        &mut self,
        inode: Inode,
        change: impl FnOnce(&mut Attributes) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let mut target = self.target(inode)?;
        target.entry = self.names.node(inode)?.settled_entry()?;
        let attributes = &mut target.entry.attributes;
        let before = attributes.clone();
        change(attributes)?;
        if *attributes == before {
            return Ok(());
        }
        attributes.changed = self.now();
        let written = self.written_at(inode)?;
        self.apply(Plan::of(vec![target]))?;
        if written.is_some()
            && let Some(staged) = self.names.node_mut(inode)?.staged_mut()
        {
            staged.settle()?;
        }
        Ok(())
    }

    fn written_at(&self, inode: Inode) -> Result<Option<Timestamp>, FsError> {
        let staged = self.names.node(inode)?.staged();
        staged.map_or(Ok(None), super::staging::Staged::written_at)
    }
}

fn change(to: &mut Attributes, set: &SetAttributes, is_directory: bool, now: Timestamp) {
    // Who sets nothing at all gives the file to its owner again: `chown(-1, -1)`.
    let owner = set.uid.is_some() || set.gid.is_some() || *set == SetAttributes::default();
    to.uid = set.uid.unwrap_or(to.uid);
    to.gid = set.gid.unwrap_or(to.gid);
    if (owner || set.kill_privileges) && !is_directory {
        to.mode = without_privileges(to.mode);
    }
    if owner {
        to.xattrs.remove(FILE_CAPABILITIES);
    }
    if let Some(mode) = set.mode {
        to.mode = mode & MODE_BITS;
    }
    let time = |set: SetTime| match set {
        SetTime::Now => now,
        SetTime::At(time) => time,
    };
    to.accessed = set.accessed.map_or(to.accessed, time);
    to.modified = set.modified.map_or(to.modified, time);
    if owner || set.mode.is_some() || set.accessed.is_some() || set.modified.is_some() {
        // A change to what it was before is a change, too.
        to.changed = now;
    }
}
