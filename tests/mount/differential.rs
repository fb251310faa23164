//! The same operations in the mount and in a plain folder: the same answers, and the same tree afterwards.

use crate::support::{Lab, can_mount, eventually};
use crate::tools::Process;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    XattrFlags,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

type Operation = fn(&Path) -> io::Result<String>;

/// One line for each entry beneath: all that a program can see but for numbers and clocks.
fn snapshot(top: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    collect(top, top, &mut lines);
    lines
}

fn collect(top: &Path, at: &Path, lines: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let seen = fs::symlink_metadata(&path).unwrap();
        let mut line = format!(
            "{:o} {} {} {}",
            seen.mode(),
            seen.uid(),
            seen.gid(),
            seen.rdev()
        );
        if seen.is_dir() {
            line += &format!(" links {}", seen.nlink());
            collect(top, &path, lines);
        } else {
            line += &format!(" size {}", seen.len());
        }
        if seen.is_symlink() {
            line += &format!(" -> {}", fs::read_link(&path).unwrap().display());
        }
        if seen.is_file() {
            line += &format!(" {}", blake3::hash(&fs::read(&path).unwrap()));
        }
        if seen.mtime() < 1_000_000_000 {
            line += &format!(" mtime {}.{}", seen.mtime(), seen.mtime_nsec());
        }
        let name = path.strip_prefix(top).unwrap().display().to_string();
        lines.insert(name, line);
    }
}

fn compare(operations: &[(&str, Operation)]) {
    if !can_mount() {
        return;
    }
    let (lab, plain) = (Lab::new(), tempfile::tempdir().unwrap());
    for (what, operation) in operations {
        let [here, there] = [lab.point.path(), plain.path()].map(|top| {
            let result = operation(top);
            result.map_err(|error| error.raw_os_error().ok_or(error.to_string()))
        });
        assert_eq!(here, there, "{what}: mount, then folder");
        assert_eq!(
            snapshot(lab.point.path()),
            snapshot(plain.path()),
            "after {what}"
        );
    }
    eventually("everything is sealed", || {
        lab.filesystem.status().unsealed == 0
    });
    assert_eq!(
        snapshot(lab.point.path()),
        snapshot(plain.path()),
        "after sealing"
    );
}

fn done(result: io::Result<()>) -> io::Result<String> {
    result.map(|()| String::new())
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[2] ^ seed)
        .collect()
}

