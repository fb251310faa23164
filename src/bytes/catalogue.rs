//! Which contents the volume's names speak of, and where to read about each.
//!
//! Derived from the view: filled by one walk at the start, then kept by each difference between views.

use delugefs_core::change::Changes;
use delugefs_core::entry::{Content, ContentRef, Kind, Placed};
use delugefs_core::ids::{BlobId, EntryId, InfoHash};
use std::collections::{BTreeMap, HashMap};

/// A content that at least one name of the view has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Length in bytes.
    pub length: u64,
    /// A descriptor that has its `info` dictionary.
    pub blob: BlobId,
    /// Names that have it.
    pub(super) names: u32,
}

/// What a difference between views did to the contents.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// No name had these before.
    pub born: Vec<ContentRef>,
    /// No name has these any more; what has replaced each, if it was not removed.
    pub died: Vec<(ContentRef, Option<InfoHash>)>,
}

/// All contents of the view.
#[derive(Debug, Default)]
pub struct Catalogue {
    contents: HashMap<InfoHash, Known>,
}

impl Catalogue {
    /// One more name has a content.
    pub fn add(&mut self, content: ContentRef, blob: BlobId) -> bool {
        let fresh = Known {
            length: content.length,
            blob,
            names: 0,
        };
        let known = self.contents.entry(content.info_hash).or_insert(fresh);
        known.names += 1;
        known.blob = blob;
        known.names == 1
    }

    /// One name less has it. Answers whether that was the last.
    fn remove(&mut self, info_hash: InfoHash) -> bool {
        let Some(known) = self.contents.get_mut(&info_hash) else {
            return false;
        };
        known.names -= 1;
        let last = known.names == 0;
        if last {
            self.contents.remove(&info_hash);
        }
        last
    }

    /// Follows the view.
    pub fn apply(&mut self, changes: &Changes, blobs: &BTreeMap<EntryId, BlobId>) -> Moved {
        let mut moved = Moved::default();
        for (id, change) in changes.iter() {
            let after = swarm_content(change.after.as_ref());
            if let (Some(content), Some(blob)) = (after, blobs.get(&id))
                && self.add(content, *blob)
            {
                moved.born.push(content);
            }
        }
        let mut successors = HashMap::new();
        for (_, change) in changes.iter() {
            let before = swarm_content(change.before.as_ref());
            let after = swarm_content(change.after.as_ref());
            if let (Some(before), Some(after)) = (before, after) {
                successors.insert(before.info_hash, after.info_hash);
            }
        }
        for (_, change) in changes.iter() {
            if let Some(content) = swarm_content(change.before.as_ref())
                && self.remove(content.info_hash)
            {
                let successor = successors.get(&content.info_hash).copied();
                moved.died.push((content, successor));
            }
        }
        moved
            .born
            .retain(|content| self.contents.contains_key(&content.info_hash));
        moved
    }

    /// What is known of a content.
    pub fn get(&self, info_hash: &InfoHash) -> Option<Known> {
        self.contents.get(info_hash).copied()
    }

    /// All contents.
    pub fn iter(&self) -> impl Iterator<Item = ContentRef> {
        self.contents.iter().map(|(info_hash, known)| ContentRef {
            info_hash: *info_hash,
            length: known.length,
        })
    }

    /// All contents, and what is known of each.
    pub(super) fn all(&self) -> impl Iterator<Item = (InfoHash, Known)> {
        self.contents.iter().map(|(hash, known)| (*hash, *known))
    }

    /// Number of contents.
    pub fn len(&self) -> usize {
        self.contents.len()
    }

    /// The view has no content.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }
}

impl FromIterator<(InfoHash, Known)> for Catalogue {
    fn from_iter<I: IntoIterator<Item = (InfoHash, Known)>>(known: I) -> Self {
        let contents = known.into_iter().collect();
        Self { contents }
    }
}

/// The content in the swarm that an entry has.
pub fn swarm_content(placed: Option<&Placed>) -> Option<ContentRef> {
    match &placed?.entry.kind {
        Kind::File(file) => match &file.content {
            Content::Swarm(content) => Some(*content),
            Content::Inline(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(in crate::bytes) mod tests {
    use super::*;
    use delugefs_core::change::Change;
    use delugefs_core::entry::{Attributes, Entry, File, Written};
    use delugefs_core::name::Name;

    pub(in crate::bytes) fn content(byte: u8) -> ContentRef {
        ContentRef {
            info_hash: InfoHash::new([byte; 20]),
            length: u64::from(byte),
        }
    }

    pub(in crate::bytes) fn placed(id: u8, bytes: u8) -> Placed {
        Placed {
            parent: EntryId::ROOT,
            name: Name::parse(&[b'a' + id]).unwrap(),
            entry: Entry {
                id: EntryId::new([id; 16]),
                kind: Kind::File(File {
                    content: Content::Swarm(content(bytes)),
                    previous: Vec::new(),
                }),
                attributes: Attributes::default(),
                written: Written::default(),
            },
        }
    }

    fn apply(catalogue: &mut Catalogue, before: Option<Placed>, after: Option<Placed>) -> Moved {
        let id = before.as_ref().or(after.as_ref()).unwrap().entry.id;
        let changes = [(id, Change { before, after })].into_iter().collect();
        let blobs = [(id, BlobId::new([9; 20]))].into();
        catalogue.apply(&changes, &blobs)
    }

    #[test]
    fn a_content_lives_as_long_as_some_name_has_it() {
        let mut catalogue = Catalogue::default();
        assert_eq!(
            apply(&mut catalogue, None, Some(placed(1, 7))).born,
            [content(7)]
        );
        assert_eq!(
            apply(&mut catalogue, None, Some(placed(2, 7))),
            Moved::default()
        );
        assert_eq!(
            apply(&mut catalogue, Some(placed(1, 7)), None),
            Moved::default()
        );
        assert_eq!(
            apply(&mut catalogue, Some(placed(2, 7)), None).died,
            [(content(7), None)]
        );
        assert!(catalogue.is_empty());
    }

    #[test]
    fn a_replaced_content_is_told_with_what_replaced_it() {
        let mut catalogue = Catalogue::default();
        apply(&mut catalogue, None, Some(placed(1, 7)));
        let moved = apply(&mut catalogue, Some(placed(1, 7)), Some(placed(1, 8)));
        assert_eq!(moved.born, [content(8)]);
        assert_eq!(moved.died, [(content(7), Some(content(8).info_hash))]);
    }

    #[test]
    fn a_change_of_attributes_alone_moves_nothing() {
        let mut catalogue = Catalogue::default();
        apply(&mut catalogue, None, Some(placed(1, 7)));
        let moved = apply(&mut catalogue, Some(placed(1, 7)), Some(placed(1, 7)));
        assert_eq!(moved, Moved::default());
        assert_eq!(catalogue.len(), 1);
    }
}
