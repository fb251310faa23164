//! The process ends at any moment: what was answered for is there.

use super::fakes::{Node, WRITE, wait};
use crate::filesystem::*;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// The journal and the staging files as they were once.
struct Earlier {
    journal: Vec<u8>,
    staged: Vec<(PathBuf, Vec<u8>)>,
}

impl Earlier {
    fn of(node: &Node) -> Self {
        let staged = std::fs::read_dir(node.root.path().join("staging")).unwrap();
        let paths = staged.map(|file| file.unwrap().path());
        Self {
            journal: std::fs::read(node.root.path().join("journal")).unwrap(),
            staged: paths
                .map(|path| (path.clone(), std::fs::read(path).unwrap()))
                .collect(),
        }
    }

    /// A power cut has taken what came since.
    fn put_back(self, node: &Node) {
        std::fs::write(node.root.path().join("journal"), self.journal).unwrap();
        for (path, bytes) in self.staged {
            std::fs::write(path, bytes).unwrap();
        }
    }
}

#[test]
fn everything_acknowledged_survives_without_a_commit() {
    let mut node = Node::new();
    node.mkdir("d");
    node.write("d/small", b"small");
    node.write("d/large", &[3; 5000]);
    node.write("gone", b"x");
    node.unlink("gone").unwrap();
    let (_, open) = node.create("open");
    node.filesystem.write(open, 0, &[4; 6000]).unwrap();
    node.rename("d", "e", RenameMode::Replace).unwrap();
    let before = node.shown();
    for _ in 0..3 {
        node.restart();
        assert_eq!(node.shown(), before);
    }
    node.seal_all();
    node.restart();
    assert_eq!(node.shown(), before);
    node.commit();
    assert_eq!(node.view.len(), 4);
    node.restart();
    assert_eq!(node.shown(), before);
    assert!(node.filesystem.take_group().is_none());
}

#[test]
fn a_commit_that_the_journal_has_not_heard_of_is_not_repeated() {
    let mut node = Node::new();
    node.write("a", b"1");
    node.commit();
    node.mkdir("d");
    node.write("d/a", b"2");
    node.rename("a", "d/b", RenameMode::Replace).unwrap();
    let group = node.filesystem.take_group().unwrap();
    node.write("d/later", b"3");
    node.rename("d", "e", RenameMode::Replace).unwrap();
    let before = node.shown();
    let mut tree = node.names.tree(group.base.tree);
    tree.apply(&group.changes).unwrap();
    node.head = (super::fakes::view(node.names.keep(&tree)), group.sequence);
    node.restart();
    assert_eq!(node.shown(), before);
    let group = node.filesystem.take_group().unwrap();
    tree.apply(&group.changes).unwrap();
    let paths: Vec<String> = tree.paths().into_keys().collect();
    assert_eq!(paths, ["e", "e/a", "e/b", "e/later"]);
    assert!(!group.changes.iter().any(|(_, change)| {
        let place = change.after.as_ref().map(|placed| placed.name.to_string());
        place == Some("a".into())
    }));
}

#[test]
fn a_group_that_came_back_is_committed_with_what_came_later() {
    let mut node = Node::new();
    node.write("a", b"1");
    let group = node.filesystem.take_group().unwrap();
    assert!(node.filesystem.take_group().is_none(), "one at a time");
    node.write("b", b"2");
    node.unlink("a").unwrap();
    node.filesystem.return_group();
    assert_eq!(group.changes.len(), 2);
    let changes = node.commit();
    assert_eq!(changes.len(), 2, "b, and the root's times: {changes:?}");
}

