//! A disk drive with a cache that forgets: what was written since the last flush is lost in a power cut, or not, or
//! in part.
//!
//! It is one file of a FUSE filesystem; ext4 is on it through a loop device, whose flushes arrive here as `fsync`. So
//! the node works on a real filesystem with all that it asks of one, and each sync of each part is seen, however it is
//! made.

use crate::support::random::Random;
use crate::support::{eventually, must, run_quietly};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

/// Large enough for all that a test writes, small enough that ext4 makes it in no time.
const SIZE: u64 = 512 << 20;

/// What the cache keeps together.
const BLOCK: u64 = 4096;

/// What a drive writes whole or not at all.
const SECTOR: usize = 512;

/// The drive's file.
const DISK: INodeNo = INodeNo(2);

const SOON: Duration = Duration::from_secs(20);

/// What outlives a power cut, and what does not.
struct Platter {
    durable: File,
    /// Blocks written since the last flush, by number.
    cache: BTreeMap<u64, Vec<u8>>,
    /// The power is off: what was to be kept. Writes are taken since, and lost.
    left: Option<BTreeMap<u64, Vec<u8>>>,
}

impl Platter {
    fn block(&self, number: u64) -> Vec<u8> {
        if let Some(block) = self.cache.get(&number) {
            return block.clone();
        }
        self.durable_block(number)
    }

    fn durable_block(&self, number: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK as usize];
        let at = number * BLOCK;
        self.durable.read_exact_at(&mut block, at).unwrap();
        block
    }

    fn read(&self, mut at: u64, length: u64) -> Vec<u8> {
        let end = (at + length).min(SIZE);
        let mut bytes = Vec::with_capacity(length as usize);
        while at < end {
            let block = self.block(at / BLOCK);
            let from = at % BLOCK;
            let until = (from + end - at).min(BLOCK);
            bytes.extend_from_slice(&block[from as usize..until as usize]);
            at += until - from;
        }
        bytes
    }

    fn write(&mut self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut block = self.block(at / BLOCK);
            let from = (at % BLOCK) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK as usize - from));
            block[from..from + now.len()].copy_from_slice(now);
            self.cache.insert(at / BLOCK, block);
            at += now.len() as u64;
            bytes = later;
        }
    }

    fn flush(&mut self) {
        if self.left.is_none() {
            let written = std::mem::take(&mut self.cache);
            self.keep(written);
        }
    }

    fn keep(&self, blocks: BTreeMap<u64, Vec<u8>>) {
        for (number, block) in blocks {
            self.durable.write_all_at(&block, number * BLOCK).unwrap();
        }
    }

    /// Of each block in the cache: all, nothing, or some sectors.
    fn cut(&mut self, random: &mut Random) {
        let luck = random.below(5);
        let mut left = BTreeMap::new();
        for (&number, new) in &self.cache {
            let mut block = self.durable_block(number);
            match random.below(4) {
                // a drive that was about to lose all, and one that was about to keep all
                fate if fate >= luck => continue,
                0 => {
                    let kept = random.below(BLOCK / SECTOR as u64) as usize * SECTOR;
                    block[..kept].copy_from_slice(&new[..kept]);
                }
                _ => block.copy_from_slice(new),
            }
            left.insert(number, block);
        }
        self.left = Some(left);
    }

    fn power_on(&mut self) {
        self.cache.clear();
        let left = self.left.take();
        self.keep(left.unwrap_or_default());
    }
}

/// The side of the kernel.
struct Cable(Arc<Mutex<Platter>>);

impl Cable {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
}

fn attributes(inode: INodeNo) -> FileAttr {
    let is_disk = inode == DISK;
    FileAttr {
        ino: inode,
        size: if is_disk { SIZE } else { 0 },
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_disk {
            FileType::RegularFile
        } else {
            FileType::Directory
        },
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    }
}

impl Filesystem for Cable {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.as_encoded_bytes() {
            b"disk" => reply.entry(&SOON, &attributes(DISK), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&SOON, &attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&self.platter().read(offset, size.into()));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.platter().write(offset, data);
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.platter().flush();
        reply.ok();
    }
}

/// A drive with ext4 on it, mounted while the power is on.
pub struct Drive {
    platter: Arc<Mutex<Platter>>,
    cable: PathBuf,
    point: PathBuf,
    session: Option<BackgroundSession>,
}

impl Drive {
    /// A new one, in folders of its own below `folder`, mounted on `point`.
    pub fn new(folder: &Path, point: &Path) -> Self {
        let image = folder.join("platter");
        let durable = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&image)
            .unwrap();
        durable.set_len(SIZE).unwrap();
        must(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let platter = Platter {
            durable,
            cache: BTreeMap::new(),
            left: None,
        };
        let cable = folder.join("cable");
        std::fs::create_dir(&cable).unwrap();
        let mut drive = Self {
            platter: Arc::new(Mutex::new(platter)),
            cable,
            point: point.to_owned(),
            session: None,
        };
        drive.mount(0);
        std::fs::remove_dir(point.join("lost+found")).unwrap();
        drive
    }

    /// The power fails: from now on nothing becomes durable.
    pub fn cut(&self, random: &mut Random) {
        self.platter.lock().unwrap().cut(random);
    }

    /// Forgets what the kernel knows, and mounts what is left. Nobody may have a file open.
    pub fn power_on(&mut self, random: &mut Random) {
        self.unmount();
        self.platter.lock().unwrap().power_on();
        self.mount(random.below(OPTIONS.len() as u64) as usize);
    }

    fn mount(&mut self, options: usize) {
        let cable = Cable(Arc::clone(&self.platter));
        let session = Session::new(cable, &self.cable, &Config::default()).unwrap();
        self.session = Some(session.spawn().unwrap());
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", OPTIONS[options]]);
        must(command.arg(self.cable.join("disk")).arg(&self.point));
    }

    fn unmount(&mut self) {
        eventually(SOON, "nobody uses the disk", || {
            run_quietly(Command::new("umount").arg(&self.point))
        });
        eventually(SOON, "its loop device is gone", || {
            run_quietly(Command::new("umount").arg(&self.cable))
        });
        self.session.take();
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // its owner may be about to die of a panic, with files open
        run_quietly(Command::new("umount").arg("-l").arg(&self.point));
        run_quietly(Command::new("umount").arg("-l").arg(&self.cable));
    }
}

/// Names before bytes, and bytes before names, long or not at all in memory; without what ext4 does to spare programs
/// that do not sync.
const OPTIONS: [&str; 3] = [
    "loop,noauto_da_alloc,data=writeback,commit=1",
    "loop,noauto_da_alloc,data=writeback,nodelalloc,commit=1",
    "loop,noauto_da_alloc",
];
