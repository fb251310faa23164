//! Bytes that rot, vanish or cannot be read, under contents that were complete.

use super::*;
use crate::store::Checked;
use std::fs::File;
use std::sync::Mutex;

/// A disk with sectors that cannot be read, until they are written again.
#[derive(Debug, Default)]
struct BadSectors(Mutex<Vec<u64>>);

impl Disk for BadSectors {
    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + buffer.len() as u64;
        if self.0.lock().unwrap().iter().any(|at| range.contains(at)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        RealDisk.read_at(file, buffer, offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + bytes.len() as u64;
        self.0.lock().unwrap().retain(|at| !range.contains(at));
        RealDisk.write_at(file, bytes, offset)
    }
}

fn checked(store: &ContentStore, info: &Info) -> Checked {
    let mut check = store.check(info, None).unwrap();
    let mut read = 0;
    while let Some(bytes) = check.step().unwrap() {
        read += bytes;
    }
    assert_eq!(read, info.length());
    check.end()
}

fn overwrite(store: &ContentStore, info: &Info, at: u64, bytes: &[u8]) {
    let path = store.path(&info.info_hash());
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Set back, fetched again from the bad pieces alone, and right.
fn repair(store: &ContentStore, info: &Info, bytes: &[u8], bad: &[u32]) {
    let found = checked(store, info);
    assert_eq!(found.bad, bad);
    assert!(store.set_back(info, &found).unwrap());
    assert_eq!(store.state(&info.info_hash()), State::Partial);
    assert!(!store.is_durable(&info.info_hash()));
    let partial = store.begin(info).unwrap();
    let missing: Vec<u32> = (0..info.piece_count())
        .filter(|piece| !partial.have(*piece))
        .collect();
    assert_eq!(missing, bad);
    for piece in bad {
        let range = info.piece_range(*piece).unwrap();
        let piece_bytes = &bytes[range.start as usize..range.end as usize];
        partial.write_piece(*piece, piece_bytes).unwrap();
    }
    partial.finish().unwrap();
    assert!(content_of(store, info) == bytes);
    assert!(checked(store, info).is_good());
}

#[test]
fn a_flipped_bit_costs_its_piece_and_heals_in_the_file_that_is_open() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(5 * PIECE + 9, 1);
    let info = root.seal(&store, &bytes);
    assert!(checked(&store, &info).is_good());
    let open = store.open_content(&info.info_hash()).unwrap();
    overwrite(
        &store,
        &info,
        2 * PIECE as u64 + 7,
        &[!bytes[2 * PIECE + 7]],
    );
    repair(&store, &info, &bytes, &[2]);
    let mut seen = vec![0; bytes.len()];
    open.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == bytes, "whoever has it open reads it right again");
    drop(store);
    assert_eq!(root.open().state(&info.info_hash()), State::Complete);
}

#[test]
fn damage_is_remembered_over_a_restart() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(3 * PIECE, 1);
    let info = root.seal(&store, &bytes);
    overwrite(&store, &info, 0, &[!bytes[0]]);
    let found = checked(&store, &info);
    assert!(store.set_back(&info, &found).unwrap());
    drop(store);
    let store = root.open();
    assert_eq!(store.state(&info.info_hash()), State::Partial);
    assert_eq!(store.begin(&info).unwrap().bitfield(), [0b0110_0000]);
    assert!(!store.set_back(&info, &found).unwrap(), "it is known");
}

#[test]
fn a_content_of_one_piece_keeps_its_damaged_bytes() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(1000, 1);
    let info = root.seal(&store, &bytes);
    overwrite(&store, &info, 0, &[!bytes[0]]);
    let found = checked(&store, &info);
    store.set_back(&info, &found).unwrap();
    drop(store);
    let kept = fs::read(root.open().path(&info.info_hash())).unwrap();
    assert!(kept[1..] == bytes[1..], "nobody else may have better");
    let store = root.open();
    write_all(&store.begin(&info).unwrap(), &bytes);
    store.begin(&info).unwrap().finish().unwrap();
    assert!(content_of(&store, &info) == bytes);
}

#[test]
fn a_file_that_was_cut_is_replaced_so_that_its_readers_see_no_hole() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(4 * PIECE, 1);
    let info = root.seal(&store, &bytes);
    let open = store.open_content(&info.info_hash()).unwrap();
    let path = store.path(&info.info_hash());
    let cut = 2 * PIECE as u64 + 100;
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(cut)
        .unwrap();
    assert!(checked(&store, &info).wrong_length);
    repair(&store, &info, &bytes, &[2, 3]);
    assert_eq!(open.metadata().unwrap().len(), cut);
}

