//! Each operation, by what it answers.

use super::fakes::{ME, Node, READ, TRUNCATE, WRITE, wait};
use crate::filesystem::namespace::DEPTH_MAX;
use crate::filesystem::*;
use std::sync::atomic::Ordering;

#[test]
fn a_small_file_is_committed_with_its_bytes() {
    let mut node = Node::new();
    node.write("a", b"hello");
    assert_eq!(node.read("a"), b"hello");
    assert_eq!(node.stat("a").size, 5);
    assert_eq!(node.commit().len(), 2, "the file, and the root's times");
    assert_eq!(node.read("a"), b"hello");
    assert!(node.filesystem.take_group().is_none());
    assert!(node.view.at(&["a"]).is_some());
}

#[test]
fn names_that_cannot_be_are_refused() {
    let node = Node::new();
    let root = Inode::ROOT;
    let filesystem = &node.filesystem;
    assert_eq!(filesystem.lookup(root, b"none"), Err(FsError::NotFound));
    assert_eq!(
        filesystem.lookup(root, &[b'x'; 256]),
        Err(FsError::NameTooLong)
    );
    node.mkdir("d");
    node.write("f", b"1");
    let again = filesystem.make_directory(root, b"d", 0o755, ME);
    assert_eq!(again, Err(FsError::Exists));
    assert_eq!(
        filesystem.lookup(node.inode("f"), b"x"),
        Err(FsError::NotDirectory)
    );
    assert_eq!(node.unlink("d"), Err(FsError::IsDirectory));
    assert_eq!(
        filesystem.remove_directory(root, b"f"),
        Err(FsError::NotDirectory)
    );
    node.write("d/x", b"1");
    assert_eq!(
        filesystem.remove_directory(root, b"d"),
        Err(FsError::NotEmpty)
    );
    assert_eq!(
        filesystem.link(node.inode("f"), root, b"l"),
        Err(FsError::NotSupported)
    );
}

#[test]
fn directories_count_their_subdirectories() {
    let node = Node::new();
    assert_eq!(node.filesystem.stat(Inode::ROOT).unwrap().links, 2);
    let d = node.mkdir("d");
    node.mkdir("d/e");
    node.write("d/f", b"");
    assert_eq!(node.stat("d").links, 3);
    assert_eq!(node.filesystem.parent(node.inode("d/e")).unwrap(), d);
    node.rename("d/e", "e", RenameMode::Replace).unwrap();
    assert_eq!((node.stat("d").links, node.stat("").links), (2, 4));
    node.filesystem.remove_directory(Inode::ROOT, b"e").unwrap();
    assert_eq!(node.stat("").links, 3);
    assert_eq!(node.list("d"), ["f"]);
}

#[test]
fn rename_follows_posix() {
    let node = Node::new();
    node.mkdir("d");
    node.mkdir("d/e");
    node.mkdir("empty");
    node.write("a", b"a");
    node.write("b", b"b");
    let rename = |from, to, mode| node.rename(from, to, mode);
    assert_eq!(
        rename("d", "d/e/x", RenameMode::Replace),
        Err(FsError::Invalid)
    );
    assert_eq!(
        rename("a", "d", RenameMode::Replace),
        Err(FsError::IsDirectory)
    );
    assert_eq!(
        rename("d", "a", RenameMode::Replace),
        Err(FsError::NotDirectory)
    );
    assert_eq!(
        rename("empty", "d", RenameMode::Replace),
        Err(FsError::NotEmpty)
    );
    assert_eq!(
        rename("a", "b", RenameMode::NoReplace),
        Err(FsError::Exists)
    );
    assert_eq!(
        rename("a", "x", RenameMode::Exchange),
        Err(FsError::NotFound)
    );
    assert_eq!(
        rename("d/e", "d", RenameMode::Exchange),
        Err(FsError::Invalid)
    );
    rename("a", "b", RenameMode::Exchange).unwrap();
    assert_eq!(
        (node.read("a"), node.read("b")),
        (b"b".to_vec(), b"a".to_vec())
    );
    let moved = node.inode("a");
    rename("a", "b", RenameMode::Replace).unwrap();
    assert_eq!((node.inode("b"), node.read("b")), (moved, b"b".to_vec()));
    rename("d", "empty", RenameMode::Replace).unwrap();
    assert_eq!(node.list(""), ["b", "empty"]);
    assert_eq!(node.list("empty"), ["e"]);
}

