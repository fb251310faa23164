//! Trees by hand, for tests.

#![allow(clippy::unwrap_used)]

use super::testing::{bytes, list_links, name, one, remove, sharing};
use crate::change::Changes;
use crate::entry::{Attributes, Content, Entry, File, Kind, Placed, Written};
use crate::ids::EntryId;
use crate::links::link;
use crate::memory_tree::MemoryTree;
use crate::name::Name;
use crate::time::Timestamp;

pub(crate) fn id(number: u8) -> EntryId {
    EntryId::new([number; 16])
}

pub(crate) fn written(edits: u32, seconds: i64, by: &str) -> Written {
    Written {
        edits,
        at: Timestamp::from_seconds(seconds),
        by: by.to_owned(),
    }
}

pub(crate) fn file(text: &str) -> Kind {
    Kind::File(File {
        content: Content::Inline(text.as_bytes().to_vec()),
        previous: Vec::new(),
    })
}

/// Somebody's tree, worked on by paths.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) tree: MemoryTree,
    now: i64,
    label: &'static str,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            tree: MemoryTree::new(),
            now: 0,
            label: "start",
        }
    }

    /// The same tree, worked on by somebody else.
    pub(crate) fn of(&self, label: &'static str, now: i64) -> Self {
        let tree = self.tree.clone();
        Self { tree, now, label }
    }

    pub(crate) fn at(&self, path: &str) -> Placed {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        self.tree.at(&names).unwrap().clone()
    }

    pub(crate) fn slot(&self, path: &str) -> (EntryId, Name) {
        let (directory, last) = path.rsplit_once('/').unwrap_or(("", path));
        (self.at(directory).entry.id, name(last))
    }

    pub(crate) fn put(&mut self, placed: Placed) {
        let change = one(&self.tree, placed.entry.id, Some(placed));
        self.tree.apply(&change).unwrap();
    }

    pub(crate) fn add(mut self, number: u8, path: &str, kind: Kind) -> Self {
        let (parent, name) = self.slot(path);
        let entry = Entry {
            id: id(number),
            kind,
            attributes: Attributes::default(),
            written: written(1, self.now, self.label),
        };
        self.put(Placed {
            parent,
            name,
            entry,
        });
        self
    }

    pub(crate) fn file(self, number: u8, path: &str, text: &str) -> Self {
        self.add(number, path, file(text))
    }

    pub(crate) fn directory(self, number: u8, path: &str) -> Self {
        self.add(number, path, Kind::Directory)
    }

    /// Another name for a file.
    pub(crate) fn link(mut self, number: u8, path: &str, new: &str) -> Self {
        let (parent, name) = self.slot(new);
        let placed = self.at(path);
        let mut shared = placed.entry.id;
        if let Some(target) = placed.entry.kind.target() {
            shared = target;
        } else {
            let changes = sharing(&self.tree, &placed);
            self.tree.apply(&changes).unwrap();
        }
        let entry = link(id(number), shared, &placed.entry.written);
        self.put(Placed {
            parent,
            name,
            entry,
        });
        self.list_links(shared);
        self
    }

    /// A name goes, and with the last one what it led to.
    pub(crate) fn unlink(mut self, path: &str) -> Self {
        let kind = self.at(path).entry.kind;
        self = self.remove(path);
        if let Kind::Link(shared) = kind {
            self.list_links(shared);
        }
        self
    }

    /// Writes to a file by one of its names.
    pub(crate) fn write_by(mut self, path: &str, text: &str) -> Self {
        let mut link = self.at(path);
        let Kind::Link(shared) = link.entry.kind else {
            panic!("{path} is no link");
        };
        let mut placed = self.tree.get(shared).unwrap().clone();
        placed.entry.kind = file(text);
        placed.entry.written = written(placed.entry.written.edits + 1, self.now, self.label);
        link.entry.written = placed.entry.written.clone();
        self.put(placed);
        self.put(link);
        self
    }

    fn list_links(&mut self, shared: EntryId) {
        list_links(&mut self.tree, shared, Timestamp::from_seconds(self.now));
    }

    pub(crate) fn write(mut self, path: &str, text: &str) -> Self {
        let mut placed = self.at(path);
        placed.entry.kind = file(text);
        placed.entry.written = written(placed.entry.written.edits + 1, self.now, self.label);
        placed.entry.attributes.modified = Timestamp::from_seconds(self.now);
        self.put(placed);
        self
    }

    pub(crate) fn rename(mut self, from: &str, to: &str) -> Self {
        let (parent, name) = self.slot(to);
        let entry = self.at(from).entry;
        self.put(Placed {
            parent,
            name,
            entry,
        });
        self
    }

    pub(crate) fn remove(mut self, path: &str) -> Self {
        let changes = remove(&self.tree, &self.at(path));
        self.tree.apply(&changes).unwrap();
        self
    }

    pub(crate) fn attributes(mut self, path: &str, set: impl FnOnce(&mut Attributes)) -> Self {
        let mut placed = self.at(path);
        set(&mut placed.entry.attributes);
        placed.entry.attributes.changed = Timestamp::from_seconds(self.now);
        self.put(placed);
        self
    }

    /// Every path with the first byte of its id, and its bytes if it is a file.
    pub(crate) fn shown(&self) -> Vec<String> {
        let paths = self.tree.paths();
        let line = |(path, id): (&String, &EntryId)| {
            let placed = self.tree.get(*id).unwrap();
            let number = id.as_bytes()[0];
            match bytes(placed) {
                Some(bytes) => format!("{path} {number} {}", String::from_utf8_lossy(bytes)),
                None => format!("{path} {number}"),
            }
        };
        paths.iter().map(line).collect()
    }

    /// What has been done since another desk's tree.
    pub(crate) fn since(&self, base: &Self) -> Changes {
        base.tree.diff(&self.tree)
    }
}
