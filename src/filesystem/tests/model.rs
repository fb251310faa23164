//! Random operations against a model that is nothing but a map from path to bytes.
//!
//! Operations of other nodes, seals, commits and restarts come between. Where the model cannot tell what a
//! merge makes of things, it asks for what must hold of any merge: nothing that was written is lost, and the
//! mount shows the tree, and what is only here.

use super::fakes::{ME, Node, TRUNCATE, WRITE, wait};
use super::remote::{add, change, edit, inline, remove};
use crate::filesystem::*;
use delugefs_core::entry::Kind;
use delugefs_core::memory_tree::MemoryTree;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Names that paths are made of: few, so that they meet.
const NAMES: [&str; 3] = ["a", "b", "d"];

/// Steps of one run.
const STEPS_MAX: usize = 60;

#[derive(Debug, Clone)]
enum Step {
    Mkdir(usize),
    Write {
        path: usize,
        large: bool,
    },
    /// Opens, writes and keeps open.
    Hold {
        path: usize,
        large: bool,
    },
    CloseAll,
    Truncate(usize, u8),
    Chmod(usize, u16),
    Rename(usize, usize),
    Exchange(usize, usize),
    Unlink(usize),
    Rmdir(usize),
    Seal,
    SealLate,
    Commit,
    Restart,
    Remote(Remote),
}

#[derive(Debug, Clone)]
enum Remote {
    Edit(usize),
    Add(usize),
    Mkdir(usize),
    Remove(usize),
    Rename(usize, usize),
}

/// Paths of one and two names.
fn path(index: usize) -> String {
    match index.checked_sub(NAMES.len()) {
        None => NAMES[index].into(),
        Some(rest) => format!(
            "{}/{}",
            NAMES[rest / NAMES.len()],
            NAMES[rest % NAMES.len()]
        ),
    }
}

fn any_path() -> impl Strategy<Value = usize> {
    let all = NAMES.len() + NAMES.len() * NAMES.len();
    // Half of them at the top, and most others in a directory that is mostly there.
    prop_oneof![3 => 0..NAMES.len(), 2 => all - NAMES.len()..all, 1 => 0..all]
}

