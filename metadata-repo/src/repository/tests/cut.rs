//! A repository whose history is cut: it shows, merges and keeps the same as one that has all of it.

use super::faults::with_good_syncs;
use super::stock::git;
use super::support::*;
use super::upkeep::{assert_whole, exists, maintain};
use crate::exchange::tests::exchange_with;
use crate::exchange::{ExchangeError, PullOptions};
use crate::repository::object_id;
use crate::{Repository, RepositoryError, Said};
use delugefs_core::entry::Placed;
use delugefs_core::ids::{CommitId, EntryId};
use delugefs_core::past::Boundary;
use delugefs_core::settings::Settings;
use std::collections::{BTreeSet, HashSet};
use tempfile::TempDir;

pub(super) fn file(number: u32, text: &str) -> Placed {
    let name = format!("f{number}");
    placed(
        EntryId::ROOT,
        name,
        entry(id(number), inline(text.as_bytes())),
    )
}

/// By hand, whatever is here.
fn cut_by_hand(repository: &Repository, at: CommitId) {
    let at = HashSet::from([object_id(at.as_bytes())]);
    crate::cut::write(repository.path(), &at).unwrap();
}

/// Says in the tree that history is to be cut.
pub(super) fn record(node: &mut Node, at: CommitId) {
    let boundary = Some(Boundary {
        time: node.now,
        commit: at,
    });
    node.set(&Settings {
        boundary,
        ..settings()
    });
}

/// As a node that has nothing to lose below.
pub(super) fn cut(node: &Node, at: CommitId) {
    assert!(
        node.repository
            .cut(at, incarnation(99), &Said::new())
            .unwrap()
    );
}

/// Edits of one file, one commit each.
pub(super) fn edits(node: &mut Node, count: u32) -> Vec<CommitId> {
    let edit = |_| {
        let text = format!("edit {}", node.sequence);
        node.put([file(1, &text)]).commit
    };
    (0..count).map(edit).map(Option::unwrap).collect()
}

/// A node with five commits and one that records where to cut, of which the first two are gone.
fn old(scratch: &TempDir) -> (Node, Vec<CommitId>) {
    let mut node = Node::create(&scratch.path().join("old"), 1);
    let commits = edits(&mut node, 5);
    record(&mut node, commits[2]);
    cut(&node, commits[2]);
    sweep(&node);
    (node, commits)
}

/// What lies below a cut goes.
pub(super) fn sweep(node: &Node) {
    for days in 0..3 {
        maintain(&node.repository, true, days * 2);
    }
}

pub(super) fn pull(to: &mut Node, from: &Node) {
    let pulled = exchange_with(&to.repository, &from.repository, &PullOptions::default());
    assert_eq!(pulled.unwrap().refused, []);
    to.refresh();
}

#[test]
fn what_lies_below_goes_and_the_rest_stays() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("a");
    let mut node = Node::create(&path, 1);
    node.durable = true;
    node.put([file(2, "never touched")]);
    let commits = edits(&mut node, 6);
    cut(&node, commits[3]);
    let shown = node.view.clone();
    node.refresh();
    assert_eq!(node.view, shown);
    edits(&mut node, 2);
    sweep(&node);
    let is_here = |commit: &CommitId| exists(&path, &commit.to_string());
    let here: Vec<bool> = commits.iter().map(is_here).collect();
    assert_eq!(here, [false, false, false, true, true, true]);
    assert_whole(&node);
    let after_a_power_cut = Repository::open_in(&path, "another boot").unwrap();
    assert_eq!(after_a_power_cut.view(), node.view);
    edits(&mut node, 1);
    assert_whole(&node);
}

#[test]
fn who_has_what_is_here_in_part_below_a_cut_is_told_where_history_begins() {
    let scratch = TempDir::new().unwrap();
    let mut node = Node::create(&scratch.path().join("cut"), 1);
    let mut late = Node::create(&scratch.path().join("late"), 2);
    let before = edits(&mut node, 3);
    pull(&mut late, &node);
    let from = late.repository.path();
    let last = git(from, &["cat-file", "commit", &before[2].to_string()]);
    let commits = edits(&mut node, 3);
    record(&mut node, commits[1]);
    cut(&node, commits[1]);
    sweep(&node);
    let (file, to) = (scratch.path().join("commit"), node.repository.path());
    std::fs::write(&file, last).unwrap();
    let file = file.to_str().unwrap();
    git(to, &["hash-object", "-t", "commit", "-w", file]);
    let is_here = |commit: &CommitId| exists(to, &commit.to_string());
    let here: Vec<bool> = before.iter().map(is_here).collect();
    assert_eq!(here, [false, false, true]);
    let pulled = exchange_with(&late.repository, &node.repository, &PullOptions::default());
    assert!(
        matches!(pulled, Err(ExchangeError::Cut { .. })),
        "{pulled:?}"
    );
}

