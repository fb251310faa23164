//! Repositories to exchange between, and streams to do it over.

use super::super::{
    ExchangeError, GitStore, PullOptions, Pulled, Refusals, ServeOptions, Served, Trusting,
    pull_into, serve_from,
};
use delugefs_core::ids::{CommitId, IncarnationId};
use gix::ObjectId;
use gix::objs::{Kind, Tree, tree};
use gix::refs::transaction::PreviousValue;
use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// What a stream waits for at most: a test that hangs fails.
pub(super) const TIMEOUT: Duration = Duration::from_mins(1);

/// The name under which repositories are served.
pub(super) const VOLUME: &str = "bigstore";

/// A bare repository of its own.
pub(super) struct Node {
    directory: TempDir,
    repository: gix::ThreadSafeRepository,
    refusals: Refusals,
}

impl GitStore for Node {
    fn git(&self) -> gix::Repository {
        self.repository.to_thread_local()
    }

    fn refresh(&self) {}

    fn sync(&self) -> Result<(), ExchangeError> {
        Ok(())
    }

    fn hold(&self) -> Option<std::sync::RwLockReadGuard<'_, ()>> {
        None
    }

    fn boundary(&self) -> Result<Option<delugefs_core::past::Boundary>, ExchangeError> {
        Ok(None)
    }

    fn begin_at(&self, commits: &HashSet<ObjectId>) -> Result<(), ExchangeError> {
        crate::cut::write(self.path(), commits).map_err(ExchangeError::repository)
    }

    fn refusals(&self) -> &Refusals {
        &self.refusals
    }
}

pub(super) fn incarnation(number: u8) -> IncarnationId {
    IncarnationId::new([number; 16])
}

pub(super) fn commit_id(id: ObjectId) -> CommitId {
    CommitId::from_slice(id.as_bytes()).unwrap()
}

impl Node {
    pub(super) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        git(
            directory.path(),
            &["init", "-q", "--bare", "--initial-branch=main", "."],
        );
        // each pull adds a pack, and gix's default has room for 32
        let slots = gix::odb::store::init::Slots::Given(4096);
        let options = gix::open::Options::isolated().object_store_slots(slots);
        let repository = gix::ThreadSafeRepository::open_opts(directory.path(), options);
        Self {
            repository: repository.unwrap(),
            refusals: Refusals::default(),
            directory,
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a tree of files by path.
    pub(super) fn tree(&self, files: &[(String, Vec<u8>)]) -> ObjectId {
        let repository = self.git();
        let mut folders: BTreeMap<String, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        let mut entries = Vec::new();
        for (path, bytes) in files {
            if let Some((folder, rest)) = path.split_once('/') {
                let folder = folders.entry(folder.to_owned()).or_default();
                folder.push((rest.to_owned(), bytes.clone()));
            } else {
                let oid = repository.write_blob(bytes).unwrap().detach();
                let mode = tree::EntryKind::Blob.into();
                entries.push(tree::Entry {
                    mode,
                    filename: path.as_str().into(),
                    oid,
                });
            }
        }
        for (name, files) in folders {
            let mode = tree::EntryKind::Tree.into();
            let oid = self.tree(&files);
            entries.push(tree::Entry {
                mode,
                filename: name.into(),
                oid,
            });
        }
        entries.sort();
        repository.write_object(Tree { entries }).unwrap().detach()
    }

    /// Writes a commit and nothing that points to it.
    pub(super) fn loose_commit(&self, tree: ObjectId, parents: &[ObjectId], time: i64) -> ObjectId {
        let raw = raw_commit(tree, parents, time);
        self.write(Kind::Commit, &raw)
    }

    /// Writes an object as it is, right or wrong.
    pub(super) fn write(&self, kind: Kind, data: &[u8]) -> ObjectId {
        use gix::objs::Write as _;
        self.git().objects.write_buf(kind, data).unwrap()
    }

    /// Commits files for an author, whose chain it moves.
    pub(super) fn commit(
        &self,
        author: u8,
        parents: &[ObjectId],
        files: &[(&str, &str)],
    ) -> ObjectId {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), text.as_bytes().to_vec());
        let tree = self.tree(&files.iter().map(owned).collect::<Vec<_>>());
        let id = self.loose_commit(tree, parents, 1_700_000_000);
        self.set_author(author, id);
        id
    }

    pub(super) fn set_author(&self, author: u8, id: ObjectId) {
        self.set_ref(&format!("refs/authors/{}", incarnation(author)), id);
    }

    pub(super) fn set_main(&self, id: ObjectId) {
        self.set_ref("refs/heads/main", id);
    }

    fn set_ref(&self, name: &str, id: ObjectId) {
        self.git()
            .reference(name, id, PreviousValue::Any, "")
            .unwrap();
    }

    /// An author's head.
    pub(super) fn author(&self, author: u8) -> Option<ObjectId> {
        let name = format!("refs/authors/{}", incarnation(author));
        super::super::refs::target(&self.git(), &name).unwrap()
    }

    /// Everything stock git can find wrong, from the author heads down.
    pub(super) fn fsck(&self) {
        git(self.path(), &["fsck", "--strict", "--full"]);
    }

    /// Temporary files, locks and packs in the repository.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![self.path().to_owned()];
        while let Some(folder) = todo.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                } else if [".tmp", ".lock", ".pack", ".idx"]
                    .iter()
                    .any(|part| name.contains(part))
                {
                    found.push(name);
                }
            }
        }
        found
    }
}

