//! A node whose disk has failed is read-only, and loses nothing by it.

use super::fakes::{ME, Node, READ, TRUNCATE, WRITE};
use crate::filesystem::pending::content;
use crate::filesystem::*;
use std::fs::{File, OpenOptions};
use std::sync::{Arc, Mutex};

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
    assert!(
        ["journal", "/open"]
            .iter()
            .any(|what| reason.contains(what)),
        "{reason}"
    );
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

/// The kernel tells once that it could not write: the next sync of the same file would say that all is well.
#[test]
fn a_file_that_cannot_be_synced() {
    let (node, open) = node();
    let inode = node.inode("open");
    let staged = |change: &dyn Fn(&mut Arc<File>)| {
        let mut state = node.filesystem.lock();
        let staged = state.names.node_mut(inode).unwrap().staged_mut();
        change(&mut staged.unwrap().file);
    };
    let file = Mutex::new(Arc::new(device("/dev/null")));
    let swap = |now: &mut Arc<File>| std::mem::swap(now, &mut file.lock().unwrap());
    staged(&swap);
    let synced = node.filesystem.sync(open);
    assert!(matches!(synced, Err(FsError::Io { .. })), "{synced:?}");
    staged(&swap);
    is_read_only(node, Some(open));
}

/// Of two who sync the same bytes at once the kernel tells one alone.
#[test]
fn who_waits_for_a_sync_that_fails_is_not_told_that_all_is_well() {
    let (node, open) = node();
    let inode = node.inode("open");
    let turn = {
        let state = node.filesystem.lock();
        Arc::clone(&state.names.node(inode).unwrap().staged().unwrap().syncing)
    };
    std::thread::scope(|scope| {
        let held = turn.lock().unwrap();
        let waiting = scope.spawn(|| node.filesystem.sync(open));
        node.publishing.stop("the file /open, says this test");
        drop(held);
        assert_eq!(waiting.join().unwrap(), Err(FsError::ReadOnly));
    });
    is_read_only(node, Some(open));
}

#[test]
fn a_content_whose_sync_has_failed_is_not_said_to_be_safe() {
    let node = node().0;
    node.write("older", &[5; 5000]);
    node.filesystem.sync_directory(Inode::ROOT).unwrap();
    node.seal_all();
    let large = node.inode("large");
    let content = content(&node.filesystem.lock().names.node(large).unwrap().entry).unwrap();
    let suspects = &node.contents.suspect;
    suspects.lock().unwrap().insert(content);
    let refused = |what: &str, result: Result<(), FsError>| {
        assert!(
            matches!(result, Err(FsError::Damaged(_))),
            "{what}: {result:?}"
        );
    };
    let open = node.open(large, READ).handle;
    let rename = || node.rename("large", "older", RenameMode::Replace);
    refused("fsync", node.filesystem.sync(open));
    refused(
        "fsync of a directory",
        node.filesystem.sync_directory(Inode::ROOT),
    );
    refused("sync", node.filesystem.sync_all());
    refused("rename over a synced file", rename());
    let other = node.open(node.inode("older"), READ).handle;
    node.filesystem.sync(other).unwrap();
    suspects.lock().unwrap().clear();
    rename().unwrap();
    node.filesystem.sync(open).unwrap();
}

/// Its staging file, whose sync was promised, stays.
#[test]
fn a_seal_that_is_not_durable_waits() {
    let node = node().0;
    node.filesystem.sync_directory(Inode::ROOT).unwrap();
    let job = node.filesystem.next_unsealed().unwrap();
    let sealed = node.contents.seal(&job.path).unwrap();
    let content = sealed.content.info_hash;
    node.contents.suspect.lock().unwrap().insert(content);
    let inode = job.inode;
    let waits = || {
        node.filesystem
            .lock()
            .names
            .node(inode)
            .unwrap()
            .staged()
            .is_some()
    };
    assert!(node.filesystem.sealed(job, Ok(sealed)).is_err() && waits());
    node.contents.suspect.lock().unwrap().clear();
    node.seal_all();
    assert!(!waits());
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
