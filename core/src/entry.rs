//! What a volume's tree is made of: entries, each with an identity that outlives its name.

use crate::ids::{EntryId, InfoHash};
use crate::name::Name;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// One file, directory, link or special node, apart from where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Given at creation, kept through renames and edits.
    pub id: EntryId,
    /// What it is, and its bytes if it has any.
    pub kind: Kind,
    /// What `chmod`, `chown`, `utimens` and `setfattr` change.
    pub attributes: Attributes,
    /// Who last gave it its bytes (or created it), and how often that has happened.
    pub written: Written,
}

/// What an entry is. It never changes for an id: a file does not become a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File(File),
    /// A directory; its children name it as their parent.
    Directory,
    /// A symbolic link and its target's bytes.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A Unix socket's place.
    Socket,
    /// A character device, with its `rdev`.
    CharacterDevice(u64),
    /// A block device, with its `rdev`.
    BlockDevice(u64),
    /// A name of what several names share ([`crate::links`]).
    Link(EntryId),
}

impl Kind {
    /// What a link leads to.
    pub fn target(&self) -> Option<EntryId> {
        match self {
            Self::Link(shared) => Some(*shared),
            _ => None,
        }
    }
}

/// A regular file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// The bytes now.
    pub content: Content,
    /// The contents it had before, newest first, at most [`crate::limits::PREVIOUS_MAX`].
    pub previous: Vec<InfoHash>,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// In the descriptor itself; empty files are this.
    Inline(Vec<u8>),
    /// In the swarm.
    Swarm(ContentRef),
}

impl Content {
    /// Length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Swarm(content) => content.length,
        }
    }
}

/// A content that moves over `BitTorrent`. Equal bytes have equal references, on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentRef {
    /// Its name in the swarm and in the content store.
    pub info_hash: InfoHash,
    /// Length in bytes, at least 1.
    pub length: u64,
}

/// Attributes that POSIX lets a user change apart from the bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Attributes {
    /// Permission bits, incl. set-user-id, set-group-id and sticky (`0o7777`).
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Last access, as far as `utimens` set it (reads do not change it: `noatime`).
    pub accessed: Timestamp,
    /// Last change of the bytes, or of a directory's names.
    pub modified: Timestamp,
    /// Last change of anything (`st_ctime`).
    pub changed: Timestamp,
    /// Extended attributes by full name (`user.comment`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The links to it, if it is shared ([`crate::links`]), at most [`crate::limits::LINKS_MERGED_MAX`].
    pub links: BTreeSet<EntryId>,
}

/// The last write of an entry's bytes: tells versions apart, decides between rivals, names the loser.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Written {
    /// How many times its bytes were committed, over its whole life.
    pub edits: u32,
    /// When, by the writer's clock, no later than five minutes past what it knew.
    pub at: Timestamp,
    /// Label of the node that wrote, at most [`crate::limits::LABEL_BYTES_MAX`] bytes.
    pub by: String,
}

/// An entry at its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// The directory it is in.
    pub parent: EntryId,
    /// Its name there.
    pub name: Name,
    /// The entry.
    pub entry: Entry,
}