#[test]
fn a_record_of_what_lies_below_the_cut_is_none() {
    let scratch = TempDir::new().unwrap();
    let mut node = Node::create(&scratch.path().join("cut"), 1);
    let commits = edits(&mut node, 5);
    record(&mut node, commits[3]);
    cut(&node, commits[3]);
    for (at, is_one) in [(1, false), (4, true)] {
        node.now += 1;
        record(&mut node, commits[at]);
        let recorded = node.repository.recorded().unwrap();
        assert_eq!(recorded.is_some(), is_one, "the commit is here in any case");
        assert!(exists(node.repository.path(), &commits[at].to_string()));
    }
}

#[test]
fn cut_or_not_all_merge_alike() {
    let scratch = TempDir::new().unwrap();
    let mut whole = Node::create(&scratch.path().join("whole"), 1);
    let mut left = Node::create(&scratch.path().join("left"), 2);
    let commits = edits(&mut whole, 4);
    pull(&mut left, &whole);
    cut(&left, commits[2]);
    for round in 0..4 {
        whole.put([file(10 + round, "one"), file(1, &format!("one {round}"))]);
        left.put([file(20 + round, "two"), file(1, &format!("two {round}"))]);
        pull(&mut whole, &left);
        pull(&mut left, &whole);
        assert_eq!(whole.view, left.view);
        assert!(round % 2 == 1 || whole.view.heads.len() == 2);
        maintain(&left.repository, true, 3 * i64::from(round));
        if round % 2 == 0 {
            left.put([file(3, &format!("both {round}"))]);
            pull(&mut whole, &left);
        }
    }
    assert!(!exists(left.repository.path(), &commits[1].to_string()));
    assert_whole(&left);
    assert_whole(&whole);
}

#[test]
fn a_newcomer_begins_at_the_cut_and_its_work_goes_to_all() {
    let scratch = TempDir::new().unwrap();
    let (mut old, _) = old(&scratch);
    let path = scratch.path().join("new");
    let mut new = Node::create(&path, 2);
    pull(&mut new, &old);
    assert_eq!(new.view, old.view);
    new.put([file(7, "of the newcomer")]);
    pull(&mut old, &new);
    assert_eq!(new.view, old.view);
    assert_whole(&new);
    let reopened = Repository::open_in(&path, "another boot").unwrap();
    assert_eq!(reopened.view(), old.view);
}

#[test]
fn who_has_begun_before_the_cut_neither_takes_it_nor_is_lost() {
    let scratch = TempDir::new().unwrap();
    let (mut old, _) = old(&scratch);
    let of_today = old.view.heads.clone();
    let mut early = Node::create(&scratch.path().join("early"), 2);
    early.put([file(7, "before it met anyone")]);
    let shown = early.view.clone();
    let pulled = exchange_with(&early.repository, &old.repository, &PullOptions::default());
    assert!(
        matches!(pulled, Err(ExchangeError::Cut { .. })),
        "{pulled:?}"
    );
    early.refresh();
    assert_eq!(early.view, shown);
    let pulled = exchange_with(&old.repository, &early.repository, &PullOptions::default());
    assert_eq!(pulled.unwrap().refused.len(), 1);
    old.refresh();
    assert_eq!(old.view.heads, of_today);
    assert_whole(&early);
}

#[test]
fn nobody_authors_on_what_was_before_the_cut() {
    let scratch = TempDir::new().unwrap();
    let mut old = Node::create(&scratch.path().join("old"), 1);
    let commits = edits(&mut old, 3);
    let mut new = Node::create(&scratch.path().join("new"), 2);
    let before = new.view.clone();
    record(&mut old, commits[1]);
    cut_by_hand(&new.repository, commits[1]);
    pull(&mut new, &old);
    new.view = before;
    let change = change(&new.model, id(9), Some(file(9, "late")));
    let authored = new.try_author(&[change].into_iter().collect());
    assert!(
        matches!(authored, Err(RepositoryError::Rules { .. })),
        "{authored:?}"
    );
}

#[test]
fn a_head_that_does_not_lead_to_the_cut_is_not_shown() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("a");
    let mut node = Node::create(&path, 1);
    let mut other = Node::create(&scratch.path().join("b"), 2);
    let commits = edits(&mut node, 2);
    pull(&mut other, &node);
    other.put([file(5, "beside")]);
    pull(&mut node, &other);
    let heads = node.view.heads.clone();
    assert!(!heads.contains(&commits[1]));
    // from another view, as if that had not come
    let authors = node.repository.authors().unwrap();
    let beside = authors[&incarnation(2)];
    let name = format!("refs/authors/{}", incarnation(2));
    git(&path, &["update-ref", "-d", &name]);
    node.refresh();
    let after = edits(&mut node, 2);
    cut_by_hand(&node.repository, after[0]);
    git(&path, &["update-ref", &name, &beside.to_string()]);
    let again = Repository::open(&path).unwrap();
    assert_eq!(again.view().heads, [after[1]].into());
    // an author's reference that a power cut has emptied does not go back to before the cut
    std::fs::write(path.join(&name), "").unwrap();
    let again = Repository::open_in(&path, "another boot").unwrap();
    assert_eq!(again.view().heads, [after[1]].into());
    assert!(!again.authors().unwrap().contains_key(&incarnation(2)));
}

