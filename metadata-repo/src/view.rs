//! What a set of heads shows: a pure function of the heads, and the same on every node.
//!
//! Several heads are folded in id order with the core's three-way merge; the base of each step is the same
//! function, applied to the maximal commits that both sides have in common. Results are remembered.

use crate::apply::{Request, apply};
use crate::cache::Cache;
use crate::codec::settings;
use crate::diff::{Side, Sides, sides};
use crate::directory::{Child, Directory};
use crate::error::{RepositoryError, Result, malformed};
use crate::history::common;
use crate::session::Session;
use delugefs_core::change::Changes;
use delugefs_core::entry::{Content, Kind, Placed};
use delugefs_core::ids::{EntryId, InfoHash};
use delugefs_core::merge::{Tree, merge};
use delugefs_core::name::Name;
use delugefs_core::past::imported;
use delugefs_core::settings::Settings;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Remembered views: enough for a long burst of several writers, whose merges rest on one another.
const VIEWS_MAX: usize = 4096;

/// Trees of sets of heads.
pub(crate) type Views = Cache<BTreeSet<ObjectId>, ObjectId>;

pub(crate) fn new_views() -> Views {
    Cache::new(VIEWS_MAX)
}

/// The tree that these heads show; there is at least one.
pub(crate) fn tree_of(
    session: &Session<'_>,
    views: &mut Views,
    heads: &BTreeSet<ObjectId>,
) -> Result<ObjectId> {
    // Bases rest on older bases: a list instead of recursion, since a long burst has many.
    let mut wanted = vec![heads.clone()];
    let mut tree = None;
    while let Some(heads) = wanted.last() {
        let step = step(session, views, heads)?;
        match step {
            Step::Tree(found) => {
                views.insert(heads.clone(), found, 1);
                tree = Some(found);
                wanted.pop();
            }
            Step::First(bases) => wanted.push(bases),
        }
    }
    tree.ok_or_else(|| RepositoryError::Missing("a head".to_owned()))
}

enum Step {
    Tree(ObjectId),
    /// This set's tree is needed first.
    First(BTreeSet<ObjectId>),
}

fn step(session: &Session<'_>, views: &mut Views, heads: &BTreeSet<ObjectId>) -> Result<Step> {
    if let Some(tree) = views.get(heads, |_| 1) {
        return Ok(Step::Tree(tree));
    }
    let ordered: Vec<ObjectId> = heads.iter().copied().collect();
    let [first, rest @ ..] = &ordered[..] else {
        return Err(RepositoryError::Missing("a head".to_owned()));
    };
    let mut bases = Vec::new();
    for (index, head) in rest.iter().enumerate() {
        let common = common(session, &ordered[..=index], *head)?;
        match (views.get(&common, |_| 1), common.first()) {
            (Some(tree), _) => bases.push(tree),
            (None, Some(only)) if common.len() == 1 => bases.push(session.commit(*only)?.tree),
            (None, Some(_)) => return Ok(Step::First(common)),
            (None, None) => return Err(malformed(head, "of another volume")),
        }
    }
    let mut tree = session.commit(*first)?.tree;
    for (head, base) in rest.iter().zip(bases) {
        tree = merge_trees(session, base, tree, session.commit(*head)?.tree)?;
    }
    Ok(Step::Tree(tree))
}

/// The three-way merge of trees.
fn merge_trees(
    session: &Session<'_>,
    base: ObjectId,
    left: ObjectId,
    right: ObjectId,
) -> Result<ObjectId> {
    let trivial = [
        (left == right || right == base, left),
        (left == base, right),
    ];
    if let Some((_, tree)) = trivial.into_iter().find(|(is_so, _)| *is_so) {
        return Ok(tree);
    }
    merge_sides(session, base, (left, right), |changes| changes)
}

/// A tree with what another one has created and edited since a base ([`imported`]).
pub(crate) fn import_tree(
    session: &Session<'_>,
    base: ObjectId,
    (today, returning): (ObjectId, ObjectId),
) -> Result<ObjectId> {
    merge_sides(session, base, (today, returning), |changes| {
        imported(&changes)
    })
}

/// The merge of one side with what `brought` leaves of the other's changes.
fn merge_sides(
    session: &Session<'_>,
    base: ObjectId,
    (left, right): (ObjectId, ObjectId),
    brought: impl FnOnce(Changes) -> Changes,
) -> Result<ObjectId> {
    let (left_sides, right_sides) = (sides(session, base, left)?, sides(session, base, right)?);
    let (left_changes, right_changes) = (left_sides.changes(), brought(right_sides.changes()));
    let infos = infos(&[&left_sides.to, &right_sides.to]);
    let tree = Base::new(session, [left_sides, right_sides]);
    let changes = merge(&tree, &left_changes, &right_changes)?;
    let settings = merge_settings(session, [base, left, right])?;
    write_merged(session, base, (&tree, &changes), &infos, settings.as_ref())
}

