//! A long history of one-file commits: how large it gets, and whether anything slows down with it. Prints figures:
//! `cargo test -p delugefs-metadata-repo growth -- --ignored --nocapture`.

use super::super::{PullOptions, pull, serve};
use super::support::{git, serving, with_server};
use crate::Repository;
use crate::codec::content_of_info;
use crate::repository::tests::support::{Node, entry, id, placed};
use crate::repository::tests::upkeep::upkeep;
use delugefs_core::change::{Change, Changes};
use delugefs_core::entry::{Content, File, Kind, Placed};
use delugefs_core::ids::EntryId;
use delugefs_core::memory_tree::MemoryTree;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that `metadata.git` may take with 100,000 commits in 100,000 files.
const BYTES_MAX: u64 = 200_000_000;

/// Loose files and packs, whatever the number of commits.
const FILES_MAX: usize = 10_000;

fn digest(number: u64, what: &str) -> [u8; 32] {
    *blake3::hash(format!("{what} {number}").as_bytes()).as_bytes()
}

/// What the torrent side writes for a small file, told apart by a number.
fn info(number: u64) -> Vec<u8> {
    let (pieces, blake3) = (digest(number, "pieces"), digest(number, "blake3"));
    let name = gix::ObjectId::from_bytes_or_panic(&pieces[..20]);
    let mut info = b"d6:blake332:".to_vec();
    info.extend(blake3);
    let length = 5000 + number % 60_000;
    info.extend(
        format!("6:lengthi{length}e4:name40:{name}12:piece lengthi65536e6:pieces20:").bytes(),
    );
    info.extend(&pieces[..20]);
    info.push(b'e');
    info
}

fn random_id(number: u32) -> EntryId {
    EntryId::new(digest(u64::from(number), "id")[..16].try_into().unwrap())
}

/// File `number` of 1000 directories, as its `edit`-th edit leaves it.
fn file(number: u32, edit: u32, at: i64) -> (Placed, Vec<u8>) {
    let info = info(u64::from(number) << 32 | u64::from(edit));
    let content = Content::Swarm(content_of_info(&info).unwrap());
    let previous = Vec::new();
    let mut file = entry(random_id(number), Kind::File(File { content, previous }));
    file.attributes.mode = 0o644;
    file.attributes.modified.seconds = at;
    file.attributes.changed.seconds = at;
    file.written.edits = edit;
    file.written.at.seconds = at;
    file.written.by = "host:/mnt/disk1".to_owned();
    let name = format!("file {number}.mkv");
    (placed(id(number % 1000), name, file), info)
}

/// A volume whose files are known by the number of their edits.
pub(super) struct Volume {
    pub(super) node: Node,
    directories: MemoryTree,
    edits: HashMap<u32, u32>,
    files: u32,
    commits: u32,
    /// Spent on maintenance, and the longest at once.
    maintained: (Duration, Duration),
}

impl Volume {
    pub(super) fn create(path: &Path, files: u32) -> Self {
        let mut node = Node::create(path, 1);
        let mut directories = MemoryTree::new();
        let made = (0..1000).map(|number| {
            let name = format!("directory {number}");
            let after = placed(EntryId::ROOT, name, entry(id(number), Kind::Directory));
            created(after)
        });
        let made: Changes = made.collect();
        directories.apply(&made).unwrap();
        node.author_unmodelled(&made, &directories).unwrap();
        let mut all = Changes::new();
        for number in 0..files {
            let (after, info) = file(number, 1, node.now);
            let content = content_of_info(&info).unwrap();
            node.infos.insert(content.info_hash, info);
            let (id, change) = created(after);
            all.push(id, change);
        }
        node.author_unmodelled(&all, &directories).unwrap();
        Self {
            node,
            directories,
            edits: HashMap::new(),
            files,
            commits: 2,
            maintained: (Duration::ZERO, Duration::ZERO),
        }
    }

    /// One more edit of some file.
    pub(super) fn commit(&mut self) {
        self.commits += 1;
        self.node.now += 7;
        let which = digest(u64::from(self.commits), "which");
        let number = u32::from_le_bytes(which[..4].try_into().unwrap()) % self.files;
        let edit = self.edits.entry(number).or_insert(1);
        let before = Some(file(number, *edit, self.node.now).0);
        *edit += 1;
        let (after, info) = file(number, *edit, self.node.now);
        let content = content_of_info(&info).unwrap();
        self.node.infos = BTreeMap::from([(content.info_hash, info)]);
        let after = Some(after);
        let changes = [(random_id(number), Change { before, after })];
        let changes = changes.into_iter().collect();
        self.node
            .author_unmodelled(&changes, &self.directories)
            .unwrap();
        if self.node.repository.wants_maintenance() {
            let start = Instant::now();
            self.node.repository.maintain(&upkeep()).unwrap();
            let (sum, longest) = self.maintained;
            self.maintained = (sum + start.elapsed(), longest.max(start.elapsed()));
        }
    }

