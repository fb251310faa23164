//! What must be true, told without the implementation's words: which bytes were acknowledged to whom, and what a mount
//! shows.

use crate::node::Running;
use delugefs::filesystem::{FileType, FsError, HandleId, Inode, OpenFlags};
use delugefs_core::conflict::is_conflict_name;
use delugefs_core::name::Name;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const READ: OpenFlags = OpenFlags {
    read: true,
    write: false,
    append: false,
    truncate: false,
    privileged: false,
    execute: false,
};

/// The extended attribute that users set.
pub(crate) const XATTR: &[u8] = b"user.mark";

/// How the names begin of files that two users write at once; no other act touches them.
pub(crate) const TWIN: &str = "twin";

/// How those begin with which a disk in a drawer is tried; no other act touches them either.
pub(crate) const DRAWER: &str = "drawer";

pub(crate) fn is_reserved(path: &str) -> bool {
    path.starts_with(TWIN) || path.starts_with(DRAWER)
}

/// What is under a name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
    Other,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Thing {
    pub(crate) body: Body,
    pub(crate) mode: u16,
    pub(crate) xattr: Option<Vec<u8>>,
}

impl std::fmt::Debug for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = match &self.body {
            Body::Directory => "directory".to_owned(),
            Body::File(bytes) => brief(bytes),
            Body::Link(target) => format!("-> {}", String::from_utf8_lossy(target)),
            Body::Other => "node".to_owned(),
        };
        write!(f, "{body} {:o}", self.mode)?;
        match &self.xattr {
            Some(mark) => write!(f, " {}", String::from_utf8_lossy(mark)),
            None => Ok(()),
        }
    }
}

/// Bytes, for a person.
pub(crate) fn brief(bytes: &[u8]) -> String {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(12)]);
    let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(12)..]);
    format!("{} bytes {start:?}..{end:?}", bytes.len())
}

/// Every path with what is there.
pub(crate) type Shown = BTreeMap<String, Thing>;

impl Thing {
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.body {
            Body::File(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// All that a mount shows.
pub(crate) fn look(running: &mut Running) -> Shown {
    let mut shown = Shown::new();
    let mut directories = vec![(String::new(), Inode::ROOT)];
    while let Some((path, inode)) = directories.pop() {
        let filesystem = running.parts.filesystem.clone();
        let handle = filesystem.open_directory(inode).unwrap();
        let lines = filesystem.read_directory(handle, 0, usize::MAX).unwrap();
        filesystem.release(handle);
        for line in lines.into_iter().skip(2) {
            let name = String::from_utf8(line.name).unwrap();
            let path = match path.as_str() {
                "" => name,
                parent => format!("{parent}/{name}"),
            };
            if line.kind == FileType::Directory {
                directories.push((path.clone(), line.inode));
            }
            shown.insert(path, thing(running, line.inode));
        }
    }
    shown
}

/// What is at a path.
pub(crate) fn at(running: &mut Running, path: &str) -> Option<Thing> {
    let found = running.parts.filesystem.find(&names(path));
    found.ok().map(|(inode, _)| thing(running, inode))
}

/// A path's parts.
pub(crate) fn names(path: &str) -> Vec<Name> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts
        .map(|part| Name::parse(part.as_bytes()).unwrap())
        .collect()
}

/// The bytes of all files that can be read.
pub(crate) fn readable(running: &mut Running, shown: &Shown) -> BTreeSet<Vec<u8>> {
    let mut readable = BTreeSet::new();
    for path in shown.keys() {
        let filesystem = running.parts.filesystem.clone();
        let (inode, _) = filesystem.find(&names(path)).unwrap();
        if let Ok(answer) = filesystem.open(inode, READ)
            && let Ok(opened) = running.finish(answer)
        {
            readable.extend(read_handle(running, opened.handle));
            filesystem.release(opened.handle);
        }
    }
    readable
}

/// What is behind an inode.
pub(crate) fn thing(running: &mut Running, inode: Inode) -> Thing {
    let filesystem = running.parts.filesystem.clone();
    let stat = filesystem.stat(inode).unwrap();
    let body = match stat.kind {
        FileType::File => Body::File(read(running, inode)),
        FileType::Directory => Body::Directory,
        FileType::Symlink => Body::Link(filesystem.read_link(inode).unwrap()),
        _ => Body::Other,
    };
    if let Body::File(bytes) = &body {
        assert_eq!(stat.size, bytes.len() as u64, "stat and read differ");
    }
    Thing {
        body,
        mode: stat.mode,
        xattr: filesystem.get_xattr(inode, XATTR).ok(),
    }
}

fn read(running: &mut Running, inode: Inode) -> Vec<u8> {
    let answer = running.parts.filesystem.open(inode, READ).unwrap();
    let opened = running.finish(answer).unwrap();
    let bytes = read_handle(running, opened.handle).unwrap();
    running.parts.filesystem.release(opened.handle);
    bytes
}

pub(crate) fn read_handle(running: &mut Running, handle: HandleId) -> Result<Vec<u8>, FsError> {
    let answer = running.parts.filesystem.read(handle, 0, 1 << 20)?;
    running.finish(answer).map(|bytes| bytes.to_vec())
}

/// Something that users were told is kept.
#[derive(Debug, Default)]
struct Version {
    /// Nobody who had seen it has overwritten or removed it.
    is_alive: bool,
    /// Nodes whose mount has shown it, a bit each.
    seen: u32,
    /// Nodes that were asked to make it survive a power cut.
    synced: u32,
    /// Where it was written at last.
    path: String,
    /// What was renamed over it at last.
    successor: Option<Vec<u8>>,
    /// Someone who had it has removed it, or changed it in place. What others have renamed over it meanwhile, he need not have.
    is_let_go: bool,
    /// It was there, not synced, when the power failed.
    is_lost: bool,
}

/// The bytes that a disk has, and whether they were to be made durable.
pub(crate) type Memory = BTreeMap<Vec<u8>, bool>;

/// All versions, by their bytes: users never write the same bytes twice, but for twins.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    all: BTreeMap<Vec<u8>, Version>,
    /// Bytes that two nodes wrote under one name at once.
    twins: BTreeSet<Vec<u8>>,
    pub(crate) checks: u64,
}

impl Versions {
    /// A node has acknowledged these bytes.
    pub(crate) fn written(&mut self, node: usize, path: &str, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let version = self.all.entry(bytes.to_vec()).or_default();
        version.is_alive = true;
        version.is_let_go = false;
        version.seen |= 1 << node;
        path.clone_into(&mut version.path);
    }

