//! The repository's files: layout, objects, references, and syncing them.

use super::loose::LooseWriter;
use super::packs::writer::{Form, PACK_BYTES_MAX, PackWriter};
use super::recover::checkpoint;
use crate::codec::settings;
use crate::commit::nobodys;
use crate::diff::placed_root;
use crate::directory::{Edit, rewrite};
use crate::error::{RepositoryError, Result, git, io};
use crate::session::{Batch, Decoders, Session};
use delugefs_core::entry::{Attributes, Entry, Kind, Written};
use delugefs_core::ids::{EntryId, IncarnationId};
use delugefs_core::settings::Settings;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use gix::refs::transaction::{PreviousValue, RefEdit};
use gix::zlib::Compression;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Version of the layout: references, trees, commits.
const FORMAT: &str = "2";

pub(super) const AUTHORS: &str = "refs/authors";
pub(super) const MAIN: &str = "refs/heads/main";
const GENESIS: &str = "refs/delugefs/genesis";
pub(super) const LEFT: &str = "refs/delugefs/left";

const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\
                      \tlogAllRefUpdates = false\n[gc]\n\tauto = 0\n[delugefs]\n\tformat = 2\n";

/// Beyond so many files that wait to be synced, the whole filesystem is.
const UNSYNCED_FILES_MAX: usize = 512;

/// Makes a repository that is there whole or not at all, also after a crash.
pub(super) fn create_whole(path: &Path, settings: &Settings) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("remove what a crash has left")(error));
        }
        _ => {}
    }
    create(&new, settings)?;
    fs::rename(&new, path).map_err(io("name the new repository"))?;
    sync_file(path.parent().unwrap_or(path))
}

/// Makes the directories, the first commit and the references to it, all synced.
fn create(path: &Path, settings: &Settings) -> Result<()> {
    let below = [
        "objects/info",
        "objects/pack",
        "refs/heads",
        AUTHORS,
        "refs/delugefs",
    ];
    for directory in below {
        fs::create_dir_all(path.join(directory)).map_err(io(format!("create {directory}")))?;
    }
    for (name, text) in [("HEAD", "ref: refs/heads/main\n"), ("config", CONFIG)] {
        fs::write(path.join(name), text).map_err(io(format!("write {name}")))?;
    }
    let git = super::open_git(path)?.to_thread_local();
    let decoders = Decoders::new();
    let session = Session::new(&decoders, git);
    let tree = first_tree(&session, settings)?;
    let genesis = session.put(
        ObjectKind::Commit,
        nobodys(tree, Vec::new(), 0, "A new volume")?,
    )?;
    write_objects(&session, path, &mut Unsynced::default())?;
    for name in [MAIN, GENESIS] {
        set_reference(session.git(), name, genesis, PreviousValue::MustNotExist)?;
    }
    checkpoint(&session, path, &super::recover::boot())?;
    sync_all(path)
}

fn first_tree(session: &Session<'_>, settings: &Settings) -> Result<ObjectId> {
    let root = Entry {
        id: EntryId::ROOT,
        kind: Kind::Directory,
        attributes: Attributes {
            mode: 0o755,
            ..Attributes::default()
        },
        written: Written::default(),
    };
    let root = placed_root(root)?;
    let edit = Edit {
        own: Some((root.entry, None)),
        settings: Some(settings.clone()),
        items: BTreeMap::new(),
    };
    debug_assert!(
        settings::decode(&settings::encode(settings)).is_ok(),
        "settings within limits"
    );
    rewrite(session, None, &edit)
}

/// The first commit, if this is a repository of ours in a format that this program knows.
pub(super) fn genesis(git: &gix::Repository, path: &Path) -> Result<ObjectId> {
    let not_ours = || RepositoryError::NotOurs(path.display().to_string());
    let format = git
        .config_snapshot()
        .string("delugefs.format")
        .ok_or_else(not_ours)?;
    match format.to_string().as_str() {
        FORMAT => reference(git, GENESIS)?.ok_or_else(not_ours),
        newer => Err(RepositoryError::NotOurs(format!(
            "{}, in format {newer} and not {FORMAT},",
            path.display()
        ))),
    }
}

pub(super) fn reference(repository: &gix::Repository, name: &str) -> Result<Option<ObjectId>> {
    let found = repository
        .try_find_reference(name)
        .map_err(git("read a reference"))?;
    Ok(found.and_then(|reference| reference.target().try_id().map(ToOwned::to_owned)))
}

/// Each author's newest commit.
pub(super) fn authors(repository: &gix::Repository) -> Result<BTreeMap<IncarnationId, ObjectId>> {
    below(repository, AUTHORS)
}

/// What those had whom a cut of history has left behind.
pub(super) fn left(repository: &gix::Repository) -> Result<BTreeMap<IncarnationId, ObjectId>> {
    below(repository, LEFT)
}

fn below(repository: &gix::Repository, folder: &str) -> Result<BTreeMap<IncarnationId, ObjectId>> {
    let platform = repository.references().map_err(git("list references"))?;
    let prefix = format!("{folder}/");
    let all = platform
        .prefixed(prefix.as_str())
        .map_err(git("list references"))?;
    let mut found = BTreeMap::new();
    for reference in all {
        let reference = reference.map_err(git("read a reference"))?;
        let name = reference.name().as_bstr().to_string();
        let incarnation = name.strip_prefix(&prefix).and_then(|hex| hex.parse().ok());
        if let (Some(incarnation), Some(id)) = (incarnation, reference.target().try_id()) {
            found.insert(incarnation, id.to_owned());
        }
    }
    Ok(found)
}

pub(super) fn author_name(incarnation: IncarnationId) -> String {
    format!("{AUTHORS}/{incarnation}")
}

