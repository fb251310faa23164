//! Writing the tree that results from changes to another: only changed directories are written.

use crate::codec::{content_of_info, encode};
use crate::directory::{Directory, Edit, child, rewrite};
use crate::error::{RepositoryError, Result};
use crate::escape::{Shape, escape};
use crate::session::Session;
use delugefs_core::change::{Change, Changes};
use delugefs_core::entry::{Content, Kind, Placed};
use delugefs_core::ids::{EntryId, InfoHash};
use delugefs_core::name::Name;
use delugefs_core::settings::Settings;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use std::collections::{BTreeMap, BTreeSet};

/// Directories within directories: far beyond what there is, so that a cycle ends the walk.
const DEPTH_MAX: usize = 1 << 24;

/// What to do to a tree.
pub(crate) struct Request<'a> {
    pub(crate) base: ObjectId,
    pub(crate) changes: &'a Changes,
    pub(crate) settings: Option<&'a Settings>,
    /// A directory's place in the tree that results; asked for those that do not change.
    pub(crate) resolve: &'a dyn Fn(EntryId) -> Option<(EntryId, Name)>,
    /// The `info` of a content.
    pub(crate) info: &'a dyn Fn(&InfoHash) -> Result<Option<Vec<u8>>>,
}

/// Writes the tree that results, and gives its id.
pub(crate) fn apply(session: &Session<'_>, request: &Request<'_>) -> Result<ObjectId> {
    let mut work = Work {
        session,
        request,
        edits: BTreeMap::new(),
        old_trees: BTreeMap::from([(EntryId::ROOT, Some(request.base))]),
    };
    for (id, change) in request.changes.iter() {
        work.take_out(id, change)?;
    }
    for (id, change) in request.changes.iter() {
        work.put_in(id, change)?;
    }
    if let Some(settings) = request.settings {
        work.edit(EntryId::ROOT).settings = Some(settings.clone());
    }
    work.drop_removed()?;
    work.write()
}

struct Work<'a, 's, 'r> {
    session: &'s Session<'r>,
    request: &'a Request<'a>,
    edits: BTreeMap<EntryId, Edit>,
    /// Trees of directories as they are in the base; `None` for new directories.
    old_trees: BTreeMap<EntryId, Option<ObjectId>>,
}

fn place(placed: &Placed) -> (EntryId, Name) {
    (placed.parent, placed.name.clone())
}

fn is_directory(placed: &Placed) -> bool {
    placed.entry.kind == Kind::Directory
}

fn name_in_tree(placed: &Placed) -> Vec<u8> {
    escape(&placed.name, Shape::of(&placed.entry.kind))
}

