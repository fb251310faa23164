#![allow(clippy::unwrap_used)]

use super::{Boundary, History, Past, boundary, imported, is_stable};
use crate::ids::CommitId;
use crate::merge::desk::Desk;
use crate::merge::merge;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

fn id(number: u8) -> CommitId {
    CommitId::new([number; 20])
}

fn ids(numbers: &[u8]) -> BTreeSet<CommitId> {
    numbers.iter().copied().map(id).collect()
}

/// Commits by number, each at the time of its number.
struct Graph(BTreeMap<CommitId, Past>);

impl Graph {
    fn new(commits: &[(u8, &[u8])]) -> Self {
        let commit = |(number, parents): &(u8, &[u8])| {
            let parents = parents.iter().copied().map(id).collect();
            let time = i64::from(*number);
            (id(*number), Past { parents, time })
        };
        Self(commits.iter().map(commit).collect())
    }

    fn boundary(&self, tips: &[u8], rests: &[&[u8]], until: i64) -> Option<CommitId> {
        let found = self.boundary_over(tips, rests, (until, 1));
        found.map(|found| found.commit)
    }

    fn boundary_over(
        &self,
        tips: &[u8],
        rests: &[&[u8]],
        limits: (i64, usize),
    ) -> Option<Boundary> {
        let rests: Vec<_> = rests.iter().map(|heads| ids(heads)).collect();
        let found = boundary(self, &ids(tips), &rests, limits).unwrap();
        if let Some(found) = found {
            assert!(is_stable(self, &ids(tips), &rests, found.commit).unwrap());
        }
        found
    }
}

impl History for Graph {
    type Error = Infallible;

    fn commit(&self, id: CommitId) -> Result<Option<Past>, Infallible> {
        Ok(self.0.get(&id).cloned())
    }
}

/// Two write at once, one brings it together, they do so again.
fn braid() -> Graph {
    Graph::new(&[
        (0, &[]),
        (1, &[0]),
        (2, &[1]),
        (3, &[1]),
        (4, &[2, 3]),
        (5, &[4]),
        (6, &[4]),
        (7, &[5, 6]),
    ])
}

#[test]
fn the_newest_commit_that_all_others_meet_in() {
    let graph = braid();
    assert_eq!(graph.boundary(&[7], &[&[7], &[7]], 100), Some(id(7)));
    assert_eq!(graph.boundary(&[5, 6], &[&[5], &[6]], 100), Some(id(4)));
    assert_eq!(graph.boundary(&[2, 3], &[&[2], &[3]], 100), Some(id(1)));
}

#[test]
fn none_that_is_too_new_or_that_someone_does_not_rest_on() {
    let graph = braid();
    assert_eq!(graph.boundary(&[7], &[&[7], &[7]], 6), Some(id(4)));
    assert_eq!(graph.boundary(&[7], &[&[7], &[5]], 100), Some(id(4)));
    assert_eq!(graph.boundary(&[7], &[&[7], &[2]], 100), Some(id(1)));
    assert_eq!(graph.boundary(&[7], &[&[7], &[]], 100), None);
    assert_eq!(graph.boundary(&[7], &[&[7], &[0]], 100), None);
}

#[test]
fn none_while_someone_knows_what_is_not_here() {
    assert_eq!(braid().boundary(&[7], &[&[7], &[4, 9]], 100), None);
}

#[test]
fn one_chain_beside_all_others_keeps_all_history() {
    let graph = Graph::new(&[(0, &[]), (1, &[0]), (2, &[0]), (3, &[2]), (4, &[3])]);
    assert_eq!(graph.boundary(&[1, 4], &[&[1, 4]], 100), None);
}

#[test]
fn history_that_was_cut_before_ends_there() {
    let graph = Graph::new(&[(4, &[]), (5, &[4]), (6, &[5])]);
    assert_eq!(graph.boundary(&[6], &[&[6]], 5), Some(id(5)));
    assert_eq!(graph.boundary(&[6], &[&[6]], 4), None);
}

