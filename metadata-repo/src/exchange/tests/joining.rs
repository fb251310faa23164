//! What joining a volume with a long history takes, beside stock git: bytes, seconds, and the memory of both sides,
//! which are processes of their own. Prints figures:
//! `COMMITS=100000 cargo test -p delugefs-metadata-repo joining -- --ignored --nocapture`; with `VOLUME=PATH` the
//! volume is kept there for the next run.

use super::super::{PullOptions, pull, serve};
use super::growth::{Volume, memory_peak, size};
use super::support::{TIMEOUT, serving};
use crate::repository::tests::support::settings;
use crate::repository::tests::upkeep::upkeep;
use crate::{Repository, Upkeep};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Files in the volume.
const FILES: u32 = 100_000;

/// How often the memory of processes is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[test]
#[ignore = "long; prints figures"]
fn joining() {
    match std::env::var("ROLE").as_deref() {
        Ok("serve") => serve_one(),
        Ok("join") => join(),
        _ => measure(),
    }
}

fn path(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap().into()
}

/// Serves connections until it is killed; its address is written to a file.
fn serve_one() {
    let repository = Repository::open(&path("AT")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::fs::write(path("ADDRESS"), address).unwrap();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let _ = serve(&repository, &stream, &stream, &serving());
    }
}

fn join() {
    let new = Repository::create(&path("AT"), &settings()).unwrap();
    let address = std::fs::read_to_string(path("ADDRESS")).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    let start = Instant::now();
    let pulled = pull(&new, &stream, &stream, &PullOptions::default()).unwrap();
    let (pulls, objects) = (start.elapsed(), pulled.objects);
    new.refresh_view().unwrap();
    let (shows, memory) = (start.elapsed(), memory_peak());
    let (bytes, _) = size(new.path());
    println!(
        "  {objects} objects in {pulls:.1?}, shown after {shows:.1?}, {bytes} bytes on disk, at most {memory} MiB"
    );
    let start = Instant::now();
    let thorough = Upkeep {
        thorough: true,
        ..upkeep()
    };
    new.maintain(&thorough).unwrap();
    println!("  a thorough upkeep takes {:.1?} more", start.elapsed());
}

fn measure() {
    let scratch = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("VOLUME").map(PathBuf::from);
    let volume = kept.unwrap_or_else(|| scratch.path().join("volume"));
    if !volume.exists() {
        make(&volume);
    }
    let (bytes, _) = size(&volume);
    println!("the volume: {bytes} bytes");
    let address = scratch.path().join("address");
    let mut server = role("serve", &volume, &address);
    while std::fs::read_to_string(&address)
        .unwrap_or_default()
        .is_empty()
    {
        std::thread::sleep(LOOK_EVERY);
    }
    println!("a node joins:");
    let mut joiner = role("join", &scratch.path().join("new"), &address);
    assert!(joiner.wait().unwrap().success());
    println!("  the server had at most {} MiB", peak(server.id()));
    let url = std::fs::read_to_string(&address).unwrap();
    clone(
        &format!("git://{url}/bigstore"),
        scratch.path(),
        "by stock git from the node",
    );
    println!("  the server had at most {} MiB", peak(server.id()));
    server.kill().unwrap();
    server.wait().unwrap();
    clone(
        &format!("file://{}", volume.display()),
        scratch.path(),
        "by stock git from stock git",
    );
}

fn make(path: &Path) {
    let commits = std::env::var("COMMITS").map_or(10_000, |it| it.parse::<u32>().unwrap());
    let mut volume = Volume::create(path, FILES);
    for _ in 0..commits {
        volume.commit();
    }
    let thorough = Upkeep {
        thorough: true,
        ..upkeep()
    };
    volume.node.repository.maintain(&thorough).unwrap();
}

/// This very test in another process.
fn role(role: &str, at: &Path, address: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "exchange::tests::joining::joining",
        "--exact",
        "--ignored",
        "--nocapture",
    ]);
    let command = command.env("ROLE", role).env("AT", at);
    command.env("ADDRESS", address).spawn().unwrap()
}

/// Clones, and tells what the processes of it took.
fn clone(url: &str, scratch: &Path, how: &str) {
    let to = scratch.join("clone");
    let start = Instant::now();
    let mut command = Command::new("git");
    let command = command.args(["clone", "-q", "--bare", url]).arg(&to);
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let mut peaks = std::collections::BTreeMap::new();
    while child.try_wait().unwrap().is_none() {
        for process in descendants(child.id()) {
            let name = std::fs::read_to_string(format!("/proc/{process}/cmdline"));
            let name = name.unwrap_or_default().replace('\0', " ");
            let name: String = name.split(' ').take(2).collect::<Vec<_>>().join(" ");
            let most = peaks.entry(name).or_insert(0);
            *most = peak(process).max(*most);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let (bytes, _) = size(&to);
    println!(
        "{how}: {:.1?}, {bytes} bytes, MiB {peaks:?}",
        start.elapsed()
    );
    std::fs::remove_dir_all(&to).unwrap();
}

fn descendants(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut next = 0;
    while let Some(process) = all.get(next) {
        let children = format!("/proc/{process}/task/{process}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|it| it.parse::<u32>().ok()),
        );
        next += 1;
    }
    all
}

/// Most memory that a process has had, in MiB; 0 when it is gone.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}
