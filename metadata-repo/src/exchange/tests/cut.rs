//! Repositories whose history is cut, served to stock git and to nodes.

use super::super::{ExchangeError, GitStore as _, Refusal};
use super::support::{
    Node, commit_id, git, incarnation, pull, pull_with, trusting, try_git, with_server,
};
use gix::ObjectId;
use std::collections::HashSet;
use tempfile::TempDir;

/// A chain of so many commits, and all of them.
fn chain(node: &Node, length: usize) -> Vec<ObjectId> {
    let mut commits: Vec<ObjectId> = Vec::new();
    for round in 0..length {
        let parents: Vec<_> = commits.last().copied().into_iter().collect();
        let text = format!("text {round}");
        commits.push(node.commit(1, &parents, &[("a", &text), ("d/x", "x")]));
    }
    node.set_main(commits[length - 1]);
    commits
}

/// Cuts history, and removes what lies below.
fn cut(node: &Node, at: ObjectId) {
    node.begin_at(&HashSet::from([at])).unwrap();
    git(node.path(), &["repack", "-adq"]);
    git(node.path(), &["prune", "--expire=now"]);
}

fn has(node: &Node, id: ObjectId) -> bool {
    try_git(node.path(), &["cat-file", "-e", &id.to_string()]).0
}

fn count(node: &Node) -> usize {
    let author = format!("refs/authors/{}", incarnation(1));
    let counted = git(node.path(), &["rev-list", "--count", &author]);
    counted.parse().unwrap()
}

#[test]
fn stock_git_clones_and_fetches_what_is_left() {
    let node = Node::new();
    let commits = chain(&node, 6);
    cut(&node, commits[3]);
    assert!(has(&node, commits[3]) && !has(&node, commits[2]));
    let folder = TempDir::new().unwrap();
    let clone = folder.path().join("clone");
    with_server(&node, |url| {
        git(folder.path(), &["clone", "-q", url, "clone"]);
        assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "3");
        git(&clone, &["fsck", "--strict", "--full"]);
        let next = node.commit(1, &[commits[5]], &[("a", "next"), ("d/x", "x")]);
        node.set_main(next);
        git(&clone, &["pull", "-q", "--ff-only"]);
        assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "4");
        git(&clone, &["fetch", "-q", "--depth", "2"]);
        assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "2");
        git(&clone, &["fetch", "-q", "--depth", "1000"]);
        assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "4");
        git(&clone, &["fsck", "--strict", "--full"]);
    });
}

#[test]
fn a_newcomer_begins_where_the_peers_history_begins() {
    let old = Node::new();
    let commits = chain(&old, 6);
    cut(&old, commits[3]);
    let new = Node::new();
    assert_eq!(pull(&new, &old).moved.len(), 1);
    new.fsck();
    assert_eq!(count(&new), 3);
    let third = Node::new();
    assert_eq!(pull(&third, &new).moved.len(), 1, "it serves what it has");
    for number in 0..3 {
        let text = format!("later {number}");
        old.commit(1, &[old.author(1).unwrap()], &[("a", &text)]);
        for node in [&new, &third] {
            assert_eq!(pull(node, &old).moved.len(), 1);
            node.fsck();
        }
    }
    assert_eq!(count(&third), 6);
}

#[test]
fn a_node_that_has_what_was_cut_goes_on_with_it() {
    let one = Node::new();
    let two = Node::new();
    let commits = chain(&one, 5);
    pull(&two, &one);
    cut(&one, commits[3]);
    let next = one.commit(1, &[commits[4]], &[("a", "next")]);
    assert_eq!(pull(&two, &one).moved.len(), 1);
    assert_eq!(count(&two), 6, "nothing is cut because a peer has cut it");
    two.commit(2, &[next], &[("a", "two")]);
    assert_eq!(pull(&one, &two).moved.len(), 1);
    assert_eq!(count(&one), 3);
    for node in [&one, &two] {
        node.fsck();
    }
}

#[test]
fn a_node_whose_past_is_older_takes_nothing() {
    let one = Node::new();
    let two = Node::new();
    let mut commits = chain(&one, 2);
    pull(&two, &one);
    for text in ["x", "y", "z"] {
        let last = commits[commits.len() - 1];
        commits.push(one.commit(1, &[last], &[("a", text)]));
    }
    cut(&one, commits[3]);
    let before = two.leftovers();
    let (pulled, _) = pull_with(&two, &one, &trusting());
    let at = commit_id(commits[3]);
    assert!(
        matches!(&pulled, Err(ExchangeError::Cut { at: told }) if *told == at),
        "{pulled:?}"
    );
    assert_eq!((two.author(1), count(&two)), (Some(commits[1]), 2));
    assert!(!two.path().join("shallow").exists());
    two.fsck();
    assert_eq!(two.leftovers(), before);
}

#[test]
fn what_does_not_go_on_from_the_cut_is_refused_and_keeps_nothing_else_away() {
    let whole = Node::new();
    let commits = chain(&whole, 5);
    // below, and beside
    whole.set_author(2, commits[1]);
    whole.commit(3, &[commits[1]], &[("b", "beside")]);
    whole.commit(4, &[commits[1], commits[3]], &[("b", "across")]);
    let new = Node::new();
    {
        let cut_one = Node::new();
        pull(&cut_one, &whole);
        for author in [2, 3, 4] {
            let name = format!("refs/authors/{}", incarnation(author));
            git(cut_one.path(), &["update-ref", "-d", &name]);
        }
        cut(&cut_one, commits[2]);
        pull(&new, &cut_one);
    }
    let next = whole.commit(1, &[commits[4]], &[("a", "next")]);
    let pulled = pull(&new, &whole);
    assert_eq!(pulled.moved, [(incarnation(1), commit_id(next))]);
    let refused: Vec<_> = pulled.refused.iter().map(|one| one.author).collect();
    assert_eq!(refused, [2, 3, 4].map(incarnation));
    let why = |one: &super::super::Refused| one.why == Refusal::BesideCut;
    assert!(pulled.refused.iter().all(why), "{pulled:?}");
    assert_eq!(pull(&new, &whole).refused, [], "told once");
    new.fsck();
}
