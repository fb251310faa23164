//! A node around a real mount: committed trees in memory, contents in a folder, of which some never arrive.

use bytes::Bytes;
use delugefs::filesystem::{
    BaseView, BoxFuture, Config, ContentReader, Contents, Events, Filesystem, FsError, Listed,
    Names, Ports, Sealed, Source, Space, ViewDiff,
};
use delugefs::fuse::{Mount, MountError, MountOptions, Owners};
use delugefs::publishing::Publishing;
use delugefs_core::entry::{
    Attributes, Content, ContentRef, Entry, File as FileEntry, Kind, Placed,
};
use delugefs_core::ids::{EntryId, InfoHash, TreeId};
use delugefs_core::memory_tree::MemoryTree;
use delugefs_core::name::Name;
use delugefs_core::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::sync::watch;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Mounting here needs root and /dev/fuse: in CI their lack is a failure, elsewhere said loudly.
pub(crate) fn can_mount() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "root"
    } else if File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_err()
    {
        "/dev/fuse"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "CI must have {missing}");
    eprintln!("SKIPPED: this test needs {missing}");
    false
}

/// Looks until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    crate::tools::eventually(PATIENCE, what, is_so);
}

#[derive(Default)]
struct FakeNames {
    directories: Mutex<HashMap<TreeId, Vec<Listed>>>,
    trees: Mutex<HashMap<TreeId, MemoryTree>>,
}

impl FakeNames {
    fn keep(&self, tree: &MemoryTree) -> BaseView {
        let id = self.keep_directory(tree, EntryId::ROOT);
        self.trees.lock().unwrap().insert(id, tree.clone());
        BaseView {
            token: id.as_bytes().to_vec(),
            tree: id,
        }
    }

    fn keep_directory(&self, tree: &MemoryTree, id: EntryId) -> TreeId {
        let list = |placed: &Placed| Listed {
            name: placed.name.clone(),
            entry: placed.entry.clone(),
            tree: (placed.entry.kind == Kind::Directory)
                .then(|| self.keep_directory(tree, placed.entry.id)),
        };
        let listed: Vec<Listed> = tree.list(id).map(list).collect();
        let text = format!("{:?} {listed:?}", tree.get(id).unwrap().entry);
        let id = TreeId::from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..20]).unwrap();
        self.directories.lock().unwrap().insert(id, listed);
        id
    }

    fn diff(&self, from: TreeId, to: &MemoryTree) -> ViewDiff {
        let directories = to
            .iter()
            .filter(|placed| placed.entry.kind == Kind::Directory);
        let id = |placed: &Placed| (placed.entry.id, self.keep_directory(to, placed.entry.id));
        ViewDiff {
            view: self.keep(to),
            changes: self.trees.lock().unwrap()[&from].diff(to),
            directories: directories.map(id).collect(),
        }
    }
}

impl Names for FakeNames {
    fn directory(&self, tree: TreeId) -> Result<Vec<Listed>, FsError> {
        let directories = self.directories.lock().unwrap();
        directories.get(&tree).cloned().ok_or(FsError::NotFound)
    }

    fn root(&self, tree: TreeId) -> Result<Entry, FsError> {
        let trees = self.trees.lock().unwrap();
        let tree = trees.get(&tree).ok_or(FsError::NotFound)?;
        Ok(tree.get(EntryId::ROOT).unwrap().entry.clone())
    }
}

/// Contents in a folder. Those of `elsewhere` are read only once they have arrived.
pub(crate) struct FakeContents {
    folder: PathBuf,
    elsewhere: Mutex<HashSet<InfoHash>>,
    arrived: watch::Sender<bool>,
    pub(crate) free: AtomicU64,
}

