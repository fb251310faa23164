//! Files of contents that rot under open handles.

use super::fakes::{Node, READ, wait};
use crate::filesystem::*;
use delugefs_core::entry::{Content, Kind};
use delugefs_core::ids::InfoHash;
use std::fs;

fn content(node: &Node, inode: Inode) -> InfoHash {
    let Kind::File(file) = node.filesystem.entry(inode).unwrap().entry.kind else {
        panic!("a file")
    };
    match file.content {
        Content::Swarm(content) => content.info_hash,
        Content::Inline(_) => panic!("too small"),
    }
}

#[test]
fn a_read_that_the_disk_cuts_short_is_answered_from_elsewhere() {
    let node = Node::new();
    let bytes: Vec<u8> = (0..5000_u32).map(|at| at as u8).collect();
    let inode = node.write("f", &bytes);
    node.seal_all();
    let reader = node.open(inode, READ);
    let path = node.contents.path(content(&node, inode));
    let damaged = path.with_extension("damaged");
    fs::rename(&path, &damaged).unwrap();
    fs::write(&path, &bytes).unwrap();
    let read = |offset, length| wait(node.filesystem.read(reader.handle, offset, length).unwrap());
    fs::OpenOptions::new()
        .write(true)
        .open(&damaged)
        .unwrap()
        .set_len(100)
        .unwrap();
    assert_eq!(read(50, 200).unwrap(), bytes[50..250]);
    assert_eq!(
        read(4990, 200).unwrap(),
        bytes[4990..],
        "the end is the end"
    );
    assert!(read(5000, 10).unwrap().is_empty());
    fs::remove_file(&path).unwrap();
    assert_eq!(
        read(50, 200),
        Err(FsError::Unavailable),
        "no hole, no short read"
    );
}

#[test]
fn names_of_a_damaged_file_get_new_inodes_and_its_handles_read_from_elsewhere() {
    let node = Node::new();
    let (inode, other) = (node.write("f", &[1; 5000]), node.write("g", &[2; 5000]));
    node.seal_all();
    let reader = node.open(inode, READ);
    node.open(other, READ);
    let content = content(&node, inode);
    let invalid = node.filesystem.forget_file(&content);
    let entry = Invalidation::Entry {
        parent: Inode::ROOT,
        name: b"f".to_vec(),
    };
    assert_eq!(invalid, [entry]);
    assert_ne!(node.inode("f"), inode);
    assert_eq!(node.inode("g"), other, "another content");
    node.contents.elsewhere.lock().unwrap().insert(content);
    assert_eq!(node.read_handle(reader.handle), [1; 5000]);
    assert!(node.open(node.inode("f"), READ).backing.is_none());
}