    pub(crate) fn twins(&mut self, bytes: &[u8]) {
        self.twins.insert(bytes.to_vec());
    }

    /// Someone who has them before himself lets them go.
    pub(crate) fn released(&mut self, bytes: &[u8]) {
        if let Some(version) = self.all.get_mut(bytes) {
            version.is_alive = false;
            version.is_lost = false;
            version.is_let_go = true;
        }
    }

    /// Some bytes were renamed over others, by someone who had them before himself.
    pub(crate) fn replaced(&mut self, old: &[u8], new: &[u8]) {
        if old == new {
            return;
        }
        if let Some(version) = self.all.get_mut(new) {
            version.successor = None;
        }
        let successor = self.all.contains_key(new).then(|| new.to_vec());
        if let Some(version) = self.all.get_mut(old) {
            version.is_alive = false;
            version.is_lost = false;
            version.successor = successor.or(version.successor.take());
        }
    }

    /// Some bytes, what was renamed over them, and so on.
    fn line<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a Version)> {
        let version = |bytes: &'a [u8]| Some((bytes, self.all.get(bytes)?));
        std::iter::successors(version(bytes), move |(_, last)| {
            version(last.successor.as_deref()?)
        })
    }

    /// Where there was something, and perhaps is.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let alive = self.all.values().filter(|version| version.is_alive);
        alive.map(|version| version.path.as_str())
    }

    /// A node has said that these bytes survive a power cut.
    pub(crate) fn synced(&mut self, node: usize, bytes: &[u8]) {
        if let Some(version) = self.all.get_mut(bytes) {
            version.synced |= 1 << node;
        }
    }

    /// A node has said so of all that it has: what it shows may be elsewhere, or a power cut has taken it before, or what
    /// was renamed over it.
    pub(crate) fn synced_all(&mut self, node: usize, elsewhere: &BTreeSet<Vec<u8>>) {
        let bit = 1 << node;
        let is_there = |bytes: &[u8]| {
            let mut line = self.line(bytes);
            !elsewhere.contains(bytes) && line.all(|(_, version)| !version.is_lost)
        };
        let there: Vec<Vec<u8>> = self.all.keys().filter(|it| is_there(it)).cloned().collect();
        for bytes in there {
            if let Some(version) = self.all.get_mut(&bytes) {
                version.synced |= version.seen & bit;
            }
        }
    }

    /// Someone who had them has overwritten or removed them, and nobody else is known to need them; or nobody was ever told
    /// that they are kept, as in the midst of a change when the power failed.
    pub(crate) fn is_over(&self, bytes: &[u8]) -> bool {
        self.all.get(bytes).is_none_or(|version| !version.is_alive)
    }

    /// They were last written under this name, or to be saved under it.
    pub(crate) fn was_written_to(&self, bytes: &[u8], path: &str) -> bool {
        let version = self.all.get(bytes);
        let name = version.map(|version| version.path.trim_end_matches('~'));
        name == Some(path.trim_end_matches('~'))
    }

    /// These bytes are whole on no disk any more.
    pub(crate) fn lost(&mut self, bytes: &[u8]) {
        if let Some(version) = self.all.get_mut(bytes) {
            version.is_lost |= version.is_alive;
        }
    }

    /// What only this node had, and was not asked to make durable, may be gone.
    pub(crate) fn power_lost(&mut self, node: usize) {
        let bit = 1 << node;
        for (bytes, version) in &mut self.all {
            if version.synced & bit != 0 {
                continue;
            }
            version.is_lost |= version.is_alive && version.seen == bit;
            version.is_alive &= version.seen != bit;
            if self.twins.contains(bytes) {
                // the other has it of its own: that says nothing about this node's disk
                version.seen &= !bit;
            }
        }
    }

    /// Bytes that a node has said survive a power cut can be read, there or elsewhere; or what was renamed over them.
    pub(crate) fn check_synced(&self, node: usize, has: impl Fn(&[u8]) -> bool) {
        let synced = |(_, version): &(_, &Version)| version.synced & (1 << node) != 0;
        for (bytes, version) in self.all.iter().filter(synced) {
            let last = self.line(bytes).last();
            let is_due = last.is_some_and(|(_, last)| last.is_alive || last.is_lost)
                && !self.line(bytes).any(|(_, version)| version.is_let_go);
            assert!(
                !is_due || self.line(bytes).any(|(bytes, _)| has(bytes)),
                "the bytes of {} ({}) were synced on node {node}, and are nowhere after a power cut, nor what was renamed over them",
                brief(bytes),
                version.path
            );
        }
    }

    /// What is on a node's disk, as its users know it.
    pub(crate) fn memory(&self, node: usize) -> Memory {
        let bit = 1 << node;
        let seen = self
            .all
            .iter()
            .filter(|(_, version)| version.seen & bit != 0);
        seen.map(|(bytes, version)| (bytes.clone(), version.synced & bit != 0))
            .collect()
    }

    /// A disk has this, and nothing else: what nobody has seen but on that disk may be gone.
    pub(crate) fn disk_is(&mut self, node: usize, memory: &Memory) {
        let bit = 1 << node;
        for (bytes, version) in &mut self.all {
            version.seen &= !bit;
            version.synced &= !bit;
            if let Some(is_synced) = memory.get(bytes) {
                version.seen |= bit;
                version.synced |= if *is_synced { bit } else { 0 };
            }
            version.is_alive &= version.seen != 0;
        }
    }

    /// A node shows all that it has ever shown and nobody has let go.
    pub(crate) fn check(&mut self, node: usize, shown: &Shown) {
        self.checks += 1;
        let bytes: BTreeSet<&[u8]> = shown.values().filter_map(Thing::bytes).collect();
        for (wanted, version) in &self.all {
            let is_due = version.is_alive && version.seen & (1 << node) != 0;
            assert!(
                !is_due || bytes.contains(&wanted[..]),
                "node {node} has lost {} of {}; it shows {shown:#?}",
                brief(wanted),
                version.path
            );
        }
        for bytes in bytes {
            if let Some(version) = self.all.get_mut(bytes) {
                version.seen |= 1 << node;
            }
        }
        self.check_twins(node, shown);
    }

    /// All nodes show all that nobody has let go.
    pub(crate) fn check_all(&self, node: usize, shown: &Shown) {
        let bytes: BTreeSet<&[u8]> = shown.values().filter_map(Thing::bytes).collect();
        for (wanted, version) in &self.all {
            assert!(
                !version.is_alive || bytes.contains(&wanted[..]),
                "{} of {} is not on node {node}, which shows {shown:#?}",
                brief(wanted),
                version.path
            );
        }
    }

    /// The same bytes under one name are no conflict.
    fn check_twins(&self, node: usize, shown: &Shown) {
        for (path, thing) in shown {
            let Some(bytes) = thing.bytes().filter(|bytes| self.twins.contains(*bytes)) else {
                continue;
            };
            let original = original(path).filter(|original| {
                let other = shown.get(original).and_then(Thing::bytes);
                other == Some(bytes)
            });
            assert!(
                original.is_none(),
                "node {node} has a conflict copy of equal bytes: {path}"
            );
        }
    }
}

/// The name that a conflict copy has lost.
pub(crate) fn original(path: &str) -> Option<String> {
    if !is_conflict(path) {
        return None;
    }
    let (stem, rest) = path.rsplit_once(" (conflict ")?;
    let (_, extension) = rest.rsplit_once(')')?;
    Some(format!("{stem}{extension}"))
}

pub(crate) fn is_conflict(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    Name::parse(name.as_bytes()).is_ok_and(|name| is_conflict_name(&name))
}