impl FakeContents {
    fn path(&self, hash: InfoHash) -> PathBuf {
        self.folder.join(hash.to_string())
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> ContentRef {
        let content = reference(bytes);
        std::fs::write(self.path(content.info_hash), bytes).unwrap();
        content
    }

    /// A content that is on another node, until [`FakeContents::arrive`].
    pub(crate) fn put_elsewhere(&self, bytes: &[u8]) -> ContentRef {
        let content = self.put(bytes);
        self.elsewhere.lock().unwrap().insert(content.info_hash);
        content
    }

    pub(crate) fn arrive(&self) {
        self.arrived.send_replace(true);
    }
}

fn reference(bytes: &[u8]) -> ContentRef {
    ContentRef {
        info_hash: InfoHash::from_slice(&blake3::hash(bytes).as_bytes()[..20]).unwrap(),
        length: bytes.len() as u64,
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
        Ok(Arc::new(FakeReader {
            file: Arc::new(File::open(self.path(content.info_hash))?),
            arrived: self.arrived.subscribe(),
        }))
    }

    fn seal(&self, staged: &Path) -> Result<Sealed, FsError> {
        let content = reference(&std::fs::read(staged)?);
        std::fs::rename(staged, self.path(content.info_hash))?;
        Ok(Sealed {
            content,
            info: content.info_hash.to_string().into_bytes(),
        })
    }

    fn space(&self) -> Space {
        Space {
            total: 1 << 40,
            free: self.free.load(Ordering::Relaxed),
        }
    }
}

struct FakeReader {
    file: Arc<File>,
    arrived: watch::Receiver<bool>,
}

impl ContentReader for FakeReader {
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'static, Result<Bytes, FsError>> {
        let (file, mut arrived) = (Arc::clone(&self.file), self.arrived.clone());
        Box::pin(async move {
            let waited = arrived.wait_for(|arrived| *arrived).await;
            waited.map_err(|_| FsError::Unavailable)?;
            let mut bytes = vec![0; length];
            let count = file.read_at(&mut bytes, offset)?;
            bytes.truncate(count);
            Ok(bytes.into())
        })
    }
}

/// How an operation that makes something goes on.
#[derive(Default)]
struct Clock {
    serial: AtomicU64,
    is_stuck: AtomicBool,
    asked: AtomicBool,
}

impl Source for Clock {
    fn now(&self) -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp {
            seconds: now.as_secs().cast_signed(),
            nanoseconds: now.subsec_nanos(),
        }
    }

    fn random(&self) -> [u8; 16] {
        self.asked.store(true, Ordering::SeqCst);
        while self.is_stuck.load(Ordering::SeqCst) {
            std::thread::sleep(PATIENCE);
        }
        let mut bytes = [0xaa; 16];
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        bytes[8..].copy_from_slice(&serial.to_be_bytes());
        bytes
    }
}

/// Wakes the thread that seals.
#[derive(Default)]
struct Bell {
    rung: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self, stop: bool) {
        let mut rung = self.rung.lock().unwrap();
        *rung = (true, rung.1 || stop);
        self.changed.notify_all();
    }

    /// Whether to go on.
    fn wait(&self) -> bool {
        let mut rung = self.rung.lock().unwrap();
        while !rung.0 {
            rung = self.changed.wait(rung).unwrap();
        }
        rung.0 = false;
        !rung.1
    }
}

impl Events for Bell {
    fn unsealed(&self) {
        self.ring(false);
    }

    fn pending(&self) {}
}

