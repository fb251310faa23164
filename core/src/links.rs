//! Hard links: files, and whatever else is not a directory, with several names.
//!
//! What has one name is an entry at its place. What gets a second one is **shared** from then on: it moves into the directory
//! [`EntryId::SHARED`], which no mount shows, and each of its names is an entry of its own, a **link** ([`Kind::Link`]), which is
//! made, renamed and removed like any other. What is shared lists its links ([`Attributes::links`]), and goes with the last of
//! them; it stays shared when one is left.
//!
//! Invariant of every tree: a link's target is shared and lists it; what is shared lists all its links and no others, at least
//! one. Who writes to what is shared gives the link that it was opened by the same [`Written`], so that the write is known
//! where that name is.
//!
//! [`Attributes::links`]: crate::entry::Attributes::links
//! [`Written`]: crate::entry::Written

use crate::entry::{Attributes, Entry, Kind, Placed, Written};
use crate::ids::EntryId;
use crate::name::Name;

/// Sharing an entry: it moves, and its place is taken by its first link. A pure function, so that two nodes that do it at once
/// do the same.
pub fn share(placed: &Placed) -> [Placed; 2] {
    let id = placed.entry.id;
    let link = Placed {
        parent: placed.parent,
        name: placed.name.clone(),
        entry: link(first_link(id), id, &placed.entry.written),
    };
    let mut shared = Placed {
        parent: EntryId::SHARED,
        name: shared_name(id),
        entry: placed.entry.clone(),
    };
    shared.entry.attributes.links = [link.entry.id].into();
    [shared, link]
}

/// A link to what is shared.
pub fn link(id: EntryId, shared: EntryId, written: &Written) -> Entry {
    Entry {
        id,
        kind: Kind::Link(shared),
        attributes: Attributes::default(),
        written: written.clone(),
    }
}

/// The link that takes the place of what is shared.
pub fn first_link(shared: EntryId) -> EntryId {
    let hash = blake3::derive_key("delugefs 2026 first link of an entry", shared.as_bytes());
    let mut id = [0; EntryId::LEN];
    id.copy_from_slice(&hash[..EntryId::LEN]);
    EntryId::new(id)
}

/// The name of what is shared, in [`EntryId::SHARED`].
pub fn shared_name(id: EntryId) -> Name {
    Name::parse(id.to_string().as_bytes()).expect("hex digits are a name")
}

/// The directory of all that is shared, as everyone makes it who shares something in a volume that has none.
pub fn shared_directory() -> Placed {
    Placed {
        parent: EntryId::ROOT,
        name: Name::shared(),
        entry: Entry {
            id: EntryId::SHARED,
            kind: Kind::Directory,
            attributes: Attributes {
                mode: 0o700,
                ..Attributes::default()
            },
            written: Written::default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::desk::Desk;

    #[test]
    fn sharing_leaves_a_link_in_the_place() {
        let desk = Desk::new().file(1, "a", "text");
        let file = desk.at("a");
        let [shared, link] = share(&file);
        assert_eq!((link.parent, &link.name), (file.parent, &file.name));
        assert_eq!(link.entry.kind, Kind::Link(file.entry.id));
        assert_eq!(shared.parent, EntryId::SHARED);
        assert_eq!(shared.entry.attributes.links, [link.entry.id].into());
        assert_eq!(shared.entry.kind, file.entry.kind);
    }
}