#[test]
fn an_unlinked_open_file_goes_on() {
    let mut node = Node::new();
    let (inode, handle) = node.create("a");
    node.filesystem.write(handle, 0, &[1; 100]).unwrap();
    node.unlink("a").unwrap();
    assert_eq!(node.filesystem.stat(inode).unwrap().links, 0);
    node.filesystem.write(handle, 100, &[2; 100]).unwrap();
    assert_eq!(node.read_handle(handle).len(), 200);
    node.filesystem.release(handle);
    node.filesystem.forget(inode, 1);
    assert_eq!(node.filesystem.stat(inode), Err(FsError::NotFound));
    assert_eq!(
        std::fs::read_dir(node.root.path().join("staging"))
            .unwrap()
            .count(),
        0
    );
    node.seal_all();
    let times = node.commit();
    assert!(times.len() <= 1, "nothing but the root's times: {times:?}");
}

#[test]
fn readers_see_what_writers_write() {
    let mut node = Node::new();
    for length in [5, 5000] {
        let name = format!("f{length}");
        let inode = node.write(&name, &vec![1; length]);
        node.seal_all();
        node.commit();
        let reader = node.open(inode, READ);
        assert_eq!(node.read_handle(reader.handle), vec![1; length]);
        let writer = node.open(inode, WRITE);
        node.filesystem.write(writer.handle, 0, &[2]).unwrap();
        assert_eq!(node.read_handle(reader.handle)[..2], [2, 1]);
        node.filesystem.release(writer.handle);
        assert_eq!(node.read_handle(reader.handle)[..2], [2, 1]);
        node.seal_all();
        assert_eq!(node.read_handle(reader.handle)[..2], [2, 1]);
        node.filesystem.release(reader.handle);
        assert_eq!(node.read(&name)[..2], [2, 1]);
        assert_eq!(node.read(&name).len(), length);
    }
}

#[test]
fn append_goes_to_the_end() {
    let node = Node::new();
    let inode = node.write("log", b"one");
    let append = OpenFlags {
        append: true,
        ..WRITE
    };
    let (a, b) = (node.open(inode, append), node.open(inode, append));
    node.filesystem.write(a.handle, 0, b"two").unwrap();
    node.filesystem.write(b.handle, 0, b"three").unwrap();
    node.filesystem.release(a.handle);
    node.filesystem.release(b.handle);
    assert_eq!(node.read("log"), b"onetwothree");
}

#[test]
fn a_running_program_is_not_truncated() {
    let node = Node::new();
    let inode = node.write("program", &[7; 5000]);
    let execute = OpenFlags {
        execute: true,
        ..READ
    };
    let truncate = OpenFlags {
        truncate: true,
        ..READ
    };
    let running = [node.open(inode, execute), node.open(inode, execute)];
    for run in running {
        let refused = node.filesystem.open(inode, truncate).map(|_| ());
        assert_eq!(refused, Err(FsError::Running));
        assert_eq!(node.read("program"), [7; 5000]);
        node.filesystem.release(run.handle);
    }
    node.open(inode, truncate);
    assert_eq!(node.stat("program").size, 0);
}

#[test]
fn truncate_works_open_or_not() {
    let node = Node::new();
    let inode = node.write("f", &[7; 5000]);
    let size = |size| SetAttributes {
        size: Some(size),
        ..SetAttributes::default()
    };
    node.seal_all();
    for length in [4000, 6000, 3, 0, 10] {
        let answer = node.filesystem.set_attributes(inode, size(length)).unwrap();
        assert_eq!(wait(answer).unwrap().size, length);
        node.seal_all();
        assert_eq!(node.stat("f").size, length);
    }
    assert_eq!(node.read("f"), [0; 10]);
    let writer = node.open(inode, TRUNCATE);
    node.filesystem.write(writer.handle, 0, b"abc").unwrap();
    wait(node.filesystem.set_attributes(inode, size(2)).unwrap()).unwrap();
    node.filesystem.release(writer.handle);
    assert_eq!(node.read("f"), b"ab");
    let directory = node.filesystem.set_attributes(Inode::ROOT, size(2));
    assert!(matches!(directory, Err(FsError::IsDirectory)));
}

