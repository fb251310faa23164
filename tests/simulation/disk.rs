//! The disk: what a power cut leaves of a node's folder, and the moment at which it comes.
//!
//! The nodes work on real files. This program has its own `fsync` and `fdatasync`, which the linker prefers to the
//! C library's: so each sync of each part, Git's library included, is seen here without a port in any of them. A
//! sync makes a file's bytes, or a directory's names, durable; nothing else does. A crash comes between two steps
//! of the simulation, or at a sync: then the folder is kept as it is at that moment, and put back when the step has
//! ended, before anyone has heard of it.
#![allow(unsafe_code)]

use crate::random::Random;
use rustix::fd::BorrowedFd;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsString, c_int};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How a node comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process is killed: what was written is there.
    Killed,
    /// The power fails: what was not synced may be there, or not, or in part.
    PowerCut,
}

/// The names in a directory, and the inodes behind them.
type Names = BTreeMap<OsString, u64>;

/// What is known to be on the platters.
#[derive(Default)]
struct Disk {
    files: BTreeMap<u64, Vec<u8>>,
    directories: BTreeMap<PathBuf, Names>,
    /// A crash that is to come at a sync, after so many others, with the luck that decides what it leaves.
    armed: Option<(u64, Crash, Random)>,
    /// What it has left.
    left: Option<(Crash, Image)>,
}

/// A folder with all that is in it.
#[derive(Default)]
pub(crate) struct Image {
    directories: BTreeMap<PathBuf, Names>,
    files: Vec<Kept>,
}

struct Kept {
    path: PathBuf,
    inode: u64,
    bytes: Vec<u8>,
    mode: u32,
    modified: SystemTime,
}

static DISKS: Mutex<BTreeMap<PathBuf, Disk>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The folder whose node is at work on this thread: only its own syncs bring a crash, in their order.
    static AT_WORK: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
    /// It is just starting. Parts sync whole filesystems then, which is not seen here, so no power cut comes.
    static STARTING: Cell<bool> = const { Cell::new(false) };
}

/// `fsync(2)`
#[unsafe(no_mangle)]
pub(crate) extern "C" fn fsync(descriptor: c_int) -> c_int {
    synced(descriptor)
}

/// `fdatasync(2)`
#[unsafe(no_mangle)]
pub(crate) extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    synced(descriptor)
}

/// The files are in memory: there is nothing to be done but to take note.
fn synced(descriptor: c_int) -> c_int {
    // SAFETY: the caller of fsync vouches that the descriptor is open during the call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    match note(descriptor) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

fn note(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let path = fs::read_link(&link)?;
    let Some(root) = root_of(&path) else {
        return Ok(());
    };
    with_disk(&root, |disk| disk.come_due(&root));
    // other nodes' syncs do not wait for what is read here
    let facts = fs::metadata(&link)?;
    if facts.is_dir() {
        let names = names(&path)?;
        with_disk(&root, |disk| disk.directories.insert(path, names));
    } else {
        // opened anew: it may be open for writing only, and have no name any more
        let bytes = fs::read(&link)?;
        with_disk(&root, |disk| disk.files.insert(facts.ino(), bytes));
    }
    Ok(())
}

/// The node's folder that a path lies in.
fn root_of(path: &Path) -> Option<PathBuf> {
    let disks = disks();
    disks.keys().find(|root| path.starts_with(root)).cloned()
}

fn with_disk<T>(root: &Path, change: impl FnOnce(&mut Disk) -> T) -> Option<T> {
    disks().get_mut(root).map(change)
}

fn disks() -> MutexGuard<'static, BTreeMap<PathBuf, Disk>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn names(directory: &Path) -> io::Result<Names> {
    let mut names = Names::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        names.insert(entry.file_name(), entry.metadata()?.ino());
    }
    Ok(names)
}

/// A node with this folder is at work on this thread.
pub(crate) fn work_on(root: &Path) {
    AT_WORK.set(Some(root.to_owned()));
}

/// The node at work is starting, or has started.
pub(crate) fn starting(is_so: bool) {
    STARTING.set(is_so);
}

/// All that is in a folder now is durable: the parts sync the whole filesystem when they start.
pub(crate) fn sync_all(root: &Path) {
    let image = everything(root).unwrap();
    let mut disks = disks();
    let disk = disks.entry(root.to_owned()).or_default();
    for kept in image.files {
        disk.files.insert(kept.inode, kept.bytes);
    }
    disk.directories.extend(image.directories);
}