fn write_merged(
    session: &Session<'_>,
    base: ObjectId,
    (tree, changes): (&Base<'_, '_>, &Changes),
    infos: &BTreeMap<InfoHash, ObjectId>,
    settings: Option<&Settings>,
) -> Result<ObjectId> {
    let info = |hash: &InfoHash| match infos.get(hash) {
        Some(blob) => Ok(session.decoded(*blob)?.info),
        None => Ok(None),
    };
    let request = Request {
        base,
        changes,
        settings,
        resolve: &|id| tree.directory_place(id),
        info: &info,
    };
    apply(session, &request)
}

/// Descriptors with the `info` of each content that the sides name.
fn infos(sides: &[&Side]) -> BTreeMap<InfoHash, ObjectId> {
    let mut infos = BTreeMap::new();
    for found in sides.iter().flat_map(|side| side.found.values()) {
        if let Kind::File(file) = &found.placed.entry.kind
            && let Content::Swarm(content) = file.content
        {
            infos.insert(content.info_hash, found.object);
        }
    }
    infos
}

/// The settings in a root tree.
pub(crate) fn settings_of(session: &Session<'_>, tree: ObjectId) -> Result<Settings> {
    let blob = Directory::open(session, tree)?.volume();
    let blob = blob.ok_or_else(|| malformed(tree, "no %volume"))?;
    settings::decode(&session.object(blob, ObjectKind::Blob)?).map_err(|source| {
        RepositoryError::Codec {
            object: blob.to_string(),
            source,
        }
    })
}

/// The merged settings, where they differ from the base's: each setting by itself, the left side's change first.
fn merge_settings(session: &Session<'_>, trees: [ObjectId; 3]) -> Result<Option<Settings>> {
    let [base, left, right] = trees.map(|tree| settings_of(session, tree));
    let (base, left, right) = (base?, left?, right?);
    let merged = Settings {
        volume: base.volume,
        name: base.name.clone(),
        copies: pick(&base.copies, left.copies, right.copies),
        grace: pick(&base.grace, left.grace, right.grace),
        keep: pick(&base.keep, left.keep, right.keep),
        wait: pick(&base.wait, left.wait, right.wait),
        inline_max: pick(&base.inline_max, left.inline_max, right.inline_max),
        history: pick(&base.history, left.history, right.history),
        retire: pick(&base.retire, left.retire, right.retire),
        boundary: left.boundary.max(right.boundary),
    };
    Ok((merged != base).then_some(merged))
}

fn pick<T: PartialEq>(base: &T, left: T, right: T) -> T {
    if left == *base { right } else { left }
}

/// The base of a merge, as far as the sides' differences reach.
struct Base<'s, 'r> {
    session: &'s Session<'r>,
    places: RefCell<BTreeMap<EntryId, (Placed, ObjectId)>>,
}

impl<'s, 'r> Base<'s, 'r> {
    fn new(session: &'s Session<'r>, sides: [Sides; 2]) -> Self {
        let found = sides.into_iter().flat_map(|sides| sides.from.found);
        let places = found.map(|(id, found)| (id, (found.placed, found.object)));
        let places = RefCell::new(places.collect());
        Self { session, places }
    }

    fn directory_place(&self, id: EntryId) -> Option<(EntryId, Name)> {
        let places = self.places.borrow();
        places
            .get(&id)
            .map(|(placed, _)| (placed.parent, placed.name.clone()))
    }

    fn open(&self, id: EntryId) -> Result<Option<Directory>> {
        let tree = match self.places.borrow().get(&id) {
            Some((placed, tree)) if placed.entry.kind == Kind::Directory => *tree,
            _ => return Ok(None),
        };
        Directory::open(self.session, tree).map(Some)
    }

    fn remember(&self, parent: EntryId, child: Child) -> Placed {
        let Child { item, name, meta } = child;
        let entry = meta.entry.clone();
        let placed = Placed {
            parent,
            name,
            entry,
        };
        let known = (placed.clone(), item.id);
        self.places.borrow_mut().insert(placed.entry.id, known);
        placed
    }
}

impl Tree for Base<'_, '_> {
    type Error = RepositoryError;

    fn place(&self, id: EntryId) -> Result<Option<Placed>> {
        Ok(self
            .places
            .borrow()
            .get(&id)
            .map(|(placed, _)| placed.clone()))
    }

    fn child(&self, directory: EntryId, name: &Name) -> Result<Option<Placed>> {
        let Some(opened) = self.open(directory)? else {
            return Ok(None);
        };
        let child = opened.child(self.session, name)?;
        Ok(child.map(|child| self.remember(directory, child)))
    }

    fn children(&self, directory: EntryId) -> Result<Vec<Placed>> {
        let Some(opened) = self.open(directory)? else {
            return Ok(Vec::new());
        };
        let children = opened.children(self.session)?;
        Ok(children
            .into_iter()
            .map(|child| self.remember(directory, child))
            .collect())
    }
}