fn any_remote() -> impl Strategy<Value = Remote> {
    prop_oneof![
        any_path().prop_map(Remote::Edit),
        any_path().prop_map(Remote::Add),
        any_path().prop_map(Remote::Mkdir),
        any_path().prop_map(Remote::Remove),
        (any_path(), any_path()).prop_map(|(from, to)| Remote::Rename(from, to)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let write = || (any_path(), any::<bool>());
    prop_oneof![
        2 => any_path().prop_map(Step::Mkdir),
        6 => write().prop_map(|(path, large)| Step::Write { path, large }),
        2 => write().prop_map(|(path, large)| Step::Hold { path, large }),
        1 => Just(Step::CloseAll),
        1 => (any_path(), any::<u8>()).prop_map(|(path, size)| Step::Truncate(path, size)),
        1 => (any_path(), 0..0o1000u16).prop_map(|(path, mode)| Step::Chmod(path, mode)),
        4 => (any_path(), any_path()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (any_path(), any_path()).prop_map(|(from, to)| Step::Exchange(from, to)),
        2 => any_path().prop_map(Step::Unlink),
        1 => any_path().prop_map(Step::Rmdir),
        1 => Just(Step::Seal),
        1 => Just(Step::SealLate),
        2 => Just(Step::Commit),
        3 => Just(Step::Restart),
        4 => any_remote().prop_map(Step::Remote),
    ]
}

/// `None`: a directory.
type Model = BTreeMap<String, Option<Vec<u8>>>;

struct Run {
    node: Node,
    model: Model,
    handles: Vec<HandleId>,
    serial: u8,
}

impl Run {
    fn new() -> Self {
        Self {
            node: Node::new(),
            model: Model::new(),
            handles: Vec::new(),
            serial: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        self.serial += 1;
        match step {
            Step::Mkdir(at) => {
                let at = path(*at);
                let possible = self.can_make(&at);
                let made = self.try_mkdir(&at);
                assert_eq!(made.is_ok(), possible, "mkdir {at}: {made:?}");
                if possible {
                    self.model.insert(key(&at), None);
                }
            }
            Step::Write { path: at, large } => {
                if let Some(handle) = self.write(&path(*at), *large) {
                    self.node.filesystem.release(handle);
                }
            }
            Step::Hold { path: at, large } => {
                let handle = self.write(&path(*at), *large);
                self.handles.extend(handle);
            }
            Step::CloseAll => self.close_all(),
            Step::Truncate(at, size) => self.truncate(&path(*at), *size),
            Step::Chmod(at, mode) => self.chmod(&path(*at), *mode),
            Step::Rename(from, to) => self.rename(&path(*from), &path(*to)),
            Step::Exchange(a, b) => self.exchange(&path(*a), &path(*b)),
            Step::Unlink(at) => self.unlink(&path(*at)),
            Step::Rmdir(at) => self.rmdir(&path(*at)),
            Step::Seal => self.node.seal_all(),
            Step::SealLate => self.seal_late(),
            Step::Commit => drop(self.node.commit()),
            Step::Restart => {
                self.handles.clear();
                self.node.restart();
            }
            Step::Remote(remote) => self.remote(remote),
        }
        let (shown, model) = (brief(&self.node.shown()), brief(&self.model));
        assert_eq!(shown, model, "after {step:?}");
    }

    /// New bytes, unlike any others.
    fn bytes(&self, large: bool) -> Vec<u8> {
        let label = format!("<{}>", self.serial);
        label.repeat(if large { 1000 } else { 1 }).into_bytes()
    }

    fn can_make(&self, at: &str) -> bool {
        !self.model.contains_key(&key(at)) && self.has_parent(at)
    }

    fn has_parent(&self, at: &str) -> bool {
        match at.split_once('/') {
            Some((parent, _)) => self.model.get(&key(parent)) == Some(&None),
            None => true,
        }
    }

    fn try_mkdir(&self, at: &str) -> Result<Stat, FsError> {
        let (parent, name) = self.try_split(at)?;
        self.node.filesystem.make_directory(parent, name, 0o755, ME)
    }

    fn try_split<'a>(&self, at: &'a str) -> Result<(Inode, &'a [u8]), FsError> {
        let (parent, name) = at.rsplit_once('/').unwrap_or(("", at));
        Ok((self.node.try_inode(parent)?, name.as_bytes()))
    }

    fn write(&mut self, at: &str, large: bool) -> Option<HandleId> {
        let bytes = self.bytes(large);
        let handle = match self.model.get(&key(at)) {
            Some(None) => {
                let inode = self.node.inode(at);
                assert!(self.node.filesystem.open(inode, WRITE).is_err());
                return None;
            }
            Some(Some(_)) => self.node.open(self.node.inode(at), TRUNCATE).handle,
            None if self.has_parent(at) => self.node.create(at).1,
            None => return None,
        };
        self.node.filesystem.write(handle, 0, &bytes).unwrap();
        self.model.insert(key(at), Some(bytes));
        Some(handle)
    }

    fn close_all(&mut self) {
        for handle in self.handles.drain(..) {
            self.node.filesystem.release(handle);
        }
    }

    fn truncate(&mut self, at: &str, size: u8) {
        let Some(Some(bytes)) = self.model.get_mut(&key(at)) else {
            return;
        };
        bytes.resize(usize::from(size), 0);
        let set = SetAttributes {
            size: Some(u64::from(size)),
            ..SetAttributes::default()
        };
        let inode = self.node.inode(at);
        let answer = self.node.filesystem.set_attributes(inode, set).unwrap();
        self.node.finish(answer).unwrap();
    }

    fn chmod(&mut self, at: &str, mode: u16) {
        let Ok(inode) = self.node.try_inode(at) else {
            return;
        };
        let set = SetAttributes {
            mode: Some(mode),
            ..SetAttributes::default()
        };
        let stat = wait(self.node.filesystem.set_attributes(inode, set).unwrap()).unwrap();
        assert_eq!(stat.mode, mode);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let possible = self.can_rename(from, to);
        let renamed = self.try_rename(from, to, RenameMode::Replace);
        assert_eq!(renamed.is_ok(), possible, "{from} -> {to}: {renamed:?}");
        if possible {
            rename_in(&mut self.model, from, to);
        }
    }

    fn try_rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), FsError> {
        self.node
            .filesystem
            .rename(self.try_split(from)?, self.try_split(to)?, mode)
    }

    fn can_rename(&self, from: &str, to: &str) -> bool {
        let inside = format!("{}/", key(from));
        let Some(source) = self.model.get(&key(from)) else {
            return false;
        };
        if key(to).starts_with(&inside) || !self.has_parent(to) {
            return false;
        }
        match self.model.get(&key(to)) {
            None => true,
            _ if from == to => true,
            Some(target) if source.is_some() != target.is_some() => false,
            Some(Some(_)) => true,
            Some(None) => !self.has_children(to),
        }
    }

    fn has_children(&self, at: &str) -> bool {
        let inside = format!("{}/", key(at));
        self.model.keys().any(|path| path.starts_with(&inside))
    }

    fn exchange(&mut self, a: &str, b: &str) {
        let nested = a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/"));
        let both = self.model.contains_key(&key(a)) && self.model.contains_key(&key(b));
        let possible = both && !nested;
        let exchanged = self.try_rename(a, b, RenameMode::Exchange);
        assert_eq!(exchanged.is_ok(), possible, "{a} <-> {b}: {exchanged:?}");
        if possible && a != b {
            rename_in(&mut self.model, a, "aside");
            rename_in(&mut self.model, b, a);
            rename_in(&mut self.model, "aside", b);
        }
    }

    fn unlink(&mut self, at: &str) {
        let possible = matches!(self.model.get(&key(at)), Some(Some(_)));
        let unlinked = self
            .try_split(at)
            .and_then(|(parent, name)| self.node.filesystem.unlink(parent, name));
        assert_eq!(unlinked.is_ok(), possible);
        if possible {
            self.model.remove(&key(at));
        }
    }

    fn rmdir(&mut self, at: &str) {
        let possible = self.model.get(&key(at)) == Some(&None) && !self.has_children(at);
        let removed = self
            .try_split(at)
            .and_then(|(parent, name)| self.node.filesystem.remove_directory(parent, name));
        assert_eq!(removed.is_ok(), possible);
        if possible {
            self.model.remove(&key(at));
        }
    }

    /// The store has taken the file, and the process ends before it can say so.
    fn seal_late(&mut self) {
        if let Some(job) = self.node.filesystem.next_unsealed() {
            self.node.contents.seal(&job.path).unwrap();
            self.handles.clear();
            self.node.restart();
        }
    }

    fn remote(&mut self, remote: &Remote) {
        let status = self.node.filesystem.status();
        let quiet = status.writing == 0 && status.unsealed == 0;
        let written = self.written(remote);
        let serial = self.serial;
        let theirs = inline(&self.bytes(false));
        self.node.meet(|tree| act(tree, remote, serial, &theirs));
        let shown = self.node.shown();
        let there: BTreeSet<&Vec<u8>> = shown.values().flatten().collect();
        for bytes in &written {
            assert!(
                there.contains(bytes),
                "lost {:?}",
                String::from_utf8_lossy(bytes)
            );
        }
        for path in self.node.view.paths().keys() {
            assert!(shown.contains_key(&key(path)), "{path} is in the tree");
        }
        if quiet {
            assert_eq!(shown.len(), self.node.view.len());
        }
        self.model = shown;
    }

    /// What must be there afterwards, whatever the other node does: all but what it removes or overwrites.
    fn written(&self, remote: &Remote) -> Vec<Vec<u8>> {
        let touched = match remote {
            Remote::Edit(at) | Remote::Remove(at) | Remote::Rename(at, _) => Some(path(*at)),
            Remote::Add(_) | Remote::Mkdir(_) => None,
        };
        let committed: BTreeSet<Vec<u8>> = self.committed();
        let all = self.model.values().flatten();
        // What it has seen and touches may go; what it has not seen must stay.
        all.filter(|bytes| touched.is_none() || !committed.contains(*bytes))
            .cloned()
            .collect()
    }

    fn committed(&self) -> BTreeSet<Vec<u8>> {
        let contents = self
            .node
            .view
            .iter()
            .filter_map(|placed| match &placed.entry.kind {
                Kind::File(file) => Some(&file.content),
                _ => None,
            });
        contents
            .map(|content| match content {
                delugefs_core::entry::Content::Inline(bytes) => bytes.clone(),
                delugefs_core::entry::Content::Swarm(content) => {
                    std::fs::read(self.node.contents.path(content.info_hash)).unwrap()
                }
            })
            .collect()
    }

    /// Everything comes to rest: the tree is what is shown.
    fn settle(mut self) {
        self.close_all();
        self.node.seal_all();
        self.node.commit();
        assert_eq!(self.node.shown(), self.model);
        let paths: BTreeSet<String> = self.node.view.paths().keys().map(|p| key(p)).collect();
        assert_eq!(paths, self.model.keys().cloned().collect());
        assert!(self.node.filesystem.take_group().is_none());
        self.node.restart();
        assert_eq!(self.node.shown(), self.model);
        let status = self.node.filesystem.status();
        assert_eq!(
            (status.writing, status.unsealed, status.uncommitted),
            (0, 0, 0)
        );
        let staging = self.node.root.path().join("staging");
        assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
    }
}

/// For a message that can be read.
fn brief(model: &Model) -> Vec<String> {
    let line = |(path, bytes): (&String, &Option<Vec<u8>>)| match bytes {
        None => format!("{path}/"),
        Some(bytes) => {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]);
            format!("{path}: {} {start:?} {}", bytes.len(), blake3::hash(bytes))
        }
    };
    model.iter().map(line).collect()
}

