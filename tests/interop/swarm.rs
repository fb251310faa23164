//! Stock BitTorrent clients download from our nodes, and serve reads on them.

use crate::clients::{Client, Job, aria2, libtorrent, transmission};
use crate::support::{Lab, Node, eventually, noise, sha256};
use crate::{address, clone, has};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

fn megabytes() -> u64 {
    std::env::var("DELUGEFS_MEGABYTES").map_or(32, |text| text.parse().unwrap())
}

/// Time for one transfer: even a busy machine moves 4 MB/s.
fn patience() -> Duration {
    Duration::from_secs(60 + megabytes() / 4)
}

fn write_noise(path: &Path) {
    let mut file = File::create(path).unwrap();
    for part in 0..megabytes() / 8 {
        file.write_all(&noise(part + 1, 8 << 20)).unwrap();
    }
}

fn tell(what: &str, begun: Instant) {
    let took = begun.elapsed();
    println!("{what}: {} MiB in {took:.1?}", megabytes());
}

pub(crate) type Start = fn(&Job) -> Client;

/// A node with a file on host 1, and what a stock client on host 3 is given: the metainfo from a clone.
pub(crate) struct Bench {
    pub(crate) holder: Node,
    pub(crate) original: PathBuf,
    pub(crate) torrent: PathBuf,
    pub(crate) folder: PathBuf,
    // dropped last: its folder goes only when nothing is mounted there any more
    pub(crate) lab: Lab,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let lab = Lab::new(3);
        let holder = lab.node(1, "a").create().start();
        holder.set("copies", "1");
        let original = holder.path("film");
        write_noise(&original);
        eventually(patience(), "the name is there", || {
            let contents = &holder.status()["contents"];
            contents["total"] == 1 && contents["uncommitted"] == 0
        });
        let copy = lab.folder("clone");
        clone(&lab, 3, &holder, &copy);
        let folder = lab.folder("client");
        Self {
            torrent: copy.join("film.torrent"),
            lab,
            holder,
            original,
            folder,
        }
    }

    pub(crate) fn job<'a>(&'a self, node: &'a str) -> Job<'a> {
        Job {
            lab: &self.lab,
            host: 3,
            torrent: &self.torrent,
            folder: &self.folder,
            node,
        }
    }

    /// Only the client has the content from now on; answers a node that knows its name.
    pub(crate) fn move_to_client(&mut self) -> Node {
        let reader = self.lab.node(2, "b").start();
        eventually(SOON, "the name arrives", || reader.path("film").exists());
        let address = address(&reader);
        fs::copy(&self.original, self.job(&address).file()).unwrap();
        self.holder.stop();
        assert_eq!(reader.status()["contents"]["held"], 0);
        reader
    }
}

fn downloads(name: &str, start: Start) {
    let bench = Bench::new();
    let node = address(&bench.holder);
    let job = bench.job(&node);
    let begun = Instant::now();
    let _client = start(&job);
    eventually(patience(), &format!("{name} has all"), || {
        std::thread::sleep(Duration::from_millis(100));
        job.is_done(&bench.original)
    });
    tell(&format!("to {name}"), begun);
}

fn serves_a_read(name: &str, start: Start) {
    let mut bench = Bench::new();
    let reader = bench.move_to_client();
    let node = address(&reader);
    let job = bench.job(&node);
    let begun = Instant::now();
    let found = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sha256(&reader.path("film")));
        eventually(SOON, "the read waits", || {
            let fetching = &reader.status()["contents"]["fetching"];
            fetching.as_array().is_some_and(|all| !all.is_empty())
        });
        let _client = start(&job);
        let found = waiting.join().unwrap();
        tell(&format!("from {name}"), begun);
        found
    });
    assert_eq!(found, sha256(&job.file()));
}

fn has_libtorrent() -> bool {
    const PYTHON: &str = "/usr/bin/python3";
    if !has(&[PYTHON]) {
        return false;
    }
    let mut import = std::process::Command::new(PYTHON);
    let found = import.args(["-c", "import libtorrent"]).output().unwrap();
    if !found.status.success() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have python3-libtorrent"
        );
        eprintln!("SKIPPED: this test needs python3-libtorrent");
    }
    found.status.success()
}

#[test]
fn libtorrent_downloads() {
    if has_libtorrent() {
        downloads("libtorrent", libtorrent);
    }
}

#[test]
fn libtorrent_serves_a_waiting_read() {
    if has_libtorrent() {
        serves_a_read("libtorrent", libtorrent);
    }
}

#[test]
fn aria2_downloads() {
    if has(&["aria2c"]) {
        downloads("aria2", aria2);
    }
}

#[test]
fn aria2_serves_a_waiting_read() {
    if has(&["aria2c"]) {
        serves_a_read("aria2", aria2);
    }
}

#[test]
fn transmission_downloads() {
    if has(&["transmission-cli"]) {
        downloads("transmission", transmission);
    }
}

#[test]
fn transmission_serves_a_waiting_read() {
    if has(&["transmission-cli"]) {
        serves_a_read("transmission", transmission);
    }
}

#[test]
fn librqbit_downloads() {
    if has(&[]) {
        downloads("librqbit", crate::rqbit::librqbit);
    }
}

#[test]
fn librqbit_serves_a_waiting_read() {
    if has(&[]) {
        serves_a_read("librqbit", crate::rqbit::librqbit);
    }
}
