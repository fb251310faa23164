//! Trees written and read back, against the model.

use super::support::*;
use crate::{Repository, RepositoryError};
use delugefs_core::change::Changes;
use delugefs_core::entry::{Kind, Placed};
use delugefs_core::ids::{CommitId, EntryId};
use delugefs_core::memory_tree::MemoryTree;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[test]
fn a_fresh_volume_is_the_same_everywhere() {
    let scratch = tempfile::tempdir().unwrap();
    let one = Repository::create(&scratch.path().join("a"), &settings()).unwrap();
    let mut other = settings();
    other.copies = 5;
    let two = Repository::create(&scratch.path().join("b"), &other).unwrap();
    assert_eq!(one.view(), two.view());
    assert!(one.view().heads.is_empty());
    assert_eq!(two.settings().unwrap(), settings());
    assert!(one.directory(one.view().tree).unwrap().is_empty());
    assert!(matches!(
        Repository::create(one.path(), &other),
        Err(RepositoryError::Exists(_))
    ));
}

#[test]
fn nothing_new_is_no_commit() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    assert_eq!(node.author(&Changes::new()).commit, None);
    assert!(
        node.put([placed(EntryId::ROOT, "a", entry(id(1), inline(b"x")))])
            .commit
            .is_some()
    );
    assert_eq!(node.author(&Changes::new()).commit, None);
    assert_eq!(node.repository.sequence(incarnation(1)).unwrap(), Some(2));
    assert_eq!(node.repository.sequence(incarnation(2)).unwrap(), None);
    node.sequence = 0;
    let commit = node
        .put([placed(EntryId::ROOT, "b", entry(id(2), inline(b"x")))])
        .commit;
    assert_eq!(
        node.repository.sequence(incarnation(1)).unwrap(),
        Some(2),
        "never goes back"
    );
    assert!(node.repository.is_known(commit.unwrap()).unwrap());
    assert!(!node.repository.is_known(CommitId::new([9; 20])).unwrap());
}

#[test]
fn another_chain_goes_on_where_one_ended() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    node.put([placed(EntryId::ROOT, "a", entry(id(1), inline(b"x")))]);
    let before = node.view.clone();
    let first = node.continue_as(2);
    let shown = node.repository.view();
    assert_eq!((shown.heads, shown.tree), ([first].into(), before.tree));
    assert_eq!(node.repository.sequence(incarnation(2)).unwrap(), Some(1));
    // a crash before anybody was told: the next changes still start from what was there before
    assert_eq!(node.view, before);
    let second = node.put([placed(EntryId::ROOT, "b", entry(id(2), inline(b"y")))]);
    assert_eq!(second.view.heads, [second.commit.unwrap()].into());
    node.view = before;
    let stale = placed(EntryId::ROOT, "c", entry(id(3), inline(b"z")));
    let changes = [change(&node.model, id(3), Some(stale))];
    assert!(matches!(
        node.try_author(&changes.into_iter().collect()),
        Err(RepositoryError::Rules { .. })
    ));
}

#[test]
fn a_moved_directory_is_one_change() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    let mut entries = vec![
        placed(EntryId::ROOT, "old", entry(id(1), Kind::Directory)),
        placed(EntryId::ROOT, "new", entry(id(2), Kind::Directory)),
    ];
    entries.extend((10..100).map(|n| placed(id(1), format!("f{n}"), entry(id(n), swarm(1)))));
    node.put(entries);
    let before = node.view.clone();
    let moved = placed(id(2), "inner", entry(id(1), Kind::Directory));
    node.put([moved.clone()]);
    let diff = node.repository.diff(before.tree, node.view.tree).unwrap();
    let listed: Vec<_> = diff.changes.iter().map(|(id, _)| id).collect();
    assert_eq!(listed, [id(1)]);
    assert_eq!(diff.changes.get(id(1)).unwrap().after, Some(moved));
    let directories: BTreeSet<EntryId> = diff.directories.iter().map(|(id, _)| *id).collect();
    assert_eq!(directories, BTreeSet::from([EntryId::ROOT, id(2)]));
    assert!(diff.blobs.is_empty());
}

#[test]
fn a_removed_directory_lists_what_was_in_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    node.put([
        placed(EntryId::ROOT, "d", entry(id(1), Kind::Directory)),
        placed(id(1), "e", entry(id(2), Kind::Directory)),
        placed(id(2), "kept", entry(id(3), inline(b"1"))),
        placed(id(2), "gone", entry(id(4), inline(b"2"))),
    ]);
    let before = node.view.clone();
    let incomplete: Changes = [
        change(&node.model, id(1), None),
        change(&node.model, id(2), None),
    ]
    .into_iter()
    .collect();
    assert!(matches!(
        node.try_author(&incomplete),
        Err(RepositoryError::Unreachable(_))
    ));
    let moved = placed(EntryId::ROOT, "kept", entry(id(3), inline(b"1")));
    let changes: Vec<_> = [(1, None), (2, None), (3, Some(moved)), (4, None)]
        .into_iter()
        .map(|(number, after)| change(&node.model, id(number), after))
        .collect();
    node.author_all(changes.clone());
    let diff = node.repository.diff(before.tree, node.view.tree).unwrap();
    assert_eq!(diff.changes, changes.into_iter().collect());
}

#[test]
fn changes_of_another_tree_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    node.put([placed(EntryId::ROOT, "a", entry(id(1), inline(b"x")))]);
    let before = placed(EntryId::ROOT, "b", entry(id(2), inline(b"x")));
    node.model
        .apply(
            &[change(&node.model, id(2), Some(before))]
                .into_iter()
                .collect(),
        )
        .unwrap();
    let remove: Changes = [change(&node.model, id(2), None)].into_iter().collect();
    assert!(
        matches!(node.try_author(&remove), Err(RepositoryError::Stale(found)) if found == id(2))
    );
    let unknown = placed(EntryId::ROOT, "c", entry(id(3), swarm(1000)));
    let unknown: Changes = [change(&node.model, id(3), Some(unknown))]
        .into_iter()
        .collect();
    assert!(matches!(
        node.try_author(&unknown),
        Err(RepositoryError::NoInfo(_))
    ));
}