const FILES: &[(&str, Operation)] = &[
    ("a small file", |top| {
        done(fs::write(top.join("small"), "hello"))
    }),
    ("an empty file", |top| {
        done(fs::write(top.join("empty"), ""))
    }),
    ("a file of some megabytes", |top| {
        done(fs::write(top.join("big"), bytes(1, 5_000_001)))
    }),
    ("read it back", |top| {
        Ok(blake3::hash(&fs::read(top.join("big"))?).to_string())
    }),
    ("overwrite", |top| {
        done(fs::write(top.join("big"), bytes(2, 3_000_000)))
    }),
    ("append", |top| {
        let file = File::options().append(true).open(top.join("big"))?;
        done(
            (&file)
                .write_all(&bytes(3, 70_000))
                .and_then(|()| (&file).write_all(b"end")),
        )
    }),
    ("write in the middle", |top| {
        let file = File::options().write(true).open(top.join("big"))?;
        done(file.write_all_at(&bytes(4, 9_999), 1_234_567))
    }),
    ("truncate by path", |top| {
        done(
            File::options()
                .write(true)
                .open(top.join("big"))?
                .set_len(1_000_000),
        )
    }),
    ("grow", |top| {
        done(
            File::options()
                .write(true)
                .open(top.join("small"))?
                .set_len(300_000),
        )
    }),
    ("write beyond the end", |top| {
        done(File::create(top.join("sparse"))?.write_all_at(b"far", 10_000_000))
    }),
    ("read a hole", |top| {
        let mut some = [1; 100];
        File::open(top.join("sparse"))?.read_exact_at(&mut some, 5_000_000)?;
        Ok(format!("{some:?}"))
    }),
    ("create anew what exists", |top| {
        done(File::create_new(top.join("big")).map(drop))
    }),
    ("open what does not exist", |top| {
        done(File::open(top.join("nothing")).map(drop))
    }),
    ("open a name that is too long", |top| {
        done(File::create(top.join("n".repeat(256))).map(drop))
    }),
    ("read at the end", |top| {
        let mut rest = Vec::new();
        let mut file = File::open(top.join("big"))?;
        file.seek(SeekFrom::End(-10))?;
        file.read_to_end(&mut rest)?;
        Ok(format!("{rest:?}"))
    }),
    ("read a handle for writing", |top| {
        let file = File::options().write(true).open(top.join("big"))?;
        Ok(format!("{}", file.read_at(&mut [0; 10], 0)?))
    }),
    ("read and write by two handles at once", |top| {
        let reader = File::open(top.join("big"))?;
        let writer = File::options().write(true).open(top.join("big"))?;
        let mut seen = [0; 4];
        writer.write_all_at(b"abcd", 500_000)?;
        reader.read_exact_at(&mut seen, 500_000)?;
        Ok(format!("{seen:?}"))
    }),
    ("an unlinked file lives until it is closed", |top| {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(top.join("gone"))?;
        file.write_all_at(&bytes(5, 100_000), 0)?;
        fs::remove_file(top.join("gone"))?;
        file.write_all_at(b"still", 50)?;
        let mut seen = vec![0; 100_000];
        file.read_exact_at(&mut seen, 0)?;
        Ok(format!(
            "{} {}",
            blake3::hash(&seen),
            file.metadata()?.nlink()
        ))
    }),
    ("allocate, punch, seek", |top| {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(top.join("holes"))?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20)?;
        file.write_all_at(&bytes(6, 1 << 20), 0)?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 1 << 18, 1 << 18)?;
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 1 << 20, 1 << 16)?;
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        let zeroed = rustix::fs::fallocate(&file, zero, 1 << 19, 1 << 20);
        let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0))?;
        let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole))?;
        let length = file.metadata()?.len();
        Ok(format!("{zeroed:?} {hole} {data} {length}"))
    }),
    ("copy a range", |top| {
        let from = File::open(top.join("big"))?;
        let to = File::create(top.join("copy"))?;
        let copied =
            rustix::fs::copy_file_range(&from, Some(&mut 1000), &to, Some(&mut 5), 100_000)?;
        Ok(copied.to_string())
    }),
    ("direct I/O", |top| {
        let flags = OFlags::DIRECT.bits().cast_signed();
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(top.join("copy"))?;
        let mut seen = Vec::new();
        // Alignment is asked for by disks, not by us: a buffer of the allocator's liking will not do there.
        let _ = (&file).read_to_end(&mut seen);
        Ok(String::new())
    }),
];

#[test]
fn files() {
    compare(FILES);
}

