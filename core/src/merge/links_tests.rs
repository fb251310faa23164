//! Files with several names, as users meet them.

#![allow(clippy::unwrap_used)]

use super::desk::Desk;
use super::merge;
use super::testing::check_links;
use crate::change::Changes;
use crate::conflict::is_conflict_name;
use crate::entry::{Kind, Placed};
use crate::ids::EntryId;
use crate::memory_tree::MemoryTree;
use crate::past::imported;

fn merged(base: &Desk, left: &Desk, right: &Desk) -> MemoryTree {
    merged_with(base, left, &right.since(base))
}

fn merged_with(base: &Desk, left: &Desk, right: &Changes) -> MemoryTree {
    let changes = merge(&base.tree, &left.since(base), right).unwrap();
    let mut tree = base.tree.clone();
    tree.apply(&changes).unwrap();
    tree.check().unwrap();
    check_links(&tree);
    tree
}

/// Every name outside of what is shared, with the bytes behind it.
fn names(tree: &MemoryTree) -> Vec<(String, String)> {
    let bytes = |placed: &Placed| super::testing::bytes(placed).map(<[u8]>::to_vec);
    let shown = |(path, id): (String, EntryId)| {
        let placed = tree.get(id)?;
        let text = match placed.entry.kind {
            Kind::Link(shared) => bytes(tree.get(shared)?)?,
            _ => bytes(placed).filter(|_| placed.parent != EntryId::SHARED)?,
        };
        Some((path, String::from_utf8(text).unwrap()))
    };
    tree.paths().into_iter().filter_map(shown).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    expected.iter().map(owned).collect()
}

fn start() -> Desk {
    Desk::new().file(1, "a", "one")
}

#[test]
fn both_give_a_file_another_name() {
    let base = start();
    let left = base.of("left", 10).link(2, "a", "b");
    let right = base.of("right", 11).link(3, "a", "c");
    let all = pairs(&[("a", "one"), ("b", "one"), ("c", "one")]);
    assert_eq!(names(&merged(&base, &left, &right)), all);
}

#[test]
fn what_one_writes_is_seen_by_the_name_that_the_other_has_given() {
    let base = start();
    let left = base.of("left", 10).link(2, "a", "b");
    let right = base.of("right", 11).write("a", "two");
    let all = pairs(&[("a", "two"), ("b", "two")]);
    assert_eq!(names(&merged(&base, &left, &right)), all);
}

#[test]
fn a_name_is_moved_or_removed_where_the_other_gives_a_second_one() {
    let base = start();
    let left = base.of("left", 10).link(2, "a", "b");
    let moved = base.of("right", 11).rename("a", "z");
    let all = pairs(&[("b", "one"), ("z", "one")]);
    assert_eq!(names(&merged(&base, &left, &moved)), all);
    let removed = base.of("right", 11).remove("a");
    let all = pairs(&[("b", "one")]);
    assert_eq!(names(&merged(&base, &left, &removed)), all);
}

#[test]
fn the_last_two_names_are_not_removed_by_two_who_each_saw_the_other() {
    let base = start().link(2, "a", "b");
    let left = base.of("left", 10).unlink("a");
    let right = base.of("right", 11).unlink("b");
    assert_eq!(names(&merged(&base, &left, &right)).len(), 1);
    let both = base.of("right", 11).unlink("b").unlink("a");
    assert_eq!(names(&merged(&base, &left, &both)), []);
}

#[test]
fn both_write_to_a_file_of_two_names() {
    let base = start().link(2, "a", "b");
    let left = base.of("left", 10).write_by("a", "two");
    let right = base.of("right", 11).write_by("b", "three");
    let names = names(&merged(&base, &left, &right));
    let (copies, rest): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|(path, _)| is_conflict_name(&super::testing::name(path)));
    assert_eq!(rest, pairs(&[("a", "three"), ("b", "three")]));
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].1, "two");
}

#[test]
fn who_comes_back_brings_names_and_takes_none_away() {
    let base = start();
    let brought = imported(&base.of("back", 10).link(2, "a", "b").since(&base));
    let all = pairs(&[("a", "one"), ("b", "one")]);
    assert_eq!(names(&merged_with(&base, &base, &brought)), all);

    let base = base.link(2, "a", "b");
    let brought = imported(&base.of("back", 10).unlink("a").since(&base));
    assert_eq!(names(&merged_with(&base, &base, &brought)), all);
    let today = base.of("today", 11).unlink("a").unlink("b");
    let brought = imported(
        &base
            .of("back", 10)
            .unlink("b")
            .write_by("a", "two")
            .since(&base),
    );
    let edited = pairs(&[("a", "two")]);
    assert_eq!(names(&merged_with(&base, &today, &brought)), edited);
}
