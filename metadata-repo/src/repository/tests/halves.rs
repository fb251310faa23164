//! Two halves of a volume that have cut history without each other: what they have in common is known all the same.

use super::cut::{cut, edits, file, pull, record, sweep};
use super::import::{import, remove, shown};
use super::support::*;
use super::upkeep::assert_whole;
use crate::exchange::tests::{exchange_with, fetch_all};
use crate::exchange::{ExchangeError, PullOptions};
use crate::{Repository, Said, Today, View};
use delugefs_core::ids::CommitId;
use std::collections::BTreeSet;
use tempfile::TempDir;

/// One of each half, and one of whom both have something.
struct Halves {
    _scratch: TempDir,
    left: Node,
    right: Node,
    third: Node,
}

fn halves() -> Halves {
    let scratch = TempDir::new().unwrap();
    let node = |name, number| {
        let mut node = Node::create(&scratch.path().join(name), number);
        node.durable = true;
        node
    };
    let (mut left, mut right) = (node("left", 1), node("right", 2));
    let mut third = node("third", 3);
    left.put([2, 3, 4, 5].map(|number| file(number, "old")));
    for other in [&mut right, &mut third] {
        pull(other, &left);
    }
    right.put([file(6, "of right")]);
    third.put([file(7, "of third")]);
    for _ in 0..2 {
        for other in [&right, &third] {
            pull(&mut left, other);
        }
        for other in [&mut right, &mut third] {
            pull(other, &left);
        }
        edits(&mut left, 2);
    }
    Halves {
        _scratch: scratch,
        left,
        right,
        third,
    }
}

/// History is cut without the others.
fn cut_alone(node: &mut Node, at: CommitId) {
    record(node, at);
    cut(node, at);
    sweep(node);
}

/// What the right one finds when it comes to the left one, which has recorded where to cut later.
fn fetched(halves: &mut Halves) -> Today {
    let Halves { left, right, .. } = halves;
    left.now += 1000;
    let last = edits(left, 1)[0];
    record(left, last);
    let options = PullOptions {
        own: Some(right.incarnation),
        ..PullOptions::default()
    };
    let pulled = exchange_with(&right.repository, &left.repository, &options);
    assert!(
        matches!(pulled, Err(ExchangeError::Cut { .. })),
        "{pulled:?}"
    );
    fetched_from(left, right)
}

fn fetched_from(left: &Node, right: &Node) -> Today {
    let options = PullOptions {
        own: Some(right.incarnation),
        ..PullOptions::default()
    };
    let history = fetch_all(&right.repository, &left.repository, &options).unwrap();
    let own = BTreeSet::from([right.incarnation]);
    right.repository.today(history, &Said::new(), &own).unwrap()
}

/// As after a run that ends before it can say what the other history shows.
fn opened_as_if_not_said(node: &Node, before: CommitId) -> View {
    let path = node.repository.path();
    std::fs::write(path.join("refs/heads/main"), format!("{before}\n")).unwrap();
    Repository::open(path).unwrap().view()
}

fn has(found: &[String], line: &str) -> bool {
    found.iter().any(|it| it == line)
}

#[test]
fn what_the_others_have_removed_stays_so_and_what_they_have_edited_is_no_conflict() {
    let mut halves = halves();
    let Halves {
        left, right, third, ..
    } = &mut halves;
    // later than the third one's last, and in the same second
    left.put([file(5, "second")]);
    for other in [&mut *right, third] {
        pull(other, left);
    }
    remove(left, 4);
    left.put([file(5, "edited left"), file(2, "edited left")]);
    let commits = edits(left, 3);
    pull(third, left);
    third.put([file(7, "of third, again")]);
    pull(left, third);
    cut_alone(left, commits[1]);
    let at = works(right);
    cut_alone(right, at);
    let today = fetched(&mut halves);
    assert_eq!(today.left.len(), 2, "what the others had is noted");
    import(&halves.right, &today).unwrap();
    halves.right.refresh();
    let found = shown(&halves.right);
    assert!(has(&found, "f3: edited right"), "{found:?}");
    assert!(has(&found, "f5: edited left"), "{found:?}");
    assert!(!has(&found, "f4: old"), "it was removed: {found:?}");
    let conflicts = found.iter().filter(|it| it.contains("(conflict "));
    let conflicts: Vec<_> = conflicts.filter(|it| !it.starts_with("f1 ")).collect();
    assert_eq!(conflicts.len(), 1, "f2 was edited by both: {found:?}");
    pull(&mut halves.left, &halves.right);
    assert_eq!(halves.left.view, halves.right.view);
}

/// The right one works; where its history can be cut then.
fn works(right: &mut Node) -> CommitId {
    right.put([file(3, "edited right"), file(2, "edited right")]);
    right.put([file(1, "edited right")]);
    let last = right.put([file(1, "edited right again")]);
    right.put([file(1, "and again")]);
    last.commit.unwrap()
}