const NAMES: &[(&str, Operation)] = &[
    ("mkdir", |top| done(fs::create_dir(top.join("d")))),
    ("mkdir of what exists", |top| {
        done(fs::create_dir(top.join("d")))
    }),
    ("mkdir -p", |top| {
        done(fs::create_dir_all(top.join("d/e/f")))
    }),
    ("a file within", |top| {
        done(fs::write(top.join("d/e/file"), bytes(1, 200_000)))
    }),
    ("rmdir of what is not empty", |top| {
        done(fs::remove_dir(top.join("d/e")))
    }),
    ("rmdir of a file", |top| {
        done(fs::remove_dir(top.join("d/e/file")))
    }),
    ("unlink of a folder", |top| {
        done(fs::remove_file(top.join("d/e")))
    }),
    ("rename", |top| {
        done(fs::rename(top.join("d/e/file"), top.join("moved")))
    }),
    ("rename of a folder", |top| {
        done(fs::rename(top.join("d/e"), top.join("g")))
    }),
    ("rename into itself", |top| {
        done(fs::rename(top.join("g"), top.join("g/f/x")))
    }),
    ("rename over a file", |top| {
        fs::write(top.join("other"), "other")?;
        done(fs::rename(top.join("moved"), top.join("other")))
    }),
    ("rename over a folder with something in it", |top| {
        done(fs::rename(top.join("d"), top.join("g")))
    }),
    ("rename over an empty folder", |top| {
        done(fs::rename(top.join("d"), top.join("g/f")))
    }),
    ("rename of a file over a folder", |top| {
        done(fs::rename(top.join("other"), top.join("g")))
    }),
    ("rename without replacing", |top| {
        fs::write(top.join("third"), "3")?;
        let (from, to) = (top.join("third"), top.join("other"));
        Ok(format!(
            "{:?}",
            rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE)
        ))
    }),
    ("exchange", |top| {
        let (from, to) = (top.join("third"), top.join("g"));
        Ok(format!(
            "{:?}",
            rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE)
        ))
    }),
    ("a symbolic link", |top| {
        done(symlink("third/f", top.join("link")))
    }),
    ("through it", |top| {
        Ok(fs::read_dir(top.join("link"))?.count().to_string())
    }),
    ("a link to nowhere", |top| {
        symlink("nowhere", top.join("dangling"))?;
        done(fs::read(top.join("dangling")).map(drop))
    }),
    ("names of odd bytes", |top| {
        use std::os::unix::ffi::OsStrExt;
        for name in [
            &b"\xff\xfe"[..],
            b" ",
            b"a\nb",
            b"%2f",
            b".git",
            b"x.torrent",
        ] {
            fs::write(top.join(std::ffi::OsStr::from_bytes(name)), name)?;
        }
        Ok(String::new())
    }),
    ("fifo, socket and devices", |top| {
        let mode = Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, mode, 0)?;
        rustix::fs::mknodat(CWD, top.join("socket"), FileType::Socket, mode, 0)?;
        rustix::fs::mknodat(
            CWD,
            top.join("file by mknod"),
            FileType::RegularFile,
            mode,
            0,
        )?;
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(CWD, top.join("null"), FileType::CharacterDevice, mode, null)?;
        let disk = rustix::fs::makedev(259, 70_000);
        rustix::fs::mknodat(CWD, top.join("disk"), FileType::BlockDevice, mode, disk)?;
        Ok(String::new())
    }),
    ("unlink", |top| done(fs::remove_file(top.join("other")))),
    ("unlink of what does not exist", |top| {
        done(fs::remove_file(top.join("other")))
    }),
    ("rm -r", |top| done(fs::remove_dir_all(top.join("third")))),
];

#[test]
fn names() {
    compare(NAMES);
}

