//! Keeping the number of files small: each commit leaves a few loose objects, each pull a pack.
//!
//! Objects are only ever moved: the new pack is durable before what it replaces goes, so that a reader always
//! finds an object in one place or the other, and a crash leaves at most both.

use super::files::Packs;
use super::{Repository, State};
use crate::error::{RepositoryError, Result, git, io};
use crate::session::Session;
use gix::ObjectId;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Loose objects, from which on they are packed: two hundred milliseconds of work.
const LOOSE_OBJECTS_MAX: usize = 4096;

/// Small packs, from which on they become one: each is looked into for each object that is not there.
const SMALL_PACKS_MAX: usize = 48;

/// Bytes of a pack, from which on it is left alone: the same bytes are not to be copied again and again.
const SMALL_PACK_BYTES: u64 = 32 * 1024 * 1024;

/// Commits and pulls between two counts of the files.
const MAINTAIN_EVERY: u32 = 512;

impl Repository {
    /// Puts loose objects and small packs together where there are many. Best called when idle; after so many
    /// commits and pulls it is done by itself.
    pub fn maintain(&self) -> Result<()> {
        let session = self.session();
        self.maintain_in(&session, &mut self.state())
    }

    pub(super) fn maintain_if_due(&self, session: &Session<'_>, state: &mut State) -> Result<()> {
        state.since_maintained += 1;
        if state.since_maintained < MAINTAIN_EVERY {
            return Ok(());
        }
        self.maintain_in(session, state)
    }

    fn maintain_in(&self, session: &Session<'_>, state: &mut State) -> Result<()> {
        state.since_maintained = 0;
        let objects = self.inner.path.join("objects");
        let loose = loose(&objects)?;
        if loose.len() >= LOOSE_OBJECTS_MAX {
            let store = gix::odb::loose::Store::at(&objects, gix::hash::Kind::Sha1);
            repack(&session.git().objects, &loose, &objects)?;
            for id in loose {
                let file = store.object_path(&id);
                remove(&file)?;
                state.unsynced.forget(&file);
            }
        }
        let packs = small_packs(&objects.join("pack"))?;
        if packs.len() >= SMALL_PACKS_MAX {
            join_packs(session, &packs, &objects)?;
        }
        Ok(())
    }
}

fn join_packs(session: &Session<'_>, packs: &[PathBuf], objects: &Path) -> Result<()> {
    let mut ids = BTreeSet::new();
    for pack in packs {
        let index = gix_pack::index::File::at(pack.with_extension("idx"), gix::hash::Kind::Sha1);
        let index = index.map_err(git("open a pack's index"))?;
        ids.extend(index.iter().map(|entry| entry.oid));
    }
    let written = repack(&session.git().objects, &ids, objects)?;
    for pack in packs.iter().filter(|pack| !written.contains(pack)) {
        // Nobody looks at a pack without its index.
        remove(&pack.with_extension("idx"))?;
        remove(pack)?;
    }
    Ok(())
}

/// Writes objects to new packs, and gives their paths.
fn repack(
    from: &dyn gix::objs::Find,
    ids: &BTreeSet<ObjectId>,
    objects: &Path,
) -> Result<Vec<PathBuf>> {
    let mut packs = Packs::new(objects)?;
    let mut buffer = Vec::new();
    for id in ids {
        let found = from
            .try_find(id, &mut buffer)
            .map_err(git("read an object"))?;
        let found = found.ok_or_else(|| RepositoryError::Missing(id.to_string()))?;
        packs.add(*id, found.kind, found.data)?;
    }
    packs.finish()
}

fn loose(objects: &Path) -> Result<BTreeSet<ObjectId>> {
    let store = gix::odb::loose::Store::at(objects, gix::hash::Kind::Sha1);
    store
        .iter()
        .map(|id| id.map_err(git("list objects")))
        .collect()
}

/// Packs with an index that are small.
fn small_packs(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut packs = Vec::new();
    for entry in fs::read_dir(directory).map_err(io("list packs"))? {
        let path = entry.map_err(io("list packs"))?.path();
        let is_pack = path
            .extension()
            .is_some_and(|extension| extension == "pack");
        if is_pack && path.with_extension("idx").exists() {
            let bytes = fs::metadata(&path).map_err(io("list packs"))?.len();
            packs.extend((bytes < SMALL_PACK_BYTES).then_some(path));
        }
    }
    packs.sort_unstable();
    Ok(packs)
}

fn remove(file: &Path) -> Result<()> {
    fs::remove_file(file).map_err(io(format!("remove {}", file.display())))
}