    fn pull_into(&self, to: &Repository) {
        let (client, server) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&self.node.repository, &server, &server, &serving()));
            pull(to, &client, &client, &PullOptions::default()).unwrap();
            drop(client);
        });
    }
}

fn created(after: Placed) -> (EntryId, Change) {
    let before = None;
    let id = after.entry.id;
    let after = Some(after);
    (id, Change { before, after })
}

/// Bytes and files below a path.
pub(super) fn size(path: &Path) -> (u64, usize) {
    let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata().unwrap() {
        facts if facts.is_dir() => size(&entry.path()),
        facts => (facts.len(), 1),
    });
    sizes.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn median(mut act: impl FnMut() -> Duration, times: usize) -> Duration {
    let mut all: Vec<_> = (0..times).map(|_| act()).collect();
    all.sort();
    all[times / 2]
}

pub(super) fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// Most memory this process has had, in MiB.
pub(super) fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() / 1024
}

fn look(volume: &Volume) -> [Duration; 2] {
    let repository = &volume.node.repository;
    let root = repository.directory(volume.node.view.tree).unwrap();
    let mut turn = 0;
    let mut directory = || {
        turn += 1;
        let tree = root[turn * 7 % root.len()].tree.unwrap();
        let start = Instant::now();
        let listed = repository.directory(tree).unwrap();
        let took = start.elapsed();
        (took, listed[turn % listed.len()].blob.unwrap())
    };
    let lists = median(|| directory().0, 99);
    let infos = median(
        || {
            let blob = directory().1;
            timed(|| drop(repository.info(blob).unwrap()))
        },
        99,
    );
    [lists, infos]
}

fn stage(volume: &mut Volume, scratch: &Path, follower: &Repository) {
    let path = volume.node.repository.path().to_owned();
    let (bytes, files) = size(&path);
    let packs = size(&path.join("objects/pack")).1 / 2;
    let commits = volume.commits;
    println!("{commits} commits: {bytes} bytes in {files} files, {packs} packs");
    let [lists, infos] = look(volume);
    let opens = median(|| timed(|| drop(Repository::open(&path).unwrap())), 5);
    volume.pull_into(follower);
    let fetches = median(
        || {
            volume.commit();
            timed(|| volume.pull_into(follower))
        },
        9,
    );
    println!("  list {lists:?}, info {infos:?}, open {opens:?}, fetch of a commit {fetches:?}");
    let settings = crate::repository::tests::support::settings();
    let joins = timed(|| {
        let newcomer = Repository::create(&scratch.join("newcomer"), &settings).unwrap();
        volume.pull_into(&newcomer);
        newcomer.refresh_view().unwrap();
    });
    let newcomer = Repository::open(&scratch.join("newcomer")).unwrap();
    let (before, _) = size(newcomer.path());
    let thorough = crate::Upkeep {
        thorough: true,
        ..upkeep()
    };
    let packs = timed(|| newcomer.maintain(&thorough).unwrap());
    let (after, _) = size(newcomer.path());
    println!("  join {joins:?}, then {before} bytes become {after} in {packs:?}");
    std::fs::remove_dir_all(scratch.join("newcomer")).unwrap();
    let clones = with_server(&volume.node.repository, |url| {
        timed(|| drop(git(scratch, &["clone", "-q", "--bare", url, "clone"])))
    });
    std::fs::remove_dir_all(scratch.join("clone")).unwrap();
    println!(
        "  clone by git {clones:?}, memory at most {} MiB",
        memory_peak()
    );
    assert!(files < FILES_MAX && bytes < BYTES_MAX, "{files}, {bytes}");
}

