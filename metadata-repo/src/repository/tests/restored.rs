//! Replicas that were wiped, or restored from an old backup: they catch up, delete nothing that they do not know, and
//! what they wrote under their old identity comes to all. (docs/SEMANTICS.md, "Restored and wiped disks")

use super::several::carry;
use super::support::*;
use crate::Repository;
use crate::exchange::tests::exchange_with;
use crate::exchange::{ExchangeError, PullOptions, Pulled, Refusal};
use delugefs_core::entry::Placed;
use delugefs_core::ids::EntryId;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn file(number: u32) -> Placed {
    let name = format!("file {number}");
    placed(EntryId::ROOT, name, entry(id(number), inline(b"text")))
}

fn pull(to: &mut Node, from: &Node) -> Result<Pulled, ExchangeError> {
    let options = PullOptions {
        own: Some(to.incarnation),
        ..PullOptions::default()
    };
    let pulled = exchange_with(&to.repository, &from.repository, &options);
    to.refresh();
    pulled
}

/// Files that a node shows.
fn files(node: &Node) -> BTreeSet<u32> {
    (0..100)
        .filter(|n| node.model.get(id(*n)).is_some())
        .collect()
}

/// A copy of a node's repository, as of now.
fn backup(node: &Node, to: &Path) {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    copy(node.repository.path(), to);
}

/// Two nodes that agree on the files 1, 2 and 3; and where a backup of the second is, from when there were 1 and 2.
fn two(scratch: &TempDir) -> (Node, Node, std::path::PathBuf) {
    let mut one = Node::create(&scratch.path().join("one"), 1);
    let mut two = Node::create(&scratch.path().join("two"), 2);
    one.put([file(1)]);
    pull(&mut two, &one).unwrap();
    two.put([file(2)]);
    let old = scratch.path().join("old");
    backup(&two, &old);
    two.put([file(3)]);
    pull(&mut one, &two).unwrap();
    assert_eq!(files(&one), [1, 2, 3].into());
    (one, two, old)
}

fn remove(node: &mut Node, number: u32) {
    let gone = change(&node.model, id(number), None);
    node.author_all([gone]);
}

#[test]
fn a_wiped_replica_catches_up_and_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut one, two, _) = two(&scratch);
    remove(&mut one, 1);
    drop(two);
    let mut wiped = Node::create(&scratch.path().join("wiped"), 3);
    // even if it writes before it has heard of anything
    wiped.put([file(30)]);
    pull(&mut wiped, &one).unwrap();
    pull(&mut one, &wiped).unwrap();
    assert_eq!(files(&wiped), [2, 3, 30].into());
    assert_eq!(one.view, wiped.view);
}

#[test]
fn a_restored_replica_catches_up_and_deletes_nothing_that_it_does_not_know() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut one, mut two, old) = two(&scratch);
    remove(&mut one, 1);
    pull(&mut two, &one).unwrap();
    two.put([file(4)]);
    pull(&mut one, &two).unwrap();
    // under its old identity it is noticed, and nothing moves on either side
    let mut restored = Node::new(Repository::open(&old).unwrap(), 2);
    assert_eq!(files(&restored), [1, 2].into());
    let noticed = pull(&mut restored, &one);
    assert!(
        matches!(noticed, Err(ExchangeError::OwnChainAhead { .. })),
        "{noticed:?}"
    );
    assert_eq!(files(&restored), [1, 2].into());
    // as a new incarnation it works on its old tree, then learns the rest
    let mut restored = Node::new(restored.repository.clone(), 3);
    restored.put([file(30)]);
    pull(&mut restored, &one).unwrap();
    assert_eq!(files(&restored), [2, 3, 4, 30].into());
    pull(&mut one, &restored).unwrap();
    assert_eq!(one.view, restored.view);
}

/// The fork that a restored disk makes when it writes before it hears of others.
#[test]
fn both_sides_of_a_fork_come_to_all() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut one, mut two, old) = two(&scratch);
    let mut restored = Node::new(Repository::open(&old).unwrap(), 2);
    restored.sequence = 1;
    restored.put([file(30)]);
    let (ours, theirs) = (two.view.commit.unwrap(), restored.view.commit.unwrap());
    // it is refused, by whoever has the other side, and named
    let pulled = pull(&mut one, &restored).unwrap();
    assert!(pulled.moved.is_empty());
    assert_eq!(pulled.refused[0].why, Refusal::Forked { ours, theirs });
    assert_eq!(pulled.refused[0].author, incarnation(2));
    assert_eq!(files(&one), [1, 2, 3].into());
    assert!(
        pull(&mut one, &restored).unwrap().refused.is_empty(),
        "told once"
    );
    // it is noticed by its maker, too
    let noticed = pull(&mut restored, &one);
    assert!(
        matches!(noticed, Err(ExchangeError::OwnChainAhead { .. })),
        "{noticed:?}"
    );
    // which goes on as another, and witnesses its side, as the others do theirs
    let mut renewed = Node::new(restored.repository.clone(), 3);
    let pulled = pull(&mut renewed, &one).unwrap();
    assert_eq!(pulled.refused.len(), 1);
    renewed.witness();
    one.witness();
    for _ in 0..2 {
        pull(&mut renewed, &one).unwrap();
        pull(&mut one, &renewed).unwrap();
        pull(&mut two, &one).unwrap();
    }
    for node in [&one, &two, &renewed] {
        assert_eq!(files(node), [1, 2, 3, 30].into());
        assert_eq!(node.view, one.view);
    }
    // of the two sides, which other chains have now, all keep the same as that author's
    for node in [&one, &renewed] {
        let kept = node.repository.authors().unwrap()[&incarnation(2)];
        assert_eq!(kept, ours.max(theirs));
    }
    // and all is quiet
    for _ in 0..2 {
        assert_eq!(pull(&mut renewed, &one).unwrap(), Pulled::default());
        assert_eq!(pull(&mut one, &renewed).unwrap(), Pulled::default());
    }
    // after a restart the refusal is told once more, and moves nothing
    let mut again = Node::new(Repository::open(one.repository.path()).unwrap(), 1);
    assert_eq!(again.view, one.view);
    assert!(pull(&mut again, &renewed).unwrap().moved.is_empty());
}

/// A forged commit that came with a pull, stored and refused, is not what an author goes back to.
#[test]
fn recovery_takes_signed_commits_only() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, two, _) = two(&scratch);
    let author = incarnation(2);
    let good = one.repository.authors().unwrap()[&author];
    let mut forger = Node::create(&scratch.path().join("forger"), 4);
    carry(one.repository.path(), forger.repository.path());
    forger.refresh();
    forger.put([file(40)]);
    let forged = forger.view.commit.unwrap();
    let raw = forger
        .repository
        .session()
        .object(
            crate::repository::object_id(forged.as_bytes()),
            gix::objs::Kind::Commit,
        )
        .unwrap();
    let claims = String::from_utf8(raw).unwrap();
    let claims = claims
        .replace(&incarnation(4).to_string(), &author.to_string())
        .replace("Journal-Sequence: 1", "Journal-Sequence: 999");
    carry(forger.repository.path(), one.repository.path());
    let git = one.repository.git_handle();
    gix::objs::Write::write_buf(&git.objects, gix::objs::Kind::Commit, claims.as_bytes()).unwrap();
    let path = one.repository.path().to_owned();
    drop((one, two));
    // a power cut has emptied the reference
    fs::write(path.join(format!("refs/authors/{author}")), b"").unwrap();
    let recovered = Repository::open(&path).unwrap();
    assert_eq!(recovered.authors().unwrap()[&author], good);
}
