//! A node around the filesystem: committed trees in memory, contents in a folder, a counted clock.

use crate::filesystem::*;
use crate::publishing::Publishing;
use bytes::Bytes;
use delugefs_core::change::Changes;
use delugefs_core::entry::{ContentRef, Entry, Kind};
use delugefs_core::ids::{EntryId, InfoHash, TreeId};
use delugefs_core::memory_tree::MemoryTree;
use delugefs_core::merge::merge;
use delugefs_core::name::Name;
use delugefs_core::time::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes that a file may have to go into its descriptor.
pub(super) const INLINE_MAX: usize = 16;

pub(super) const ME: Caller = Caller { uid: 7, gid: 8 };

pub(super) const READ: OpenFlags = OpenFlags {
    read: true,
    write: false,
    append: false,
    truncate: false,
    privileged: false,
    execute: false,
};

pub(super) const WRITE: OpenFlags = OpenFlags {
    write: true,
    ..READ
};

pub(super) const TRUNCATE: OpenFlags = OpenFlags {
    truncate: true,
    ..WRITE
};

/// Committed trees, and each directory of them.
#[derive(Default)]
pub(super) struct FakeNames {
    directories: Mutex<HashMap<TreeId, Vec<Listed>>>,
    roots: Mutex<HashMap<TreeId, MemoryTree>>,
}

impl FakeNames {
    /// Keeps a tree, under an id that follows from it.
    pub(super) fn keep(&self, tree: &MemoryTree) -> TreeId {
        let id = self.keep_directory(tree, EntryId::ROOT);
        self.roots.lock().unwrap().insert(id, tree.clone());
        id
    }

    fn keep_directory(&self, tree: &MemoryTree, id: EntryId) -> TreeId {
        let listed: Vec<Listed> = tree
            .list(id)
            .map(|placed| Listed {
                name: placed.name.clone(),
                entry: placed.entry.clone(),
                tree: (placed.entry.kind == Kind::Directory)
                    .then(|| self.keep_directory(tree, placed.entry.id)),
            })
            .collect();
        let text = format!("{:?} {listed:?}", tree.get(id).unwrap().entry);
        let tree = TreeId::from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..20]).unwrap();
        self.directories.lock().unwrap().insert(tree, listed);
        tree
    }

    pub(super) fn tree(&self, id: TreeId) -> MemoryTree {
        self.roots.lock().unwrap()[&id].clone()
    }

    /// All directories of `to`, as if each differed: more than the contract asks, and never wrong.
    fn trees(&self, to: &MemoryTree) -> Vec<(EntryId, TreeId)> {
        to.iter()
            .filter(|placed| placed.entry.kind == Kind::Directory)
            .map(|placed| (placed.entry.id, self.keep_directory(to, placed.entry.id)))
            .collect()
    }

    pub(super) fn diff(&self, from: TreeId, to: &MemoryTree) -> ViewDiff {
        ViewDiff {
            view: view(self.keep(to)),
            changes: self.tree(from).diff(to),
            directories: self.trees(to),
        }
    }
}

pub(super) fn view(tree: TreeId) -> BaseView {
    BaseView {
        token: tree.as_bytes()[..4].to_vec(),
        tree,
    }
}

impl Names for FakeNames {
    fn directory(&self, tree: TreeId) -> Result<Vec<Listed>, FsError> {
        let directories = self.directories.lock().unwrap();
        directories.get(&tree).cloned().ok_or(FsError::NotFound)
    }

    fn root(&self, tree: TreeId) -> Result<Entry, FsError> {
        let roots = self.roots.lock().unwrap();
        let tree = roots.get(&tree).ok_or(FsError::NotFound)?;
        Ok(tree.get(EntryId::ROOT).unwrap().entry.clone())
    }
}

/// Contents in a folder; some of them only "elsewhere".
pub(super) struct FakeContents {
    folder: PathBuf,
    pub(super) elsewhere: Mutex<HashSet<InfoHash>>,
    pub(super) free: AtomicU64,
    unsynced: Mutex<HashSet<InfoHash>>,
    /// A sync of these has failed.
    pub(super) suspect: Mutex<HashSet<InfoHash>>,
}

impl FakeContents {
    pub(super) fn path(&self, hash: InfoHash) -> PathBuf {
        self.folder.join(hash.to_string())
    }
}

