//! Syncs that fail: no later sync is believed, nothing more is committed, and the next start reads what there is.

use super::support::*;
use super::upkeep::upkeep;
use crate::{Repository, RepositoryError, Upkeep};
use delugefs_core::ids::EntryId;
use std::cell::Cell;
use std::io;

thread_local! {
    /// How many syncs of this thread go well before one fails.
    static GOOD_SYNCS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Lets so many syncs of this thread go well and the next one fail while something is done.
pub(super) fn with_good_syncs<T>(good: u32, act: impl FnOnce() -> T) -> T {
    GOOD_SYNCS.set(Some(good));
    let done = act();
    GOOD_SYNCS.set(None);
    done
}

/// Asked before each sync of a file or directory.
pub(in crate::repository) fn next_sync() -> io::Result<()> {
    match GOOD_SYNCS.get() {
        None => Ok(()),
        Some(0) => {
            GOOD_SYNCS.set(None);
            Err(io::Error::from_raw_os_error(5))
        }
        Some(left) => {
            GOOD_SYNCS.set(Some(left - 1));
            Ok(())
        }
    }
}

fn file(number: u32) -> delugefs_core::entry::Placed {
    placed(
        EntryId::ROOT,
        format!("file {number}"),
        entry(id(number), inline(b"text")),
    )
}

#[test]
fn after_a_sync_that_failed_nothing_more_is_committed() {
    for good in 0..100 {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a");
        let mut node = Node::create(&path, 1);
        node.durable = true;
        node.put([file(1)]);
        let before = node.view.clone();
        let changes = [change(&node.model, id(2), Some(file(2)))];
        GOOD_SYNCS.set(Some(good));
        let authored = node.try_author(&changes.clone().into_iter().collect());
        if GOOD_SYNCS.replace(None).is_some() {
            assert!(authored.is_ok() && good > 3, "{good} syncs in all");
            return;
        }
        let failed = |authored: crate::Result<_>| {
            assert!(
                matches!(authored, Err(RepositoryError::NotDurable(_))),
                "{authored:?}"
            );
        };
        failed(authored);
        failed(node.try_author(&changes.into_iter().collect()));
        assert_eq!(node.repository.view(), before, "reading goes on");
        drop(node);
        // what was tried is there whole or not at all, and the trailer tells which
        let mut node = Node::new(Repository::open(&path).unwrap(), 1);
        let is_there = node.model.get(id(2)).is_some();
        let sequence = node.repository.sequence(incarnation(1)).unwrap();
        assert_eq!(sequence, Some(if is_there { 2 } else { 1 }));
        node.durable = true;
        node.put([file(2), file(3)]);
        assert!(node.model.get(id(3)).is_some());
    }
    panic!("never more than a few syncs");
}

#[test]
fn after_a_sync_of_a_new_pack_that_failed_nothing_is_removed_and_nothing_more_committed() {
    let scratch = tempfile::tempdir().unwrap();
    // the pack, its index, and their names
    for good in 0..3 {
        let path = scratch.path().join(good.to_string());
        let mut node = Node::create(&path, 1);
        node.durable = true;
        node.put([file(1)]);
        let upkeep = Upkeep {
            thorough: true,
            ..upkeep()
        };
        GOOD_SYNCS.set(Some(good));
        let maintained = node.repository.maintain(&upkeep);
        assert_eq!(GOOD_SYNCS.replace(None), None, "a sync has failed");
        let is_told = |done| matches!(done, Err(RepositoryError::NotDurable(_)));
        assert!(is_told(maintained));
        let changes = [change(&node.model, id(2), Some(file(2)))];
        assert!(is_told(
            node.try_author(&changes.into_iter().collect()).map(drop)
        ));
        let tip = node.repository.authors().unwrap()[&incarnation(1)].to_string();
        let object = path.join("objects").join(&tip[..2]).join(&tip[2..]);
        assert!(object.exists(), "what the pack has is where it was, too");
    }
}

#[test]
fn after_a_sync_that_failed_the_next_start_reads() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a");
    let mut node = Node::create(&path, 1);
    node.durable = true;
    node.put([file(1)]);
    let good = node.view.clone();
    let changes = [change(&node.model, id(2), Some(file(2)))];
    // past the objects, when the reference has moved
    let authored = with_good_syncs(7, || node.try_author(&changes.into_iter().collect()));
    assert!(authored.is_err(), "all syncs were good");
    let checkpoint = std::fs::read_to_string(path.join("delugefs-synced")).unwrap();
    assert!(checkpoint.starts_with("1 -\n"), "{checkpoint}");
    // the kernel has forgotten what it could not write
    let tip = node.repository.authors().unwrap()[&incarnation(1)];
    if tip != *good.heads.first().unwrap() {
        let hex = tip.to_string();
        let object = path.join("objects").join(&hex[..2]).join(&hex[2..]);
        std::fs::write(object, b"").unwrap();
    }
    drop(node);
    let node = Node::new(Repository::open(&path).unwrap(), 1);
    assert_eq!(node.view, good);
}