#[test]
#[ignore = "long; prints figures"]
fn growth() {
    let scratch = tempfile::tempdir().unwrap();
    let mut volume = Volume::create(&scratch.path().join("a"), 100_000);
    let settings = crate::repository::tests::support::settings();
    let follower = Repository::create(&scratch.path().join("follower"), &settings).unwrap();
    let stages = std::env::var("STAGES").unwrap_or_else(|_| "1000,10000,100000".to_owned());
    for commits in stages.split(',').map(|it| it.parse::<u32>().unwrap()) {
        let (start, before) = (Instant::now(), volume.commits);
        volume.maintained.0 = Duration::ZERO;
        while volume.commits < commits {
            volume.commit();
        }
        let (spent, longest) = volume.maintained;
        let made = f64::from(volume.commits - before);
        let rate = made / start.elapsed().saturating_sub(spent).as_secs_f64();
        println!("{rate:.0} commits/s, maintenance {spent:?}, at most {longest:?} at once");
        stage(&mut volume, scratch.path(), &follower);
    }
    let path = volume.node.repository.path();
    git(path, &["fsck", "--strict", "--no-dangling"]);
    let last = Repository::open(path).unwrap();
    assert_eq!(last.view(), volume.node.view);
}

/// How a million entries lie.
struct Shape {
    name: &'static str,
    directories: u32,
    is_nested: bool,
    files: u32,
}

impl Shape {
    /// Directories: side by side, or each in the one before.
    fn directories(&self) -> Changes {
        let directory = |number: u32| {
            let parent = match number {
                1.. if self.is_nested => id(number - 1),
                _ => EntryId::ROOT,
            };
            let name = format!("directory {number}");
            created(placed(parent, name, entry(id(number), Kind::Directory)))
        };
        (0..self.directories).map(directory).collect()
    }

    fn file(&self, number: u32, edit: u32, at: i64) -> (Placed, Vec<u8>) {
        let (mut placed, info) = file(number, edit, at);
        placed.parent = id(number % self.directories);
        (placed, info)
    }

    fn measure(&self) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a");
        let mut node = Node::create(&path, 1);
        let first = node.view.tree;
        let (made, mut directories) = (self.directories(), MemoryTree::new());
        directories.apply(&made).unwrap();
        node.author_unmodelled(&made, &directories).unwrap();
        let start = Instant::now();
        for some in 0..self.files.div_ceil(100_000) {
            let numbers = some * 100_000..self.files.min((some + 1) * 100_000);
            let mut changes = Changes::new();
            node.infos.clear();
            for number in numbers {
                let (after, info) = self.file(number, 1, node.now);
                let content = content_of_info(&info).unwrap();
                node.infos.insert(content.info_hash, info);
                let (id, change) = created(after);
                changes.push(id, change);
            }
            node.author_unmodelled(&changes, &directories).unwrap();
        }
        let (bytes, _) = size(&path);
        println!(
            "{}: made in {:?}, {bytes} bytes",
            self.name,
            start.elapsed()
        );
        let mut turn = 0;
        let commits = median(
            || {
                turn += 1;
                let number = turn * 9973 % self.files;
                let before = Some(self.file(number, 1, node.now).0);
                let (after, info) = self.file(number, 2, node.now + 1);
                let content = content_of_info(&info).unwrap();
                node.infos = BTreeMap::from([(content.info_hash, info)]);
                let after = Some(after);
                let changes = [(random_id(number), Change { before, after })];
                let changes = changes.into_iter().collect();
                timed(|| drop(node.author_unmodelled(&changes, &directories).unwrap()))
            },
            51,
        );
        let each = (size(&path).0 - bytes) / 51;
        println!("  one-file commit {commits:?}, {each} bytes of new objects");
        let repository = Repository::open(&path).unwrap();
        let opens = median(|| timed(|| drop(Repository::open(&path).unwrap())), 5);
        let tree = node.view.tree;
        let lists = timed(|| {
            let top = repository.directory(tree).unwrap();
            assert!(!top.is_empty());
        });
        let all = timed(|| repository.contents(tree, &mut |_, _| {}).unwrap());
        let diffs = timed(|| drop(repository.diff(first, tree).unwrap()));
        println!(
            "  open {opens:?}, list of the root {lists:?}, of all {all:?}, diff with nothing {diffs:?}"
        );
        println!("  memory at most {} MiB", memory_peak());
    }
}

#[test]
#[ignore = "long; prints figures"]
fn a_million_entries() {
    let shapes = [
        ("flat", 1, false, 200_000),
        ("wide", 1000, false, 1_000_000),
        ("deep", 20, true, 1_000_000),
    ];
    for (name, directories, is_nested, files) in shapes {
        Shape {
            name,
            directories,
            is_nested,
            files,
        }
        .measure();
    }
}
