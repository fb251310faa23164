//! One inode: an entry, its place, and what is open on it.

use super::staging::Staged;
use super::{ContentReader, FileType, FsError, Inode, Stat};
use delugefs_core::entry::{Content, Entry, Kind, Placed};
use delugefs_core::ids::{EntryId, TreeId};
use delugefs_core::name::Name;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Bytes that a directory claims to have: tools divide by it or print it, none relies on it.
const DIRECTORY_BYTES: u64 = 4096;

/// Bytes in a unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Set-user-id and set-group-id, and the bit that makes the latter count.
const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o0010;

/// What a program may do beyond its user: a write or a new owner ends it, root's as well (capabilities(7)).
pub(super) const FILE_CAPABILITIES: &[u8] = b"security.capability";

/// Where an inode is: in this directory, under this name.
pub(super) type Place = (Inode, Name);

/// The names in a directory.
#[derive(Debug)]
pub(super) enum Children {
    /// As in this committed tree: nothing beneath has been changed here.
    Unloaded(TreeId),
    /// All of them.
    Loaded {
        /// By name.
        names: BTreeMap<Name, Inode>,
        /// How many of them are directories.
        directories: u32,
    },
}

impl Children {
    /// A directory without names.
    pub(super) fn none() -> Self {
        Self::Loaded {
            names: BTreeMap::new(),
            directories: 0,
        }
    }
}

/// What an inode has besides its entry.
pub(super) enum Body {
    /// Names.
    Directory(Children),
    /// Bytes.
    File(FileBody),
    /// Nothing.
    Other,
}

/// How a file's bytes are reached.
#[derive(Default)]
pub(super) struct FileBody {
    /// The file being written, or closed and not yet sealed. Its bytes are the file's bytes.
    pub(super) staged: Option<Staged>,
    /// What all handles read, as long as any is open: the complete content, or what was the staging file.
    pub(super) backing: Option<Arc<File>>,
    /// What all handles read, when the content is not wholly here.
    pub(super) reader: Option<Arc<dyn ContentReader>>,
    /// Handles by which it is being run.
    pub(super) running: u32,
}

/// An inode.
pub(super) struct Node {
    /// `None` once it is unlinked or replaced; the root has none either.
    pub(super) place: Option<Place>,
    /// What it is. Its content is the last committed one while `body` has a staging file.
    pub(super) entry: Entry,
    /// Names or bytes.
    pub(super) body: Body,
    /// The kernel's references.
    pub(super) lookups: u64,
    /// Open handles.
    pub(super) handles: u32,
}

impl Node {
    pub(super) fn new(place: Option<Place>, entry: Entry, tree: Option<TreeId>) -> Self {
        let body = match entry.kind {
            Kind::Directory => {
                Body::Directory(tree.map_or_else(Children::none, Children::Unloaded))
            }
            Kind::File(_) => Body::File(FileBody::default()),
            _ => Body::Other,
        };
        Self {
            place,
            entry,
            body,
            lookups: 0,
            handles: 0,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(super) fn file(&self) -> Option<&FileBody> {
        match &self.body {
            Body::File(body) => Some(body),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self) -> Option<&mut FileBody> {
        match &mut self.body {
            Body::File(body) => Some(body),
            _ => None,
        }
    }

    pub(super) fn staged(&self) -> Option<&Staged> {
        self.file().and_then(|body| body.staged.as_ref())
    }

    pub(super) fn staged_mut(&mut self) -> Option<&mut Staged> {
        self.file_mut().and_then(|body| body.staged.as_mut())
    }

    /// A new file whose bytes have never been sealed: no other node may know of it yet.
    pub(super) fn is_unborn(&self) -> bool {
        self.staged().is_some_and(|staged| staged.unborn)
    }

    /// The committed bytes of a file.
    pub(super) fn content(&self) -> Option<&Content> {
        match &self.entry.kind {
            Kind::File(file) => Some(&file.content),
            _ => None,
        }
    }

    /// The entry, with the times and the mode that writing has given it.
    pub(super) fn settled_entry(&self) -> Result<Entry, FsError> {
        let mut entry = self.entry.clone();
        if let Some(staged) = self.staged()
            && let Some(written) = staged.written_at()?
        {
            let attributes = &mut entry.attributes;
            attributes.modified = written;
            attributes.changed = attributes.changed.max(written);
            attributes.xattrs.remove(FILE_CAPABILITIES);
            if !staged.privileged {
                attributes.mode = without_privileges(attributes.mode);
            }
        }
        Ok(entry)
    }

    pub(super) fn stat(&self, inode: Inode) -> Result<Stat, FsError> {
        let entry = self.settled_entry()?;
        let (size, blocks) = self.size()?;
        let attributes = &entry.attributes;
        Ok(Stat {
            inode,
            kind: file_type(&entry.kind),
            size,
            blocks,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            rdev: match entry.kind {
                Kind::CharacterDevice(rdev) | Kind::BlockDevice(rdev) => rdev,
                _ => 0,
            },
            links: self.links(inode),
            accessed: attributes.accessed,
            modified: attributes.modified,
            changed: attributes.changed,
        })
    }

    /// Bytes, and blocks on disk.
    pub(super) fn size(&self) -> Result<(u64, u64), FsError> {
        if let Some(staged) = self.staged() {
            let metadata = staged.file.metadata()?;
            return Ok((metadata.len(), metadata.blocks()));
        }
        let size = match &self.entry.kind {
            Kind::File(file) => file.content.length(),
            Kind::Symlink(target) => target.len() as u64,
            Kind::Directory => DIRECTORY_BYTES,
            _ => 0,
        };
        Ok((size, size.div_ceil(BLOCK_BYTES)))
    }

    fn links(&self, inode: Inode) -> u32 {
        if self.place.is_none() && inode != Inode::ROOT {
            return 0;
        }
        match &self.body {
            Body::Directory(Children::Loaded { directories, .. }) => 2 + directories,
            Body::Directory(Children::Unloaded(_)) => 2,
            _ => 1,
        }
    }
}

/// The mode after someone without `CAP_FSETID` has written or changed the owner.
pub(super) fn without_privileges(mode: u16) -> u16 {
    let mode = mode & !SET_UID;
    if mode & GROUP_EXECUTE != 0 {
        mode & !SET_GID
    } else {
        mode
    }
}

pub(super) fn file_type(kind: &Kind) -> FileType {
    match kind {
        // a link is never shown itself, but what it leads to
        Kind::File(_) | Kind::Link(_) => FileType::File,
        Kind::Directory => FileType::Directory,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice(_) => FileType::CharacterDevice,
        Kind::BlockDevice(_) => FileType::BlockDevice,
    }
}

/// An entry at its place, in the words of the core.
pub(super) fn placed(parent: EntryId, name: &Name, entry: &Entry) -> Placed {
    Placed {
        parent,
        name: name.clone(),
        entry: entry.clone(),
    }
}