impl Contents for FakeContents {
    fn local(&self, content: &ContentRef) -> Result<Option<File>, FsError> {
        if self.elsewhere.lock().unwrap().contains(&content.info_hash) {
            return Ok(None);
        }
        Ok(Some(File::open(self.path(content.info_hash))?))
    }

    fn reader(&self, content: ContentRef) -> Result<Arc<dyn ContentReader>, FsError> {
        let bytes = std::fs::read(self.path(content.info_hash)).map(Bytes::from);
        Ok(Arc::new(FakeReader(bytes.ok())))
    }

    fn seal(&self, staged: &Path) -> Result<Sealed, FsError> {
        let bytes = std::fs::read(staged)?;
        let hash = InfoHash::from_slice(&blake3::hash(&bytes).as_bytes()[..20]).unwrap();
        if self.path(hash).exists() {
            std::fs::remove_file(staged)?;
        } else {
            std::fs::rename(staged, self.path(hash))?;
            self.unsynced.lock().unwrap().insert(hash);
        }
        Ok(Sealed {
            content: ContentRef {
                info_hash: hash,
                length: bytes.len() as u64,
            },
            info: hash.to_string().into_bytes(),
        })
    }

    fn sync(&self) -> Result<(), FsError> {
        self.unsynced.lock().unwrap().clear();
        Ok(())
    }

    fn is_durable(&self, content: &InfoHash) -> bool {
        let is_in = |set: &Mutex<HashSet<_>>| set.lock().unwrap().contains(content);
        !is_in(&self.unsynced) && !is_in(&self.suspect)
    }

    fn space(&self) -> Space {
        Space {
            total: 1 << 40,
            free: self.free.load(Ordering::Relaxed),
        }
    }
}

struct FakeReader(Option<Bytes>);

impl ContentReader for FakeReader {
    /// In small pieces, so that whoever needs more has to ask again.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'static, Result<Bytes, FsError>> {
        let bytes = self.0.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            let bytes = bytes.ok_or(FsError::Unavailable)?;
            let from = bytes.len().min(offset as usize);
            Ok(bytes.slice(from..bytes.len().min(from + length.min(7))))
        })
    }
}

/// A clock that counts seconds, and random bytes that count.
pub(super) struct FakeSource {
    clock: AtomicU64,
    serial: AtomicU64,
    salt: u8,
    boot: AtomicU8,
}

impl Source for FakeSource {
    fn now(&self) -> Timestamp {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_seconds(now.cast_signed())
    }

    fn random(&self) -> [u8; 16] {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [self.salt; 16];
        bytes[8..].copy_from_slice(&serial.to_be_bytes());
        bytes
    }

    fn boot(&self) -> Option<[u8; 16]> {
        Some([self.boot.load(Ordering::Relaxed); 16])
    }
}

/// Counts.
#[derive(Default)]
pub(super) struct FakeEvents {
    pub(super) unsealed: AtomicU64,
    pub(super) pending: AtomicU64,
}

impl Events for FakeEvents {
    fn unsealed(&self) {
        self.unsealed.fetch_add(1, Ordering::Relaxed);
    }

    fn pending(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }
}

/// A node: the filesystem, its root, and what it has committed.
pub(super) struct Node {
    pub(super) filesystem: Filesystem,
    pub(super) names: Arc<FakeNames>,
    pub(super) contents: Arc<FakeContents>,
    pub(super) events: Arc<FakeEvents>,
    source: Arc<FakeSource>,
    pub(super) publishing: Publishing,
    pub(super) root: Arc<tempfile::TempDir>,
    /// The newest commit of this node.
    pub(super) head: (BaseView, u64),
    /// The present view.
    pub(super) view: MemoryTree,
}

impl Node {
    pub(super) fn new() -> Self {
        let root = Arc::new(tempfile::tempdir().unwrap());
        let folder = root.path().join("data");
        std::fs::create_dir(&folder).unwrap();
        let names = Arc::new(FakeNames::default());
        let contents = Arc::new(FakeContents {
            folder,
            elsewhere: Mutex::default(),
            free: AtomicU64::new(1 << 30),
            unsynced: Mutex::default(),
            suspect: Mutex::default(),
        });
        let source = Arc::new(FakeSource {
            clock: AtomicU64::new(1_000_000),
            serial: AtomicU64::new(1),
            salt: 0xaa,
            boot: AtomicU8::new(1),
        });
        let events = Arc::new(FakeEvents::default());
        let tree = MemoryTree::new();
        let head = (view(names.keep(&tree)), 0);
        let publishing = Publishing::default();
        let ports = ports(&names, &contents, &source, &events, publishing.clone());
        let filesystem = Filesystem::start(config(root.path(), &head), ports).unwrap();
        Self {
            filesystem,
            names,
            contents,
            events,
            source,
            publishing,
            root,
            head,
            view: tree,
        }
    }

