//! What other nodes do, while things happen here.

use super::fakes::{Node, READ, WRITE, wait};
use crate::filesystem::*;
use delugefs_core::change::Change;
use delugefs_core::entry::{Attributes, Content, Entry, File, Kind, Placed, Written};
use delugefs_core::ids::EntryId;
use delugefs_core::memory_tree::MemoryTree;
use delugefs_core::name::Name;
use delugefs_core::time::Timestamp;

pub(super) fn name(name: &str) -> Name {
    Name::parse(name.as_bytes()).unwrap()
}

/// Makes an entry what `edit` makes of it.
pub(super) fn change(tree: &mut MemoryTree, path: &[&str], edit: impl FnOnce(&mut Placed)) {
    let before = tree.at(path).unwrap().clone();
    let mut after = before.clone();
    edit(&mut after);
    set(tree, before.entry.id, Some(after));
}

pub(super) fn set(tree: &mut MemoryTree, id: EntryId, after: Option<Placed>) {
    let before = tree.get(id).cloned();
    tree.apply(&[(id, Change { before, after })].into_iter().collect())
        .unwrap();
}

pub(super) fn remove(tree: &mut MemoryTree, path: &[&str]) {
    let id = tree.at(path).unwrap().entry.id;
    set(tree, id, None);
}

/// A new entry of another node.
pub(super) fn add(tree: &mut MemoryTree, serial: u8, path: &[&str], kind: Kind) {
    let (last, parents) = path.split_last().unwrap();
    let id = EntryId::new([serial; 16]);
    let placed = Placed {
        parent: tree.at(parents).unwrap().entry.id,
        name: name(last),
        entry: Entry {
            id,
            kind,
            attributes: Attributes::default(),
            written: written(1),
        },
    };
    set(tree, id, Some(placed));
}

fn written(edits: u32) -> Written {
    Written {
        edits,
        at: Timestamp::from_seconds(500_000),
        by: "there".into(),
    }
}

pub(super) fn inline(bytes: &[u8]) -> Kind {
    Kind::File(File {
        content: Content::Inline(bytes.to_vec()),
        previous: Vec::new(),
    })
}

/// Other bytes, by another node.
pub(super) fn edit(tree: &mut MemoryTree, path: &[&str], bytes: &[u8]) {
    change(tree, path, |placed| {
        placed.entry.kind = inline(bytes);
        placed.entry.written = written(placed.entry.written.edits + 1);
    });
}

#[test]
fn what_others_make_change_and_remove_is_seen() {
    let mut node = Node::new();
    node.mkdir("d");
    node.write("d/edited", b"old");
    node.write("d/removed", b"old");
    node.write("d/moved", b"old");
    node.commit();
    let edited = node.inode("d/edited");
    let moved = node.inode("d/moved");
    let told = node.meet(|tree| {
        edit(tree, &["d", "edited"], b"new");
        remove(tree, &["d", "removed"]);
        add(tree, 1, &["e"], Kind::Directory);
        add(tree, 2, &["e", "made"], inline(b"made"));
        let to = tree.at(&["e"]).unwrap().entry.id;
        change(tree, &["d", "moved"], |placed| placed.parent = to);
    });
    assert_eq!(node.list("d"), ["edited"]);
    assert_eq!(node.list("e"), ["made", "moved"]);
    assert_eq!(node.read("d/edited"), b"new");
    assert_ne!(node.inode("d/edited"), edited, "other bytes, another inode");
    let _ = moved;
    let d = node.inode("d");
    let entry = |name: &[u8]| Invalidation::Entry {
        parent: d,
        name: name.to_vec(),
    };
    assert!(told.contains(&entry(b"edited")) && told.contains(&entry(b"moved")));
    assert!(
        told.iter()
            .any(|one| matches!(one, Invalidation::Deleted { name, .. } if name == b"removed"))
    );
    assert!(node.filesystem.take_group().is_none());
    assert_eq!(node.filesystem.base().tree, node.names.keep(&node.view));
    let before = node.shown();
    node.restart();
    assert_eq!(node.shown(), before);
}

