//! A node whose journal has failed is read-only, and loses nothing by it.

use super::fakes::{ME, Node, READ, TRUNCATE, WRITE};
use crate::filesystem::*;
use std::fs::{File, OpenOptions};

/// A node with some files, one of them open for writing.
fn node() -> (Node, HandleId) {
    let node = Node::new();
    node.mkdir("d");
    node.write("d/small", b"small");
    node.write("large", &[3; 5000]);
    let (_, open) = node.create("open");
    node.filesystem.write(open, 0, &[4; 6000]).unwrap();
    (node, open)
}

fn device(path: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

fn break_journal(node: &Node, file: File) {
    node.filesystem.lock().journal.use_file(file);
}

/// Nothing can be changed, everything can be read, and after a restart everything goes on.
fn is_read_only(mut node: Node, open: Option<HandleId>) {
    let reason = node.publishing.stopped().unwrap();
    assert!(reason.contains("journal"), "{reason}");
    let before = node.shown();
    assert_eq!(before["/large"], Some(vec![3; 5000]));
    let fs = &node.filesystem;
    let (large, root) = (node.inode("large"), Inode::ROOT);
    let refused = |what: &str, result: Result<(), FsError>| {
        assert_eq!(result, Err(FsError::ReadOnly), "{what}");
    };
    if let Some(open) = open {
        refused("write", fs.write(open, 0, b"x").map(drop));
        refused("fsync", fs.sync(open));
        fs.release(open);
    }
    refused("fsync of a directory", fs.sync_directory(root));
    refused("sync", fs.sync_all());
    refused(
        "create",
        fs.create(root, b"new", 0o644, WRITE, ME).map(drop),
    );
    refused(
        "mkdir",
        fs.make_directory(root, b"new", 0o755, ME).map(drop),
    );
    refused("unlink", node.unlink("large"));
    refused("rename", node.rename("large", "e", RenameMode::Replace));
    refused("open to write", fs.open(large, WRITE).map(drop));
    refused("open to truncate", fs.open(large, TRUNCATE).map(drop));
    let mode = SetAttributes {
        mode: Some(0o600),
        ..SetAttributes::default()
    };
    refused("chmod", fs.set_attributes(large, mode).map(drop));
    fs.release(node.open(large, READ).handle);
    assert_eq!(node.shown(), before);
    node.restart();
    assert_eq!(node.shown(), before);
    assert!(node.publishing.goes_on());
    node.write("after", b"x");
    node.filesystem.sync_all().unwrap();
    node.seal_all();
    node.commit();
    assert_eq!(node.shown().len(), before.len() + 1);
}

#[test]
fn a_journal_that_cannot_be_synced() {
    let (mut node, _) = node();
    node.filesystem.sync_all().unwrap();
    // fsync(2) gives EINVAL there
    break_journal(&node, device("/dev/null"));
    node.filesystem.sync_directory(Inode::ROOT).unwrap();
    assert!(node.publishing.goes_on(), "nothing new needs no sync");
    node.restart();
    node.mkdir("unsynced");
    break_journal(&node, device("/dev/null"));
    let synced = node.filesystem.sync_directory(Inode::ROOT);
    assert!(matches!(synced, Err(FsError::Io { .. })), "{synced:?}");
    is_read_only(node, None);
}

#[test]
fn a_journal_that_cannot_be_written() {
    let (node, open) = node();
    let before = node.shown();
    break_journal(&node, File::open("/dev/null").unwrap());
    let made = node
        .filesystem
        .make_directory(Inode::ROOT, b"new", 0o755, ME);
    assert!(matches!(made, Err(FsError::Io { .. })), "{made:?}");
    assert_eq!(node.shown(), before);
    is_read_only(node, Some(open));
}

#[test]
fn a_journal_without_room_goes_on_when_there_is_some() {
    let (node, _) = node();
    break_journal(&node, device("/dev/full"));
    let made = node
        .filesystem
        .make_directory(Inode::ROOT, b"new", 0o755, ME);
    assert_eq!(made.map(drop), Err(FsError::NoSpace));
    assert!(node.publishing.goes_on());
    // it is written anew, where there is room
    node.mkdir("new");
    node.filesystem.sync_all().unwrap();
}

#[test]
fn whoever_stops_publishing_makes_it_read_only() {
    let (node, open) = node();
    node.publishing.stop("the journal, says this test");
    is_read_only(node, Some(open));
}