/// As `shown` has it.
fn key(path: &str) -> String {
    format!("/{path}")
}

fn rename_in(model: &mut Model, from: &str, to: &str) {
    let inside = format!("{}/", key(from));
    let moved: Vec<String> = model
        .keys()
        .filter(|path| **path == key(from) || path.starts_with(&inside))
        .cloned()
        .collect();
    for path in moved {
        let value = model.remove(&path).unwrap();
        model.insert(format!("{}{}", key(to), &path[key(from).len()..]), value);
    }
}

/// What another node does, where it can.
fn act(tree: &mut MemoryTree, remote: &Remote, serial: u8, bytes: &Kind) {
    let at = |index: &usize| path(*index);
    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    match remote {
        Remote::Edit(index) => {
            let path = parts(&at(index));
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let is_file = |p: &delugefs_core::entry::Placed| matches!(p.entry.kind, Kind::File(_));
            if tree.at(&path).is_some_and(is_file)
                && let Kind::File(file) = bytes
                && let delugefs_core::entry::Content::Inline(bytes) = &file.content
            {
                edit(tree, &path, bytes);
            }
        }
        Remote::Add(index) => make(tree, serial, &parts(&at(index)), bytes.clone()),
        Remote::Mkdir(index) => make(tree, serial, &parts(&at(index)), Kind::Directory),
        Remote::Remove(index) => {
            let path = parts(&at(index));
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            if let Some(id) = tree.at(&path).map(|placed| placed.entry.id)
                && tree.list(id).next().is_none()
            {
                remove(tree, &path);
            }
        }
        Remote::Rename(from, to) => {
            let (from, to) = (parts(&at(from)), parts(&at(to)));
            move_there(tree, &from, &to);
        }
    }
}

