//! A Git tree object, decoded.

use crate::error::{Result, malformed};
use gix::ObjectId;
use gix::objs::tree::{EntryKind, name_order};
use gix::objs::{TreeRefIter, WriteTo as _};

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) name: Vec<u8>,
    pub(crate) is_tree: bool,
    pub(crate) id: ObjectId,
}

/// A tree's names, in Git's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Node {
    items: Vec<Item>,
}

impl Node {
    /// Sorts items of distinct names.
    pub(crate) fn new(mut items: Vec<Item>) -> Self {
        items.sort_by(|a, b| name_order(&a.name, a.is_tree, &b.name, b.is_tree));
        Self { items }
    }

    /// Reads a tree object: sorted, only plain files and trees.
    pub(crate) fn parse(id: ObjectId, data: &[u8]) -> Result<Self> {
        let mut items: Vec<Item> = Vec::new();
        for entry in TreeRefIter::from_bytes(data, gix::hash::Kind::Sha1) {
            let entry = entry.map_err(|error| malformed(id, error.to_string()))?;
            let is_tree = match entry.mode.kind() {
                EntryKind::Tree => true,
                EntryKind::Blob => false,
                _ => return Err(malformed(id, "neither a file nor a tree")),
            };
            let name = entry.filename.to_vec();
            let sorted = items
                .last()
                .is_none_or(|last| name_order(&last.name, last.is_tree, &name, is_tree).is_lt());
            if !sorted {
                return Err(malformed(id, "names not sorted or not unique"));
            }
            items.push(Item {
                name,
                is_tree,
                id: entry.oid.to_owned(),
            });
        }
        Ok(Self { items })
    }

    pub(crate) fn write(&self) -> Result<Vec<u8>> {
        let kind = |is_tree| {
            if is_tree {
                EntryKind::Tree
            } else {
                EntryKind::Blob
            }
        };
        let entry = |item: &Item| gix::objs::tree::Entry {
            mode: kind(item.is_tree).into(),
            filename: item.name.clone().into(),
            oid: item.id,
        };
        let tree = gix::objs::Tree {
            entries: self.items.iter().map(entry).collect(),
        };
        let mut data = Vec::new();
        tree.write_to(&mut data)
            .map_err(crate::error::git("write a tree"))?;
        Ok(data)
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(crate) fn find(&self, name: &[u8], is_tree: bool) -> Option<&Item> {
        let order = |item: &Item| name_order(&item.name, item.is_tree, name, is_tree);
        let index = self.items.binary_search_by(order).ok()?;
        self.items.get(index)
    }
}