    /// The process ends without a word, and starts again.
    pub(super) fn restart(&mut self) {
        let config = config(self.root.path(), &self.head);
        self.publishing = Publishing::default();
        let publishing = self.publishing.clone();
        let ports = ports(
            &self.names,
            &self.contents,
            &self.source,
            &self.events,
            publishing,
        );
        self.filesystem = Filesystem::start(config, ports).unwrap();
    }

    /// The machine starts anew: what was not synced may be lost.
    pub(super) fn lose_power(&mut self) {
        self.source.boot.fetch_add(1, Ordering::Relaxed);
        self.restart();
    }

    /// Hashes everything that waits for it.
    pub(super) fn seal_all(&self) {
        while let Some(job) = self.filesystem.next_unsealed() {
            let sealed = self.contents.seal(&job.path);
            self.filesystem.sealed(job, sealed).unwrap();
        }
    }

    /// Commits what is pending, as a commit of this node alone.
    pub(super) fn commit(&mut self) -> Changes {
        let Some(group) = self.filesystem.take_group() else {
            return Changes::new();
        };
        let mut tree = self.names.tree(group.base.tree);
        tree.apply(&group.changes).unwrap();
        tree.check().unwrap();
        self.check_infos(&group);
        self.head = (view(self.names.keep(&tree)), group.sequence);
        self.filesystem.committed(self.head.0.clone()).unwrap();
        self.view = tree;
        group.changes
    }

    fn check_infos(&self, group: &Group) {
        let base = self.names.tree(group.base.tree);
        let known: HashSet<InfoHash> = base.iter().filter_map(|p| swarm(&p.entry)).collect();
        for (_, change) in group.changes.iter() {
            if let Some(hash) = change.after.as_ref().and_then(|p| swarm(&p.entry)) {
                let told = group.infos.contains_key(&hash) || known.contains(&hash);
                assert!(told, "a new content travels with its info");
            }
            for placed in [&change.before, &change.after].into_iter().flatten() {
                let parent = placed.parent;
                let gone = group.changes.get(parent).is_some_and(|c| c.after.is_none());
                let known = parent == EntryId::ROOT || group.places.contains_key(&parent);
                assert!(known || gone, "a group tells where its directories are");
            }
        }
    }

    /// Another node changes the tree that it has last seen from here; both sides meet.
    pub(super) fn meet(&mut self, change: impl FnOnce(&mut MemoryTree)) -> Vec<Invalidation> {
        let mut theirs = self.view.clone();
        change(&mut theirs);
        let right = self.view.diff(&theirs);
        let names = Arc::clone(&self.names);
        let mut head = self.head.clone();
        let mut met = None;
        let told = self
            .filesystem
            .rebase(|base, group| {
                let tree = names.tree(base.tree);
                let left = group.map(|g| g.changes.clone()).unwrap_or_default();
                if let Some(group) = group {
                    let mut own = tree.clone();
                    own.apply(&left).unwrap();
                    own.check().unwrap();
                    head = (view(names.keep(&own)), group.sequence);
                }
                let mut merged = tree.clone();
                merged.apply(&merge(&tree, &left, &right).unwrap()).unwrap();
                merged.check().unwrap();
                met = Some(merged.clone());
                Ok::<_, FsError>(names.diff(base.tree, &merged))
            })
            .unwrap();
        self.head = head;
        self.view = met.unwrap();
        told
    }

    /// Whether a power cut takes nothing of the content that is under this name.
    pub(super) fn is_durable(&self, path: &str) -> bool {
        let entry = self.filesystem.entry(self.inode(path)).unwrap().entry;
        self.contents.is_durable(&swarm(&entry).unwrap())
    }

    // ---- short forms ----

    pub(super) fn inode(&self, path: &str) -> Inode {
        self.try_inode(path).unwrap()
    }