/// Both have a head of the third one that is above the left one's cut: the right one has a newer one, perhaps below its own.
fn third_is_in_both(is_left_behind: bool) {
    let mut halves = halves();
    let Halves {
        left, right, third, ..
    } = &mut halves;
    let commits = edits(left, 3);
    pull(third, left);
    third.put([file(8, "known to both")]);
    for other in [&mut *left, right] {
        pull(other, third);
    }
    cut_alone(left, commits[1]);
    third.now += 100;
    third.put([file(9, "of third")]);
    pull(right, third);
    let at = works(right);
    if !is_left_behind {
        pull(third, right);
        third.put([file(9, "of third, again")]);
        pull(right, third);
    }
    cut_alone(right, at);
    let today = fetched(&mut halves);
    import(&halves.right, &today).unwrap();
    halves.right.refresh();
    let found = shown(&halves.right);
    assert!(
        found.iter().any(|it| it.starts_with("f9: of third")),
        "{found:?}"
    );
    for line in ["f8: known to both", "f3: edited right"] {
        assert!(has(&found, line), "{line}: {found:?}");
    }
}

#[test]
fn what_one_of_here_has_made_since_is_not_in_common() {
    third_is_in_both(false);
}

#[test]
fn what_one_had_who_was_left_behind_here_is_not_in_common_with_those_who_know_less_of_it() {
    third_is_in_both(true);
}

#[test]
fn ones_own_work_that_was_cut_here_proves_no_other_copy() {
    let mut halves = halves();
    let Halves { left, right, .. } = &mut halves;
    let commits = edits(left, 3);
    pull(right, left);
    right.put([file(8, "known to both")]);
    pull(left, right);
    cut_alone(left, commits[1]);
    let at = works(right);
    cut_alone(right, at);
    let today = fetched(&mut halves);
    assert!(today.history.authors.contains_key(&incarnation(2)));
    let before = halves.right.view.clone();
    let view = import(&halves.right, &today).unwrap();
    assert_ne!(view, before);
    let again = opened_as_if_not_said(&halves.right, before.commit.unwrap());
    assert_eq!(again, view);
    halves.right.refresh();
    assert_whole(&halves.right);
}

#[test]
fn of_two_histories_that_were_fetched_at_once_the_second_makes_no_fork() {
    let mut halves = halves();
    let Halves { left, right, .. } = &mut halves;
    let commits = edits(left, 3);
    cut_alone(left, commits[1]);
    let at = works(right);
    cut_alone(right, at);
    let today = fetched(&mut halves);
    let view = import(&halves.right, &today).unwrap();
    halves.right.refresh();
    assert_eq!(import(&halves.right, &today).unwrap(), view);
    pull(&mut halves.left, &halves.right);
    assert_eq!(halves.left.view, view);
}

/// Both have recorded where to cut, each without the other; the right one an earlier commit, and perhaps has cut there.
fn both_have_recorded(is_cut: bool) {
    let mut halves = halves();
    let Halves { left, right, .. } = &mut halves;
    left.put([file(8, "made left")]);
    let commits = edits(left, 3);
    left.now += 1000;
    record(left, commits[1]);
    right.put([file(9, "made right")]);
    let at = works(right);
    record(right, at);
    if is_cut {
        cut(right, at);
        sweep(right);
    }
    let options = PullOptions::default();
    let pulled = exchange_with(&left.repository, &right.repository, &options).unwrap();
    assert_eq!(pulled.moved, [], "it is for the other one to come over");
    let pulled = exchange_with(&right.repository, &left.repository, &options);
    assert!(
        matches!(pulled, Err(ExchangeError::Cut { at }) if at == commits[1]),
        "{pulled:?}"
    );
    let today = fetched_from(left, right);
    assert!(today.history.cut.is_empty(), "it is not cut yet");
    let before = right.view.commit.unwrap();
    let view = import(right, &today).unwrap();
    assert_eq!(opened_as_if_not_said(right, before), view);
    right.refresh();
    assert_eq!(right.repository.cuts().unwrap(), BTreeSet::new());
    let found = shown(right);
    for line in ["f8: made left", "f9: made right", "f3: edited right"] {
        assert!(has(&found, line), "{line}: {found:?}");
    }
    pull(left, right);
    assert_eq!(left.view, right.view);
    for node in [left, right] {
        cut(node, commits[1]);
        sweep(node);
        assert_whole(node);
    }
}

#[test]
fn of_two_that_have_recorded_where_to_cut_the_earlier_comes_over() {
    both_have_recorded(false);
}

#[test]
fn who_has_cut_earlier_comes_over_to_who_has_recorded_later() {
    both_have_recorded(true);
}
