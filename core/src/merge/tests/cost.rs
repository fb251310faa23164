//! What a merge costs.

use super::{Desk, file, id, name};
use crate::change::{Change, Changes};
use crate::entry::Placed;
use crate::ids::EntryId;
use crate::memory_tree::MemoryTree;
use crate::merge::{Tree, merge};
use crate::name::Name;
use std::cell::Cell;
use std::convert::Infallible;

/// A tree that counts how often it is asked.
struct Counting<'t>(&'t MemoryTree, Cell<usize>);

impl Counting<'_> {
    fn count(&self) {
        self.1.set(self.1.get() + 1);
    }
}

impl Tree for Counting<'_> {
    type Error = Infallible;

    fn place(&self, id: EntryId) -> Result<Option<Placed>, Infallible> {
        self.count();
        self.0.place(id)
    }

    fn child(&self, directory: EntryId, name: &Name) -> Result<Option<Placed>, Infallible> {
        self.count();
        self.0.child(directory, name)
    }

    fn children(&self, directory: EntryId) -> Result<Vec<Placed>, Infallible> {
        panic!("{directory} listed, with {:?}", self.0.place(directory));
    }
}

#[test]
fn the_base_is_asked_in_proportion_to_what_changed() {
    let mut base = Desk::new().directory(1, "big");
    let many = |number: u32| {
        let mut placed = base.at("big");
        placed.parent = id(1);
        placed.name = name(&format!("f{number}"));
        placed.entry.kind = file(&number.to_string());
        let hash = blake3::hash(&number.to_le_bytes());
        placed.entry.id = EntryId::from_slice(&hash.as_bytes()[..16]).unwrap();
        let (id, after) = (placed.entry.id, Some(placed));
        (
            id,
            Change {
                before: None,
                after,
            },
        )
    };
    let files: Changes = (0..20_000).map(many).collect();
    base.tree.apply(&files).unwrap();
    let work = |label, now, range: std::ops::Range<u32>| {
        range.fold(base.of(label, now), |desk, number| {
            let path = format!("big/f{number}");
            desk.write(&path, label)
                .rename(&path, &format!("big/{label} {number}"))
        })
    };
    let (left, right) = (work("l", 10, 0..30), work("r", 20, 20..50));
    let counting = Counting(&base.tree, Cell::new(0));
    let (left, right) = (base.tree.diff(&left.tree), base.tree.diff(&right.tree));
    let result = merge(&counting, &left, &right).unwrap();
    assert_eq!(result.len(), 60);
    let asked = counting.1.get();
    assert!(
        asked <= 4 * (left.len() + right.len()),
        "asked {asked} times"
    );
}