pub(super) fn left_name(incarnation: IncarnationId) -> String {
    format!("{LEFT}/{incarnation}")
}

pub(super) fn set_reference(
    repository: &gix::Repository,
    name: &str,
    to: ObjectId,
    expected: PreviousValue,
) -> Result<()> {
    let name = name.try_into().map_err(git("name a reference"))?;
    let edit = RefEdit::update(name, to, expected, "");
    repository
        .edit_references_as([edit], None)
        .map_err(git("move a reference"))?;
    Ok(())
}

pub(super) fn drop_reference(repository: &gix::Repository, name: &str) -> Result<()> {
    let name = name.try_into().map_err(git("name a reference"))?;
    let edit = RefEdit::delete(name, PreviousValue::Any);
    repository
        .edit_references_as([edit], None)
        .map_err(git("drop a reference"))?;
    Ok(())
}

/// Makes all author references durable, those that are gone, too.
pub(super) fn sync_authors(repository: &gix::Repository, path: &Path) -> Result<()> {
    let names = authors(repository)?.into_keys().map(author_name);
    sync_references(path, names.chain([AUTHORS.to_owned()]))
}

/// Makes references durable. The folder that they are in is among the names.
pub(super) fn sync_references(path: &Path, names: impl Iterator<Item = String>) -> Result<()> {
    for name in names.chain(["packed-refs".to_owned()]) {
        let file = path.join(name);
        // stock git may have packed them
        if file.exists() {
            sync_file(&file)?;
        }
    }
    sync_file(path)
}

/// Files that were written and not yet synced, and the directories that got names.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    writer: LooseWriter,
    files: BTreeSet<PathBuf>,
    /// Why no sync can be believed any more.
    failed: Option<String>,
}

impl Unsynced {
    /// Makes all of them survive a power cut.
    pub(super) fn sync(&mut self, path: &Path) -> Result<()> {
        self.check()?;
        let synced = self.sync_files(path);
        self.believe(path, synced)
    }

    /// Whether syncs can still be believed.
    pub(super) fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => Err(RepositoryError::NotDurable(reason.clone())),
        }
    }

    /// Takes how a sync ended: after one that failed none is believed, and the next start reads through what is
    /// newer than the last checkpoint.
    pub(super) fn believe(&mut self, path: &Path, synced: Result<()>) -> Result<()> {
        if let Err(error) = synced {
            self.failed = Some(error.to_string());
            super::recover::distrust(path);
        }
        self.check()
    }

    fn sync_files(&mut self, path: &Path) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        if self.files.len() > UNSYNCED_FILES_MAX {
            sync_all(path)?;
        } else {
            let directories: BTreeSet<&Path> =
                self.files.iter().filter_map(|file| file.parent()).collect();
            for path in self.files.iter().map(PathBuf::as_path).chain(directories) {
                sync_file(path)?;
            }
            sync_file(&path.join("objects"))?;
        }
        self.files.clear();
        Ok(())
    }

    /// A file is gone, since what it held is elsewhere, durably.
    pub(super) fn forget(&mut self, file: &Path) {
        if self.files.len() <= UNSYNCED_FILES_MAX {
            self.files.remove(file);
        }
    }

    fn add(&mut self, file: PathBuf) {
        // Past the limit, only the number counts.
        if self.files.len() <= UNSYNCED_FILES_MAX {
            self.files.insert(file);
        }
    }
}

/// Syncs a file's bytes, or a directory's names.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    #[cfg(test)]
    super::tests::faults::next_sync().map_err(io("sync, as the test wants"))?;
    let file = File::open(path).and_then(|file| file.sync_all());
    file.map_err(io(format!("sync {}", path.display())))
}

/// Syncs the whole filesystem that the repository is on.
pub(super) fn sync_all(path: &Path) -> Result<()> {
    let directory = File::open(path).map_err(io("open the repository"))?;
    rustix::fs::syncfs(&directory).map_err(|errno| io("sync the filesystem")(errno.into()))
}

/// From so many objects on, one pack is cheaper than a file for each.
const PACK_OBJECTS_MIN: usize = 256;

/// Writes what the session has gathered: a few objects one by one, many as packs.
pub(super) fn write_objects(
    session: &Session<'_>,
    path: &Path,
    unsynced: &mut Unsynced,
) -> Result<()> {
    let batch: Batch = session.take_batch();
    let objects = path.join("objects");
    if batch.len() >= PACK_OBJECTS_MIN {
        return write_packs(batch, &objects);
    }
    for (id, (kind, data)) in batch {
        let file = unsynced.writer.write(&objects, id, (kind, &data))?;
        unsynced.add(file);
    }
    Ok(())
}

fn write_packs(batch: Batch, objects: &Path) -> Result<()> {
    let mut packs = Packs::new(objects)?;
    for (id, (kind, data)) in batch {
        packs.add(id, kind, &data)?;
    }
    packs.finish()
}

/// Writes as many packs as are needed.
struct Packs<'a> {
    objects: &'a Path,
    writer: PackWriter,
}

impl<'a> Packs<'a> {
    fn new(objects: &'a Path) -> Result<Self> {
        let writer = PackWriter::new(objects, Compression::BEST_SPEED)?;
        Ok(Self { objects, writer })
    }

    fn add(&mut self, id: ObjectId, kind: ObjectKind, data: &[u8]) -> Result<()> {
        if self.writer.bytes() + data.len() as u64 > PACK_BYTES_MAX {
            let next = PackWriter::new(self.objects, Compression::BEST_SPEED)?;
            std::mem::replace(&mut self.writer, next).finish()?;
        }
        self.writer.add(id, Form::Whole(kind), data).map(drop)
    }

    /// Makes them part of the repository, durably.
    fn finish(self) -> Result<()> {
        self.writer.finish().map(drop)
    }
}
