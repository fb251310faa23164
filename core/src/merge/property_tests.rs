//! What holds for every merge of two sides.

#![allow(clippy::unwrap_used)]

use super::merge;
use super::testing::{
    self, Author, Work, all_bytes, bytes, check_links, target, works, works_without_links,
};
use crate::change::Changes;
use crate::entry::{Kind, Placed};
use crate::ids::EntryId;
use crate::memory_tree::MemoryTree;
use proptest::prelude::*;
use std::collections::BTreeSet;

struct Case {
    base: MemoryTree,
    left: MemoryTree,
    right: MemoryTree,
}

impl Case {
    fn play([base_works, left_works, right_works]: &[Vec<Work>; 3]) -> Self {
        let mut base = MemoryTree::new();
        Author::new(0).play(&mut base, base_works);
        let side = |author, works| {
            let mut tree = base.clone();
            Author::new(author).play(&mut tree, works);
            tree
        };
        let (left, right) = (side(1, left_works), side(2, right_works));
        Self { base, left, right }
    }

    fn changes(&self) -> [Changes; 2] {
        [self.base.diff(&self.left), self.base.diff(&self.right)]
    }

    fn merged(&self) -> MemoryTree {
        let [left, right] = self.changes();
        applied(&self.base, &merge(&self.base, &left, &right).unwrap())
    }

    fn sides(&self) -> [(&MemoryTree, &MemoryTree); 2] {
        [(&self.left, &self.right), (&self.right, &self.left)]
    }
}

fn applied(base: &MemoryTree, changes: &Changes) -> MemoryTree {
    let mut tree = base.clone();
    tree.apply(changes).unwrap();
    tree.check().unwrap();
    check_links(&tree);
    tree
}

fn three_works() -> impl Strategy<Value = [Vec<Work>; 3]> {
    [works(30), works(12), works(12)]
}

/// Whether a side has other bytes in an entry than the base, or newly written ones.
fn is_edited(base: &MemoryTree, placed: &Placed) -> bool {
    base.get(placed.entry.id)
        .is_none_or(|b| b.entry.written != placed.entry.written || bytes(b) != bytes(placed))
}

