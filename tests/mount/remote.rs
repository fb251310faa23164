//! What another node changes is seen at once by those who had the old state cached.

use crate::support::{Lab, can_mount, eventually, place};
use delugefs_core::entry::{Content, Kind};
use delugefs_core::name::Name;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

fn old_and_new() -> (Lab, delugefs_core::entry::Placed) {
    let lab = Lab::new();
    let placed = lab.remote_file("file", lab.contents.put(&vec![b'o'; 100_000]));
    let there = placed.clone();
    lab.remote(|tree| place(tree, there.entry.id, Some(there.clone())));
    eventually("the file is there", || lab.path("file").exists());
    (lab, placed)
}

#[test]
fn a_name_that_was_not_there_appears_and_disappears() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    assert!(!lab.path("file").exists(), "the kernel remembers that");
    let placed = lab.remote_file(
        "file",
        lab.contents
            .put(b"some bytes that are long enough for the swarm, surely more than 64"),
    );
    let id = placed.entry.id;
    lab.remote(|tree| place(tree, id, Some(placed)));
    eventually("the name appears", || lab.path("file").exists());
    let names = || fs::read_dir(lab.point.path()).unwrap().count();
    assert_eq!(names(), 1);
    lab.remote(|tree| place(tree, id, None));
    eventually("the name disappears", || !lab.path("file").exists());
    assert_eq!(names(), 0);
}

#[test]
fn a_new_version_is_read_by_name_and_the_old_one_by_its_handle() {
    if !can_mount() {
        return;
    }
    let (lab, mut placed) = old_and_new();
    let old = File::open(lab.path("file")).unwrap();
    assert_eq!(fs::read(lab.path("file")).unwrap(), vec![b'o'; 100_000]);
    let Kind::File(file) = &mut placed.entry.kind else {
        unreachable!()
    };
    file.content = Content::Swarm(lab.contents.put(&vec![b'n'; 50_000]));
    placed.entry.written.edits += 1;
    lab.remote(|tree| place(tree, placed.entry.id, Some(placed)));
    eventually("the new version shows", || {
        fs::metadata(lab.path("file")).unwrap().len() == 50_000
    });
    assert_eq!(fs::read(lab.path("file")).unwrap(), vec![b'n'; 50_000]);
    let mut bytes = vec![0; 100_001];
    assert_eq!(old.read_at(&mut bytes, 0).unwrap(), 100_000);
    assert_eq!(&bytes[..100_000], vec![b'o'; 100_000]);
}

#[test]
fn attributes_and_names_change() {
    if !can_mount() {
        return;
    }
    let (lab, mut placed) = old_and_new();
    assert_eq!(
        fs::metadata(lab.path("file")).unwrap().mode() & 0o777,
        0o644
    );
    placed.entry.attributes.mode = 0o600;
    let changed = placed.clone();
    lab.remote(|tree| place(tree, changed.entry.id, Some(changed.clone())));
    eventually("the mode shows", || {
        fs::metadata(lab.path("file")).unwrap().mode() & 0o777 == 0o600
    });
    let inode = fs::metadata(lab.path("file")).unwrap().ino();
    placed.name = Name::parse(b"renamed").unwrap();
    lab.remote(|tree| place(tree, placed.entry.id, Some(placed)));
    eventually("the new name shows", || lab.path("renamed").exists());
    eventually("the old name is gone", || !lab.path("file").exists());
    assert_eq!(fs::metadata(lab.path("renamed")).unwrap().ino(), inode);
}