impl Work<'_, '_, '_> {
    fn edit(&mut self, directory: EntryId) -> &mut Edit {
        self.edits.entry(directory).or_default()
    }

    /// Takes an entry from its old place, where it has to be.
    fn take_out(&mut self, id: EntryId, change: &Change) -> Result<()> {
        let Some(before) = change.before.as_ref().filter(|_| id != EntryId::ROOT) else {
            return Ok(());
        };
        self.check_before(id, before)?;
        let name = name_in_tree(before);
        self.edit(before.parent).items.insert(name, None);
        Ok(())
    }

    fn check_before(&mut self, id: EntryId, before: &Placed) -> Result<()> {
        let stale = RepositoryError::Stale(id);
        let Some(parent) = self.old_tree(before.parent)? else {
            return Err(stale);
        };
        let directory = Directory::open(self.session, parent)?;
        let name = name_in_tree(before);
        let item = directory.find(self.session, &name, is_directory(before))?;
        match item.map(|item| child(self.session, item)).transpose()? {
            Some(child) if child.meta.entry.id == id => Ok(()),
            _ => Err(stale),
        }
    }

    fn put_in(&mut self, id: EntryId, change: &Change) -> Result<()> {
        let Some(after) = &change.after else {
            return Ok(());
        };
        if is_directory(after) {
            let name = (id != EntryId::ROOT).then(|| after.name.clone());
            self.edit(id).own = Some((after.entry.clone(), name));
            return Ok(());
        }
        let info = self.info(id, change)?;
        let blob = encode(&after.entry, &after.name, info.as_deref());
        let blob = self.session.put(ObjectKind::Blob, blob)?;
        self.edit(after.parent)
            .items
            .insert(name_in_tree(after), Some((false, blob)));
        Ok(())
    }

    /// The `info` of a file in the swarm: as given, or as it was in the descriptor before.
    fn info(&mut self, id: EntryId, change: &Change) -> Result<Option<Vec<u8>>> {
        let content =
            |placed: &Option<Placed>| match placed.as_ref().map(|placed| &placed.entry.kind) {
                Some(Kind::File(file)) => match file.content {
                    Content::Swarm(content) => Some(content),
                    Content::Inline(_) => None,
                },
                _ => None,
            };
        let Some(wanted) = content(&change.after) else {
            return Ok(None);
        };
        let mut info = (self.request.info)(&wanted.info_hash)?;
        if info.is_none() && content(&change.before) == Some(wanted) {
            info = self.info_before(change)?;
        }
        match info {
            Some(info) if content_of_info(&info).is_ok_and(|content| content == wanted) => {
                Ok(Some(info))
            }
            _ => Err(RepositoryError::NoInfo(id)),
        }
    }

    fn info_before(&mut self, change: &Change) -> Result<Option<Vec<u8>>> {
        let Some(before) = &change.before else {
            return Ok(None);
        };
        let Some(parent) = self.old_tree(before.parent)? else {
            return Ok(None);
        };
        let directory = Directory::open(self.session, parent)?;
        match directory.find(self.session, &name_in_tree(before), false)? {
            Some(item) => Ok(self.session.decoded(item.id)?.info),
            None => Ok(None),
        }
    }

    /// A directory's tree in the base.
    fn old_tree(&mut self, id: EntryId) -> Result<Option<ObjectId>> {
        let mut path = Vec::new();
        let mut at = id;
        while !self.old_trees.contains_key(&at) {
            let place = match self.request.changes.get(at) {
                Some(change) => change.before.as_ref().map(place),
                None => (self.request.resolve)(at),
            };
            let Some((parent, name)) = place else {
                break;
            };
            path.push((at, name));
            at = parent;
            if path.len() > DEPTH_MAX {
                return Err(RepositoryError::Unreachable(id));
            }
        }
        let mut tree = self.old_trees.get(&at).copied().flatten();
        while let Some((at, name)) = path.pop() {
            tree = self.step(tree, at, &name)?;
            self.old_trees.insert(at, tree);
        }
        Ok(tree)
    }

    fn step(&self, parent: Option<ObjectId>, id: EntryId, name: &Name) -> Result<Option<ObjectId>> {
        let stale = RepositoryError::Stale(id);
        let Some(parent) = parent else {
            return Err(stale);
        };
        let directory = Directory::open(self.session, parent)?;
        match directory.find(self.session, &escape(name, Shape::Directory), true)? {
            Some(item) if Directory::open(self.session, item.id)?.meta.entry.id == id => {
                Ok(Some(item.id))
            }
            _ => Err(stale),
        }
    }

    /// A removed directory takes nothing with it: whatever was in it has to be among the changes.
    fn drop_removed(&mut self) -> Result<()> {
        for (id, change) in self.request.changes.iter() {
            let removed = change.before.as_ref().filter(|before| is_directory(before));
            if change.after.is_some() || removed.is_none() {
                continue;
            }
            let edit = self.edits.remove(&id).unwrap_or_default();
            let Some(tree) = self.old_tree(id)? else {
                return Err(RepositoryError::Stale(id));
            };
            let inside = Directory::open(self.session, tree)?.items(self.session)?;
            let emptied = inside
                .iter()
                .all(|item| edit.items.contains_key(&item.name));
            if !emptied || edit.items.values().any(Option::is_some) {
                return Err(RepositoryError::Unreachable(id));
            }
        }
        Ok(())
    }

    /// A directory's place in the tree that results.
    fn new_place(&self, id: EntryId) -> Result<(EntryId, Name)> {
        let place = match self.request.changes.get(id) {
            Some(change) => change
                .after
                .as_ref()
                .filter(|after| is_directory(after))
                .map(place),
            None => (self.request.resolve)(id),
        };
        place.ok_or(RepositoryError::Unreachable(id))
    }

    /// Each directory that changes, or has one that does below it, with its place.
    fn places(&self) -> Result<BTreeMap<EntryId, (EntryId, Name)>> {
        let mut places = BTreeMap::new();
        let mut roots = BTreeSet::from([EntryId::ROOT]);
        for start in self.edits.keys() {
            let mut at = *start;
            while roots.insert(at) {
                let place = self.new_place(at)?;
                let parent = place.0;
                places.insert(at, place);
                at = parent;
            }
        }
        Ok(places)
    }

    /// Writes directories, each after those inside it.
    fn write(mut self) -> Result<ObjectId> {
        let places = self.places()?;
        let mut waits_for: BTreeMap<EntryId, usize> = BTreeMap::new();
        for (parent, _) in places.values() {
            *waits_for.entry(*parent).or_default() += 1;
        }
        let mut ready: Vec<EntryId> = places
            .keys()
            .filter(|id| !waits_for.contains_key(id))
            .copied()
            .collect();
        let mut written = 0;
        while let Some(id) = ready.pop() {
            let Some((parent, name)) = places.get(&id) else {
                continue;
            };
            let tree = self.write_one(id)?;
            let item = (escape(name, Shape::Directory), Some((true, tree)));
            self.edit(*parent).items.extend([item]);
            written += 1;
            if let Some(left) = waits_for.get_mut(parent) {
                *left -= 1;
                if *left == 0 {
                    ready.push(*parent);
                }
            }
        }
        match places.keys().next() {
            Some(id) if written < places.len() => Err(RepositoryError::Unreachable(*id)),
            _ => self.write_one(EntryId::ROOT),
        }
    }

    fn write_one(&mut self, id: EntryId) -> Result<ObjectId> {
        let edit = self.edits.remove(&id).unwrap_or_default();
        let created = self
            .request
            .changes
            .get(id)
            .is_some_and(|change| change.before.is_none());
        match if created { None } else { self.old_tree(id)? } {
            None if !created => Err(RepositoryError::Stale(id)),
            old => rewrite(self.session, old, &edit),
        }
    }
}