const ATTRIBUTES: &[(&str, Operation)] = &[
    ("a file", |top| {
        done(fs::write(top.join("file"), bytes(1, 100_000)))
    }),
    ("chmod", |top| {
        done(fs::set_permissions(
            top.join("file"),
            Permissions::from_mode(0o4751),
        ))
    }),
    ("chown clears set-user-id", |top| {
        done(std::os::unix::fs::chown(
            top.join("file"),
            Some(12),
            Some(34),
        ))
    }),
    ("chown to nobody else clears it, too", |top| {
        let mode = Permissions::from_mode(0o4751);
        fs::set_permissions(top.join("file"), mode)?;
        done(std::os::unix::fs::chown(top.join("file"), None, None))
    }),
    ("file capabilities end with a write", |top| {
        let (at, name) = (top.join("program"), "security.capability");
        fs::write(&at, "x")?;
        // struct vfs_cap_data, revision 2: CAP_NET_RAW, effective
        let mut value = [0; 20];
        (value[0], value[3], value[5]) = (1, 2, 0x20);
        rustix::fs::setxattr(&at, name, &value, XattrFlags::empty())?;
        let had = rustix::fs::getxattr(&at, name, &mut [0; 20])?;
        File::options().append(true).open(&at)?.write_all(b"y")?;
        let has = rustix::fs::getxattr(&at, name, &mut [0; 20]);
        Ok(format!("{had} {has:?}"))
    }),
    ("a folder that hands on its group", |top| {
        fs::create_dir(top.join("d"))?;
        std::os::unix::fs::chown(top.join("d"), None, Some(77))?;
        fs::set_permissions(top.join("d"), Permissions::from_mode(0o2775))?;
        fs::create_dir(top.join("d/e"))?;
        done(fs::write(top.join("d/file"), "x"))
    }),
    ("times", |top| {
        let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        for (name, at) in [("file", time(5, 123_456_789)), ("d", time(-7, 5))] {
            let times = Timestamps {
                last_access: time(1, 2),
                last_modification: at,
            };
            rustix::fs::utimensat(CWD, top.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let seen = fs::metadata(top.join("file"))?;
        Ok(format!("{}.{}", seen.atime(), seen.atime_nsec()))
    }),
    ("times of an open file stay when it is closed", |top| {
        let file = File::create(top.join("dated"))?;
        (&file).write_all(&bytes(9, 300_000))?;
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(99, 7);
        done(file.set_modified(time))
    }),
    ("extended attributes", |top| {
        let at = top.join("file");
        rustix::fs::setxattr(&at, "user.a", b"1", XattrFlags::CREATE)?;
        rustix::fs::setxattr(&at, "user.b", &[0xff; 3000], XattrFlags::empty())?;
        let again = rustix::fs::setxattr(&at, "user.a", b"2", XattrFlags::CREATE);
        let none = rustix::fs::setxattr(&at, "user.c", b"2", XattrFlags::REPLACE);
        rustix::fs::removexattr(&at, "user.a")?;
        let mut value = vec![0; 5000];
        let length = rustix::fs::getxattr(&at, "user.b", &mut value)?;
        let short = rustix::fs::getxattr(&at, "user.b", &mut value[..10]);
        let gone = rustix::fs::getxattr(&at, "user.a", &mut [0; 10]);
        let size = rustix::fs::getxattr(&at, "user.b", &mut [0; 0])?;
        let other = rustix::fs::setxattr(&at, "other.a", b"1", XattrFlags::empty());
        let nameless = rustix::fs::setxattr(&at, "user.", b"1", XattrFlags::empty());
        let mut list = vec![0; 1000];
        let listed = rustix::fs::listxattr(&at, &mut list)?;
        let list = String::from_utf8_lossy(&list[..listed]).contains("user.b");
        Ok(format!(
            "{again:?} {none:?} {length} {short:?} {gone:?} {size} {list} {other:?} {nameless:?}"
        ))
    }),
];

#[test]
fn attributes() {
    compare(ATTRIBUTES);
}

#[test]
fn ten_thousand_names() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    for number in 0..10_000 {
        File::create(lab.path(&format!("file {number}"))).unwrap();
    }
    for _ in 0..2 {
        let mut seen: Vec<u64> = fs::read_dir(lab.point.path())
            .unwrap()
            .map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.strip_prefix("file ").unwrap().parse().unwrap()
            })
            .collect();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..10_000), "each once");
    }
    // What vanishes while it is listed is not listed for ever after.
    let mut listing = fs::read_dir(lab.point.path()).unwrap();
    listing.next().unwrap().unwrap();
    for number in 0..10_000 {
        fs::remove_file(lab.path(&format!("file {number}"))).unwrap();
    }
    listing.for_each(drop);
    assert!(!lab.path("file 9999").exists());
    assert_eq!(fs::read_dir(lab.point.path()).unwrap().count(), 0);
}

#[test]
fn space_is_shown_and_runs_out() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let shown = rustix::fs::statvfs(lab.point.path()).unwrap();
    assert_eq!(shown.f_blocks * shown.f_frsize, 1 << 40);
    assert_eq!(shown.f_namemax, 255);
    fs::write(lab.path("old"), bytes(1, 100_000)).unwrap();
    let file = File::create(lab.path("new")).unwrap();
    lab.contents
        .free
        .store(1000, std::sync::atomic::Ordering::Relaxed);
    let full = (&file).write_all(&bytes(2, 100_000)).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs::read(lab.path("old")).unwrap(), bytes(1, 100_000));
}

