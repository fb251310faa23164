//! From the last close to a committed content, and what may come between.

use super::fakes::{Node, READ, TRUNCATE, WRITE, wait};
use crate::filesystem::*;
use delugefs_core::entry::{Content, Kind};
use std::sync::atomic::Ordering;

fn content(node: &Node, path: &str) -> Content {
    let placed = node.filesystem.entry(node.inode(path)).unwrap();
    match placed.entry.kind {
        Kind::File(file) => file.content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_large_file_is_committed_when_it_is_sealed() {
    let mut node = Node::new();
    node.write("f", &[1; 5000]);
    assert_eq!(node.events.unsealed.load(Ordering::Relaxed), 1);
    assert_eq!(node.filesystem.status().unsealed, 1);
    node.commit();
    assert!(
        node.view.at(&["f"]).is_none(),
        "other nodes see no file without bytes"
    );
    assert_eq!(node.read("f"), [1; 5000]);
    let job = node.filesystem.next_unsealed().unwrap();
    assert!(node.filesystem.next_unsealed().is_none());
    assert_eq!(node.read("f"), [1; 5000]);
    let sealed = node.contents.seal(&job.path);
    node.filesystem.sealed(job, sealed).unwrap();
    assert_eq!(node.read("f"), [1; 5000]);
    node.commit();
    assert_eq!(node.view.at(&["f"]).unwrap().entry.written.edits, 1);
    assert_eq!(
        node.filesystem.status(),
        Status {
            journal_bytes: node.filesystem.status().journal_bytes,
            ..Status::default()
        }
    );
    assert_eq!(
        std::fs::read_dir(node.root.path().join("staging"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn an_edit_remembers_what_was_before() {
    let mut node = Node::new();
    node.write("f", &[1; 5000]);
    node.seal_all();
    let Content::Swarm(first) = content(&node, "f") else {
        panic!()
    };
    node.commit();
    node.write("f", &[2; 5000]);
    node.commit();
    assert!(matches!(content(&node, "f"), Content::Swarm(now) if now == first));
    node.seal_all();
    node.commit();
    let entry = &node.view.at(&["f"]).unwrap().entry;
    let Kind::File(file) = &entry.kind else {
        panic!()
    };
    assert_eq!(
        (&file.previous[..], entry.written.edits),
        (&[first.info_hash][..], 2)
    );
}

#[test]
fn opening_to_write_waits_for_a_seal_and_leaves_the_content_alone() {
    let node = Node::new();
    let inode = node.write("f", &[1; 5000]);
    let job = node.filesystem.next_unsealed().unwrap();
    let Answer::Later(opening) = node.filesystem.open(inode, WRITE).unwrap() else {
        panic!("nobody may write what is being hashed");
    };
    let sealed = node.contents.seal(&job.path).unwrap();
    node.filesystem.sealed(job, Ok(sealed.clone())).unwrap();
    let opened = wait(Answer::Later(opening)).unwrap();
    node.filesystem.write(opened.handle, 0, &[2]).unwrap();
    assert_eq!(node.read("f")[..2], [2, 1]);
    let kept = std::fs::read(node.contents.path(sealed.content.info_hash)).unwrap();
    assert_eq!(kept, [1; 5000]);
    node.filesystem.release(opened.handle);
}

#[test]
fn a_seal_that_failed_is_tried_again() {
    let node = Node::new();
    node.write("f", &[1; 5000]);
    let job = node.filesystem.next_unsealed().unwrap();
    let failed = node.filesystem.sealed(job, Err(FsError::NoSpace));
    assert_eq!(failed, Err(FsError::NoSpace));
    assert_eq!(node.read("f"), [1; 5000]);
    node.seal_all();
    assert!(matches!(content(&node, "f"), Content::Swarm(_)));
}

#[test]
fn a_file_unlinked_while_it_is_sealed_stays_gone() {
    let mut node = Node::new();
    let inode = node.write("f", &[1; 5000]);
    let reader = node.open(inode, READ);
    let job = node.filesystem.next_unsealed().unwrap();
    node.unlink("f").unwrap();
    let sealed = node.contents.seal(&job.path);
    node.filesystem.sealed(job, sealed).unwrap();
    assert_eq!(node.read_handle(reader.handle), [1; 5000]);
    node.filesystem.release(reader.handle);
    node.commit();
    assert!(node.view.is_empty());
    node.restart();
    assert!(node.shown().is_empty());
}

#[test]
fn what_an_unsealed_file_replaces_stays_visible_elsewhere_until_it_is_sealed() {
    let mut node = Node::new();
    node.write("f", b"old");
    node.commit();
    node.write("f.new", &[1; 5000]);
    node.rename("f.new", "f", RenameMode::Replace).unwrap();
    assert_eq!(node.read("f"), [1; 5000]);
    node.commit();
    assert_eq!(node.view.at(&["f"]).unwrap().entry.kind, inline(b"old"));
    node.restart();
    assert_eq!(node.read("f"), [1; 5000]);
    assert_eq!(node.list(""), ["f"]);
    node.seal_all();
    let changes = node.commit();
    assert_eq!(changes.len(), 2, "the new one and the old one: {changes:?}");
    assert_eq!(node.view.len(), 1);
    assert_eq!(node.read("f"), [1; 5000]);
}

#[test]
fn what_an_unsealed_file_replaced_goes_when_that_leaves() {
    let mut node = Node::new();
    node.write("f", b"old");
    node.commit();
    for leave in [0, 1] {
        node.write("f.new", &[1; 5000]);
        node.rename("f.new", "f", RenameMode::Replace).unwrap();
        if leave == 0 {
            node.rename("f", "g", RenameMode::Replace).unwrap();
        } else {
            node.unlink("f").unwrap();
        }
        node.commit();
        assert!(node.view.at(&["f"]).is_none());
        node.seal_all();
        node.write("f", b"old");
        node.commit();
        assert!(node.view.at(&["f"]).is_some());
    }
}

fn inline(bytes: &[u8]) -> Kind {
    Kind::File(delugefs_core::entry::File {
        content: Content::Inline(bytes.to_vec()),
        previous: Vec::new(),
    })
}

#[test]
fn a_content_that_is_elsewhere_is_read_as_it_arrives_and_fetched_to_be_written() {
    let mut node = Node::new();
    let bytes: Vec<u8> = (0..=250u8).cycle().take(5000).collect();
    let inode = node.write("f", &bytes);
    node.seal_all();
    node.commit();
    let Content::Swarm(content) = content(&node, "f") else {
        panic!()
    };
    node.contents
        .elsewhere
        .lock()
        .unwrap()
        .insert(content.info_hash);
    assert_eq!(node.read("f"), bytes);
    let reader = node.open(inode, READ);
    assert!(reader.backing.is_none());
    let at = node.filesystem.read(reader.handle, 4990, 100).unwrap();
    assert_eq!(wait(at).unwrap(), bytes[4990..]);
    let Answer::Later(opening) = node.filesystem.open(inode, WRITE).unwrap() else {
        panic!("it has to be fetched");
    };
    let writer = wait(Answer::Later(opening)).unwrap();
    node.filesystem.write(writer.handle, 0, &[255]).unwrap();
    assert_eq!(node.read_handle(reader.handle)[1..], bytes[1..]);
    node.filesystem.release(writer.handle);
    assert!(matches!(
        node.filesystem.open(inode, TRUNCATE),
        Ok(Answer::Ready(_))
    ));
}

#[test]
fn a_content_that_cannot_be_had_refuses_and_leaves_nothing_behind() {
    let node = Node::new();
    let inode = node.write("f", &[1; 5000]);
    node.seal_all();
    let Content::Swarm(content) = content(&node, "f") else {
        panic!()
    };
    node.contents
        .elsewhere
        .lock()
        .unwrap()
        .insert(content.info_hash);
    std::fs::remove_file(node.contents.path(content.info_hash)).unwrap();
    let reader = node.open(inode, READ);
    let read = node.filesystem.read(reader.handle, 0, 10).unwrap();
    assert_eq!(wait(read), Err(FsError::Unavailable));
    let opened = wait(node.filesystem.open(inode, WRITE).unwrap());
    assert!(matches!(opened, Err(FsError::Unavailable)));
    assert_eq!(
        std::fs::read_dir(node.root.path().join("staging"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn readers_in_the_kernel_s_hands_keep_the_old_inode() {
    let node = Node::new();
    let inode = node.write("f", &[1; 5000]);
    node.seal_all();
    let reader = node.open(inode, READ);
    node.filesystem.detach_readers(inode).unwrap();
    let new = node.inode("f");
    assert_ne!(new, inode);
    let writer = node.open(new, WRITE);
    node.filesystem.write(writer.handle, 0, &[2]).unwrap();
    assert_eq!(node.read_handle(reader.handle), [1; 5000]);
    assert_eq!(node.read_handle(writer.handle)[..2], [2, 1]);
    assert_eq!(node.filesystem.stat(inode).unwrap().links, 0);
}
