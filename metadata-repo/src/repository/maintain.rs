//! Keeping the files few and small: loose objects and small packs become larger packs, with deltas; what nothing
//! reaches goes after a while.
//!
//! This is work for a thread that nobody waits for: commits, pulls and readers go on meanwhile. A crash leaves at
//! most the same object twice, since a new pack is durable before what it replaces is removed.
//!
//! Nothing is lost that anybody may still need. Objects that neither a reference nor a remembered view leads to are
//! first moved to a pack of their own, where everybody still finds them, and go [`Upkeep::kept`] later, if a
//! look at everything shows that still nothing leads to them. Between that look and the removal somebody may have
//! made use of one: therefore the removal excludes commits, merges ([`State`]'s lock) and the part of a pull between
//! the check of what is there and the move of references ([`super::Inner::pulls`]), and looks once more at what has
//! come since. From then on everybody has a handle that does not know the removed pack: what is made again is written
//! again. What is read but not referenced (a mount's tree, for as long as a rebase does not succeed) the caller names.

use super::packs::live::{Marker, unless_missing};
use super::packs::plan::{self, Plan};
use super::packs::table::{self, Table, open_index};
use super::packs::{cache::DeltaBases, cruft, pairs, repack};
use super::{Repository, State, object_id, open_git};
use crate::error::{RepositoryError, Result, git, io};
use crate::session::{Decoders, Session};
use delugefs_core::ids::TreeId;
use delugefs_core::time::Timestamp;
use gix::ObjectId;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Commits and pulls between two counts of the files.
pub(super) const MAINTAIN_EVERY: u32 = 512;

/// Loose files removed at once, while commits wait: some milliseconds.
const REMOVED_AT_ONCE: usize = 64;

/// What [`Repository::maintain`] has to know.
#[derive(Clone, Copy)]
pub struct Upkeep<'a> {
    /// This node's clock.
    pub now: Timestamp,
    /// Trees in use to which perhaps no reference leads any more: what the mount shows.
    pub in_use: &'a [TreeId],
    /// How long an object is kept after it was found unreachable.
    pub kept: Duration,
    /// Whether to join whatever can be and to look for what nothing reaches, even where there is little of it.
    pub thorough: bool,
    /// Asked now and then; ends the work, without harm, when it says so.
    pub stop: &'a dyn Fn() -> bool,
}

/// The files that objects are in.
struct Stock {
    loose: Vec<ObjectId>,
    /// Each with its number of objects.
    packs: Vec<(PathBuf, u64)>,
    cruft: Vec<PathBuf>,
}

/// What is to become of the objects of a table, by their numbers.
#[derive(Default)]
struct Fates {
    live: Vec<bool>,
    /// Unreachable, and kept: since when.
    cruft: BTreeMap<ObjectId, u32>,
    /// Unreachable for long.
    gone: Vec<ObjectId>,
}

/// A join under way.
struct Join<'a, 's, 'r> {
    repository: &'a Repository,
    session: &'s Session<'r>,
    upkeep: &'a Upkeep<'a>,
    objects: &'a Path,
    /// What becomes one.
    packs: Vec<PathBuf>,
    cruft: Vec<PathBuf>,
    loose: Vec<ObjectId>,
}

impl Repository {
    /// Whether enough has happened since the last time that [`Repository::maintain`] may find something to do.
    pub fn wants_maintenance(&self) -> bool {
        self.inner.since_maintained.load(Ordering::Relaxed) >= MAINTAIN_EVERY
    }

    /// Puts loose objects and small packs together where there are many, and lets go of what nothing has reached
    /// for long. May take minutes, and is in nobody's way; a second call at the same time does nothing. After
    /// [`RepositoryError::NotDurable`] nothing was removed, and nothing more is committed.
    pub fn maintain(&self, upkeep: &Upkeep<'_>) -> Result<()> {
        let Ok(_alone) = self.inner.maintaining.try_lock() else {
            return Ok(());
        };
        self.inner.since_maintained.store(0, Ordering::Relaxed);
        let objects = self.inner.path.join("objects");
        let stock = Stock::list(&objects)?;
        let sizes: Vec<u64> = stock.packs.iter().map(|(_, objects)| *objects).collect();
        let plan = match upkeep.thorough {
            true => Some(plan::all(&sizes, stock.loose.len())),
            false => plan::plan(&sizes, stock.loose.len()),
        };
        let Some(Plan { packs, sweep }) = plan else {
            return Ok(());
        };
        let decoders = Decoders::new();
        let mut handle = self.git_handle();
        handle
            .objects
            .set_pack_cache(|| Box::new(DeltaBases::new()));
        let join = Join {
            repository: self,
            session: &Session::new(&decoders, handle),
            upkeep,
            objects: &objects,
            packs: packs
                .iter()
                .map(|pack| stock.packs[*pack].0.clone())
                .collect(),
            cruft: if sweep { stock.cruft } else { Vec::new() },
            loose: stock.loose,
        };
        let all: Vec<_> = stock.packs.into_iter().map(|(path, _)| path).collect();
        let marker = match sweep {
            true => Some(join.marker(&all)?),
            false => None,
        };
        match join.run(marker) {
            Err(error @ RepositoryError::NotDurable(_)) => {
                let mut state = self.state();
                state.unsynced.believe(&self.inner.path, Err(error))
            }
            done => done,
        }
    }
}