#[test]
fn attributes_keep_the_inode() {
    let mut node = Node::new();
    node.write("f", b"x");
    node.commit();
    let inode = node.inode("f");
    let told = node.meet(|tree| change(tree, &["f"], |f| f.entry.attributes.mode = 0o600));
    assert_eq!((node.inode("f"), node.stat("f").mode), (inode, 0o600));
    assert!(told.contains(&Invalidation::Attributes(inode)));
}

#[test]
fn an_open_old_version_stays_readable() {
    let mut node = Node::new();
    let inode = node.write("f", &[1; 5000]);
    node.seal_all();
    node.write("g", b"old");
    node.commit();
    let old = [node.open(inode, READ), node.open(node.inode("g"), READ)];
    node.meet(|tree| {
        edit(tree, &["f"], b"new");
        remove(tree, &["g"]);
    });
    assert_eq!(node.read("f"), b"new");
    assert_eq!(node.read_handle(old[0].handle), [1; 5000]);
    assert_eq!(node.read_handle(old[1].handle), b"old");
    assert_eq!(node.filesystem.stat(inode).unwrap().links, 0);
}

#[test]
fn both_edit_a_file_one_is_still_being_written_here() {
    let mut node = Node::new();
    let inode = node.write("f.txt", b"old");
    node.commit();
    let writer = node.open(inode, WRITE);
    node.filesystem.write(writer.handle, 0, &[7; 5000]).unwrap();
    node.meet(|tree| edit(tree, &["f.txt"], b"theirs"));
    assert_eq!(node.read("f.txt"), b"theirs");
    let names = node.list("");
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("f (conflict ") && names[0].ends_with(" here).txt"));
    node.filesystem
        .write(writer.handle, 5000, &[7; 1000])
        .unwrap();
    node.restart();
    assert_eq!(node.read(&names[0]), [7; 6000]);
    node.seal_all();
    node.commit();
    assert_eq!(node.view.len(), 2);
    let ours = node.view.at(&[&names[0]]).unwrap().entry.id;
    assert_ne!(ours, node.view.at(&["f.txt"]).unwrap().entry.id);
}

#[test]
fn removed_there_while_written_here_the_edit_lives() {
    let mut node = Node::new();
    node.mkdir("d");
    let inode = node.write("d/f", b"old");
    node.commit();
    let writer = node.open(inode, WRITE);
    node.filesystem.write(writer.handle, 0, b"new").unwrap();
    node.meet(|tree| {
        remove(tree, &["d", "f"]);
        remove(tree, &["d"]);
    });
    assert_eq!(node.read("d/f"), b"new");
    let before = node.shown();
    node.restart();
    assert_eq!(node.shown(), before);
    node.seal_all();
    node.commit();
    assert_eq!(
        node.view.paths().into_keys().collect::<Vec<_>>(),
        ["d", "d/f"]
    );
}

#[test]
fn a_new_file_not_yet_sealed_gives_way_and_lives() {
    let mut node = Node::new();
    node.write("f", &[1; 5000]);
    node.meet(|tree| add(tree, 1, &["f"], inline(b"theirs")));
    assert_eq!(node.read("f"), b"theirs");
    node.seal_all();
    node.commit();
    assert_eq!(node.view.len(), 2);
    let names = node.list("");
    let ours = names.iter().find(|name| *name != "f").unwrap();
    assert_eq!(node.read(ours), [1; 5000]);
}

#[test]
fn an_edit_there_outlives_being_replaced_here_unseen() {
    let mut node = Node::new();
    node.write("f", b"old");
    node.commit();
    node.write("tmp", &[1; 5000]);
    node.rename("tmp", "f", RenameMode::Replace).unwrap();
    node.meet(|tree| edit(tree, &["f"], b"theirs"));
    assert_eq!(node.read("f"), b"theirs");
    assert_eq!(node.list("").len(), 2);
    node.seal_all();
    node.commit();
    assert_eq!(node.view.len(), 2);
    node.restart();
    assert_eq!(node.list("").len(), 2);
}