/// A crash comes at a sync of this folder's node, after so many others.
pub(crate) fn arm(root: &Path, after: u64, crash: Crash, random: Random) {
    let mut disks = disks();
    let disk = disks.entry(root.to_owned()).or_default();
    disk.armed = Some((after, crash, random));
}

/// No crash is to come.
pub(crate) fn disarm(root: &Path) {
    if let Some(disk) = disks().get_mut(root) {
        disk.armed = None;
    }
}

/// Whether a crash has come to the node at work: whatever it does from here on, nobody hears of.
pub(crate) fn is_over() -> bool {
    AT_WORK.with_borrow(|root| {
        let root = root.as_ref();
        root.is_some_and(|root| disks().get(root).is_some_and(|disk| disk.left.is_some()))
    })
}

/// What a crash has left, if it has come.
pub(crate) fn crashed(root: &Path) -> Option<(Crash, Image)> {
    disks().get_mut(root)?.left.take()
}

/// What a crash at this very moment leaves.
pub(crate) fn crash_now(root: &Path, crash: Crash, random: &mut Random) -> Image {
    let mut disks = disks();
    let disk = disks.entry(root.to_owned()).or_default();
    disk.armed = None;
    disk.image(root, crash, random)
}

/// What a copy of the folder at this very moment has.
pub(crate) fn copy(root: &Path) -> Image {
    everything(root).unwrap()
}

/// The folder is no longer used.
pub(crate) fn forget(root: &Path) {
    disks().remove(root);
}

impl Disk {
    fn come_due(&mut self, root: &Path) {
        if AT_WORK.with_borrow(|at_work| at_work.as_deref() != Some(root)) {
            return;
        }
        let Some((left, crash, random)) = &mut self.armed else {
            return;
        };
        if *left > 0 || (*crash == Crash::PowerCut && STARTING.get()) {
            *left = left.saturating_sub(1);
            return;
        }
        let (crash, mut random) = (*crash, random.clone());
        self.armed = None;
        self.left = Some((crash, self.image(root, crash, &mut random)));
    }

    fn image(&self, root: &Path, crash: Crash, random: &mut Random) -> Image {
        let now = everything(root).unwrap();
        match crash {
            Crash::Killed => now,
            Crash::PowerCut => self.after_power_cut(root, &now, random),
        }
    }

    /// Names of the journal, the staging files and the contents survive together: filesystems keep the order of what
    /// is done to names. Within the names' repository anything may survive without the rest.
    fn after_power_cut(&self, root: &Path, now: &Image, random: &mut Random) -> Image {
        let has_new_names = random.percent(50);
        let git = root.join("metadata.git");
        let mut survivors = Image {
            directories: now.directories.clone(),
            files: Vec::new(),
        };
        let mut now_at: BTreeMap<&Path, &Kept> = now
            .files
            .iter()
            .map(|kept| (kept.path.as_path(), kept))
            .collect();
        let any_of = |inode: u64| now.files.iter().find(|kept| kept.inode == inode);
        let mut paths: BTreeSet<PathBuf> = now_at.keys().map(|path| path.to_path_buf()).collect();
        for (directory, names) in &self.directories {
            paths.extend(names.keys().map(|name| directory.join(name)));
        }
        paths.retain(|path| !now.directories.contains_key(path));
        let mut fates = BTreeMap::new();
        for path in paths {
            let is_new = match path.starts_with(&git) {
                true => random.percent(50),
                false => has_new_names,
            };
            let current = now_at.remove(path.as_path());
            let durable = self.durable(&path);
            let (inode, kept) = match (is_new, current, durable) {
                (true, Some(kept), _) => (kept.inode, Some(kept)),
                (false, _, Some(inode)) => (inode, any_of(inode)),
                _ => continue,
            };
            let bytes = fates
                .entry(inode)
                .or_insert_with(|| self.bytes(inode, kept, &path, random));
            if let Some(bytes) = bytes {
                survivors.files.push(Kept {
                    path,
                    inode,
                    bytes: bytes.clone(),
                    mode: kept.map_or(0o644, |kept| kept.mode),
                    modified: kept.map_or(SystemTime::UNIX_EPOCH, |kept| kept.modified),
                });
            }
        }
        survivors
    }

    fn durable(&self, path: &Path) -> Option<u64> {
        let names = self.directories.get(path.parent()?)?;
        names.get(path.file_name()?).copied()
    }