#[test]
fn times_that_were_set_stay_and_writing_changes_them() {
    let node = Node::new();
    let (inode, handle) = node.create("f");
    let at = delugefs_core::time::Timestamp::from_seconds(12345);
    let set = SetAttributes {
        modified: Some(SetTime::At(at)),
        ..SetAttributes::default()
    };
    node.filesystem.write(handle, 0, b"x").unwrap();
    assert_ne!(node.stat("f").modified, at);
    wait(node.filesystem.set_attributes(inode, set).unwrap()).unwrap();
    assert_eq!(node.stat("f").modified, at);
    node.filesystem.release(handle);
    assert_eq!(node.stat("f").modified, at);
    let unused = node.open(inode, WRITE);
    node.filesystem.release(unused.handle);
    assert_eq!(node.stat("f").modified, at, "opening is not writing");
    let used = node.open(inode, WRITE);
    node.filesystem.write(used.handle, 0, b"y").unwrap();
    assert_ne!(node.stat("f").modified, at);
    node.filesystem.release(used.handle);
    assert_ne!(node.stat("f").modified, at);
}

#[test]
fn writing_and_chown_clear_set_user_id() {
    let node = Node::new();
    let inode = node.write("f", b"x");
    let mode = |mode| SetAttributes {
        mode: Some(mode),
        ..SetAttributes::default()
    };
    let set = |set| {
        wait(node.filesystem.set_attributes(inode, set).unwrap())
            .unwrap()
            .mode
    };
    assert_eq!(set(mode(0o6755)), 0o6755);
    let writer = node.open(inode, WRITE);
    assert_eq!(node.stat("f").mode, 0o6755, "not by opening");
    node.filesystem.write(writer.handle, 0, b"y").unwrap();
    assert_eq!(node.stat("f").mode, 0o755);
    assert_eq!(set(mode(0o4755)), 0o4755, "a chmod after it stays");
    node.filesystem.release(writer.handle);
    assert_eq!(node.stat("f").mode, 0o4755);
    let owner = SetAttributes {
        uid: Some(3),
        ..SetAttributes::default()
    };
    assert_eq!(set(owner), 0o755);
    set(mode(0o4755));
    let before = node.stat("f").changed;
    assert_eq!(set(SetAttributes::default()), 0o755, "chown(-1, -1)");
    assert!(node.stat("f").changed > before);
    set(mode(0o4755));
    let root = OpenFlags {
        privileged: true,
        ..WRITE
    };
    let writer = node.open(inode, root);
    node.filesystem.write(writer.handle, 0, b"z").unwrap();
    node.filesystem.release(writer.handle);
    assert_eq!(node.stat("f").mode, 0o4755, "root may");
}

#[test]
fn a_group_is_inherited_from_a_directory_that_says_so() {
    let node = Node::new();
    let d = node.mkdir("d");
    let set = SetAttributes {
        mode: Some(0o2775),
        gid: Some(99),
        ..SetAttributes::default()
    };
    wait(node.filesystem.set_attributes(d, set).unwrap()).unwrap();
    node.write("d/f", b"");
    node.mkdir("d/e");
    assert_eq!((node.stat("d/f").gid, node.stat("d/f").uid), (99, ME.uid));
    assert_eq!((node.stat("d/e").gid, node.stat("d/e").mode), (99, 0o2755));
}