#[test]
fn a_torn_record_was_never_acknowledged() {
    let mut node = Node::new();
    node.write("kept", b"kept");
    node.restart();
    let journal = node.root.path().join("journal");
    let whole = std::fs::read(&journal).unwrap();
    node.mkdir("torn");
    let longer = std::fs::read(&journal).unwrap();
    assert!(longer.len() > whole.len());
    for length in whole.len()..longer.len() {
        std::fs::write(&journal, &longer[..length]).unwrap();
        node.restart();
        assert_eq!(
            node.list(""),
            ["kept"],
            "cut at {length} of {}",
            longer.len()
        );
    }
    std::fs::write(&journal, &longer).unwrap();
    node.restart();
    assert_eq!(node.list(""), ["kept", "torn"]);
}

#[test]
fn a_file_opened_and_not_written_is_as_it_was() {
    let mut node = Node::new();
    let inode = node.write("f", &[1; 5000]);
    node.seal_all();
    node.commit();
    let opened = node.open(inode, WRITE);
    node.restart();
    assert_eq!(node.read("f"), [1; 5000]);
    assert_eq!(node.filesystem.status().unsealed, 0);
    let _ = opened;
    let opened = node.open(node.inode("f"), WRITE);
    node.filesystem.write(opened.handle, 10, &[2]).unwrap();
    node.restart();
    assert_eq!(node.read("f")[9..12], [1, 2, 1]);
    assert_eq!(node.filesystem.status().unsealed, 1);
}

#[test]
fn a_crash_between_the_store_and_the_journal_harms_neither() {
    let mut node = Node::new();
    node.write("f", &[1; 5000]);
    let job = node.filesystem.next_unsealed().unwrap();
    let sealed = node.contents.seal(&job.path).unwrap();
    node.restart();
    assert_eq!(node.read("f"), [1; 5000]);
    let inode = node.inode("f");
    let answer = node.filesystem.open(inode, WRITE).unwrap();
    assert!(
        matches!(answer, Answer::Later(_)),
        "the store has the same file"
    );
    node.seal_all();
    let opened = wait(answer).unwrap();
    node.filesystem.write(opened.handle, 0, &[2]).unwrap();
    let kept = std::fs::read(node.contents.path(sealed.content.info_hash)).unwrap();
    assert_eq!(kept, [1; 5000]);
}

#[test]
fn files_that_nobody_knows_are_swept() {
    let mut node = Node::new();
    node.write("f", &[1; 5000]);
    let staging = node.root.path().join("staging");
    std::fs::write(staging.join("00".repeat(16)), b"orphan").unwrap();
    node.restart();
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 1);
    assert_eq!(node.read("f"), [1; 5000]);
}

#[test]
fn syncing_is_recorded_and_answers() {
    let mut node = Node::new();
    let (_, handle) = node.create("f");
    node.filesystem.write(handle, 0, &[1; 5000]).unwrap();
    node.filesystem.sync(handle).unwrap();
    node.filesystem.sync_directory(Inode::ROOT).unwrap();
    node.filesystem.sync_all().unwrap();
    node.restart();
    assert_eq!(node.read("f"), [1; 5000]);
}

#[test]
fn a_full_disk_at_close_is_not_a_lost_file() {
    let mut node = Node::new();
    let (_, handle) = node.create("f");
    node.filesystem.write(handle, 0, &[1; 5000]).unwrap();
    node.contents.free.store(0, Ordering::Relaxed);
    node.filesystem.release(handle);
    let job = node.filesystem.next_unsealed().unwrap();
    node.filesystem
        .sealed(job, Err(FsError::NoSpace))
        .unwrap_err();
    node.restart();
    assert_eq!(node.read("f"), [1; 5000]);
}

#[test]
fn the_journal_is_compacted_and_still_says_all() {
    let mut node = Node::new();
    for round in 0..40 {
        node.mkdir(&format!("d{round}"));
        node.write("same", b"0");
    }
    let before = node.shown();
    let long = node.filesystem.status().journal_bytes;
    node.restart();
    assert!(node.filesystem.status().journal_bytes < long);
    assert_eq!(node.shown(), before);
    assert_eq!(node.commit().len(), 42);
}

