//! A process that is killed while the kernel has one of its threads wait for a folder that a request to it holds.

use crate::support::{Lab, can_mount, eventually};
use crate::tools::{Stat, is_over, signal, watcher, watcher_of};
use delugefs::filesystem::{Inode, Invalidation};
use delugefs::fuse::let_go_of_the_dead;
use delugefs::root::{RootLock, is_held_by_a_dead};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The program that has the watcher in it.
const PROGRAM: &str = env!("CARGO_BIN_EXE_delugefs");

/// The environment variable that makes a run of this program a process that gets stuck once it is killed.
const IS_PROCESS: &str = "DELUGEFS_TEST_STUCK";

/// What that is called, for libtest.
const NAME: &str = "stuck::waits_to_be_killed";

/// The thread that tells the kernel of changes.
const THREAD: &str = "fuse-invalidate";

#[test]
#[ignore = "no test: the others start it as a process"]
fn waits_to_be_killed() {
    if std::env::var_os(IS_PROCESS).is_none() {
        return;
    }
    let lab = Lab::watched_by(Some(PROGRAM.into()));
    let _lock = RootLock::acquire(lab.root.path()).unwrap();
    let mut user = Command::new("mkdir");
    user.arg(lab.path("folder"));
    let user = user.stdin(Stdio::null()).stdout(Stdio::null());
    let user = user.stderr(Stdio::null());
    let mut pid = 0;
    lab.never_answer(|| pid = user.spawn().unwrap().id());
    let change = Invalidation::Entry {
        parent: Inode::ROOT,
        name: b"another".into(),
    };
    lab.mount.as_ref().unwrap().invalidator().send(vec![change]);
    eventually("the thread waits for the folder", || {
        state_of_thread(std::process::id()) == Some('D')
    });
    let (point, root) = (lab.point.path(), lab.root.path());
    println!("{STUCK}{pid} {} {}", point.display(), root.display());
    // if the test is killed first, all is taken down in order
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Before what the process says, among what libtest says.
const STUCK: &str = "stuck: ";

fn state_of_thread(pid: u32) -> Option<char> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let mut stats = threads.filter_map(|thread| Stat::read(&thread.path()));
    stats
        .find(|stat| stat.name == THREAD)
        .map(|stat| stat.state)
}

/// Such a process. Whatever becomes of the test, in the end nothing of it waits any more.
struct Stuck {
    process: Child,
    /// Ends the connection if the test is killed.
    guard: Child,
    watcher: u32,
    user: u32,
    point: PathBuf,
    root: PathBuf,
    _folder: TempDir,
}

impl Stuck {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--ignored", "--nocapture"]);
        command.env(IS_PROCESS, "1").env("TMPDIR", folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut said = said.map_while(Result::ok);
        let line = said.find_map(|line| line.split_once(STUCK).map(|(_, rest)| rest.to_owned()));
        let line = line.expect("it is stuck");
        let words: Vec<&str> = line.split(' ').collect();
        let (point, root) = (PathBuf::from(words[1]), PathBuf::from(words[2]));
        let watcher = watcher(process.id());
        Self {
            process,
            guard: guard(&point),
            watcher,
            user: words[0].parse().unwrap(),
            point,
            root,
            _folder: folder,
        }
    }

    /// Whether it is gone, and with it who waited for it.
    fn is_gone(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some() && is_over(self.user)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = unmount(&self.point, UnmountFlags::FORCE | UnmountFlags::DETACH);
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = self.process.wait();
    }
}

/// A process that forces the mount away once its standard input is closed.
fn guard(point: &Path) -> Child {
    let mut command = Command::new("sh");
    let script = "cat; exec umount --force --lazy --no-canonicalize --quiet \"$0\"";
    command.args(["-c", script]).arg(point);
    command.stdin(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[track_caller]
fn is_let_go_by_its_watcher(death: Signal) {
    if !can_mount() {
        return;
    }
    let mut stuck = Stuck::new();
    // what is sent to all of a service, or of a terminal, is for the node
    for ignored in [Signal::TERM, Signal::INT, Signal::HUP] {
        signal(stuck.watcher, ignored);
    }
    signal(stuck.process.id(), death);
    eventually("the process is gone", || stuck.is_gone());
    let dead = fs::metadata(&stuck.point).unwrap_err();
    assert_eq!(dead.kind(), std::io::ErrorKind::NotConnected);
    eventually("the watcher is gone", || is_over(stuck.watcher));
}

#[test]
fn a_killed_process_that_cannot_go_is_let_go_by_its_watcher() {
    is_let_go_by_its_watcher(Signal::KILL);
}

/// The kernel waits for all threads before it writes a core, or finds that it may not.
#[test]
fn a_process_that_crashes_and_cannot_go_is_let_go_by_its_watcher() {
    is_let_go_by_its_watcher(Signal::ABORT);
}

/// Both are killed, as the kernel does with a group that has taken too much memory: the second line.
#[test]
fn without_a_watcher_it_stays_until_the_next_start_lets_it_go() {
    if !can_mount() {
        return;
    }
    let mut stuck = Stuck::new();
    let pid = stuck.process.id();
    signal(stuck.watcher, Signal::KILL);
    eventually("the watcher is gone", || watcher_of(pid).is_none());
    assert!(!is_held_by_a_dead(&stuck.root));
    signal(pid, Signal::KILL);
    eventually("it is dead", || is_over(pid));
    // while threads end, the kernel may list them in part
    eventually("its thread still waits", || {
        state_of_thread(pid) == Some('D')
    });
    assert!(!stuck.is_gone());
    assert!(is_held_by_a_dead(&stuck.root));
    let_go_of_the_dead(&stuck.root);
    eventually("the process is gone", || stuck.is_gone());
    RootLock::acquire(&stuck.root).unwrap();
}