pub(super) fn raw_commit(tree: ObjectId, parents: &[ObjectId], time: i64) -> Vec<u8> {
    let parents = parents.iter().map(|parent| format!("parent {parent}\n"));
    let parents = parents.collect::<String>();
    let by = format!("node <node@volume> {time} +0000");
    format!("tree {tree}\n{parents}author {by}\ncommitter {by}\n\nchange\n").into_bytes()
}

/// Two ends of a stream on which nothing waits for ever.
pub(super) fn streams() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    for end in [&a, &b] {
        end.set_read_timeout(Some(TIMEOUT)).unwrap();
        end.set_write_timeout(Some(TIMEOUT)).unwrap();
    }
    (a, b)
}

/// The commits here are not a volume's own.
pub(super) fn trusting() -> PullOptions<'static> {
    PullOptions {
        foreign: &Trusting,
        ..PullOptions::default()
    }
}

pub(super) fn serving() -> ServeOptions {
    ServeOptions {
        name: VOLUME.into(),
        ..ServeOptions::default()
    }
}

/// One pull over a socket pair.
pub(super) fn pull_with(
    to: &Node,
    from: &Node,
    options: &PullOptions<'_>,
) -> (Result<Pulled, ExchangeError>, Result<Served, ExchangeError>) {
    pull_as(to, from, (options, &serving()))
}

/// The same, with the server's own rules.
pub(super) fn pull_as(
    to: &Node,
    from: &Node,
    (options, serving): (&PullOptions<'_>, &ServeOptions),
) -> (Result<Pulled, ExchangeError>, Result<Served, ExchangeError>) {
    let (client, server) = streams();
    std::thread::scope(|scope| {
        let serving_it = scope.spawn(|| serve_from(from, &server, &server, serving));
        let pulled = pull_into(to, &client, &client, options);
        drop(client);
        (pulled, serving_it.join().unwrap())
    })
}

pub(super) fn pull(to: &Node, from: &Node) -> Pulled {
    let (pulled, served) = pull_with(to, from, &trusting());
    served.unwrap();
    pulled.unwrap()
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0");
    command
}

/// Runs stock git: whether it went well, and what it said.
pub(super) fn try_git(directory: &Path, arguments: &[&str]) -> (bool, String) {
    let output = command(directory, arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Runs stock git, which must go well.
pub(super) fn git(directory: &Path, arguments: &[&str]) -> String {
    let (good, said) = try_git(directory, arguments);
    assert!(good, "git {arguments:?}: {said}");
    said.trim_end().to_owned()
}

/// Feeds `git fast-import`.
pub(super) fn import(node: &Node, stream: &[u8]) {
    let mut child = command(node.path(), &["fast-import", "--quiet", "--force"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stream).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Serves a repository on loopback while `client` runs with its `git://` address.
pub(super) fn with_server<T>(node: &(impl GitStore + Sync), client: impl FnOnce(&str) -> T) -> T {
    with_server_as(node, &serving(), client)
}

/// The same, by other rules than [`serving`]'s.
pub(super) fn with_server_as<T>(
    node: &(impl GitStore + Sync),
    options: &ServeOptions,
    client: impl FnOnce(&str) -> T,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                scope.spawn(move || serve_from(node, &stream, &stream, options));
            }
        });
        let stop_at_end = StopAtEnd {
            stop: &stop,
            address,
        };
        let result = client(&format!("git://{address}/{VOLUME}"));
        drop(stop_at_end);
        result
    })
}

/// Ends the accepting thread, also when the test fails.
struct StopAtEnd<'a> {
    stop: &'a AtomicBool,
    address: std::net::SocketAddr,
}

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
