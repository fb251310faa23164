//! Directories as Git trees: `%dir`, the names, and subtrees that spread the names of a large directory.
//!
//! Up to [`LEAF_ITEMS_MAX`] names are in the directory's own tree. Beyond, they are spread over subtrees
//! `%-0` to `%-f`, by the first bits of the hash of the name in the tree, and again one level below, up to
//! four levels: a change rewrites one small tree on each level. `%dir` says how many bits are in use; a
//! directory never goes back to fewer.

use crate::codec::{self, settings};
use crate::error::{RepositoryError, Result, malformed};
use crate::escape::{
    BUCKET_PREFIX, DIRECTORY_BLOB, Shape, Unescaped, VOLUME_BLOB, escape, unescape_blob,
    unescape_directory,
};
use crate::node::{Item, Node};
use crate::session::{Meta, Session};
use delugefs_core::entry::{Entry, Kind};
use delugefs_core::name::Name;
use delugefs_core::settings::Settings;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names in one tree; with about 60 bytes each, a change costs at most 15 KiB, mostly a few.
const LEAF_ITEMS_MAX: usize = 256;

const BITS_PER_LEVEL: u8 = 4;

/// A directory's tree, opened.
pub(crate) struct Directory {
    top: Arc<Node>,
    own: ObjectId,
    /// The entry, whole name and fan-out in `%dir`.
    pub(crate) meta: Arc<Meta>,
}

/// A name in a directory, with what its blob says.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) item: Item,
    pub(crate) name: Name,
    pub(crate) meta: Arc<Meta>,
}

impl Directory {
    pub(crate) fn open(session: &Session<'_>, tree: ObjectId) -> Result<Self> {
        let top = session.node(tree)?;
        let own = top
            .find(DIRECTORY_BLOB, false)
            .ok_or_else(|| malformed(tree, "no %dir"))?
            .id;
        let meta = session.meta(own)?;
        if meta.entry.kind != Kind::Directory || !meta.fan_out.is_multiple_of(BITS_PER_LEVEL) {
            return Err(malformed(own, "%dir describes no directory"));
        }
        Ok(Self { top, own, meta })
    }

    fn levels(&self) -> u8 {
        self.meta.fan_out / BITS_PER_LEVEL
    }

    /// All names, in the trees' order.
    pub(crate) fn items(&self, session: &Session<'_>) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        collect(session, &self.top, self.levels(), &mut items)?;
        Ok(items)
    }

    /// The item of that name in the tree.
    pub(crate) fn find(
        &self,
        session: &Session<'_>,
        name: &[u8],
        is_tree: bool,
    ) -> Result<Option<Item>> {
        let spread = spread(name);
        let mut node = Arc::clone(&self.top);
        for level in 0..self.levels() {
            match node.find(&bucket(spread, level), true) {
                None => return Ok(None),
                Some(item) => node = session.node(item.id)?,
            }
        }
        Ok(node.find(name, is_tree).cloned())
    }

    /// The blob with the volume's settings, of the root.
    pub(crate) fn volume(&self) -> Option<ObjectId> {
        self.top.find(VOLUME_BLOB, false).map(|item| item.id)
    }

    /// Names that one directory has and the other has not, or with another id: (here, there).
    pub(crate) fn differences(
        &self,
        session: &Session<'_>,
        other: &Self,
    ) -> Result<(Vec<Item>, Vec<Item>)> {
        let mut here = Vec::new();
        let mut there = Vec::new();
        if self.levels() == other.levels() {
            let nodes = (&*self.top, &*other.top);
            differ(session, nodes, self.levels(), &mut (&mut here, &mut there))?;
        } else {
            here = self.items(session)?;
            there = other.items(session)?;
        }
        cancel_equal(&mut here, &mut there);
        Ok((here, there))
    }

    /// All entries, with what their blobs say. Each name once.
    pub(crate) fn children(&self, session: &Session<'_>) -> Result<Vec<Child>> {
        let mut children = BTreeMap::new();
        for item in self.items(session)? {
            let id = item.id;
            let child = child(session, item)?;
            if children.insert(child.name.clone(), child).is_some() {
                return Err(malformed(id, "a name is there twice"));
            }
        }
        Ok(children.into_values().collect())
    }

    /// The entry of that name, of whatever kind.
    pub(crate) fn child(&self, session: &Session<'_>, name: &Name) -> Result<Option<Child>> {
        for shape in [Shape::File, Shape::Directory, Shape::Node] {
            let is_tree = shape == Shape::Directory;
            if let Some(item) = self.find(session, &escape(name, shape), is_tree)? {
                return child(session, item).map(Some);
            }
        }
        Ok(None)
    }
}