fn make(tree: &mut MemoryTree, serial: u8, path: &[String], kind: Kind) {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let parent = tree.at(&path[..path.len() - 1]);
    let free = parent.is_some_and(|p| p.entry.kind == Kind::Directory) && tree.at(&path).is_none();
    if free {
        add(tree, serial, &path, kind);
    }
}

fn move_there(tree: &mut MemoryTree, from: &[String], to: &[String]) {
    let from: Vec<&str> = from.iter().map(String::as_str).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let Some(parent) = tree.at(&to[..to.len() - 1]).cloned() else {
        return;
    };
    let fits = parent.entry.kind == Kind::Directory && !to.starts_with(&from);
    if fits && tree.at(&from).is_some() && tree.at(&to).is_none() {
        change(tree, &from, |placed| {
            placed.parent = parent.entry.id;
            placed.name = super::remote::name(to[to.len() - 1]);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_filesystem_is_its_model(steps in prop::collection::vec(any_step(), 10..STEPS_MAX)) {
        run(&steps);
    }
}

fn run(steps: &[Step]) {
    let mut run = Run::new();
    run.step(&Step::Mkdir(NAMES.len() - 1));
    run.step(&Step::Write {
        path: 0,
        large: false,
    });
    for step in steps {
        run.step(step);
    }
    run.settle();
}

#[test]
fn a_rename_is_replayed() {
    run(&[Step::Rename(0, 1), Step::Restart]);
}

#[test]
fn a_directory_and_what_moves_into_it_are_replayed_in_any_order() {
    run(&[
        Step::Remote(Remote::Mkdir(0)),
        Step::Rename(0, 9),
        Step::Rename(2, 0),
        Step::Write {
            path: 1,
            large: true,
        },
        Step::SealLate,
        Step::Restart,
        Step::Mkdir(0),
    ]);
}

#[test]
fn what_is_being_written_moves_along_into_a_new_directory() {
    run(&[
        Step::Write {
            path: 10,
            large: false,
        },
        Step::Truncate(10, 17),
        Step::Remote(Remote::Mkdir(2)),
    ]);
}
