//! Stops at each operation on the disk, opens again, and looks whether the invariants hold.

use super::faults::{ENOSPC, FaultyDisk, Operation};
use super::*;

/// Runs a story on a disk that stops at its n-th operation, for every n until the story runs through;
/// `inspect` sees the folder as the next process finds it.
fn at_each_step(
    prepare: impl Fn(&Root),
    work: impl Fn(&Root, &ContentStore) -> Result<(), StoreError>,
    inspect: impl Fn(&Root, bool),
) {
    for step in 1.. {
        let root = Root::new();
        prepare(&root);
        let disk = Arc::new(FaultyDisk::default());
        let store = ContentStore::open_on(root.dir.path(), disk.clone()).unwrap();
        disk.fail_at(disk.operations() + step, u32::MAX);
        let result = work(&root, &store);
        drop(store);
        inspect(&root, result.is_ok());
        if disk.failures() == 0 {
            assert!(step > 3 && result.is_ok(), "the story touches the disk");
            return;
        }
    }
}

/// Whatever the store calls complete is right, byte for byte.
fn complete_is_right(store: &ContentStore, all: &[&[u8]]) {
    for held in store.list().iter().filter(|held| held.complete) {
        let hash = held.content.info_hash;
        let bytes = all.iter().find(|bytes| info_of(bytes).info_hash() == hash);
        let bytes = bytes.expect("a content of this test");
        assert!(
            content_of(store, &info_of(bytes)) == **bytes,
            "wrong bytes in {hash}"
        );
    }
}

/// What is here of a content is right, and the rest can be fetched.
fn can_be_fetched(store: &ContentStore, bytes: &[u8]) {
    let info = info_of(bytes);
    let partial = store.begin(&info).unwrap();
    for piece in (0..info.piece_count()).filter(|piece| partial.have(*piece)) {
        let range = info.piece_range(piece).unwrap();
        let mut found = vec![0; (range.end - range.start) as usize];
        partial.read(range.start, &mut found).unwrap();
        assert!(info.piece_matches(piece, &found), "piece {piece} is wrong");
    }
    write_all(&partial, bytes);
    partial.finish().unwrap();
    assert!(content_of(store, &info) == bytes);
}

#[test]
fn fetching_stopped_at_each_step() {
    let bytes = bytes_of(4 * PIECE + 1, 1);
    at_each_step(
        |_| (),
        |_, store| {
            let partial = store.begin(&info_of(&bytes))?;
            for (piece, chunk) in bytes.chunks(PIECE).enumerate() {
                partial.write_piece(piece as u32, chunk)?;
                if piece % 2 == 1 {
                    partial.flush()?;
                }
            }
            partial.finish()
        },
        |root, done| {
            let store = root.open();
            complete_is_right(&store, &[&bytes]);
            if done {
                assert_eq!(store.state(&info_of(&bytes).info_hash()), State::Complete);
            }
            can_be_fetched(&store, &bytes);
        },
    );
}

#[test]
fn sealing_stopped_at_each_step() {
    let bytes = bytes_of(2 * PIECE, 1);
    let old = bytes_of(PIECE, 9);
    at_each_step(
        |root| drop(root.seal(&root.open(), &old)),
        |root, store| {
            let staged = root.stage(&bytes);
            store.seal(&staged)?;
            let staged = root.stage(&bytes);
            store.seal(&staged)?;
            let synced = store.sync().failed;
            synced.into_iter().try_for_each(|(_, error)| Err(error))
        },
        |root, _| {
            let store = root.open();
            complete_is_right(&store, &[&bytes, &old]);
            assert_eq!(content_of(&store, &info_of(&old)), old);
            sealed_or_staged(root, &store, &bytes);
        },
    );
}

/// Bytes whose writer was told that they are safe are in the store, or still in staging.
fn sealed_or_staged(root: &Root, store: &ContentStore, bytes: &[u8]) {
    let staged = fs::read(root.dir.path().join("staged"));
    let complete = store.state(&info_of(bytes).info_hash()) == State::Complete;
    assert!(complete || staged.is_ok_and(|staged| staged == bytes));
}

#[test]
fn sealing_over_a_fetch_stopped_at_each_step() {
    let bytes = bytes_of(3 * PIECE, 1);
    let begin = |root: &Root| {
        let store = root.open();
        let partial = store.begin(&info_of(&bytes)).unwrap();
        partial.write_piece(1, &bytes[PIECE..2 * PIECE]).unwrap();
        root.stage(&bytes);
    };
    at_each_step(
        begin,
        |root, store| {
            let partial = store.begin(&info_of(&bytes))?;
            partial.write_piece(2, &bytes[2 * PIECE..])?;
            store.seal(&root.dir.path().join("staged"))?;
            assert_eq!(partial.phase(), Phase::Complete);
            Ok(())
        },
        |root, _| {
            let store = root.open();
            complete_is_right(&store, &[&bytes]);
            sealed_or_staged(root, &store, &bytes);
            can_be_fetched(&store, &bytes);
        },
    );
}