    /// What is left of a file's bytes.
    fn bytes(
        &self,
        inode: u64,
        kept: Option<&Kept>,
        path: &Path,
        random: &mut Random,
    ) -> Option<Vec<u8>> {
        let durable = self.files.get(&inode);
        let Some(kept) = kept else {
            return durable.cloned();
        };
        if durable == Some(&kept.bytes) {
            return durable.cloned();
        }
        match (random.within(0, 3), durable) {
            (0, Some(durable)) => Some(durable.clone()),
            (0, None) => Some(Vec::new()),
            // a reference is one block: it is there or not
            (1, _) if path.components().any(|part| part.as_os_str() == "refs") => Some(Vec::new()),
            (1, None) if path.components().any(|part| part.as_os_str() == "data") => {
                Some(zeroed(&kept.bytes, random))
            }
            (1, _) => Some(torn(durable, &kept.bytes, random)),
            _ => Some(kept.bytes.clone()),
        }
    }
}

/// What was appended is there in part; what was overwritten is the one or the other.
fn torn(durable: Option<&Vec<u8>>, now: &[u8], random: &mut Random) -> Vec<u8> {
    let whole = durable.map_or(0, Vec::len).min(now.len());
    let mut bytes = now[..whole + random.below(now.len() - whole + 1)].to_vec();
    if let Some(durable) = durable
        && random.percent(50)
    {
        bytes[..whole].copy_from_slice(&durable[..whole]);
    }
    bytes
}

/// As long as it should be, but some of it was never written: all, the end, or something in the middle.
fn zeroed(now: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = now.to_vec();
    let start = random.below(bytes.len() + 1);
    let end = start + random.below(bytes.len() - start + 1);
    match random.within(0, 3) {
        0 => bytes.fill(0),
        1 => bytes[start..].fill(0),
        _ => bytes[start..end].fill(0),
    }
    bytes
}

/// A folder as it is.
fn everything(root: &Path) -> io::Result<Image> {
    let mut image = Image::default();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let mut names = Names::new();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let facts = entry.metadata()?;
            names.insert(entry.file_name(), facts.ino());
            if facts.is_dir() {
                waiting.push(entry.path());
            } else {
                image.files.push(keep(entry.path(), &facts)?);
            }
        }
        image.directories.insert(directory, names);
    }
    image.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(image)
}

fn keep(path: PathBuf, facts: &Metadata) -> io::Result<Kept> {
    Ok(Kept {
        bytes: fs::read(&path)?,
        path,
        inode: facts.ino(),
        mode: facts.permissions().mode(),
        modified: facts.modified()?,
    })
}

impl Image {
    /// Makes a folder this.
    pub(crate) fn restore(self, root: &Path) {
        fs::remove_dir_all(root).unwrap();
        for directory in self.directories.keys() {
            fs::create_dir_all(directory).unwrap();
        }
        let mut made: BTreeMap<u64, PathBuf> = BTreeMap::new();
        for kept in self.files {
            if let Some(first) = made.get(&kept.inode) {
                fs::create_dir_all(kept.path.parent().expect("below the root")).unwrap();
                fs::hard_link(first, &kept.path).unwrap();
                continue;
            }
            // a directory that has gone since comes back with what was in it
            fs::create_dir_all(kept.path.parent().expect("below the root")).unwrap();
            fs::write(&kept.path, &kept.bytes).unwrap();
            let file = File::options().append(true).open(&kept.path).unwrap();
            file.set_modified(kept.modified).unwrap();
            let mode = fs::Permissions::from_mode(kept.mode);
            fs::set_permissions(&kept.path, mode).unwrap();
            made.insert(kept.inode, kept.path);
        }
        forget(root);
        sync_all(root);
    }
}

/// This program's own `fsync` is the one that is called.
#[test]
fn syncs_are_seen() {
    let root = crate::folder();
    fs::create_dir_all(&root).unwrap();
    sync_all(&root);
    let path = root.join("file");
    fs::write(&path, b"one").unwrap();
    let file = File::options().append(true).open(&path).unwrap();
    file.sync_data().unwrap();
    File::open(&root).unwrap().sync_all().unwrap();
    fs::write(root.join("other"), b"lost").unwrap();
    let seen = (0..20).map(|seed| {
        let image = crash_now(&root, Crash::PowerCut, &mut Random::new(seed));
        let names: Vec<_> = image.files.iter().map(|kept| &kept.path).collect();
        assert!(names.contains(&&path), "what was synced is gone");
        image.files.len()
    });
    let seen: BTreeSet<usize> = seen.collect();
    assert!(seen.contains(&1), "what was not synced always survives");
    fs::remove_dir_all(&root).unwrap();
    forget(&root);
}