/// A node with a chain, which shows another's that has ended below the commit that is answered.
fn with_a_silent_one(path: &std::path::Path) -> (Node, CommitId) {
    let scratch = TempDir::new().unwrap();
    let mut silent = Node::create(&scratch.path().join("silent"), 2);
    silent.put([file(9, "of one that is silent now")]);
    let mut node = Node::create(path, 1);
    node.durable = true;
    pull(&mut node, &silent);
    let commits = edits(&mut node, 3);
    (node, commits[1])
}

#[test]
fn whose_head_lies_below_has_no_reference_any_more() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("a");
    let (mut node, at) = with_a_silent_one(&path);
    let shown = node.view.clone();
    cut(&node, at);
    let is_done = |repository: &Repository| {
        let authors = repository.authors().unwrap();
        assert_eq!(repository.cuts().unwrap(), BTreeSet::from([at]));
        assert_eq!(authors.into_keys().collect::<Vec<_>>(), [incarnation(1)]);
        assert_eq!(repository.view(), shown);
    };
    is_done(&node.repository);
    sweep(&node);
    node.refresh();
    assert_whole(&node);
    for boot in ["the same", "another boot", "another boot"] {
        is_done(&Repository::open_in(&path, boot).unwrap());
    }
}

#[test]
fn nothing_is_cut_where_a_head_lies_beside_or_ones_own_below() {
    let scratch = TempDir::new().unwrap();
    let (mut node, at) = with_a_silent_one(&scratch.path().join("a"));
    assert!(
        !node
            .repository
            .cut(at, incarnation(2), &Said::new())
            .unwrap()
    );
    let mut other = Node::create(&scratch.path().join("b"), 3);
    other.put([file(5, "beside")]);
    pull(&mut node, &other);
    assert!(
        !node
            .repository
            .cut(at, incarnation(99), &Said::new())
            .unwrap()
    );
    assert_eq!(node.repository.cuts().unwrap(), BTreeSet::new());
    assert_eq!(node.repository.authors().unwrap().len(), 3);
}

#[test]
fn a_cut_that_is_stopped_at_any_sync_is_done_or_not() {
    for good in 0..100 {
        let scratch = TempDir::new().unwrap();
        let path = scratch.path().join("a");
        let (node, at) = with_a_silent_one(&path);
        let shown = node.view.clone();
        let cut = || node.repository.cut(at, incarnation(99), &Said::new());
        if with_good_syncs(good, cut).is_ok() {
            assert!(good > 5, "{good} syncs in all");
            return;
        }
        assert_eq!(node.repository.view(), shown, "reading goes on");
        for boot in ["the same", "another boot"] {
            let opened = Repository::open_in(&path, boot).unwrap();
            let (authors, cuts) = (opened.authors().unwrap(), opened.cuts().unwrap());
            let expected = if cuts.is_empty() { 2 } else { 1 };
            assert_eq!(authors.len(), expected, "after {good} syncs");
            assert_eq!(opened.view(), shown);
            assert!(!path.join("delugefs-switch").exists());
        }
    }
    panic!("never more than a few syncs");
}

#[test]
fn a_newcomer_takes_no_cut_that_is_not_recorded() {
    let scratch = TempDir::new().unwrap();
    let mut old = Node::create(&scratch.path().join("old"), 1);
    let commits = edits(&mut old, 5);
    record(&mut old, commits[1]);
    cut(&old, commits[2]);
    let new = Node::create(&scratch.path().join("new"), 2);
    let pulled = exchange_with(&new.repository, &old.repository, &PullOptions::default());
    assert!(
        matches!(pulled, Err(ExchangeError::Unrecorded { at }) if at == commits[2]),
        "{pulled:?}"
    );
    assert_eq!(new.repository.cuts().unwrap(), BTreeSet::new());
    assert_eq!(new.repository.authors().unwrap().len(), 0);
}

#[test]
fn what_lies_beside_is_refused_from_the_record_on() {
    let scratch = TempDir::new().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    let mut late = Node::create(&scratch.path().join("late"), 2);
    let mut other = Node::create(&scratch.path().join("b"), 3);
    edits(&mut node, 1);
    pull(&mut late, &node);
    late.put([file(5, "beside")]);
    other.put([file(6, "before")]);
    pull(&mut node, &other);
    let commits = edits(&mut node, 2);
    record(&mut node, commits[0]);
    let shown = node.view.clone();
    let pulled = exchange_with(&node.repository, &late.repository, &PullOptions::default());
    let refused = pulled.unwrap().refused;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].why, crate::exchange::Refusal::BesideCut);
    node.refresh();
    assert_eq!(node.view, shown);
    // a chain that was below, and goes on from what is shown, is no fork
    pull(&mut other, &node);
    other.put([file(6, "after")]);
    pull(&mut node, &other);
    assert_eq!(node.view, other.view);
}