#[test]
fn pending_changes_are_merged_and_what_they_lost_is_shown() {
    let mut node = Node::new();
    node.mkdir("a");
    node.mkdir("b");
    node.commit();
    node.rename("a", "b/a", RenameMode::Replace).unwrap();
    node.meet(|tree| {
        let a = tree.at(&["a"]).unwrap().entry.id;
        change(tree, &["b"], |b| b.parent = a);
    });
    let shown: Vec<String> = node.shown().into_keys().collect();
    let view: Vec<String> = node
        .view
        .paths()
        .into_keys()
        .map(|path| format!("/{path}"))
        .collect();
    assert_eq!(
        shown, view,
        "one of the moves is undone, here as in the tree"
    );
    assert!(node.filesystem.take_group().is_none());
}

#[test]
fn directories_that_nobody_looked_into_change_beneath() {
    let mut node = Node::new();
    node.mkdir("d");
    node.mkdir("d/e");
    node.write("d/e/f", b"1");
    node.commit();
    node.restart();
    node.meet(|tree| {
        edit(tree, &["d", "e", "f"], b"2");
        add(tree, 1, &["d", "e", "g"], inline(b"3"));
    });
    assert_eq!(node.read("d/e/f"), b"2");
    assert_eq!(node.read("d/e/g"), b"3");
    node.restart();
    assert_eq!(node.read("d/e/g"), b"3");
}

#[test]
fn a_rebase_that_fails_changes_nothing() {
    let node = Node::new();
    node.write("f", b"1");
    let base = node.filesystem.base();
    let failed = node.filesystem.rebase(|_, group| {
        assert!(group.is_some());
        Err::<ViewDiff, _>(FsError::Unavailable)
    });
    assert_eq!(failed, Err(FsError::Unavailable));
    assert_eq!(node.filesystem.base(), base);
    assert_eq!(node.filesystem.take_group().unwrap().changes.len(), 2);
    let busy = node
        .filesystem
        .rebase(|_, _| Err::<ViewDiff, _>(FsError::Unavailable));
    assert_eq!(busy, Err(FsError::Invalid), "a group is on its way");
}

#[test]
fn a_file_that_was_replaced_before_it_was_open_for_writing_is_looked_up_again() {
    let mut node = Node::new();
    node.write("f", b"old");
    node.commit();
    let inode = node.inode("f");
    let reader = node.open(inode, READ);
    node.meet(|tree| edit(tree, &["f"], b"theirs"));
    for flags in [
        WRITE,
        OpenFlags {
            truncate: true,
            ..WRITE
        },
    ] {
        let opened = node.filesystem.open(inode, flags);
        assert!(matches!(opened, Err(FsError::Stale)));
    }
    // the open that is tried again finds the version that has the name now
    node.write("f", b"ours");
    assert_eq!(node.read("f"), b"ours");
    node.filesystem.release(reader.handle);
}

#[test]
fn what_is_done_to_a_removed_file_that_is_open_is_not_done_to_the_one_that_came_back() {
    let mut node = Node::new();
    node.write("f", &[1; 5000]);
    node.seal_all();
    node.commit();
    let removed = node.inode("f");
    let open = node.open(removed, WRITE);
    let mut theirs = node.view.at(&["f"]).unwrap().clone();
    theirs.entry.kind = inline(b"theirs");
    node.unlink("f").unwrap();
    node.meet(|tree| set(tree, theirs.entry.id, Some(theirs.clone())));
    assert_eq!(node.read("f"), b"theirs");
    node.write("f", &[2; 5000]);

    let mode = SetAttributes {
        mode: Some(0o600),
        ..SetAttributes::default()
    };
    wait(node.filesystem.set_attributes(removed, mode).unwrap()).unwrap();
    node.filesystem.release(open.handle);
    node.restart();
    assert!(node.read("f") == [2; 5000]);
}