/// Whether another name may keep it, or it another name.
fn has_links(case: &Case, id: EntryId) -> bool {
    let trees = [&case.base, &case.left, &case.right];
    let states = trees.iter().filter_map(|tree| tree.get(id));
    states
        .into_iter()
        .any(|placed| !placed.entry.attributes.links.is_empty() || target(placed).is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testing::cases()))]

    #[test]
    fn sides_may_be_swapped(works in three_works()) {
        let case = Case::play(&works);
        let [left, right] = case.changes();
        let one = merge(&case.base, &left, &right).unwrap();
        let other = merge(&case.base, &right, &left).unwrap();
        prop_assert_eq!(one, other);
    }

    #[test]
    fn the_same_twice_and_nothing_add_nothing(works in three_works()) {
        let case = Case::play(&works);
        let [left, _] = case.changes();
        prop_assert_eq!(&merge(&case.base, &left, &left).unwrap(), &left);
        prop_assert_eq!(&merge(&case.base, &left, &Changes::new()).unwrap(), &left);
        prop_assert_eq!(&merge(&case.base, &Changes::new(), &left).unwrap(), &left);
    }

    #[test]
    fn the_result_is_a_tree(works in three_works()) {
        let case = Case::play(&works);
        let [left, right] = case.changes();
        let merged = merge(&case.base, &left, &right).unwrap();
        let mut tree = case.base.clone();
        prop_assert_eq!(tree.apply(&merged), Ok(()));
        prop_assert_eq!(tree.check(), Ok(()));
    }

    #[test]
    fn what_the_other_side_has_not_seen_is_there(works in three_works()) {
        let case = Case::play(&works);
        let there = all_bytes(&case.merged());
        for (side, other) in case.sides() {
            for placed in side.iter() {
                let id = placed.entry.id;
                let kept = other.get(id).is_some_and(|o| bytes(o) == bytes(placed));
                if let Some(bytes) = bytes(placed) && (kept || is_edited(&case.base, placed)) {
                    prop_assert!(there.contains(bytes), "lost {}", String::from_utf8_lossy(bytes));
                }
            }
        }
    }

    #[test]
    fn what_was_removed_and_not_edited_is_gone(works in three_works()) {
        let case = Case::play(&works);
        let merged = case.merged();
        for (side, other) in case.sides() {
            for before in case.base.iter().filter(|b| b.entry.kind != Kind::Directory) {
                let id = before.entry.id;
                let edited = other.get(id).is_some_and(|placed| is_edited(&case.base, placed));
                if side.get(id).is_none() && !edited && !has_links(&case, id) {
                    prop_assert_eq!(merged.get(id), None);
                }
            }
        }
    }

    #[test]
    fn copies_are_made_only_of_contested_files(works in three_works()) {
        let case = Case::play(&works);
        let known = |id: EntryId| {
            [&case.base, &case.left, &case.right].iter().any(|tree| tree.get(id).is_some())
        };
        let copies = case.merged().iter().filter(|p| !known(p.entry.id) && target(p).is_none()).count();
        let contested = case.left.iter().filter(|left| {
            let right = case.right.get(left.entry.id);
            right.is_some_and(|right| {
                bytes(left) != bytes(right) && is_edited(&case.base, left) && is_edited(&case.base, right)
            })
        });
        prop_assert!(copies <= contested.count());
    }

    #[test]
    fn a_name_is_changed_only_where_two_entries_want_one(works in three_works()) {
        let case = Case::play(&works);
        let merged = case.merged();
        let places: BTreeSet<_> = [&case.base, &case.left, &case.right]
            .iter()
            .flat_map(|tree| tree.iter().map(|p| (p.entry.id, p.name.clone())))
            .collect();
        for placed in merged.iter() {
            // the first link of what only one side has shared takes the name that the other has given that
            let ids = [Some(placed.entry.id), target(placed)].into_iter().flatten();
            let is_own = ids.into_iter().any(|id| places.contains(&(id, placed.name.clone())));
            prop_assert!(is_own || placed.name.to_string().contains("(conflict "));
        }
    }

    #[test]
    fn work_in_different_directories_adds_up(works in [works_without_links(20), works_without_links(20), works_without_links(12)]) {
        let mut base = MemoryTree::new();
        let mut halves = Vec::new();
        for (number, works) in works.iter().take(2).enumerate() {
            let mut half = MemoryTree::new();
            Author::new(number as u8).play(&mut half, works);
            halves.push(below(&half, number as u8));
        }
        for half in &halves {
            base.apply(&half.0).unwrap();
        }
        let left = inside(&base, &halves[0], &works[2], 3);
        let right = inside(&base, &halves[1], &works[2], 4);
        let merged = applied(&base, &merge(&base, &left, &right).unwrap());
        let mut both = base.clone();
        both.apply(&left).unwrap();
        both.apply(&right).unwrap();
        prop_assert_eq!(merged, both);
    }
}

/// A tree as the content of one directory: changes that make it, and the directory.
fn below(half: &MemoryTree, number: u8) -> (Changes, EntryId, MemoryTree) {
    let top = EntryId::new([200 + number; 16]);
    let changes = MemoryTree::new().diff(&moved_below(half, top, number));
    (changes, top, half.clone())
}

fn moved_below(half: &MemoryTree, top: EntryId, number: u8) -> MemoryTree {
    let mut tree = MemoryTree::new();
    let mut changes = Changes::new();
    for placed in half.iter() {
        let mut placed = placed.clone();
        if placed.entry.id == EntryId::ROOT {
            placed.entry.id = top;
            placed.name = testing::name(&format!("half {number}"));
        } else if placed.parent == EntryId::ROOT {
            placed.parent = top;
        }
        changes.extend(testing::one(&tree, placed.entry.id, Some(placed)));
    }
    tree.apply(&changes).unwrap();
    tree
}

/// Changes that work within one half makes in the whole tree.
fn inside(
    base: &MemoryTree,
    (_, top, half): &(Changes, EntryId, MemoryTree),
    works: &[Work],
    author: u8,
) -> Changes {
    let number = top.as_bytes()[0] - 200;
    let mut worked = half.clone();
    Author::new(author).play(&mut worked, works);
    let before = moved_below(half, *top, number);
    let changes = before.diff(&moved_below(&worked, *top, number));
    assert!(
        changes
            .iter()
            .all(|(id, change)| base.get(id) == change.before.as_ref())
    );
    changes
}
