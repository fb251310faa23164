//! What users do: everything that a filesystem offers, each act checked where it was done.

use crate::disk;
use crate::node::{INLINE_MAX, Open, Running};
use crate::oracle::{Body, READ, Shown, Thing, Versions, XATTR, at, is_reserved, names};
use crate::ports::Faults;
use crate::random::Random;
use delugefs::filesystem::{
    Caller, FsError, Inode, NewNode, OpenFlags, RenameMode, SetAttributes, SetTime, XattrMode,
};
use delugefs_core::time::Timestamp;
use std::os::unix::fs::FileExt as _;

const ME: Caller = Caller { uid: 7, gid: 8 };

const WRITE: OpenFlags = OpenFlags {
    write: true,
    privileged: true,
    ..READ
};

const APPEND: OpenFlags = OpenFlags {
    append: true,
    ..WRITE
};

const TRUNCATE: OpenFlags = OpenFlags {
    truncate: true,
    ..WRITE
};

const DIRECTORIES: [&str; 5] = ["", "", "d", "e", "d/f"];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "x.txt"];

/// One act.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Creates or overwrites, and closes.
    Write(String, usize),
    /// The same, and keeps it open.
    Hold(String, usize),
    Append(String, usize),
    /// As editors do: a temporary file, perhaps synced, is renamed over the old one.
    Save(String, usize, bool),
    /// Writes somewhere into an open file.
    WriteOpen(usize),
    Close,
    Truncate(String, u64),
    Mkdir(String),
    Rename(String, String),
    Exchange(String, String),
    Unlink(String),
    Rmdir(String),
    Symlink(String),
    Fifo(String),
    Chmod(String, u16),
    Chown(String),
    Touch(String),
    Mark(String, bool),
    Fsync,
    /// The directory that something is in.
    SyncDirectory(String),
    SyncAll,
}

/// Who acts, on which node.
pub(crate) struct User<'a> {
    pub(crate) node: usize,
    pub(crate) running: &'a mut Running,
    pub(crate) random: &'a mut Random,
    pub(crate) versions: &'a mut Versions,
    /// What the mount shows, where somebody watches all of it.
    pub(crate) model: Option<&'a mut Shown>,
    /// The folder in which this user works.
    pub(crate) home: &'a str,
    /// Makes bytes unlike any others.
    pub(crate) serial: &'a mut u64,
    /// The node's wall clock.
    pub(crate) now: Timestamp,
    pub(crate) faults: &'a Faults,
    /// Bytes that are elsewhere do not arrive.
    pub(crate) is_alone: bool,
    /// What he was told survives a power cut.
    pub(crate) synced: Vec<Synced>,
}

/// What survives a power cut.
pub(crate) enum Synced {
    File(Vec<u8>),
    All,
}

