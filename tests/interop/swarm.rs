//! Stock BitTorrent clients download from our nodes, and serve reads on them.

use crate::clients::{ARIA2, Job, LIBRQBIT, LIBTORRENT, Stock, TRANSMISSION};
use crate::support::large::{Becoming, rate, same_bytes, write_noise};
use crate::support::{Lab, Node, eventually, sha256};
use crate::{address, clone};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

const MIB: u64 = 1 << 20;

/// Bytes of the everyday tests' transfers.
fn everyday() -> u64 {
    MIB * std::env::var("DELUGEFS_MEGABYTES").map_or(32, |text| text.parse().unwrap())
}

/// Time for one transfer: even a busy machine moves 4 MB/s.
fn patience(bytes: u64) -> Duration {
    Duration::from_secs(60 + bytes / (4 * MIB))
}

/// Megabytes that a node may need, however large the content: what is being assembled, and 200 for the rest.
const MEMORY_MAX: u64 = 470;

fn tell(what: &str, bytes: u64, took: Duration, node: &Node) {
    let memory = node.most_memory();
    println!(
        "{what}: {} MB in {took:.1?}, {}; most memory of our node {memory} MB",
        bytes / 1_000_000,
        rate(bytes, took),
    );
    assert!(memory < MEMORY_MAX);
}

/// A node with a file on host 1, and what a stock client on host 3 is given: the metainfo from a clone.
struct Bench {
    holder: Node,
    original: PathBuf,
    torrent: PathBuf,
    folder: PathBuf,
    // dropped last: its folder goes only when nothing is mounted there any more
    lab: Lab,
}

impl Bench {
    fn new(bytes: u64) -> Self {
        let lab = Lab::new(3);
        let holder = lab.node(1, "a").create().start();
        holder.set("copies", "1");
        // a client checks all that it has before it gives any of it
        let wait = patience(bytes).as_secs();
        holder.set("wait", &format!("{wait}s"));
        let original = holder.path("film");
        drop(write_noise(&original, bytes));
        eventually(patience(bytes), "the name is there", || {
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

    fn job<'a>(&'a self, node: &'a str) -> Job<'a> {
        Job {
            lab: &self.lab,
            host: 3,
            torrent: &self.torrent,
            folder: &self.folder,
            node,
        }
    }

    /// Only the client has the content from now on; answers a node that knows its name.
    fn move_to_client(&mut self) -> Node {
        let reader = self.lab.node(2, "b").start();
        eventually(SOON, "the name arrives", || reader.path("film").exists());
        let address = address(&reader);
        fs::copy(&self.original, self.job(&address).file()).unwrap();
        self.holder.stop();
        fs::remove_dir_all(self.holder.root.join("data")).unwrap();
        assert_eq!(reader.status()["contents"]["held"], 0);
        reader
    }
}

/// A client downloads a file of a live node.
pub(crate) fn downloads(stock: &Stock, bytes: u64) {
    if !stock.is_here() {
        return;
    }
    let bench = Bench::new(bytes);
    let node = address(&bench.holder);
    let job = bench.job(&node);
    let file = job.file();
    let begun = Instant::now();
    let _client = (stock.start)(&job);
    let mut copy = Becoming::new(&file, &bench.original);
    eventually(patience(bytes), &format!("{} has all", stock.name), || {
        std::thread::sleep(Duration::from_millis(100));
        copy.is_whole()
    });
    let took = begun.elapsed();
    assert!(same_bytes(&file, &bench.original));
    tell(&format!("to {}", stock.name), bytes, took, &bench.holder);
}

/// A file is read through a live node's mount that only a client has.
pub(crate) fn serves_a_read(stock: &Stock, bytes: u64) {
    if !stock.is_here() {
        return;
    }
    let mut bench = Bench::new(bytes);
    let reader = bench.move_to_client();
    let node = address(&reader);
    let job = bench.job(&node);
    let film = reader.path("film");
    let (found, took) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| timed_read(&film));
        eventually(SOON, "the read waits", || {
            let fetching = &reader.status()["contents"]["fetching"];
            fetching.as_array().is_some_and(|all| !all.is_empty())
        });
        let _client = (stock.start)(&job);
        waiting.join().unwrap()
    });
    assert_eq!(found, sha256(&job.file()));
    tell(&format!("from {}", stock.name), bytes, took, &reader);
}

/// SHA-256 of a file, and how long reading it took from its first byte on: a client checks all it has before.
fn timed_read(path: &Path) -> (String, Duration) {
    let file = File::open(path).unwrap();
    file.read_exact_at(&mut [0], 0).unwrap();
    let begun = Instant::now();
    (sha256(path), begun.elapsed())
}

#[test]
fn libtorrent_downloads() {
    downloads(&LIBTORRENT, everyday());
}

#[test]
fn libtorrent_serves_a_waiting_read() {
    serves_a_read(&LIBTORRENT, everyday());
}

#[test]
fn aria2_downloads() {
    downloads(&ARIA2, everyday());
}

#[test]
fn aria2_serves_a_waiting_read() {
    serves_a_read(&ARIA2, everyday());
}

#[test]
fn transmission_downloads() {
    downloads(&TRANSMISSION, everyday());
}

#[test]
fn transmission_serves_a_waiting_read() {
    serves_a_read(&TRANSMISSION, everyday());
}

#[test]
fn librqbit_downloads() {
    downloads(&LIBRQBIT, everyday());
}

#[test]
fn librqbit_serves_a_waiting_read() {
    serves_a_read(&LIBRQBIT, everyday());
}