#[test]
fn who_has_not_gone_on_since_is_in_nobodys_way() {
    let graph = braid();
    assert_eq!(graph.boundary(&[7, 2, 5], &[&[7], &[7]], 100), Some(id(7)));
    assert_eq!(graph.boundary(&[5, 6, 1], &[&[5], &[6]], 100), Some(id(4)));
}

#[test]
fn none_beside_another_beginning() {
    let graph = Graph::new(&[(0, &[]), (1, &[0]), (2, &[1]), (3, &[])]);
    assert_eq!(graph.boundary(&[2, 3], &[&[2]], 100), None);
    assert_eq!(graph.boundary(&[2], &[&[2, 3]], 100), None);
}

#[test]
fn none_that_would_free_little() {
    let graph = braid();
    let found = graph.boundary_over(&[7], &[&[7]], (100, 7));
    let at = Boundary {
        time: 7,
        commit: id(7),
    };
    assert_eq!(found, Some(at));
    assert_eq!(graph.boundary_over(&[7], &[&[7]], (100, 8)), None);
}

#[test]
fn what_is_recorded_is_cut_only_where_it_is_stable() {
    let graph = braid();
    let stable = |rests: &[u8], at| is_stable(&graph, &ids(&[7]), &[ids(rests)], id(at)).unwrap();
    assert!(stable(&[7], 7) && stable(&[7], 4) && stable(&[5, 6], 4));
    assert!(!stable(&[7], 5), "no bottleneck");
    assert!(!stable(&[5], 7), "not everyone rests on it");
    assert!(!stable(&[7], 9), "not here");
}

fn after_import(today: &Desk, returning: &Desk) -> Vec<String> {
    let base = start();
    let brought = imported(&returning.since(&base));
    let merged = merge(&base.tree, &today.since(&base), &brought).unwrap();
    let mut result = base;
    result.tree.apply(&merged).unwrap();
    result.tree.check().unwrap();
    result.shown()
}

fn start() -> Desk {
    Desk::new()
        .directory(1, "d")
        .file(2, "d/kept", "old")
        .file(3, "gone", "old")
}

#[test]
fn who_comes_back_brings_what_it_made_and_edited_and_removes_nothing() {
    let returning = start().of("late", 50);
    let returning = returning
        .write("d/kept", "edited")
        .file(9, "d/new", "made")
        .remove("gone");
    let today = start().of("today", 60).file(8, "other", "made");
    assert_eq!(
        after_import(&today, &returning),
        [
            "d 1",
            "d/kept 2 edited",
            "d/new 9 made",
            "gone 3 old",
            "other 8 made"
        ]
    );
}

#[test]
fn who_comes_back_does_not_bring_back_what_was_removed_meanwhile() {
    let returning = start().of("late", 50).write("d/kept", "edited");
    let today = start().of("today", 60).remove("gone");
    assert_eq!(after_import(&today, &returning), ["d 1", "d/kept 2 edited"]);
}

#[test]
fn who_comes_back_moves_nothing() {
    let returning = start().of("late", 50);
    let returning = returning
        .rename("d/kept", "moved")
        .write("moved", "edited")
        .rename("gone", "d/gone");
    assert_eq!(
        after_import(&start(), &returning),
        ["d 1", "d/kept 2 edited", "gone 3 old"]
    );
}

#[test]
fn a_file_that_was_replaced_is_an_edit() {
    let returning = start().of("late", 50);
    let returning = returning.remove("gone").file(9, "gone", "saved anew");
    assert_eq!(
        after_import(&start(), &returning),
        ["d 1", "d/kept 2 old", "gone 9 saved anew"]
    );
}

#[test]
fn both_edits_are_kept() {
    let returning = start().of("late", 50).write("gone", "theirs");
    let today = start().of("today", 60).write("gone", "ours");
    let shown = after_import(&today, &returning);
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(shown.contains(&"gone 3 ours".to_owned()));
    let copy = shown.iter().find(|line| line.contains("(conflict "));
    assert!(copy.unwrap().ends_with(" theirs"));
}