/// Reads the blob or `%dir` of an item, which has to agree with the item's name.
pub(crate) fn child(session: &Session<'_>, item: Item) -> Result<Child> {
    let (shape, unescaped, meta) = if item.is_tree {
        let name = unescape_directory(&item.name);
        (
            Shape::Directory,
            name,
            Directory::open(session, item.id)?.meta,
        )
    } else {
        match unescape_blob(&item.name) {
            Some((shape, name)) => (shape, Some(name), session.meta(item.id)?),
            None => {
                return Err(malformed(
                    item.id,
                    "a name that this program does not write",
                ));
            }
        }
    };
    let name = match (unescaped, &meta.name) {
        (Some(Unescaped::Whole(name)), None) => name,
        (Some(Unescaped::Cut), Some(name)) if escape(name, shape) == item.name => name.clone(),
        _ => return Err(malformed(item.id, "a name that does not fit its entry")),
    };
    if Shape::of(&meta.entry.kind) != shape {
        return Err(malformed(
            item.id,
            "an entry of another kind than its name says",
        ));
    }
    Ok(Child { item, name, meta })
}

/// Which way through the levels a name goes: four bits for each, the highest first.
fn spread(name: &[u8]) -> u16 {
    let hash = blake3::hash(name);
    u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])
}

fn bucket(spread: u16, level: u8) -> [u8; 3] {
    let digit = (spread >> (12 - BITS_PER_LEVEL * level)) & 0xf;
    [
        BUCKET_PREFIX[0],
        BUCKET_PREFIX[1],
        b"0123456789abcdef"[usize::from(digit)],
    ]
}

fn is_bucket(item: &Item) -> bool {
    item.is_tree
        && item.name.len() == 3
        && item.name.starts_with(BUCKET_PREFIX)
        && matches!(item.name[2], b'0'..=b'9' | b'a'..=b'f')
}

/// `%dir` and `%volume`.
fn is_own(item: &Item) -> bool {
    !item.is_tree && (item.name == DIRECTORY_BLOB || item.name == VOLUME_BLOB)
}

fn collect(session: &Session<'_>, node: &Node, levels: u8, items: &mut Vec<Item>) -> Result<()> {
    for item in node.items().iter().filter(|item| !is_own(item)) {
        match (levels, is_bucket(item)) {
            (0, false) => items.push(item.clone()),
            (1.., true) => collect(session, &*session.node(item.id)?, levels - 1, items)?,
            _ => {
                return Err(malformed(
                    item.id,
                    "a name on the wrong level of its directory",
                ));
            }
        }
    }
    Ok(())
}

type Both<'v> = (&'v mut Vec<Item>, &'v mut Vec<Item>);

fn differ(
    session: &Session<'_>,
    nodes: (&Node, &Node),
    levels: u8,
    found: &mut Both<'_>,
) -> Result<()> {
    let mut here: Vec<Item> = nodes
        .0
        .items()
        .iter()
        .filter(|item| !is_own(item))
        .cloned()
        .collect();
    let mut there: Vec<Item> = nodes
        .1
        .items()
        .iter()
        .filter(|item| !is_own(item))
        .cloned()
        .collect();
    cancel_equal(&mut here, &mut there);
    if levels == 0 {
        found.0.append(&mut here);
        found.1.append(&mut there);
        return Ok(());
    }
    let mut pairs: BTreeMap<Vec<u8>, [Option<ObjectId>; 2]> = BTreeMap::new();
    for (side, items) in [here, there].into_iter().enumerate() {
        for item in items {
            if !is_bucket(&item) {
                return Err(malformed(
                    item.id,
                    "a name on the wrong level of its directory",
                ));
            }
            pairs.entry(item.name).or_default()[side] = Some(item.id);
        }
    }
    for sides in pairs.into_values() {
        let [here, there] =
            sides.map(|id| id.map_or_else(|| Ok(Arc::default()), |id| session.node(id)));
        differ(session, (&*here?, &*there?), levels - 1, found)?;
    }
    Ok(())
}

/// Drops what is in both lists.
fn cancel_equal(here: &mut Vec<Item>, there: &mut Vec<Item>) {
    let key = |item: &Item| (item.name.clone(), item.is_tree, item.id);
    let left: std::collections::HashSet<_> = here.iter().map(key).collect();
    let right: std::collections::HashSet<_> = there.iter().map(key).collect();
    here.retain(|item| !right.contains(&key(item)));
    there.retain(|item| !left.contains(&key(item)));
}

/// What shall differ in a directory.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    /// The directory's new attributes and name; `None` leaves `%dir`.
    pub(crate) own: Option<(Entry, Option<Name>)>,
    /// New settings, in the root.
    pub(crate) settings: Option<Settings>,
    /// Names in the tree: a new object, or none.
    pub(crate) items: BTreeMap<Vec<u8>, Option<(bool, ObjectId)>>,
}