impl<'s, 'r> Join<'_, 's, 'r> {
    fn marker(&self, packs: &[PathBuf]) -> Result<Marker<'s, 'r>> {
        let known = packs.iter().chain(&self.cruft).map(PathBuf::as_path);
        Marker::new(self.session, known)
    }

    fn run(self, mut marker: Option<Marker<'_, '_>>) -> Result<()> {
        let sources: Vec<PathBuf> = self.packs.iter().chain(&self.cruft).cloned().collect();
        let mut table = Table::read(&sources, &self.loose, self.objects)?;
        let fates = match &mut marker {
            Some(marker) => self.fates(&table, marker)?,
            None => Fates::all_live(&table),
        };
        pairs::link(&mut table, (self.session, &fates.live), self.upkeep.stop)?;
        let written = self.write(&table, &fates)?;
        drop(table);
        let is_replaced = |pack: &&PathBuf| !written.contains(pack);
        for pack in self.packs.iter().filter(is_replaced) {
            remove_pack(pack)?;
        }
        self.remove_loose()?;
        let cruft: Vec<_> = self.cruft.iter().filter(is_replaced).collect();
        match marker {
            Some(marker) if !fates.gone.is_empty() => self.let_go(marker, &fates.gone, &cruft),
            _ => cruft.into_iter().try_for_each(|pack| remove_pack(pack)),
        }
    }

    /// Marks what is in use, and sorts the objects by that.
    fn fates(&self, table: &Table, marker: &mut Marker<'_, '_>) -> Result<Fates> {
        let roots = self.roots(&self.repository.state())?;
        match self.mark(marker, roots) {
            Err(RepositoryError::Stopped) => return Err(RepositoryError::Stopped),
            Err(error) => {
                tracing::error!("nothing is removed from the names' history: {error}");
                return Ok(Fates::all_live(table));
            }
            Ok(()) => {}
        }
        let now = cruft::time(self.upkeep.now.seconds);
        let kept = u32::try_from(self.upkeep.kept.as_secs()).unwrap_or(u32::MAX);
        let since = self.since()?;
        let mut fates = Fates::default();
        for object in table.objects() {
            let is_live = marker.is_live(&object.id);
            fates.live.push(is_live);
            let since = since.get(&object.id).copied().unwrap_or(now);
            if is_live {
                continue;
            }
            if since.saturating_add(kept) < now {
                fates.gone.push(object.id);
            } else {
                fates.cruft.insert(object.id, since);
            }
        }
        Ok(fates)
    }

    /// Since when objects are unreachable that are nowhere but in cruft packs: what has been written again since is
    /// perhaps about to be used.
    fn since(&self) -> Result<BTreeMap<ObjectId, u32>> {
        let mut since = BTreeMap::new();
        for pack in &self.cruft {
            since.extend(cruft::read(pack)?);
        }
        for pack in &self.packs {
            let index = open_index(pack)?;
            since.retain(|id, _| index.lookup(id).is_none());
        }
        since.retain(|id, _| self.loose.binary_search(id).is_err());
        Ok(since)
    }

    fn roots(&self, state: &State) -> Result<Roots> {
        let platform = self.session.git().references();
        let platform = platform.map_err(git("list references"))?;
        let mut commits = vec![self.repository.inner.genesis];
        for reference in platform.all().map_err(git("list references"))? {
            let reference = reference.map_err(git("read a reference"))?;
            commits.extend(reference.target().try_id().map(ToOwned::to_owned));
        }
        let in_use = self.upkeep.in_use.iter().map(TreeId::as_bytes);
        let shown = self.repository.view().tree;
        let mut trees = vec![object_id(shown.as_bytes())];
        trees.extend(in_use.map(object_id));
        trees.extend(state.views.values());
        Ok(Roots { commits, trees })
    }

    /// Marks what references, remembered views and the caller's trees lead to.
    fn mark(&self, marker: &mut Marker<'_, '_>, roots: Roots) -> Result<()> {
        marker.commits(roots.commits, self.upkeep.stop)?;
        for tree in roots.trees {
            // A view may be remembered whose trees could not be written.
            if unless_missing(marker.tree(tree))?.is_none() {
                tracing::warn!("the tree {tree} of an earlier view is not whole");
            }
        }
        Ok(())
    }

    fn write(&self, table: &Table, fates: &Fates) -> Result<Vec<PathBuf>> {
        let to = (self.session.git(), self.objects);
        let stop = self.upkeep.stop;
        let mut written = repack::write(table, &fates.live, to, (&|_, _| Ok(None), stop))?;
        let is_cruft = |object: &super::packs::table::Object| fates.cruft.contains_key(&object.id);
        let kept: Vec<bool> = table.objects().iter().map(is_cruft).collect();
        let times = |ids: &[ObjectId], pack| {
            let times = ids.iter().map(|id| fates.cruft.get(id).copied());
            let times: Vec<u32> = times.map(Option::unwrap_or_default).collect();
            Ok(Some((cruft::EXTENSION, cruft::encode(&times, pack)?)))
        };
        written.extend(repack::write(table, &kept, to, (&times, stop))?);
        Ok(written)
    }

    fn remove_loose(&self) -> Result<()> {
        let store = gix::odb::loose::Store::at(self.objects, gix::hash::Kind::Sha1);
        for some in self.loose.chunks(REMOVED_AT_ONCE) {
            let mut state = self.repository.state();
            for id in some {
                let file = store.object_path(id);
                remove(&file)?;
                state.unsynced.forget(&file);
            }
        }
        Ok(())
    }

    /// Removes packs in which something is that is nowhere else, unless it has come into use since.
    fn let_go(
        &self,
        mut marker: Marker<'_, '_>,
        gone: &[ObjectId],
        packs: &[&PathBuf],
    ) -> Result<()> {
        // What has come since is mostly looked at here, while nobody waits.
        let roots = self.roots(&self.repository.state())?;
        self.mark(&mut marker, roots)?;
        let inner = &self.repository.inner;
        let _no_pull = self.repository.no_pull();
        let state = self.repository.state();
        self.mark(&mut marker, self.roots(&state)?)?;
        if gone.iter().any(|id| marker.is_live(id)) {
            return Ok(());
        }
        // Made before, so that no error comes after; it looks at the disk when it is first used.
        let fresh = open_git(&inner.path)?;
        for pack in packs {
            remove_pack(pack)?;
        }
        *inner.git.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        tracing::debug!("{} objects that nothing needs are gone", gone.len());
        Ok(())
    }
}