/// A mounted node. All of it is gone when it is dropped.
pub(crate) struct Lab {
    pub(crate) mount: Option<Mount>,
    pub(crate) filesystem: Filesystem,
    pub(crate) contents: Arc<FakeContents>,
    pub(crate) publishing: Publishing,
    names: Arc<FakeNames>,
    clock: Arc<Clock>,
    bell: Arc<Bell>,
    next_id: AtomicU64,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) root: TempDir,
    pub(crate) point: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::watched_by(None)
    }

    /// With a watcher, if there is a program for it.
    pub(crate) fn watched_by(watcher: Option<PathBuf>) -> Self {
        let (root, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = root.path().join("data");
        std::fs::create_dir(&folder).unwrap();
        let names = Arc::new(FakeNames::default());
        let contents = Arc::new(FakeContents {
            folder,
            elsewhere: Mutex::default(),
            arrived: watch::Sender::new(false),
            free: AtomicU64::new(1 << 40),
        });
        let (bell, clock) = (Arc::new(Bell::default()), Arc::<Clock>::default());
        let publishing = Publishing::default();
        let config = Config {
            root: root.path().into(),
            label: "here".into(),
            base: names.keep(&MemoryTree::new()),
            sequence: 0,
            inline_max: 64,
        };
        let ports = Ports {
            names: Arc::clone(&names) as _,
            contents: Arc::clone(&contents) as _,
            source: Arc::clone(&clock) as _,
            events: Arc::clone(&bell) as _,
            publishing: publishing.clone(),
        };
        let filesystem = Filesystem::start(config, ports).unwrap();
        spawn_sealer(filesystem.clone(), Arc::clone(&contents), Arc::clone(&bell));
        let mut lab = Self {
            mount: None,
            filesystem,
            contents,
            publishing,
            names,
            clock,
            bell,
            next_id: AtomicU64::new(1),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            root,
            point,
        };
        lab.mount = Some(lab.mount_with(lab.point.path(), watcher).unwrap());
        lab
    }

    pub(crate) fn try_mount(&self, point: &Path) -> Result<Mount, MountError> {
        self.mount_with(point, None)
    }

    fn mount_with(&self, point: &Path, watcher: Option<PathBuf>) -> Result<Mount, MountError> {
        let options = MountOptions {
            point: point.into(),
            root: self.root.path().into(),
            allow_other: true,
            read_only: false,
            owners: Owners::Numeric,
            watcher,
        };
        Mount::start(
            self.filesystem.clone(),
            options,
            self.runtime.handle().clone(),
        )
    }

    /// From now on who makes a file or folder waits for ever; completes when somebody does.
    pub(crate) fn never_answer(&self, ask: impl FnOnce()) {
        self.clock.asked.store(false, Ordering::SeqCst);
        self.clock.is_stuck.store(true, Ordering::SeqCst);
        ask();
        eventually("somebody is waiting", || {
            self.clock.asked.load(Ordering::SeqCst)
        });
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }

    /// Another node changes the tree that it sees; the kernel is told.
    pub(crate) fn remote(&self, change: impl FnOnce(&mut MemoryTree)) {
        let told = self.filesystem.rebase(|base, group| {
            let mut tree = self.names.trees.lock().unwrap()[&base.tree].clone();
            if let Some(group) = group {
                tree.apply(&group.changes).unwrap();
            }
            change(&mut tree);
            tree.check().unwrap();
            Ok::<_, FsError>(self.names.diff(base.tree, &tree))
        });
        let invalidator = self.mount.as_ref().unwrap().invalidator();
        invalidator.send(told.unwrap());
    }

    /// What another node's new file is called in the tree.
    pub(crate) fn remote_file(&self, name: &str, content: ContentRef) -> Placed {
        let mut id = [0xbb; 16];
        let serial = self.next_id.fetch_add(1, Ordering::Relaxed);
        id[8..].copy_from_slice(&serial.to_be_bytes());
        Placed {
            parent: EntryId::ROOT,
            name: Name::parse(name.as_bytes()).unwrap(),
            entry: Entry {
                id: EntryId::new(id),
                kind: Kind::File(FileEntry {
                    content: Content::Swarm(content),
                    previous: Vec::new(),
                }),
                attributes: Attributes {
                    mode: 0o644,
                    ..Attributes::default()
                },
                written: delugefs_core::entry::Written {
                    edits: 1,
                    ..delugefs_core::entry::Written::default()
                },
            },
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.mount = None;
        self.bell.ring(true);
    }
}

fn spawn_sealer(filesystem: Filesystem, contents: Arc<FakeContents>, bell: Arc<Bell>) {
    std::thread::spawn(move || {
        while bell.wait() {
            while let Some(job) = filesystem.next_unsealed() {
                let sealed = contents.seal(&job.path);
                filesystem.sealed(job, sealed).unwrap();
            }
        }
    });
}

/// Puts an entry into a tree, or takes it out.
pub(crate) fn place(tree: &mut MemoryTree, id: EntryId, after: Option<Placed>) {
    use delugefs_core::change::{Change, Changes};
    let before = tree.get(id).cloned();
    let changes: Changes = [(id, Change { before, after })].into_iter().collect();
    tree.apply(&changes).unwrap();
}