/// Writes a directory's tree anew, from the tree it had (none for a new directory).
pub(crate) fn rewrite(
    session: &Session<'_>,
    old: Option<ObjectId>,
    edit: &Edit,
) -> Result<ObjectId> {
    let old = old.map(|tree| Directory::open(session, tree)).transpose()?;
    let mut levels = match &old {
        Some(directory) => directory.levels(),
        None => levels_for(edit.items.len()),
    };
    let top = old
        .as_ref()
        .map_or_else(Default::default, |directory| Arc::clone(&directory.top));
    let operations: Vec<Operation<'_>> = edit
        .items
        .iter()
        .map(|(n, to)| Operation::new(n, *to))
        .collect();
    let mut writer = Writer {
        session,
        overfull: false,
    };
    let mut items = writer.update(&top, levels, 0, &operations)?;
    if writer.overfull {
        let mut all = match &old {
            Some(directory) => directory.items(session)?,
            None => Vec::new(),
        };
        all.retain(|item| !edit.items.contains_key(&item.name));
        let kept = all
            .iter()
            .map(|item| Operation::new(&item.name, Some((item.is_tree, item.id))));
        let everything: Vec<Operation<'_>> = operations.into_iter().chain(kept).collect();
        levels = levels_for(everything.len()).max(levels + 1).min(LEVELS_MAX);
        items = Writer {
            session,
            overfull: false,
        }
        .update(&Node::default(), levels, 0, &everything)?;
    }
    items.extend(own_items(session, old.as_ref(), edit, levels)?);
    session.put_node(Node::new(items))
}

const LEVELS_MAX: u8 = codec::FAN_OUT_BITS_MAX / BITS_PER_LEVEL;

fn levels_for(names: usize) -> u8 {
    (0..LEVELS_MAX)
        .find(|levels| names <= LEAF_ITEMS_MAX << (BITS_PER_LEVEL * levels))
        .unwrap_or(LEVELS_MAX)
}

fn own_items(
    session: &Session<'_>,
    old: Option<&Directory>,
    edit: &Edit,
    levels: u8,
) -> Result<Vec<Item>> {
    let blob = |name: &[u8], id| Item {
        name: name.to_vec(),
        is_tree: false,
        id,
    };
    let own = match (&edit.own, old) {
        (None, Some(old)) if old.levels() == levels => old.own,
        (None, Some(old)) => put_own(session, &old.meta.entry, old.meta.name.as_ref(), levels)?,
        (Some((entry, name)), _) => put_own(session, entry, name.as_ref(), levels)?,
        (None, None) => return Err(RepositoryError::Missing("%dir".to_owned())),
    };
    let volume = match (&edit.settings, old) {
        (Some(settings), _) => Some(session.put(ObjectKind::Blob, settings::encode(settings))?),
        (None, old) => old.and_then(Directory::volume),
    };
    let mut items = vec![blob(DIRECTORY_BLOB, own)];
    items.extend(volume.map(|id| blob(VOLUME_BLOB, id)));
    Ok(items)
}

fn put_own(
    session: &Session<'_>,
    entry: &Entry,
    name: Option<&Name>,
    levels: u8,
) -> Result<ObjectId> {
    let blob = codec::encode_directory(entry, name, levels * BITS_PER_LEVEL);
    session.put(ObjectKind::Blob, blob)
}

#[derive(Clone, Copy)]
struct Operation<'n> {
    spread: u16,
    name: &'n [u8],
    to: Option<(bool, ObjectId)>,
}

impl<'n> Operation<'n> {
    fn new(name: &'n [u8], to: Option<(bool, ObjectId)>) -> Self {
        Self {
            spread: spread(name),
            name,
            to,
        }
    }
}

struct Writer<'s, 'r> {
    session: &'s Session<'r>,
    /// Some tree has more names than it should, and there are levels left.
    overfull: bool,
}

impl Writer<'_, '_> {
    /// The items of a node after some operations; `levels` are left below it.
    fn update(
        &mut self,
        node: &Node,
        levels: u8,
        level: u8,
        operations: &[Operation<'_>],
    ) -> Result<Vec<Item>> {
        let present = node.items().iter().filter(|item| !is_own(item));
        let mut items: BTreeMap<&[u8], Item> =
            present.map(|item| (&item.name[..], item.clone())).collect();
        if levels == 0 {
            for operation in operations {
                items.remove(operation.name);
                if let Some((is_tree, id)) = operation.to {
                    let name = operation.name.to_vec();
                    items.insert(operation.name, Item { name, is_tree, id });
                }
            }
            self.overfull |= items.len() > LEAF_ITEMS_MAX && level < LEVELS_MAX;
            return Ok(items.into_values().collect());
        }
        let mut buckets: BTreeMap<[u8; 3], Vec<Operation<'_>>> = BTreeMap::new();
        for operation in operations {
            buckets
                .entry(bucket(operation.spread, level))
                .or_default()
                .push(*operation);
        }
        let mut changed = Vec::new();
        for (name, operations) in buckets {
            let below = match items.remove(&name[..]) {
                Some(item) => self.session.node(item.id)?,
                None => Arc::default(),
            };
            let below = self.update(&below, levels - 1, level + 1, &operations)?;
            if !below.is_empty() {
                let id = self.session.put_node(Node::new(below))?;
                changed.push(Item {
                    name: name.to_vec(),
                    is_tree: true,
                    id,
                });
            }
        }
        Ok(items.into_values().chain(changed).collect())
    }
}