/// Where marking begins.
struct Roots {
    commits: Vec<ObjectId>,
    trees: Vec<ObjectId>,
}

impl Fates {
    fn all_live(table: &Table) -> Self {
        Self {
            live: vec![true; table.objects().len()],
            ..Self::default()
        }
    }
}

impl Stock {
    fn list(objects: &Path) -> Result<Self> {
        let mut stock = Self {
            loose: loose(objects)?,
            packs: Vec::new(),
            cruft: Vec::new(),
        };
        for (path, objects) in table::packs(objects)? {
            if cruft::is_cruft(&path)? {
                stock.cruft.push(path);
            } else {
                stock.packs.push((path, objects));
            }
        }
        Ok(stock)
    }
}

/// All loose objects, sorted.
fn loose(objects: &Path) -> Result<Vec<ObjectId>> {
    let store = gix::odb::loose::Store::at(objects, gix::hash::Kind::Sha1);
    let ids = store.iter().map(|id| id.map_err(git("list objects")));
    let mut ids = ids.collect::<Result<Vec<_>>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// Nobody looks at a pack without its index, which therefore goes first.
fn remove_pack(pack: &Path) -> Result<()> {
    remove(&pack.with_extension("idx"))?;
    remove(pack)?;
    if cruft::is_cruft(pack)? {
        remove(&pack.with_extension(cruft::EXTENSION))?;
    }
    Ok(())
}

fn remove(file: &Path) -> Result<()> {
    fs::remove_file(file).map_err(io(format!("remove {}", file.display())))
}