    pub(super) fn try_inode(&self, path: &str) -> Result<Inode, FsError> {
        let names: Vec<Name> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| Name::parse(part.as_bytes()).unwrap())
            .collect();
        Ok(self.filesystem.find(&names)?.0)
    }

    pub(super) fn split<'a>(&self, path: &'a str) -> (Inode, &'a [u8]) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.inode(parent), name.as_bytes())
    }

    pub(super) fn mkdir(&self, path: &str) -> Inode {
        let (parent, name) = self.split(path);
        let made = self.filesystem.make_directory(parent, name, 0o755, ME);
        made.unwrap().inode
    }

    pub(super) fn create(&self, path: &str) -> (Inode, HandleId) {
        let (parent, name) = self.split(path);
        let created = self.filesystem.create(parent, name, 0o644, WRITE, ME);
        let (stat, opened) = created.unwrap();
        (stat.inode, opened.handle)
    }

    /// Creates or overwrites a file, and closes it.
    pub(super) fn write(&self, path: &str, bytes: &[u8]) -> Inode {
        let (inode, handle) = match self.try_inode(path) {
            Ok(inode) => (inode, self.open(inode, TRUNCATE).handle),
            Err(_) => self.create(path),
        };
        self.filesystem.write(handle, 0, bytes).unwrap();
        self.filesystem.release(handle);
        inode
    }

    pub(super) fn open(&self, inode: Inode, flags: OpenFlags) -> Opened {
        self.finish(self.filesystem.open(inode, flags).unwrap())
            .unwrap()
    }

    /// Waits for an answer, hashing what that may wait for.
    pub(super) fn finish<T>(&self, answer: Answer<T>) -> Result<T, FsError> {
        if let Answer::Later(_) = answer {
            self.seal_all();
        }
        wait(answer)
    }

    pub(super) fn read(&self, path: &str) -> Vec<u8> {
        let opened = self.open(self.inode(path), READ);
        let bytes = self.read_handle(opened.handle);
        self.filesystem.release(opened.handle);
        bytes
    }

    pub(super) fn read_handle(&self, handle: HandleId) -> Vec<u8> {
        wait(self.filesystem.read(handle, 0, 1 << 20).unwrap())
            .unwrap()
            .to_vec()
    }

    pub(super) fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), FsError> {
        self.filesystem
            .rename(self.split(from), self.split(to), mode)
    }

    pub(super) fn unlink(&self, path: &str) -> Result<(), FsError> {
        let (parent, name) = self.split(path);
        self.filesystem.unlink(parent, name)
    }

    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let handle = self.filesystem.open_directory(self.inode(path)).unwrap();
        let lines = self
            .filesystem
            .read_directory(handle, 0, usize::MAX)
            .unwrap();
        self.filesystem.release(handle);
        let names = lines
            .iter()
            .skip(2)
            .map(|line| String::from_utf8_lossy(&line.name).into());
        names.collect()
    }

    /// Every path with its bytes (`None`: a directory), as the mount shows them.
    pub(super) fn shown(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut shown = BTreeMap::new();
        let mut directories = vec![String::new()];
        while let Some(directory) = directories.pop() {
            for name in self.list(&directory) {
                let path = format!("{directory}/{name}");
                let stat = self.filesystem.stat(self.inode(&path)).unwrap();
                if stat.kind == FileType::Directory {
                    directories.push(path.clone());
                    shown.insert(path, None);
                } else {
                    let bytes = self.read(&path);
                    assert_eq!(stat.size, bytes.len() as u64, "{path}");
                    shown.insert(path, Some(bytes));
                }
            }
        }
        shown
    }

    pub(super) fn stat(&self, path: &str) -> Stat {
        self.filesystem.stat(self.inode(path)).unwrap()
    }
}

fn swarm(entry: &Entry) -> Option<InfoHash> {
    crate::filesystem::pending::content(entry)
}

fn config(root: &Path, head: &(BaseView, u64)) -> Config {
    Config {
        root: root.to_path_buf(),
        label: "here".into(),
        base: head.0.clone(),
        sequence: head.1,
        inline_max: INLINE_MAX as u32,
    }
}

fn ports(
    names: &Arc<FakeNames>,
    contents: &Arc<FakeContents>,
    source: &Arc<FakeSource>,
    events: &Arc<FakeEvents>,
    publishing: Publishing,
) -> Ports {
    Ports {
        names: names.clone(),
        contents: contents.clone(),
        source: source.clone(),
        events: events.clone(),
        publishing,
    }
}

/// Waits for an answer on a runtime of its own.
pub(super) fn wait<T>(answer: Answer<T>) -> Result<T, FsError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(answer.wait())
}