#[test]
fn removing_stopped_at_each_step() {
    let (whole, part) = (bytes_of(PIECE, 1), bytes_of(3 * PIECE, 2));
    let prepare = |root: &Root| {
        let store = root.open();
        root.seal(&store, &whole);
        let partial = store.begin(&info_of(&part)).unwrap();
        partial.write_piece(0, &part[..PIECE]).unwrap();
    };
    at_each_step(
        prepare,
        |_, store| {
            store.remove(&info_of(&part).info_hash())?;
            store.remove(&info_of(&whole).info_hash())?;
            Ok(())
        },
        |root, _| {
            let store = root.open();
            complete_is_right(&store, &[&whole, &part]);
            can_be_fetched(&store, &whole);
            can_be_fetched(&store, &part);
        },
    );
}

/// One error and then a disk that works again, with the same process going on.
#[test]
fn a_fetch_survives_one_error_at_each_step() {
    let bytes = bytes_of(4 * PIECE, 1);
    let info = info_of(&bytes);
    for step in 1.. {
        let root = Root::new();
        let disk = Arc::new(FaultyDisk::failing_with(ENOSPC));
        let store = ContentStore::open_on(root.dir.path(), disk.clone()).unwrap();
        disk.fail_at(disk.operations() + step, 1);
        let attempt = || -> Result<(), StoreError> {
            let partial = store.begin(&info)?;
            for (piece, chunk) in bytes.chunks(PIECE).enumerate() {
                partial.write_piece(piece as u32, chunk)?;
                partial.flush()?;
            }
            partial.finish()
        };
        let first = attempt();
        if let Err(error) = &first {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
            assert!(error.path().is_some(), "{error} names no file");
            complete_is_right(&store, &[&bytes]);
            attempt().unwrap();
        }
        assert!(content_of(&store, &info) == bytes);
        drop(store);
        assert!(content_of(&root.open(), &info) == bytes);
        if disk.failures() == 0 {
            return;
        }
    }
}

#[test]
fn no_bit_reaches_the_disk_before_its_piece_is_synced() {
    let bytes = bytes_of(6 * PIECE, 1);
    let info = info_of(&bytes);
    let root = Root::new();
    let disk = Arc::new(FaultyDisk::default());
    let store = ContentStore::open_on(root.dir.path(), disk.clone()).unwrap();
    let partial = store.begin(&info).unwrap();
    let data = partial.file().metadata().unwrap().ino();
    let begun = disk.record().len();
    for (piece, chunk) in bytes.chunks(PIECE).enumerate() {
        partial.write_piece(piece as u32, chunk).unwrap();
        if piece % 3 == 2 {
            partial.flush().unwrap();
        }
    }
    partial.finish().unwrap();
    let (mut dirty, mut bitmaps) = (false, 0);
    for operation in &disk.record()[begun..] {
        match operation {
            Operation::Write { inode, .. } if *inode == data => dirty = true,
            Operation::SyncData { inode } if *inode == data => dirty = false,
            Operation::Write { .. } => {
                assert!(!dirty, "a bitmap was written over unsynced pieces");
                bitmaps += 1;
            }
            Operation::Remove(_) => assert!(!dirty, "complete over unsynced pieces"),
            _ => (),
        }
    }
    assert_eq!(bitmaps, 2);
}

#[test]
fn have_is_durable_before_the_data_file_exists_and_outlives_it() {
    let info = info_of(&bytes_of(2 * PIECE, 1));
    let root = Root::new();
    let disk = Arc::new(FaultyDisk::default());
    let store = ContentStore::open_on(root.dir.path(), disk.clone()).unwrap();
    let opened = disk.record().len();
    drop(store.begin(&info).unwrap());
    store.remove(&info.info_hash()).unwrap();
    let path = store.path(&info.info_hash());
    let have = PathBuf::from(format!("{}.have", path.display()));
    let record = disk.record();
    let names: Vec<_> = record[opened..]
        .iter()
        .filter(|operation| !matches!(operation, Operation::Write { .. }))
        .collect();
    let synced = |operation: &Operation| {
        let at = names.iter().position(|other| *other == operation);
        *names[at.unwrap() + 1] == Operation::SyncDirectory
    };
    assert!(synced(&Operation::Rename(have)), "{names:?}");
    assert!(synced(&Operation::Remove(path)), "{names:?}");
}