#[test]
fn a_file_that_has_grown_is_cut() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(2 * PIECE, 1);
    let info = root.seal(&store, &bytes);
    overwrite(&store, &info, bytes.len() as u64, b"more");
    assert!(!checked(&store, &info).is_good());
    repair(&store, &info, &bytes, &[]);
}

#[test]
fn sectors_that_cannot_be_read_are_missing_pieces() {
    let root = Root::new();
    let disk = Arc::new(BadSectors::default());
    let store = ContentStore::open_on(root.dir.path(), disk.clone()).unwrap();
    let bytes = bytes_of(4 * PIECE, 1);
    let info = root.seal(&store, &bytes);
    disk.0.lock().unwrap().push(PIECE as u64 + 5);
    repair(&store, &info, &bytes, &[1]);
}

#[test]
fn sectors_that_go_bad_while_a_content_arrives_are_fetched_again() {
    let root = Root::new();
    let disk = Arc::new(BadSectors::default());
    let store = ContentStore::open_on(root.dir.path(), disk.clone()).unwrap();
    let bytes = bytes_of(3 * PIECE, 1);
    let info = info_of(&bytes);
    write_all(&store.begin(&info).unwrap(), &bytes);
    let partial = store.begin(&info).unwrap();
    disk.0.lock().unwrap().extend([5, 2 * PIECE as u64]);
    assert_eq!(store.recheck_partial(&info, 0..2).unwrap(), 1);
    assert_eq!(partial.bitfield(), [0b0110_0000]);
    partial.write_piece(0, &bytes[..PIECE]).unwrap();
    let error = partial.finish().unwrap_err();
    let damaged = matches!(error, StoreError::Damaged { pieces: 1, .. });
    assert!(damaged, "the third: {error}");
    write_all(&partial, &bytes);
    partial.finish().unwrap();
    assert!(content_of(&store, &info) == bytes);
}

#[test]
fn a_disk_that_fails_otherwise_tells_nothing_of_the_bytes() {
    #[derive(Debug)]
    struct TooMany;
    impl Disk for TooMany {
        fn read_at(&self, _: &File, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(24))
        }
    }
    let root = Root::new();
    let store = ContentStore::open_on(root.dir.path(), Arc::new(TooMany)).unwrap();
    let info = root.seal(&store, &bytes_of(10, 1));
    let mut check = store.check(&info, None).unwrap();
    assert!(check.step().is_err());
    assert_eq!(store.state(&info.info_hash()), State::Complete);
}

#[test]
fn the_right_sha1_with_the_wrong_blake3_is_damage() {
    const A: &[u8] = include_bytes!("../../../tests/data/sha1-collision-a.bin");
    const B: &[u8] = include_bytes!("../../../tests/data/sha1-collision-b.bin");
    let root = Root::new();
    let store = root.open();
    let info = root.seal(&store, A);
    overwrite(&store, &info, 0, B);
    assert_eq!(
        checked(&store, &info).bad.len(),
        info.piece_count() as usize
    );
}

#[test]
fn what_was_replaced_since_the_check_is_left_alone() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(2 * PIECE, 1);
    let info = root.seal(&store, &bytes);
    overwrite(&store, &info, 0, &[!bytes[0]]);
    let found = checked(&store, &info);
    // kept open, so that its inode number is not given again
    let _old = store.open_content(&info.info_hash()).unwrap();
    store.remove(&info.info_hash()).unwrap();
    root.seal(&store, &bytes);
    assert!(!store.set_back(&info, &found).unwrap());
    assert_eq!(store.state(&info.info_hash()), State::Complete);
}

#[test]
fn the_owner_can_repair_a_file_that_was_made_read_only() {
    /// What opening for writing says to who is not root.
    #[derive(Debug, Default)]
    struct NotRoot;
    impl Disk for NotRoot {
        fn open_or_create(&self, path: &Path) -> io::Result<File> {
            let metadata = path.metadata();
            if metadata.is_ok_and(|metadata| metadata.mode() & 0o200 == 0) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            RealDisk.open_or_create(path)
        }
    }
    let root = Root::new();
    let store = ContentStore::open_on(root.dir.path(), Arc::new(NotRoot)).unwrap();
    let bytes = bytes_of(2 * PIECE, 1);
    let info = root.seal(&store, &bytes);
    let path = store.path(&info.info_hash());
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o444);
    overwrite(&store, &info, 0, &[!bytes[0]]);
    repair(&store, &info, &bytes, &[0]);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o444);
}