#[test]
fn hard_links_are_refused() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    fs::write(lab.path("a"), "x").unwrap();
    let refused = fs::hard_link(lab.path("a"), lab.path("b")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::PERM.raw_os_error()));
}

/// What a local filesystem has and this one not, by the errno that programs know it by.
#[test]
fn what_is_not_offered_is_said() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    fs::write(lab.path("file"), bytes(1, 100_000)).unwrap();
    eventually("it is sealed", || lab.filesystem.status().unsealed == 0);
    let file = File::open(lab.path("file")).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file).map(drop);
    let flagged = OFlags::TMPFILE | OFlags::RDWR;
    let nameless = rustix::fs::open(lab.point.path(), flagged, Mode::RUSR).map(drop);
    let collapse = FallocateFlags::COLLAPSE_RANGE;
    let writer = File::options().write(true).open(lab.path("file"));
    let collapsed = rustix::fs::fallocate(writer.unwrap(), collapse, 0, 4096);
    assert_eq!(flags, Err(Errno::NOTTY));
    assert_eq!(nameless, Err(Errno::OPNOTSUPP));
    assert_eq!(collapsed, Err(Errno::OPNOTSUPP));

    eventually("it is sealed", || lab.filesystem.status().writing == 0);
    fs::remove_file(lab.path("file")).unwrap();
    let anew = format!("/proc/self/fd/{}", file.as_raw_fd());
    assert!(fs::read(&anew).unwrap() == bytes(1, 100_000));
    let written = rustix::fs::open(&anew, OFlags::RDWR, Mode::empty()).map(drop);
    assert_eq!(written, Err(Errno::STALE));
}

/// The kernel has the file truncated before it looks whether somebody runs it.
#[test]
fn a_running_program_is_not_truncated() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let program = lab.path("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let running = Command::new(&program).arg("1000").spawn();
    let mut running = Process(running.unwrap());
    let truncate = rustix::fs::open(&program, OFlags::RDONLY | OFlags::TRUNC, Mode::empty());
    assert_eq!(truncate.unwrap_err(), Errno::TXTBSY);
    assert!(fs::read(&program).unwrap() == fs::read("/bin/sleep").unwrap());
    assert!(running.0.try_wait().unwrap().is_none());
}

#[test]
fn synced_bytes_are_there() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    let file = File::create(lab.path("file")).unwrap();
    (&file).write_all(&bytes(1, 100_000)).unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(lab.point.path()).unwrap().sync_all().unwrap();
}

/// Pages shared with a mapping are the file's bytes, both ways.
#[test]
fn mappings_are_coherent() {
    if !can_mount() {
        return;
    }
    let script = "
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20)
m[5000:5005] = b'hello'
assert os.pread(fd, 5, 5000) == b'hello'
os.pwrite(fd, b'world', 900000)
assert m[900000:900005] == b'world'
m[1048570:1048576] = b'ending'
os.close(fd)
";
    let lab = Lab::new();
    let mut mapped = Command::new("python3");
    let Ok(status) = mapped.args(["-c", script]).arg(lab.path("mapped")).status() else {
        assert!(std::env::var_os("CI").is_none(), "CI must have python3");
        eprintln!("SKIPPED: this test needs python3");
        return;
    };
    assert!(status.success());
    let check = |what: &str| {
        let seen = fs::read(lab.path("mapped")).unwrap();
        assert_eq!(seen.len(), 1 << 20, "{what}");
        assert_eq!(&seen[5000..5005], b"hello", "{what}");
        assert_eq!(&seen[900_000..900_005], b"world", "{what}");
        assert_eq!(&seen[1_048_570..], b"ending", "{what}");
    };
    check("closed");
    eventually("it is sealed", || {
        let status = lab.filesystem.status();
        status.unsealed == 0 && status.writing == 0
    });
    check("sealed");
}