impl User<'_> {
    /// Something to do.
    pub(crate) fn draw(&mut self) -> Act {
        let size = match self.random.within(0, 9) {
            0..6 => self.random.within(1, 3) as usize,
            _ => INLINE_MAX * self.random.within(1, 20) as usize,
        };
        match self.random.within(0, 99) {
            0..22 => Act::Write(self.path(), size),
            22..26 => Act::Hold(self.path(), size),
            26..30 => Act::Save(self.path(), size, self.random.percent(50)),
            30..35 => Act::Append(self.path(), size),
            35..42 => Act::WriteOpen(size),
            42..49 => Act::Close,
            49..53 => Act::Truncate(self.path(), self.random.within(0, 100)),
            53..61 => Act::Mkdir(self.path()),
            61..73 => Act::Rename(self.path(), self.path()),
            73..75 => Act::Exchange(self.path(), self.path()),
            75..82 => Act::Unlink(self.path()),
            82..85 => Act::Rmdir(self.path()),
            85..87 => Act::Symlink(self.path()),
            87 => Act::Fifo(self.path()),
            88..91 => Act::Chmod(self.path(), self.random.within(0, 0o777) as u16),
            91 => Act::Chown(self.path()),
            92..94 => Act::Touch(self.path()),
            94..97 => Act::Mark(self.path(), self.random.percent(80)),
            97 => Act::Fsync,
            98 => Act::SyncDirectory(self.path()),
            _ => Act::SyncAll,
        }
    }

    /// Mostly something that is there.
    fn path(&mut self) -> String {
        if let Some(model) = &self.model
            && self.random.percent(50)
        {
            let known: Vec<&String> = model
                .keys()
                .filter(|path| path.starts_with(self.home) && !is_reserved(path))
                .collect();
            if !known.is_empty() {
                return known[self.random.below(known.len())].clone();
            }
        }
        let (chance, home) = (self.random.percent(50), self.home);
        let written = self.versions.paths();
        let written = written.filter(|path| path.starts_with(home) && !is_reserved(path));
        let written: Vec<&str> = written.collect();
        if chance && !written.is_empty() {
            return written[self.random.below(written.len())].to_owned();
        }
        let directory = DIRECTORIES[self.random.below(DIRECTORIES.len())];
        let name = NAMES[self.random.below(NAMES.len())];
        let parts = [self.home.trim_end_matches('/'), directory, name];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    }

    /// Does it; `Err` where the filesystem refuses, which changes nothing.
    pub(crate) fn act(&mut self, act: &Act) -> Result<(), FsError> {
        match act {
            Act::Write(path, size) => {
                let bytes = self.bytes(*size);
                self.write(path, &bytes, false)
            }
            Act::Hold(path, size) => {
                let bytes = self.bytes(*size);
                self.write(path, &bytes, true)
            }
            Act::Append(path, size) => self.append(path, *size),
            Act::Save(path, size, is_synced) => self.save(path, *size, *is_synced),
            Act::WriteOpen(size) => self.write_open(*size),
            Act::Close => {
                self.close();
                Ok(())
            }
            Act::Truncate(path, size) => self.truncate(path, *size),
            Act::Mkdir(path) => self.make(path, Body::Directory),
            Act::Symlink(path) => self.make(path, Body::Link(b"somewhere".to_vec())),
            Act::Fifo(path) => self.make(path, Body::Other),
            Act::Rename(from, to) => self.rename(from, to),
            Act::Exchange(a, b) => self.exchange(a, b),
            Act::Unlink(path) => self.unlink(path),
            Act::Rmdir(path) => self.rmdir(path),
            Act::Chmod(path, mode) => self.chmod(path, *mode),
            Act::Chown(path) => self.set(path, owner()),
            Act::Touch(path) => {
                let time = SetTime::At(Timestamp::from_seconds(
                    self.random.within(0, 2_000_000_000).cast_signed(),
                ));
                let modified = Some(time);
                self.set(
                    path,
                    SetAttributes {
                        modified,
                        ..SetAttributes::default()
                    },
                )
            }
            Act::Mark(path, is_set) => self.mark(path, *is_set),
            Act::Fsync => self.fsync(),
            Act::SyncDirectory(path) => self.sync_directory(path),
            Act::SyncAll => {
                self.running.parts.filesystem.sync_all()?;
                self.synced.push(Synced::All);
                Ok(())
            }
        }
    }

    /// Bytes unlike any others.
    fn bytes(&mut self, size: usize) -> Vec<u8> {
        *self.serial += 1;
        let label = format!("<{}>", self.serial);
        let count = size.div_ceil(label.len()).max(1);
        label.repeat(count).into_bytes()
    }

    fn inode(&self, path: &str) -> Result<Inode, FsError> {
        Ok(self.running.parts.filesystem.find(&names(path))?.0)
    }

    fn split<'p>(&self, path: &'p str) -> Result<(Inode, &'p [u8]), FsError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.inode(parent)?, name.as_bytes()))
    }

    fn thing(&mut self, path: &str) -> Option<Thing> {
        at(self.running, path)
    }

    /// A write has been answered.
    fn acknowledged(&mut self, path: &str, bytes: &[u8]) {
        if !disk::is_over() {
            self.versions.written(self.node, path, bytes);
        }
    }

    /// These bytes lose their name here.
    fn release(&mut self, thing: Option<&Thing>) {
        if let Some(bytes) = thing.and_then(Thing::bytes) {
            self.versions.released(bytes);
        }
    }

    fn set_model(&mut self, path: &str, thing: Option<Thing>) {
        if let Some(model) = &mut self.model {
            match thing {
                Some(thing) => model.insert(path.to_owned(), thing),
                None => model.remove(path),
            };
        }
    }

    /// Writes to an open file as the kernel would, at this node's time.
    fn pwrite(&mut self, open: &Open, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
        let filesystem = self.running.parts.filesystem.clone();
        let written = filesystem.write(open.handle, offset, bytes);
        self.stamp(open);
        written.map(|_| ())
    }

    fn stamp(&self, open: &Open) {
        if let Some(file) = &open.backing {
            let time = std::time::UNIX_EPOCH
                + std::time::Duration::new(self.now.seconds.cast_unsigned(), self.now.nanoseconds);
            file.set_modified(time).unwrap();
        }
    }

    fn open_for_writing(&mut self, path: &str, flags: OpenFlags) -> Result<Open, FsError> {
        let inode = self.inode(path)?;
        self.faults.set_alone(self.is_alone);
        let answer = self.running.parts.filesystem.open(inode, flags);
        let opened = answer.and_then(|answer| self.running.finish(answer));
        self.faults.set_alone(false);
        let opened = opened?;
        Ok(Open {
            handle: opened.handle,
            inode,
            backing: opened.backing,
        })
    }

    fn write(&mut self, path: &str, bytes: &[u8], is_held: bool) -> Result<(), FsError> {
        let before = self.thing(path);
        let open = if before.is_some() {
            self.open_for_writing(path, TRUNCATE)?
        } else {
            let (parent, name) = self.split(path)?;
            let created = (self.running.parts.filesystem).create(parent, name, 0o644, WRITE, ME);
            let (stat, opened) = created?;
            Open {
                handle: opened.handle,
                inode: stat.inode,
                backing: opened.backing,
            }
        };
        self.stamp(&open);
        self.release(before.as_ref());
        let empty = Thing {
            body: Body::File(Vec::new()),
            mode: before.as_ref().map_or(0o644, |thing| thing.mode),
            xattr: before.and_then(|thing| thing.xattr),
        };
        self.set_model(path, Some(empty.clone()));
        let written = self.pwrite(&open, 0, bytes);
        if written.is_ok() {
            self.acknowledged(path, bytes);
            let body = Body::File(bytes.to_vec());
            self.set_model(path, Some(Thing { body, ..empty }));
        }
        self.keep_or_close(open, is_held);
        written
    }

    fn keep_or_close(&mut self, open: Open, is_held: bool) {
        if is_held {
            self.running.open.push(open);
        } else {
            self.running.parts.filesystem.release(open.handle);
            forget(self.running, open.inode);
        }
    }

    fn save(&mut self, path: &str, size: usize, is_synced: bool) -> Result<(), FsError> {
        let (bytes, temporary) = (self.bytes(size), format!("{path}~"));
        self.write(&temporary, &bytes, true)?;
        let open = self.running.open.pop().expect("it is held");
        if is_synced {
            let synced = self.running.parts.filesystem.sync(open.handle);
            self.synced.extend(synced.map(|()| Synced::File(bytes)));
        }
        self.keep_or_close(open, false);
        self.rename(&temporary, path)
    }

    fn append(&mut self, path: &str, size: usize) -> Result<(), FsError> {
        let before = self.thing(path).ok_or(FsError::NotFound)?;
        let open = self.open_for_writing(path, APPEND)?;
        let more = self.bytes(size);
        let written = self.pwrite(&open, 0, &more);
        if written.is_ok() {
            let bytes = [before.bytes().unwrap_or_default(), &more].concat();
            self.changed(path, &before, bytes);
        }
        self.keep_or_close(open, false);
        written
    }

    /// The bytes of a file are others now.
    fn changed(&mut self, path: &str, before: &Thing, bytes: Vec<u8>) {
        self.release(Some(before));
        self.acknowledged(path, &bytes);
        let body = Body::File(bytes);
        let after = Thing {
            body,
            ..before.clone()
        };
        self.set_model(path, Some(after));
    }

    fn write_open(&mut self, size: usize) -> Result<(), FsError> {
        let count = self.running.open.len();
        if count == 0 {
            return Ok(());
        }
        let index = self.random.below(count);
        let open = self.running.open.swap_remove(index);
        let done = self.write_at(&open, size);
        self.running.open.push(open);
        done
    }

    fn write_at(&mut self, open: &Open, size: usize) -> Result<(), FsError> {
        let mut file = vec![0; 1 << 16];
        let backing = open.backing.as_ref().expect("writers have a file");
        let length = backing.read_at(&mut file, 0).unwrap();
        file.truncate(length);
        let path = self.path_of(open.inode);
        let before = file.clone();
        let bytes = self.bytes(size);
        let offset = self.random.within(0, length as u64) as usize;
        self.pwrite(open, offset as u64, &bytes)?;
        file.resize(length.max(offset + bytes.len()), 0);
        file[offset..offset + bytes.len()].copy_from_slice(&bytes);
        if let Some(path) = path {
            self.versions.released(&before);
            self.acknowledged(&path, &file);
            if let Some(model) = &mut self.model {
                let thing = model.get_mut(&path).expect("an open file is shown");
                thing.body = Body::File(file);
            }
        }
        Ok(())
    }

    /// Where an inode is, if it has a name.
    fn path_of(&self, inode: Inode) -> Option<String> {
        let filesystem = &self.running.parts.filesystem;
        let id = filesystem.entry(inode).ok()?.entry.id;
        let path = filesystem.path(id)?;
        let names: Vec<String> = path.iter().map(ToString::to_string).collect();
        Some(names.join("/"))
    }

    fn close(&mut self) {
        let count = self.running.open.len();
        if count > 0 {
            let index = self.random.below(count);
            let open = self.running.open.swap_remove(index);
            self.keep_or_close(open, false);
        }
    }

    fn truncate(&mut self, path: &str, size: u64) -> Result<(), FsError> {
        let before = self.thing(path).ok_or(FsError::NotFound)?;
        let set = SetAttributes {
            size: Some(size),
            ..SetAttributes::default()
        };
        self.set(path, set)?;
        let mut bytes = before.bytes().unwrap_or_default().to_vec();
        bytes.resize(size as usize, 0);
        // a part of a version is not unlike all others: nobody must count on it
        self.release(Some(&before));
        let body = Body::File(bytes);
        self.set_model(path, Some(Thing { body, ..before }));
        Ok(())
    }

    fn make(&mut self, path: &str, body: Body) -> Result<(), FsError> {
        let (parent, name) = self.split(path)?;
        let filesystem = &self.running.parts.filesystem;
        let stat = match &body {
            Body::Directory => filesystem.make_directory(parent, name, 0o755, ME)?,
            Body::Link(target) => filesystem.symlink(parent, name, target, ME)?,
            _ => filesystem.make_node(parent, name, NewNode::Fifo, 0o600, ME)?,
        };
        forget(self.running, stat.inode);
        let (mode, xattr) = (stat.mode, None);
        self.set_model(path, Some(Thing { body, mode, xattr }));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), FsError> {
        let (moved, before) = (self.thing(from), self.thing(to));
        let (source, target) = (self.split(from)?, self.split(to)?);
        (self.running.parts.filesystem).rename(source, target, RenameMode::Replace)?;
        if from == to {
            return Ok(());
        }
        let (old, new) = (before.as_ref(), moved.as_ref());
        match (old.and_then(Thing::bytes), new.and_then(Thing::bytes)) {
            (Some(old), Some(new)) => self.versions.replaced(old, new),
            _ => self.release(old),
        }
        if let Some(model) = &mut self.model {
            model.remove(to);
            rename_in(model, from, to);
        }
        assert!(self.inode(from).is_err(), "{from} is still there");
        Ok(())
    }

    fn exchange(&mut self, a: &str, b: &str) -> Result<(), FsError> {
        let (one, other) = (self.split(a)?, self.split(b)?);
        (self.running.parts.filesystem).rename(one, other, RenameMode::Exchange)?;
        if let Some(model) = &mut self.model
            && a != b
        {
            rename_in(model, a, "aside");
            rename_in(model, b, a);
            rename_in(model, "aside", b);
        }
        Ok(())
    }

    fn unlink(&mut self, path: &str) -> Result<(), FsError> {
        let before = self.thing(path);
        let (parent, name) = self.split(path)?;
        self.running.parts.filesystem.unlink(parent, name)?;
        self.release(before.as_ref());
        self.set_model(path, None);
        assert!(self.inode(path).is_err(), "{path} is still there");
        Ok(())
    }

    fn rmdir(&mut self, path: &str) -> Result<(), FsError> {
        let (parent, name) = self.split(path)?;
        let filesystem = &self.running.parts.filesystem;
        filesystem.remove_directory(parent, name)?;
        self.set_model(path, None);
        Ok(())
    }

    fn chmod(&mut self, path: &str, mode: u16) -> Result<(), FsError> {
        let set = SetAttributes {
            mode: Some(mode),
            ..SetAttributes::default()
        };
        self.set(path, set)?;
        if let Some(model) = &mut self.model
            && let Some(thing) = model.get_mut(path)
        {
            thing.mode = mode;
        }
        Ok(())
    }

    fn set(&mut self, path: &str, set: SetAttributes) -> Result<(), FsError> {
        let inode = self.inode(path)?;
        let answer = self.running.parts.filesystem.set_attributes(inode, set)?;
        self.running.finish(answer).map(|_| ())
    }

    fn mark(&mut self, path: &str, is_set: bool) -> Result<(), FsError> {
        let inode = self.inode(path)?;
        let mark = self.bytes(1);
        let filesystem = &self.running.parts.filesystem;
        let mark = if is_set {
            filesystem.set_xattr(inode, XATTR, &mark, XattrMode::Any)?;
            Some(mark)
        } else {
            filesystem.remove_xattr(inode, XATTR)?;
            None
        };
        if let Some(model) = &mut self.model
            && let Some(thing) = model.get_mut(path)
        {
            thing.xattr = mark;
        }
        Ok(())
    }

    fn sync_directory(&mut self, path: &str) -> Result<(), FsError> {
        let (parent, _) = self.split(path)?;
        let before = self.thing(path);
        self.running.parts.filesystem.sync_directory(parent)?;
        let bytes = before.as_ref().and_then(Thing::bytes);
        let bytes = bytes.map(|bytes| Synced::File(bytes.to_vec()));
        self.synced.extend(bytes);
        Ok(())
    }

    fn fsync(&mut self) -> Result<(), FsError> {
        if let Some(open) = self.running.open.first() {
            self.running.parts.filesystem.sync(open.handle)?;
            let backing = open.backing.as_ref().expect("writers have a file");
            let mut bytes = vec![0; backing.metadata()?.len() as usize];
            backing.read_exact_at(&mut bytes, 0)?;
            self.synced.push(Synced::File(bytes));
        }
        Ok(())
    }

    /// Writes these bytes.
    pub(crate) fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), FsError> {
        self.write(path, bytes, false)
    }
}

fn owner() -> SetAttributes {
    SetAttributes {
        uid: Some(1),
        gid: Some(2),
        ..SetAttributes::default()
    }
}

/// The kernel's reference goes.
fn forget(running: &Running, inode: Inode) {
    running.parts.filesystem.forget(inode, 1);
}

fn rename_in(model: &mut Shown, from: &str, to: &str) {
    let inside = format!("{from}/");
    let moved: Vec<String> = model
        .keys()
        .filter(|path| *path == from || path.starts_with(&inside))
        .cloned()
        .collect();
    for path in moved {
        if let Some(thing) = model.remove(&path) {
            model.insert(format!("{to}{}", &path[from.len()..]), thing);
        }
    }
}
