//! Nodes on the same host: a directory with one small file for each running node.
//!
//! `NODE.json` is written under another name, locked (`flock`), and renamed into place, so that every
//! file that can be seen is whole and locked by a living process; one that can be locked by others
//! is stale and is removed. Anyone on the host may write here (mode 1777): files are opened without
//! following links, must be regular and small, and are only hints.

use crate::known::{Sighting, Source};
use crate::record::FileRecord;
use crate::{Announcement, Outlet, Peer};
use rustix::fs::{self as unix, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the directories are read: a newcomer is seen within this time, at some 10 µs per file.
pub const POLL_INTERVAL: Duration = Duration::from_millis(150);

/// Largest file that is read, in bytes; ours have about 400.
pub const FILE_BYTES_MAX: u64 = 4096;

/// Directory entries looked at in one pass: anyone can put files there.
pub const FILES_MAX: usize = 1024;

/// The host's directories: root's, and one for hosts where no root process has made that.
pub fn standard_directories() -> Vec<PathBuf> {
    vec![
        PathBuf::from("/run/delugefs"),
        PathBuf::from("/tmp/delugefs"),
    ]
}

#[derive(Debug)]
pub(crate) struct Registry {
    stop: Sender<()>,
    ended: Receiver<()>,
}

impl Registry {
    pub(crate) fn start(
        directories: Vec<PathBuf>,
        announcement: Option<Announcement>,
        outlet: Outlet,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let (end, ended) = channel::<()>();
        let mut watch = Watch {
            own: Own::new(announcement, directories.clone()),
            directories,
            network: network_identity()?,
            seen: BTreeMap::new(),
        };
        let thread = thread::Builder::new().name("registry".into());
        thread.spawn(move || {
            watch.run(&stopped, &outlet);
            drop((watch, end));
        })?;
        Ok(Self { stop, ended })
    }

    /// Returns once our own file is gone, or `wait` is over (nobody may be taking events).
    pub(crate) fn stop(self, wait: Duration) {
        let _ = self.stop.send(());
        let _ = self.ended.recv_timeout(wait);
    }
}

/// Boot and network namespace: elsewhere, a file's addresses mean something else.
fn network_identity() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::read_link("/proc/self/ns/net")?;
    Ok(format!("{} {}", boot.trim(), namespace.display()))
}

type Identity = (u64, u64, i64, u64);

struct Watch {
    own: Option<Own>,
    directories: Vec<PathBuf>,
    network: String,
    /// What stands in each file, so that an unchanged one is not read again.
    seen: BTreeMap<PathBuf, (Identity, Option<Peer>)>,
}