#[test]
fn writing_and_chown_end_what_a_program_may() {
    let node = Node::new();
    let name = b"security.capability";
    let set = |inode| {
        let set = node.filesystem.set_xattr(inode, name, b"1", XattrMode::Any);
        set.unwrap();
        assert!(node.filesystem.get_xattr(inode, name).is_ok());
    };
    let is_gone = |inode| {
        let none = node.filesystem.get_xattr(inode, name);
        assert_eq!(none, Err(FsError::NoAttribute));
        assert!(node.filesystem.list_xattrs(inode, true).unwrap().is_empty());
    };
    let (inode, handle) = node.create("f");
    node.filesystem.write(handle, 0, b"x").unwrap();
    set(inode);
    node.filesystem.release(handle);
    node.seal_all();
    assert!(node.filesystem.get_xattr(inode, name).is_ok(), "hashed");
    let root = OpenFlags {
        privileged: true,
        ..WRITE
    };
    let writer = node.open(inode, root);
    node.filesystem.write(writer.handle, 0, b"y").unwrap();
    is_gone(inode);
    node.filesystem.release(writer.handle);
    node.seal_all();
    is_gone(inode);
    set(inode);
    let owner = SetAttributes {
        gid: Some(3),
        ..SetAttributes::default()
    };
    wait(node.filesystem.set_attributes(inode, owner).unwrap()).unwrap();
    is_gone(inode);
}

#[test]
fn only_root_sees_trusted_names() {
    let node = Node::new();
    let (inode, fs) = (node.write("f", b"x"), &node.filesystem);
    for name in [b"trusted.a", b"trusted.b"] {
        fs.set_xattr(inode, name, b"1", XattrMode::Any).unwrap();
    }
    assert_eq!(fs.list_xattrs(inode, true).unwrap().len(), 2);
    assert!(fs.list_xattrs(inode, false).unwrap().is_empty());
}

#[test]
fn xattrs_are_kept_and_limited() {
    let mut node = Node::new();
    let inode = node.write("f", b"x");
    let fs = node.filesystem.clone();
    fs.set_xattr(inode, b"user.a", b"1", XattrMode::Create)
        .unwrap();
    let again = fs.set_xattr(inode, b"user.a", b"1", XattrMode::Create);
    assert_eq!(again, Err(FsError::Exists));
    let other = fs.set_xattr(inode, b"user.b", b"1", XattrMode::Replace);
    assert_eq!(other, Err(FsError::NoAttribute));
    let acl = fs.set_xattr(inode, b"system.posix_acl_access", b"1", XattrMode::Any);
    assert_eq!(acl, Err(FsError::NotSupported));
    let other = fs.set_xattr(inode, b"other.a", b"1", XattrMode::Any);
    assert_eq!(other, Err(FsError::NotSupported));
    let nameless = fs.set_xattr(inode, b"user.", b"1", XattrMode::Any);
    assert_eq!(nameless, Err(FsError::Invalid));
    let big = fs.set_xattr(inode, b"user.c", &vec![0; 65537], XattrMode::Any);
    assert_eq!(big, Err(FsError::AttributeTooBig));
    node.commit();
    node.restart();
    let fs = node.filesystem.clone();
    let inode = node.inode("f");
    assert_eq!(fs.get_xattr(inode, b"user.a").unwrap(), b"1");
    assert_eq!(fs.list_xattrs(inode, true).unwrap(), [b"user.a".to_vec()]);
    fs.remove_xattr(inode, b"user.a").unwrap();
    assert_eq!(fs.get_xattr(inode, b"user.a"), Err(FsError::NoAttribute));
}

#[test]
fn nodes_and_links_are_what_they_were_made() {
    let mut node = Node::new();
    let fs = node.filesystem.clone();
    fs.symlink(Inode::ROOT, b"l", b"to/there", ME).unwrap();
    let device = NewNode::CharacterDevice(0x0501);
    fs.make_node(Inode::ROOT, b"c", device, 0o600, ME).unwrap();
    fs.make_node(Inode::ROOT, b"p", NewNode::Fifo, 0o600, ME)
        .unwrap();
    fs.make_node(Inode::ROOT, b"f", NewNode::File, 0o600, ME)
        .unwrap();
    node.commit();
    node.restart();
    assert_eq!(
        node.filesystem.read_link(node.inode("l")).unwrap(),
        b"to/there"
    );
    assert_eq!(node.stat("l").size, 8);
    assert_eq!(
        (node.stat("c").rdev, node.stat("c").kind),
        (0x0501, FileType::CharacterDevice)
    );
    assert_eq!(node.stat("p").kind, FileType::Fifo);
    assert_eq!(node.read("f"), b"");
    assert_eq!(
        node.filesystem.read_link(node.inode("f")),
        Err(FsError::Invalid)
    );
}

