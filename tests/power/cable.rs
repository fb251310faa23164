//! The process behind a drive: a FUSE filesystem whose one file is the drive, served until whoever has started it is
//! gone. It must not be a part of the test: if that is killed, its threads may be waiting for the node, which waits for
//! the drive; nobody could ever end then, nor unmount anything.

use crate::platter::{BLOCK, Platter, SIZE};
use crate::support::random::Random;
use crate::support::run_quietly;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

/// The environment variable that makes a run of this program a drive: the folder of its files.
pub const FOLDER: &str = "DELUGEFS_TEST_DRIVE";

/// What the drive is called, for libtest.
pub const NAME: &str = "cable::serves_a_drive";

/// The drive's file.
const DISK: INodeNo = INodeNo(2);

/// The kernel may believe attributes for so long: they do not change.
const BELIEVE: Duration = Duration::from_secs(3600);

/// After the test's end, what is still mounted has so long to be let go.
const LAST_RESORT: Duration = Duration::from_secs(20);

#[test]
#[ignore = "no test: the others start it as a process"]
fn serves_a_drive() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        Server::new(folder.into()).serve();
    }
}

/// Obeys one line after the other, each answered by one.
struct Server {
    platter: Arc<Mutex<Platter>>,
    folder: PathBuf,
    session: Option<BackgroundSession>,
}

impl Server {
    fn new(folder: PathBuf) -> Self {
        let mut options = File::options();
        let durable = options.read(true).write(true).open(folder.join("platter"));
        Self {
            platter: Arc::new(Mutex::new(Platter::new(durable.unwrap()))),
            folder,
            session: None,
        }
    }

    /// Until the other end of its standard input, a socket, is closed.
    fn serve(mut self) {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        let mut answers = UnixStream::from(socket);
        let orders = BufReader::new(answers.try_clone().unwrap());
        for order in orders.lines().map_while(Result::ok) {
            let words: Vec<&str> = order.split(' ').collect();
            let answer = self.obey(&words);
            if writeln!(answers, "{answer}").is_err() {
                break;
            }
        }
        self.end();
    }

    fn obey(&mut self, order: &[&str]) -> u64 {
        let number = |at: usize| order[at].parse::<u64>().unwrap();
        let mut platter = self.platter.lock().unwrap();
        match order[0] {
            "on" => {
                platter.power_on();
                let cable = Cable(Arc::clone(&self.platter));
                let session = Session::new(cable, self.folder.join("cable"), &Config::default());
                drop(platter);
                self.session = Some(session.unwrap().spawn().unwrap());
            }
            "off" => {
                drop(platter);
                self.session.take();
            }
            "cut" => platter.cut(&mut Random::new(number(1))),
            "fail" => platter.fail(number(1), number(2)),
            "slow" => platter.slow(Duration::from_millis(number(1))),
            "flushes" => return platter.flushes(),
            _ => panic!("{order:?}"),
        }
        0
    }

    /// Serves until nobody needs it. The process ends in any case, and the kernel lets go of it.
    fn end(mut self) {
        std::thread::spawn(|| {
            std::thread::sleep(LAST_RESORT);
            std::process::exit(1);
        });
        for point in ["point", "cable"] {
            run_quietly(
                Command::new("umount")
                    .arg("-l")
                    .arg(self.folder.join(point)),
            );
        }
        if let Some(session) = self.session.take() {
            let _ = session.join();
        }
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
            b"disk" => reply.entry(&BELIEVE, &attributes(DISK), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&BELIEVE, &attributes(inode));
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
        match self.platter().write(offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.platter().flush() {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }
}