#[test]
fn large_directories_spread_and_change_cheaply() {
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Node::create(&scratch.path().join("a"), 1);
    let file = |n: u32| {
        placed(
            EntryId::ROOT,
            format!("file number {n}"),
            entry(id(n), inline(b"")),
        )
    };
    for group in 0..10 {
        node.put((group * 500..(group + 1) * 500).map(file));
    }
    assert_eq!(read(&node.repository, node.view.tree), node.model);
    let before = node.view.clone();
    node.put([placed(
        EntryId::ROOT,
        "one more",
        entry(id(9999), inline(b"")),
    )]);
    let diff = node.repository.diff(before.tree, node.view.tree).unwrap();
    assert_eq!(diff.changes.len(), 1);
    // Read by a fresh process, and equal to a tree that was written at once up to its history.
    let again = Repository::open(node.repository.path()).unwrap();
    assert_eq!(read(&again, node.view.tree), node.model);
    let all: Vec<_> = node
        .model
        .list(EntryId::ROOT)
        .map(|placed| change(&node.model, placed.entry.id, None))
        .collect();
    node.author_all(all);
    assert!(
        node.repository
            .directory(node.view.tree)
            .unwrap()
            .is_empty()
    );
}

/// One step of a random history: numbers that become a change that is valid in the model.
pub(crate) type Step = (u8, u16, u16, u8);

fn names() -> [&'static [u8]; 12] {
    [
        b"a",
        b"b",
        b"c.torrent",
        b"d.node",
        b".git",
        b"%",
        b"x\\y",
        b"\xff",
        b"e e ",
        b"f.",
        &[b'q'; 250],
        &[b'%'; 200],
    ]
}

fn pick<T: Clone>(items: &[T], number: u16) -> Option<T> {
    (!items.is_empty()).then(|| items[usize::from(number) % items.len()].clone())
}

fn is_inside(model: &MemoryTree, mut at: EntryId, directory: EntryId) -> bool {
    while at != EntryId::ROOT {
        if at == directory {
            return true;
        }
        at = model.get(at).unwrap().parent;
    }
    false
}

/// Makes a valid change of the model, and applies it.
pub(crate) fn take_step(
    model: &mut MemoryTree,
    next: &mut u32,
    (what, which, whither, extra): Step,
) -> Changes {
    let all: Vec<Placed> = model
        .iter()
        .filter(|placed| placed.entry.id != EntryId::ROOT)
        .cloned()
        .collect();
    let directories: Vec<EntryId> = model
        .iter()
        .filter(|placed| placed.entry.kind == Kind::Directory)
        .map(|placed| placed.entry.id)
        .collect();
    let parent = pick(&directories, whither).unwrap();
    let bytes = names()[usize::from(extra) % names().len()];
    let free = model
        .list(parent)
        .all(|placed| placed.name.as_bytes() != bytes);
    let mut changes = Changes::new();
    match (what % 6, pick(&all, which)) {
        (0 | 1, _) if free => {
            *next += 1;
            let kinds = [
                Kind::Directory,
                inline(b"hello"),
                swarm(u64::from(extra % 9)),
                Kind::Fifo,
            ];
            let kind = kinds[usize::from(which) % 4].clone();
            let after = placed(parent, bytes, entry(id(*next), kind));
            changes.extend(
                [change(model, id(*next), Some(after))]
                    .into_iter()
                    .collect(),
            );
        }
        (2, Some(mut found)) => {
            found.entry.attributes.uid = u32::from(extra);
            changes.extend(
                [change(model, found.entry.id, Some(found))]
                    .into_iter()
                    .collect(),
            );
        }
        (3 | 4, Some(mut found)) if free && !is_inside(model, parent, found.entry.id) => {
            (found.parent, found.name) = (parent, name(bytes));
            changes.extend(
                [change(model, found.entry.id, Some(found))]
                    .into_iter()
                    .collect(),
            );
        }
        (5, Some(found)) => {
            let inside = model.descendants(found.entry.id);
            let ids = inside.into_iter().chain([found.entry.id]);
            changes.extend(ids.map(|id| change(model, id, None)).collect());
        }
        _ => {}
    }
    model.apply(&changes).unwrap();
    changes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(groups in prop::collection::vec(prop::collection::vec(any::<Step>(), 1..12), 1..6)) {
        let scratch = tempfile::tempdir().unwrap();
        let mut node = Node::create(&scratch.path().join("a"), 1);
        let first = (node.view.clone(), node.model.clone());
        let mut next = 0;
        for group in groups {
            let before = (node.view.clone(), node.model.clone());
            let mut model = node.model.clone();
            let mut changes = Changes::new();
            for step in group {
                changes.extend(take_step(&mut model, &mut next, step));
            }
            node.author(&changes);
            prop_assert_eq!(&node.model, &model);
            prop_assert_eq!(&read(&node.repository, node.view.tree), &model);
            for (view, earlier) in [&before, &first] {
                let diff = node.repository.diff(view.tree, node.view.tree).unwrap();
                prop_assert_eq!(diff.changes, earlier.diff(&model));
                let back = node.repository.diff(node.view.tree, view.tree).unwrap();
                prop_assert_eq!(back.changes, model.diff(earlier));
            }
        }
        let again = Repository::open(node.repository.path()).unwrap();
        prop_assert_eq!(again.view(), node.view);
    }
}