/// Found by the simulation: the entry was in the committed tree twice, which other nodes refuse.
#[test]
fn a_journal_that_lost_its_end_does_not_bear_again_what_is_committed() {
    for moved in ["a", "b", "d/deep/b"] {
        let mut node = Node::new();
        node.mkdir("d");
        node.mkdir("d/deep");
        node.write("a", &[1; 100]);
        node.filesystem.sync_all().unwrap();
        let earlier = Earlier::of(&node);
        node.rename("a", moved, RenameMode::Replace).unwrap();
        node.seal_all();
        node.commit();
        let before = node.shown();
        earlier.put_back(&node);
        node.lose_power();
        assert_eq!(node.shown(), before, "moved to {moved}");
        assert_eq!(node.read(moved), [1; 100]);
    }
}

#[test]
fn what_was_synced_while_open_is_found_where_it_was_moved_since() {
    let mut node = Node::new();
    node.mkdir("d");
    let inode = node.write("d/old", &[1; 100]);
    node.seal_all();
    node.commit();
    let old = node.open(inode, WRITE);
    let (_, new) = node.create("d/new");
    for open in [old.handle, new] {
        node.filesystem.write(open, 0, &[2; 200]).unwrap();
        node.filesystem.sync(open).unwrap();
    }
    let earlier = Earlier::of(&node);
    node.rename("d/old", "renamed", RenameMode::Replace)
        .unwrap();
    node.rename("d", "e", RenameMode::Replace).unwrap();
    node.commit();
    earlier.put_back(&node);
    node.lose_power();
    assert_eq!(node.list(""), ["e", "renamed"]);
    assert_eq!(node.list("e"), ["new"], "no commit knows it yet");
    assert_eq!(node.read("renamed"), [2; 200]);
    assert_eq!(node.read("e/new"), [2; 200]);
}

/// Whether it has been in a commit and was removed, or never was in any, nothing tells: what was synced is not lost.
#[test]
fn what_was_synced_and_is_nowhere_in_the_committed_tree_comes_back() {
    let mut node = Node::new();
    node.write("a", &[1; 100]);
    node.filesystem.sync_all().unwrap();
    let earlier = Earlier::of(&node);
    node.seal_all();
    node.commit();
    node.unlink("a").unwrap();
    node.commit();
    earlier.put_back(&node);
    node.lose_power();
    assert_eq!(node.list(""), ["a"]);
    assert_eq!(node.read("a"), [1; 100]);
}

/// Found by the simulation: what was synced, committed and then overwritten came back over what was committed last.
#[test]
fn a_journal_that_lost_its_end_puts_nothing_over_what_was_committed_since() {
    let mut node = Node::new();
    node.write("f", &[1; 100]);
    node.filesystem.sync_all().unwrap();
    let earlier = Earlier::of(&node);
    for bytes in [[1; 100], [2; 100]] {
        node.write("f", &bytes);
        node.seal_all();
        node.commit();
    }
    earlier.put_back(&node);
    node.lose_power();
    assert_eq!(node.read("f"), [2; 100]);
    assert_eq!(node.list(""), ["f"]);
}

#[test]
fn what_was_synced_while_open_is_newer_than_the_commit_of_something_else() {
    let mut node = Node::new();
    let inode = node.write("f", &[1; 100]);
    node.seal_all();
    node.commit();
    let open = node.open(inode, WRITE);
    node.filesystem.write(open.handle, 0, &[2; 200]).unwrap();
    node.filesystem.sync(open.handle).unwrap();
    let earlier = Earlier::of(&node);
    node.write("other", b"other");
    node.commit();
    earlier.put_back(&node);
    node.lose_power();
    assert_eq!(node.read("f"), [2; 200]);
    assert_eq!(node.list(""), ["f", "other"]);
}

