//! Many commits and packs: the files stay few, and nobody misses an object.

use super::stock::git;
use super::support::*;
use crate::Repository;
use delugefs_core::ids::EntryId;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn count(path: &Path, extension: &str) -> usize {
    let entries = fs::read_dir(path.join("objects/pack")).unwrap();
    entries
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|e| e == extension)
        })
        .count()
}

fn loose(path: &Path) -> usize {
    git(path, &["count-objects"])
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn packs_and_loose_objects_are_put_together_under_readers() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a");
    let mut node = Node::create(&path, 1);
    node.put((0..300).map(|n| placed(EntryId::ROOT, format!("f{n}"), entry(id(n), swarm(1)))));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = node.repository.clone();
        let ended = &ended;
        let reading = scope.spawn(move || {
            let mut reads = 0;
            while !ended.load(Ordering::Relaxed) || reads == 0 {
                let tree = reader.view().tree;
                let listed = reader.directory(tree).unwrap();
                for listed in listed.iter().step_by(50) {
                    reader.info(listed.blob.unwrap()).unwrap();
                }
                reads += 1;
            }
        });
        for turn in 0..60 {
            // Enough for a pack each time.
            node.put((0..300).map(|n| {
                let mut edited = entry(id(n), swarm(u64::from(turn)));
                edited.attributes.uid = turn;
                placed(EntryId::ROOT, format!("f{n}"), edited)
            }));
        }
        assert_eq!(count(&path, "pack"), 61);
        node.repository.maintain().unwrap();
        assert_eq!(count(&path, "pack"), 1);
        assert_eq!(count(&path, "idx"), 1);
        // As many as it takes for the files to be counted twice without being asked to.
        for turn in 100..1200 {
            let mut edited = entry(id(turn % 300), swarm(2));
            edited.attributes.uid = turn;
            node.put([placed(EntryId::ROOT, format!("f{}", turn % 300), edited)]);
        }
        assert!(
            loose(&path) < 4096 + 512 * 5,
            "{} loose objects",
            loose(&path)
        );
        ended.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    });
    node.durable = true;
    node.put([placed(EntryId::ROOT, "last", entry(id(9000), swarm(3)))]);
    assert_eq!(read(&node.repository, node.view.tree), node.model);
    assert_eq!(git(&path, &["fsck", "--strict", "--no-dangling"]), "");
    let again = Repository::open(&path).unwrap();
    assert_eq!(again.view(), node.view);
    assert_eq!(read(&again, node.view.tree), node.model);
}
