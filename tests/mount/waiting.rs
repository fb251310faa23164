//! Reads of bytes that are elsewhere.

use crate::support::{Lab, PATIENCE, can_mount, place};
use crate::tools::{interruptible, signal};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const ELSEWHERE: usize = 3 << 20;

fn with_file_elsewhere() -> Lab {
    let lab = Lab::new();
    let bytes: Vec<u8> = (0..ELSEWHERE).map(|at| (at % 251) as u8).collect();
    let placed = lab.remote_file("far", lab.contents.put_elsewhere(&bytes));
    lab.remote(|tree| place(tree, placed.entry.id, Some(placed)));
    assert_eq!(
        fs::metadata(lab.path("far")).unwrap().len(),
        ELSEWHERE as u64
    );
    lab
}

/// A process that reads the file, and is waiting by now.
fn reader(command: &mut Command) -> Child {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = child.spawn().unwrap();
    until_it_waits(&child);
    child
}

fn until_it_waits(child: &Child) {
    let until = Instant::now() + PATIENCE;
    let waits = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        status.contains("State:\tD") || fs_request(child.id())
    };
    while !waits() {
        assert!(Instant::now() < until, "{child:?} does not wait");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process sleeps in one of the kernel's waits for a FUSE answer or for a page.
fn fs_request(pid: u32) -> bool {
    let wchan = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    wchan.contains("request_wait_answer") || wchan.contains("folio_wait")
}

fn ends_within_a_second(mut child: Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            // The machine may be busy; a second is what an idle one is held to.
            assert!(
                start.elapsed() < Duration::from_secs(3),
                "{:?}",
                start.elapsed()
            );
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_waiting_read_goes_on_when_the_bytes_arrive() {
    if !can_mount() {
        return;
    }
    let lab = with_file_elsewhere();
    let mut file = File::open(lab.path("far")).unwrap();
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes)
    });
    // Others are not held up meanwhile.
    fs::write(lab.path("near"), "here").unwrap();
    assert_eq!(fs::read(lab.path("near")).unwrap(), b"here");
    assert!(!reading.is_finished());
    lab.contents.arrive();
    let bytes = reading.join().unwrap().unwrap();
    assert!(
        bytes.len() == ELSEWHERE
            && bytes
                .iter()
                .enumerate()
                .all(|(at, b)| *b == (at % 251) as u8)
    );
}

#[test]
fn ctrl_c_and_kill_end_a_waiting_read() {
    if !can_mount() {
        return;
    }
    let lab = with_file_elsewhere();
    for sent in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let child = reader(interruptible("cat").arg(lab.path("far")));
        signal(child.id(), sent);
        let status = ends_within_a_second(child);
        assert_eq!(status.signal(), Some(sent.as_raw()));
    }
}

#[test]
fn kill_ends_a_read_that_passes_by_the_page_cache() {
    if !can_mount() {
        return;
    }
    let lab = with_file_elsewhere();
    for sent in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let from = format!("if={}", lab.path("far").display());
        let mut dd = interruptible("dd");
        let child = reader(
            dd.arg(from)
                .args(["of=/dev/null", "iflag=direct", "bs=64k"]),
        );
        signal(child.id(), sent);
        let status = ends_within_a_second(child);
        assert!(!status.success(), "{status:?}");
    }
}

#[test]
fn ctrl_c_ends_the_wait_of_a_program_that_handles_it() {
    if !can_mount() {
        return;
    }
    let lab = with_file_elsewhere();
    let script = "
import os, sys
print('ready', flush=True)
try:
    open(sys.argv[1], 'rb').read()
except KeyboardInterrupt:
    os._exit(42)
";
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI must have python3");
        eprintln!("SKIPPED: this test needs python3");
        return;
    }
    let mut python = interruptible("python3");
    python.args(["-c", script]).arg(lab.path("far"));
    let mut child = python.stdout(Stdio::piped()).spawn().unwrap();
    child
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut [0; 6])
        .unwrap();
    until_it_waits(&child);
    signal(child.id(), rustix::process::Signal::INT);
    assert_eq!(ends_within_a_second(child).code(), Some(42));
}

#[test]
fn fifty_waiting_readers_hold_up_nobody() {
    if !can_mount() {
        return;
    }
    let lab = with_file_elsewhere();
    fs::write(lab.path("near"), vec![7; 100_000]).unwrap();
    let mut children: Vec<Child> = (0..50)
        .map(|_| reader(Command::new("cat").arg(lab.path("far"))))
        .collect();
    let start = Instant::now();
    for round in 0..200 {
        assert_eq!(fs::read(lab.path("near")).unwrap().len(), 100_000);
        fs::write(lab.path(&format!("new{round}")), "x").unwrap();
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    for child in &mut children {
        assert!(child.try_wait().unwrap().is_none(), "it still waits");
        signal(child.id(), rustix::process::Signal::KILL);
    }
    for child in children {
        ends_within_a_second(child);
    }
}

#[test]
fn an_open_for_writing_waits_for_the_bytes_and_ends_on_ctrl_c() {
    if !can_mount() {
        return;
    }
    let lab = with_file_elsewhere();
    let append = format!("echo more >> {}", lab.path("far").display());
    let mut bash = interruptible("bash");
    let child = reader(bash.args(["-c", &append]));
    signal(child.id(), rustix::process::Signal::INT);
    assert!(!ends_within_a_second(child).success());
    let far = lab.path("far");
    let appending = std::thread::spawn(move || {
        let file = File::options().append(true).open(far)?;
        std::io::Write::write_all(&mut &file, b"more")
    });
    lab.contents.arrive();
    appending.join().unwrap().unwrap();
    let bytes = fs::read(lab.path("far")).unwrap();
    assert_eq!(bytes.len(), ELSEWHERE + 4);
    assert_eq!(&bytes[ELSEWHERE..], b"more");
}