/// As editors save: a new file, renamed over the old one. Without a sync its bytes may be zeros after a power cut.
#[test]
fn after_a_power_cut_an_unsynced_file_does_not_take_the_place_of_an_older_one() {
    let mut node = Node::new();
    node.write("kept", b"old");
    node.write("synced", b"old");
    node.seal_all();
    node.commit();
    node.write("new", &[2; 6000]);
    node.filesystem.sync_directory(Inode::ROOT).unwrap();
    node.rename("new", "synced", RenameMode::Replace).unwrap();
    node.write("new", &[1; 6000]);
    node.rename("new", "kept", RenameMode::Replace).unwrap();
    node.write("alone", &[3; 6000]);
    node.restart();
    assert_eq!(node.read("kept"), [1; 6000], "nothing was lost");
    node.lose_power();
    assert_eq!(node.read("kept"), b"old");
    assert_eq!(node.read("synced"), [2; 6000]);
    assert_eq!(node.read("alone"), [3; 6000]);
    node.lose_power();
    assert_eq!(node.read("kept"), b"old");
}

/// As ext4 does: what is renamed over bytes that were synced is synced first, or those would be lost for nothing.
#[test]
fn a_synced_file_is_not_lost_to_an_unsynced_one_over_it() {
    let mut node = Node::new();
    node.write("f", b"old");
    node.seal_all();
    node.commit();
    let (_, first) = node.create("new");
    node.filesystem.write(first, 0, &[1; 6000]).unwrap();
    node.filesystem.sync(first).unwrap();
    node.rename("new", "f", RenameMode::Replace).unwrap();
    node.write("new", &[2; 6000]);
    node.rename("new", "f", RenameMode::Replace).unwrap();
    node.lose_power();
    assert_eq!(node.read("f"), [2; 6000]);
}

/// Otherwise a power cut could keep the name and take the bytes, and with them the version before.
#[test]
fn a_content_with_something_older_behind_it_is_durable_before_it_has_its_name() {
    let node = Node::new();
    node.write("new", &[1; 6000]);
    node.seal_all();
    assert!(!node.is_durable("new"), "a new file waits for nothing");
    node.write("overwritten", &[2; 6000]);
    node.seal_all();
    node.write("overwritten", &[3; 6000]);
    node.seal_all();
    assert!(node.is_durable("overwritten"));
    node.write("temporary", &[4; 6000]);
    node.rename("temporary", "overwritten", RenameMode::Replace)
        .unwrap();
    node.seal_all();
    assert!(node.is_durable("overwritten"), "renamed, then hashed");
    node.write("temporary", &[5; 6000]);
    node.seal_all();
    assert!(!node.is_durable("temporary"));
    node.rename("temporary", "elsewhere", RenameMode::Replace)
        .unwrap();
    assert!(!node.is_durable("elsewhere"));
    node.rename("elsewhere", "overwritten", RenameMode::Replace)
        .unwrap();
    assert!(node.is_durable("overwritten"), "hashed, then renamed");
}

/// Found by the simulation: once it has moved on, what it had replaced is not shown again.
#[test]
fn what_has_replaced_something_is_durable_before_it_moves_on() {
    let mut node = Node::new();
    node.mkdir("d");
    for (name, to, mode) in [
        ("a", "moved", RenameMode::Replace),
        ("b", "d", RenameMode::Exchange),
    ] {
        node.write(name, &[1; 6000]);
        node.seal_all();
        node.commit();
        node.write("new", &[2; 6000]);
        node.rename("new", name, RenameMode::Replace).unwrap();
        node.rename(name, to, mode).unwrap();
        node.seal_all();
        assert!(node.is_durable(to));
    }
    node.write("c", &[1; 6000]);
    node.seal_all();
    node.commit();
    node.write("hashed", &[3; 6000]);
    node.seal_all();
    node.write("new", &[2; 6000]);
    node.rename("new", "c", RenameMode::Replace).unwrap();
    node.rename("hashed", "c", RenameMode::Replace).unwrap();
    assert!(node.is_durable("c"));
}