impl Watch {
    fn run(&mut self, stopped: &Receiver<()>, outlet: &Outlet) {
        loop {
            if let Some(own) = &mut self.own
                && let Err(text) = own.keep(&self.network)
                && !outlet.warn(text)
            {
                return;
            }
            if !self.pass(outlet) {
                return;
            }
            match stopped.recv_timeout(POLL_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn pass(&mut self, outlet: &Outlet) -> bool {
        let mut now = BTreeMap::new();
        for directory in self.directories.clone() {
            self.read_directory(&directory, &mut now);
        }
        let before = std::mem::replace(&mut self.seen, now);
        let gone = before
            .iter()
            .filter(|(path, (_, peer))| peer.is_some() && !self.seen.contains_key(*path))
            .all(|(path, _)| outlet.put(Sighting::Gone(source(path))));
        gone && self.tell_news(&before, outlet)
    }

    fn tell_news(
        &self,
        before: &BTreeMap<PathBuf, (Identity, Option<Peer>)>,
        outlet: &Outlet,
    ) -> bool {
        let news = self
            .seen
            .iter()
            .filter(|(path, now)| before.get(*path) != Some(*now));
        news.into_iter()
            .filter_map(|(path, (_, peer))| Some((path, peer.as_ref()?)))
            .all(|(path, peer)| outlet.put(Sighting::Seen(source(path), peer.clone())))
    }

    fn read_directory(
        &self,
        directory: &Path,
        now: &mut BTreeMap<PathBuf, (Identity, Option<Peer>)>,
    ) {
        let Ok(handle) = open_directory(directory) else {
            return;
        };
        let Ok(listing) = unix::Dir::read_from(&handle) else {
            return;
        };
        for entry in listing.take(FILES_MAX).flatten() {
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if Path::new(name).extension() != Some(OsStr::new("json")) {
                continue;
            }
            let path = directory.join(name);
            let before = self.seen.get(&path);
            if let Some(found) = read_file(&handle, name, &self.network, before) {
                now.insert(path, found);
            }
        }
    }
}

fn source(path: &Path) -> Source {
    Source::Registry(path.display().to_string())
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    unix::open(path, flags, Mode::empty())
}

/// What a file says, if a living process holds it. A stale one is removed.
fn read_file(
    directory: &OwnedFd,
    name: &str,
    network: &str,
    before: Option<&(Identity, Option<Peer>)>,
) -> Option<(Identity, Option<Peer>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = unix::openat(directory, name, flags, Mode::empty()).ok()?;
    let stat = unix::fstat(&file).ok()?;
    let regular = unix::FileType::from_raw_mode(stat.st_mode) == unix::FileType::RegularFile;
    if !regular || u64::try_from(stat.st_size).ok()? > FILE_BYTES_MAX {
        return None;
    }
    let identity = identity(&stat);
    match unix::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => {}
        Err(_) => return None,
        Ok(()) => {
            remove_stale(directory, name, identity);
            return None;
        }
    }
    match before {
        Some(known) if known.0 == identity => Some(known.clone()),
        _ => {
            let mut bytes = Vec::new();
            let mut limited = File::from(file).take(FILE_BYTES_MAX);
            limited.read_to_end(&mut bytes).ok()?;
            Some((identity, FileRecord::parse(&bytes, network)))
        }
    }
}

fn identity(stat: &unix::Stat) -> Identity {
    (stat.st_dev, stat.st_ino, stat.st_mtime, stat.st_mtime_nsec)
}

/// Its owner may just have put a new file there; then that one stays. Should the owner be quicker
/// still, it notices and writes its file again.
fn remove_stale(directory: &OwnedFd, name: &str, stale: Identity) {
    let still = unix::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    if still.is_ok_and(|stat| identity(&stat) == stale) {
        let _ = unix::unlinkat(directory, name, AtFlags::empty());
    }
}

/// Our own file: held, and put back if someone removes it.
struct Own {
    announcement: Announcement,
    directories: Vec<PathBuf>,
    held: Option<Held>,
    warned: bool,
}

struct Held {
    /// Keeps the lock.
    _file: File,
    identity: Identity,
    path: PathBuf,
}

impl Own {
    fn new(announcement: Option<Announcement>, directories: Vec<PathBuf>) -> Option<Self> {
        Some(Self {
            announcement: announcement?,
            directories,
            held: None,
            warned: false,
        })
    }

    /// Makes sure that our file is there. Says once why it cannot be.
    fn keep(&mut self, network: &str) -> Result<(), String> {
        if let Some(held) = &self.held
            && unix::lstat(&held.path).is_ok_and(|stat| identity(&stat) == held.identity)
        {
            return Ok(());
        }
        self.held = None;
        let mut problems = Vec::new();
        for directory in &self.directories {
            match announce(directory, &self.announcement, network) {
                Ok(held) => {
                    self.held = Some(held);
                    self.warned = false;
                    return Ok(());
                }
                Err(error) => problems.push(format!("{}: {error}", directory.display())),
            }
        }
        if std::mem::replace(&mut self.warned, true) {
            return Ok(());
        }
        let problems = problems.join("; ");
        Err(format!(
            "other nodes on this host may not find this one: no registry directory can be written ({problems})"
        ))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(held) = self.held.take()
            && unix::lstat(&held.path).is_ok_and(|stat| identity(&stat) == held.identity)
        {
            let _ = fs::remove_file(&held.path);
        }
    }
}

fn announce(directory: &Path, own: &Announcement, network: &str) -> io::Result<Held> {
    make_directory(directory)?;
    let handle = open_directory(directory)?;
    let name = format!("{}.json", own.node);
    if is_held(&handle, &name) {
        return Err(io::Error::other("another process runs this node"));
    }
    let pid = std::process::id();
    let temporary = format!(".{}.{pid}", own.node);
    let held = write_locked(&handle, &temporary, own, network);
    let held = held.and_then(|file| {
        unix::renameat(&handle, &temporary, &handle, &name)?;
        Ok(file)
    });
    if held.is_err() {
        let _ = unix::unlinkat(&handle, &temporary, AtFlags::empty());
    }
    let file = held?;
    let identity = identity(&unix::fstat(&file)?);
    let path = directory.join(name);
    Ok(Held {
        _file: file,
        identity,
        path,
    })
}

/// A directory for everyone, if the parent allows it.
fn make_directory(path: &Path) -> io::Result<()> {
    match unix::mkdir(path, Mode::from_raw_mode(0o1777)) {
        // Past the umask.
        Ok(()) => unix::fchmod(open_directory(path)?, Mode::from_raw_mode(0o1777))?,
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn is_held(directory: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    unix::openat(directory, name, flags, Mode::empty()).is_ok_and(|file| {
        unix::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    })
}

fn write_locked(
    directory: &OwnedFd,
    name: &str,
    own: &Announcement,
    network: &str,
) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Left by a process of our own number that was killed between two steps.
    let _ = unix::unlinkat(directory, name, AtFlags::empty());
    let mut file = File::from(unix::openat(
        directory,
        name,
        flags,
        Mode::from_raw_mode(0o644),
    )?);
    unix::fchmod(&file, Mode::from_raw_mode(0o644))?;
    unix::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let started = started.map_or(0, |since| since.as_secs());
    let record = FileRecord::new(own, network, std::process::id(), started);
    file.write_all(&serde_json::to_vec(&record)?)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