#[test]
fn fetching_one_piece_stopped_at_each_step() {
    let bytes = bytes_of(PIECE - 1, 7);
    at_each_step(
        |_| (),
        |_, store| {
            let partial = store.begin(&info_of(&bytes))?;
            write_piece(&partial, &bytes)?;
            partial.finish()
        },
        |root, done| {
            let store = root.open();
            complete_is_right(&store, &[&bytes]);
            if done {
                assert_eq!(store.state(&info_of(&bytes).info_hash()), State::Complete);
            }
            can_be_fetched(&store, &bytes);
        },
    );
}

fn write_piece(partial: &PartialContent, bytes: &[u8]) -> Result<(), StoreError> {
    partial.write_piece(0, bytes).map(|_| ())
}

#[test]
fn one_piece_waits_for_the_disk_only_with_its_group() {
    let root = Root::new();
    let disk = Arc::new(FaultyDisk::default());
    let store = ContentStore::open_on(root.dir.path(), disk.clone()).unwrap();
    let bytes = bytes_of(1000, 3);
    let info = info_of(&bytes);
    let before = disk.record().len();
    let partial = store.begin(&info).unwrap();
    assert_eq!(store.state(&info.info_hash()), State::Partial);
    write_all(&partial, &bytes);
    partial.flush().unwrap();
    partial.finish().unwrap();
    let syncs = |operation: &Operation| {
        matches!(
            operation,
            Operation::SyncData { .. } | Operation::SyncDirectory
        )
    };
    assert!(!disk.record()[before..].iter().any(syncs));
    assert_eq!(partial.phase(), Phase::Complete);
    assert!(content_of(&store, &info) == bytes);
    assert!(!store.is_durable(&info.info_hash()), "nobody synced it yet");
    assert_eq!(store.sync().durable, [info.info_hash()]);
    assert!(disk.record()[before..].iter().any(syncs));
}

#[test]
fn one_piece_given_up_leaves_nothing() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(1000, 3);
    let info = info_of(&bytes);
    let temporary = store.path(&info.info_hash()).with_extension("tmp");
    let partial = store.begin(&info).unwrap();
    assert!(temporary.exists());
    drop(partial);
    assert!(!temporary.exists());
    assert_eq!(store.state(&info.info_hash()), State::Absent);
    assert_eq!(store.space().unwrap().used, 0);

    let partial = store.begin(&info).unwrap();
    root.seal(&store, &bytes);
    assert_eq!(partial.phase(), Phase::Complete);
    drop(partial);
    assert!(content_of(&store, &info) == bytes);
    assert!(!temporary.exists());
}

/// Damaged in its second piece, or cut within its third.
fn damage(store: &ContentStore, info: &Info, bytes: &[u8], cut: bool) {
    let path = store.path(&info.info_hash());
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    match cut {
        true => file.set_len(2 * PIECE as u64 + 5).unwrap(),
        false => file.write_all_at(&[!bytes[PIECE]], PIECE as u64).unwrap(),
    }
}

#[test]
fn repairing_stopped_at_each_step() {
    let bytes = bytes_of(3 * PIECE, 1);
    let info = info_of(&bytes);
    for cut in [false, true] {
        at_each_step(
            |root| {
                let store = root.open();
                root.seal(&store, &bytes);
                damage(&store, &info, &bytes, cut);
            },
            |_, store| {
                let mut check = store.check(&info, None)?;
                while check.step()?.is_some() {}
                assert!(store.set_back(&info, &check.end())?);
                let partial = store.begin(&info)?;
                for (piece, chunk) in bytes.chunks(PIECE).enumerate() {
                    partial.write_piece(piece as u32, chunk)?;
                    partial.flush()?;
                }
                partial.finish()
            },
            |root, done| {
                let store = root.open();
                let hash = info.info_hash();
                let kept = fs::read(store.path(&hash)).unwrap();
                assert!(kept[..PIECE] == bytes[..PIECE], "what was good is kept");
                if store.state(&hash) == State::Complete && !done {
                    // as damaged as before, or already whole: the next check tells
                    let mut check = store.check(&info, None).unwrap();
                    while check.step().unwrap().is_some() {}
                    let found = check.end();
                    if !found.is_good() {
                        assert!(store.set_back(&info, &found).unwrap());
                    }
                }
                can_be_fetched(&store, &bytes);
            },
        );
    }
}