#[test]
fn a_full_disk_refuses_and_harms_nothing() {
    let node = Node::new();
    let inode = node.write("old", &[1; 100]);
    node.seal_all();
    let (_, handle) = node.create("new");
    node.contents.free.store(10, Ordering::Relaxed);
    assert_eq!(
        node.filesystem.write(handle, 0, &[1; 11]),
        Err(FsError::NoSpace)
    );
    assert_eq!(node.filesystem.write(handle, 0, &[1; 10]), Ok(10));
    assert!(matches!(
        node.filesystem.open(inode, WRITE),
        Err(FsError::NoSpace)
    ));
    node.contents.free.store(0, Ordering::Relaxed);
    let full = node.filesystem.create(Inode::ROOT, b"x", 0o644, WRITE, ME);
    assert!(matches!(full, Err(FsError::NoSpace)));
    assert_eq!(node.read("old"), [1; 100]);
    node.unlink("old").unwrap();
}

#[test]
fn holes_are_found() {
    let node = Node::new();
    let (_, handle) = node.create("sparse");
    let fs = &node.filesystem;
    fs.write(handle, 1 << 20, b"x").unwrap();
    assert_eq!(fs.seek(handle, 0, Whence::Hole).unwrap(), 0);
    assert_eq!(fs.seek(handle, 0, Whence::Data).unwrap(), 1 << 20);
    let end = (1 << 20) + 1;
    assert_eq!(fs.seek(handle, end, Whence::Data), Err(FsError::NoData));
    fs.allocate(handle, Allocation::KeepSize, end, 4096)
        .unwrap();
    assert_eq!(node.stat("sparse").size, end);
    fs.allocate(handle, Allocation::Grow, end, 10).unwrap();
    assert_eq!(node.stat("sparse").size, end + 10);
}

#[test]
fn a_listing_stays_as_it_was_until_read_afresh() {
    let node = Node::new();
    for name in ["a", "b", "c"] {
        node.write(name, b"");
    }
    let fs = &node.filesystem;
    let handle = fs.open_directory(Inode::ROOT).unwrap();
    let first = fs.read_directory(handle, 0, 3).unwrap();
    assert_eq!(first[2].name, b"a");
    node.unlink("a").unwrap();
    node.write("d", b"");
    let rest = fs.read_directory(handle, first[2].next, 10).unwrap();
    let names: Vec<&[u8]> = rest.iter().map(|line| &line.name[..]).collect();
    assert_eq!(names, [b"b", b"c"]);
    assert_eq!(fs.read_directory(handle, 0, 10).unwrap().len(), 5);
}

#[test]
fn as_deep_as_a_path_can_say_and_no_deeper() {
    let mut node = Node::new();
    let make = |node: &Node, parent| {
        let made = node.filesystem.make_directory(parent, b"d", 0o755, ME);
        made.map(|stat| stat.inode)
    };
    let mut deepest = Inode::ROOT;
    for _ in 0..DEPTH_MAX {
        deepest = make(&node, deepest).unwrap();
    }
    assert!(matches!(make(&node, deepest), Err(FsError::NameTooLong)));
    let created = node.filesystem.create(deepest, b"f", 0o644, WRITE, ME);
    assert!(matches!(created, Err(FsError::NameTooLong)));
    node.write("f", b"x");
    let to = (deepest, &b"f"[..]);
    let moved = (node.filesystem).rename((Inode::ROOT, b"f"), to, RenameMode::Replace);
    assert!(matches!(moved, Err(FsError::NameTooLong)));
    node.restart();
    let path = vec!["d"; DEPTH_MAX].join("/");
    assert!(node.list(&path).is_empty());
}
