#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod faults;

use super::*;
use crate::hash::{hash_piece, list_hash};
use crate::metainfo::PieceHash;
use faults::FaultyDisk;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use tempfile::TempDir;

const PIECE: usize = 65_536;

/// Bytes that differ from piece to piece and from seed to seed.
fn bytes_of(length: usize, seed: u8) -> Vec<u8> {
    let byte = |i: usize| (i / PIECE * 31 + i * 7 + i / 256) as u8 ^ seed;
    (0..length).map(byte).collect()
}

fn info_of(bytes: &[u8]) -> Info {
    let hashes: Vec<_> = bytes.chunks(PIECE).map(hash_piece).collect();
    let pieces: Vec<PieceHash> = hashes.iter().map(|hashes| hashes.sha1).collect();
    let blake3 = list_hash(hashes.iter().map(|hashes| &hashes.blake3));
    Info::new(bytes.len() as u64, pieces, blake3).unwrap()
}

struct Root {
    dir: TempDir,
}

impl Root {
    fn new() -> Self {
        // In memory where there is such a folder: each test makes hundreds of directories many times.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { dir: dir.unwrap() }
    }

    fn open(&self) -> ContentStore {
        // No test needs a real sync, which waits for everything else on the disk.
        ContentStore::open_on(self.dir.path(), Arc::new(FaultyDisk::default())).unwrap()
    }

    fn stage(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("staged");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn seal(&self, store: &ContentStore, bytes: &[u8]) -> Info {
        store.seal(&self.stage(bytes)).unwrap()
    }
}

fn write_all(partial: &PartialContent, bytes: &[u8]) {
    for (piece, bytes) in bytes.chunks(PIECE).enumerate() {
        let written = partial.write_piece(piece as u32, bytes).unwrap();
        assert_eq!(written, Written::Stored, "{piece}");
    }
}

fn content_of(store: &ContentStore, info: &Info) -> Vec<u8> {
    let file = store.open_content(&info.info_hash()).unwrap();
    let mut bytes = vec![0; info.length() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(file.metadata().unwrap().len(), info.length());
    bytes
}

#[test]
fn seals_into_a_plain_file_named_by_info_hash() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(3 * PIECE + 5, 0);
    let info = root.seal(&store, &bytes);
    let hash = info.info_hash();
    assert_eq!(info, info_of(&bytes));
    assert_eq!(store.state(&hash), State::Complete);
    let text = hash.to_string();
    let path = root.dir.path().join("data").join(&text[..2]).join(&text);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o444);
    assert!(!root.dir.path().join("staged").exists());
    let held = Held {
        content: info.content(),
        complete: true,
    };
    assert_eq!(store.list(), [held]);
    drop(store);
    let store = root.open();
    assert_eq!(store.list(), [held]);
    assert_eq!(store.findings(), []);
}

#[test]
fn sealing_the_same_bytes_twice_keeps_the_first_file() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(100, 0);
    let info = root.seal(&store, &bytes);
    let inode = store.path(&info.info_hash()).metadata().unwrap().ino();
    assert_eq!(root.seal(&store, &bytes), info);
    assert_eq!(
        inode,
        store.path(&info.info_hash()).metadata().unwrap().ino()
    );
    assert!(!root.dir.path().join("staged").exists());
    assert_eq!(store.space().unwrap().used, 100);
}

#[test]
fn concurrent_seals_of_the_same_bytes() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(2 * PIECE, 3);
    let seal = |i: u32| {
        let path = root.dir.path().join(format!("staged{i}"));
        fs::write(&path, &bytes).unwrap();
        store.seal(&path).unwrap()
    };
    let infos: Vec<Info> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|i| scope.spawn(move || seal(i))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(infos.iter().all(|info| *info == infos[0]));
    assert_eq!(content_of(&store, &infos[0]), bytes);
    assert_eq!(store.list().len(), 1);
}

#[test]
fn refuses_to_seal_an_empty_file_and_leaves_it() {
    let root = Root::new();
    let store = root.open();
    let path = root.stage(b"");
    let error = store.seal(&path).unwrap_err();
    assert_eq!(error.path(), Some(path.as_path()), "{error}");
    assert!(path.exists());
}

#[test]
fn two_files_with_one_sha1_live_side_by_side() {
    const A: &[u8] = include_bytes!("../../tests/data/sha1-collision-a.bin");
    const B: &[u8] = include_bytes!("../../tests/data/sha1-collision-b.bin");
    let root = Root::new();
    let store = root.open();
    let rest = bytes_of(1024 * 1024, 0);
    let (a, b) = ([A, &rest].concat(), [B, &rest].concat());
    let (info_a, info_b) = (root.seal(&store, &a), root.seal(&store, &b));
    assert_eq!(info_a.pieces(), info_b.pieces());
    assert_eq!(content_of(&store, &info_a), a);
    assert_eq!(content_of(&store, &info_b), b);
}

#[test]
fn a_collision_offered_as_the_other_file_is_discarded() {
    const A: &[u8] = include_bytes!("../../tests/data/sha1-collision-a.bin");
    const B: &[u8] = include_bytes!("../../tests/data/sha1-collision-b.bin");
    let root = Root::new();
    let store = root.open();
    let info = info_of(A);
    let partial = store.begin(&info).unwrap();
    write_all(&partial, B);
    let error = partial.finish().unwrap_err();
    assert!(matches!(error, StoreError::Forged(_)), "{error}");
    assert_eq!(partial.phase(), Phase::Forged);
    assert_eq!(store.state(&info.info_hash()), State::Absent);
    assert!(matches!(partial.finish(), Err(StoreError::Gone(_))));
    let again = store.begin(&info).unwrap();
    write_all(&again, A);
    again.finish().unwrap();
    assert_eq!(content_of(&store, &info), A);
}

#[test]
fn fetches_piece_by_piece() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(3 * PIECE + 9, 1);
    let info = info_of(&bytes);
    let partial = store.begin(&info).unwrap();
    assert_eq!(store.state(&info.info_hash()), State::Partial);
    assert!(store.open_content(&info.info_hash()).is_err());
    let write = |piece: usize| {
        let end = bytes.len().min((piece + 1) * PIECE);
        partial.write_piece(piece as u32, &bytes[piece * PIECE..end])
    };
    assert_eq!(
        partial.write_piece(2, &bytes[..PIECE]).unwrap(),
        Written::Wrong
    );
    assert_eq!(partial.write_piece(3, &bytes[..8]).unwrap(), Written::Wrong);
    assert!(matches!(write(2), Ok(Written::Stored)));
    assert!(partial.write_piece(4, b"").is_err());
    assert_eq!(partial.bitfield(), [0b0010_0000]);
    assert!(partial.have(2) && !partial.have(3) && !partial.have(400));
    let mut buffer = vec![0; 100];
    partial.read(2 * PIECE as u64 + 7, &mut buffer).unwrap();
    assert_eq!(buffer, bytes[2 * PIECE + 7..][..100]);
    for offset in [2 * PIECE as u64 - 1, 3 * PIECE as u64 - 99] {
        let error = partial.read(offset, &mut buffer).unwrap_err();
        assert!(matches!(error, StoreError::NotHere { .. }), "{error}");
    }
    let error = partial
        .read(bytes.len() as u64 - 99, &mut buffer)
        .unwrap_err();
    assert!(matches!(error, StoreError::OutOfRange(_)), "{error}");
    assert!(matches!(
        partial.finish(),
        Err(StoreError::NotHere { piece: 0, .. })
    ));
    for piece in [0, 1, 3] {
        assert_eq!(write(piece).unwrap(), Written::Stored);
    }
    partial.finish().unwrap();
    assert_eq!(partial.phase(), Phase::Complete);
    assert_eq!(content_of(&store, &info), bytes);
    assert!(store.is_durable(&info.info_hash()));
    drop((partial, store));
    let store = root.open();
    assert_eq!(content_of(&store, &info), bytes);
    assert_eq!(store.findings(), []);
}

#[test]
fn all_who_fetch_share_one_handle() {
    let root = Root::new();
    let store = root.open();
    let info = info_of(&bytes_of(PIECE, 1));
    let (a, b) = (store.begin(&info).unwrap(), store.begin(&info).unwrap());
    assert!(Arc::ptr_eq(&a, &b));
    let c = store.resume(&info.info_hash()).unwrap().unwrap();
    assert!(Arc::ptr_eq(&a, &c));
}

#[test]
fn resumes_from_flushed_pieces_without_the_info() {
    let root = Root::new();
    let bytes = bytes_of(4 * PIECE, 1);
    let info = info_of(&bytes);
    let store = root.open();
    let partial = store.begin(&info).unwrap();
    partial.write_piece(1, &bytes[PIECE..2 * PIECE]).unwrap();
    store.flush().unwrap();
    partial
        .write_piece(2, &bytes[2 * PIECE..3 * PIECE])
        .unwrap();
    // As if the process were killed here: nothing runs at its end.
    std::mem::forget(partial);
    let store = root.open();
    let hash = info.info_hash();
    assert_eq!(store.list()[0].content, info.content());
    let partial = store.resume(&hash).unwrap().unwrap();
    assert_eq!(partial.bitfield(), [0b0100_0000]);
    write_all(&partial, &bytes);
    partial.finish().unwrap();
    assert_eq!(content_of(&store, &info), bytes);
    assert!(store.resume(&InfoHash::new([9; 20])).unwrap().is_none());
}

#[test]
fn dropping_the_last_handle_flushes() {
    let root = Root::new();
    let bytes = bytes_of(2 * PIECE, 1);
    let store = root.open();
    let partial = store.begin(&info_of(&bytes)).unwrap();
    partial.write_piece(1, &bytes[PIECE..]).unwrap();
    drop(partial);
    let partial = store.begin(&info_of(&bytes)).unwrap();
    assert_eq!(partial.bitfield(), [0b0100_0000]);
}

#[test]
fn damage_under_a_set_bit_is_found_at_the_end() {
    let root = Root::new();
    let bytes = bytes_of(3 * PIECE, 1);
    let info = info_of(&bytes);
    let store = root.open();
    let partial = store.begin(&info).unwrap();
    write_all(&partial, &bytes);
    drop(partial);
    let path = store.path(&info.info_hash());
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"damage", PIECE as u64).unwrap();
    let partial = store.begin(&info).unwrap();
    assert_eq!(partial.missing(), 0);
    let error = partial.finish().unwrap_err();
    assert!(
        matches!(error, StoreError::Damaged { pieces: 1, .. }),
        "{error}"
    );
    assert_eq!(partial.bitfield(), [0b1010_0000]);
    write_all(&partial, &bytes);
    partial.finish().unwrap();
    assert_eq!(content_of(&store, &info), bytes);
}

#[test]
fn sealing_what_is_being_fetched_completes_the_fetch() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(3 * PIECE, 1);
    let info = info_of(&bytes);
    let partial = store.begin(&info).unwrap();
    let mut watch = partial.watch();
    partial.write_piece(1, &bytes[PIECE..2 * PIECE]).unwrap();
    root.seal(&store, &bytes);
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), Phase::Complete);
    assert_eq!(partial.missing(), 0);
    let mut buffer = vec![0; bytes.len()];
    partial.read(0, &mut buffer).unwrap();
    assert_eq!(buffer, bytes);
    partial.finish().unwrap();
    assert_eq!(partial.write_piece(0, b"late").unwrap(), Written::Stored);
    drop((partial, store));
    assert_eq!(content_of(&root.open(), &info), bytes);
}

#[test]
fn begin_on_a_complete_content_reads_at_once() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(2 * PIECE, 1);
    let info = root.seal(&store, &bytes);
    let partial = store.begin(&info).unwrap();
    assert_eq!((partial.phase(), partial.missing()), (Phase::Complete, 0));
    let mut buffer = [0; 10];
    partial.read(5, &mut buffer).unwrap();
    assert_eq!(buffer, bytes[5..15]);
    partial.finish().unwrap();
}

#[test]
fn a_complete_file_of_the_wrong_length_is_fetched_again() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(2 * PIECE, 1);
    let info = root.seal(&store, &bytes);
    fs::write(store.path(&info.info_hash()), b"cut").unwrap();
    let partial = store.begin(&info).unwrap();
    assert_eq!(partial.missing(), 2);
    write_all(&partial, &bytes);
    partial.finish().unwrap();
    assert_eq!(content_of(&store, &info), bytes);
}

#[test]
fn a_partial_file_of_the_wrong_length_has_no_bits() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(2 * PIECE, 1);
    let info = info_of(&bytes);
    let partial = store.begin(&info).unwrap();
    partial.write_piece(0, &bytes[..PIECE]).unwrap();
    drop(partial);
    fs::write(store.path(&info.info_hash()), b"").unwrap();
    for _ in 0..2 {
        let store = root.open();
        assert_eq!(store.begin(&info).unwrap().missing(), 2);
    }
}

#[test]
fn removed_contents_stay_readable_by_their_handles() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(2 * PIECE, 1);
    let sealed = root.seal(&store, &bytes);
    let file = store.open_content(&sealed.info_hash()).unwrap();
    assert!(store.remove(&sealed.info_hash()).unwrap());
    assert!(!store.remove(&sealed.info_hash()).unwrap());
    let mut buffer = [0; 4];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(buffer, bytes[..4]);

    let partial = store.begin(&sealed).unwrap();
    partial.write_piece(0, &bytes[..PIECE]).unwrap();
    assert!(store.remove(&sealed.info_hash()).unwrap());
    assert_eq!(partial.phase(), Phase::Removed);
    partial.read(0, &mut buffer).unwrap();
    let late = partial.write_piece(1, &bytes[PIECE..]);
    assert!(matches!(late, Err(StoreError::Gone(_))));
    assert_eq!(store.space().unwrap().used, 0);
    drop((partial, store));
    assert_eq!(root.open().list(), []);
}

#[test]
fn capacity_limits_fetching_but_not_sealing() {
    let root = Root::new();
    let store = root.open();
    store.set_capacity(Some(3 * PIECE as u64));
    let one = store.begin(&info_of(&bytes_of(2 * PIECE, 1))).unwrap();
    let two = bytes_of(PIECE + 1, 2);
    let error = store.begin(&info_of(&two)).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::NoRoom {
                needed: 65_537,
                free: 65_536
            }
        ),
        "{error}"
    );
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    root.seal(&store, &two);
    assert_eq!(store.space().unwrap().free, 0);
    store.remove(&one.info().info_hash()).unwrap();
    assert_eq!(store.space().unwrap().free, 2 * PIECE as u64 - 1);
}

#[test]
fn opening_cleans_up_and_reports() {
    let root = Root::new();
    let path = |name: &str| root.dir.path().join("data").join(&name[..2]).join(name);
    let hex = |byte: &str| byte.repeat(20);
    drop(root.open());
    for folder in ["aa", "bb", "cc", "dd", "ee", "ff"] {
        fs::create_dir(root.dir.path().join("data").join(folder)).unwrap();
    }
    let notes = root.dir.path().join("data").join("notes");
    fs::create_dir(&notes).unwrap();
    let names = [hex("aa"), hex("bb") + ".have", hex("cc") + ".tmp"];
    for name in names.iter().chain([&hex("dd"), &(hex("dd") + ".have")]) {
        fs::write(path(name), b"").unwrap();
    }
    fs::write(path(&hex("dd")), b"bytes").unwrap();
    fs::write(path(&(hex("ee") + ".tmp")), b"").unwrap();
    fs::write(path("ff-notes"), b"mine").unwrap();
    let store = root.open();
    let expected = [
        Finding::Unknown(notes),
        Finding::Empty(path(&hex("aa"))),
        Finding::Leftover(path(&(hex("bb") + ".have"))),
        Finding::Leftover(path(&(hex("cc") + ".tmp"))),
        Finding::DamagedHave(path(&(hex("dd") + ".have"))),
        Finding::Leftover(path(&(hex("ee") + ".tmp"))),
        Finding::Unknown(path("ff-notes")),
    ];
    assert_eq!(store.findings(), expected);
    let held = store.list();
    assert_eq!(held.len(), 1);
    assert!(!held[0].complete);
    assert!(path("ff-notes").exists() && !path(&hex("aa")).exists());
}

#[test]
fn a_newer_have_format_is_refused() {
    let root = Root::new();
    let store = root.open();
    let info = info_of(&bytes_of(2 * PIECE, 1));
    let hash = info.info_hash();
    store.begin(&info).unwrap();
    let have = format!("{}.have", store.path(&hash).display());
    fs::write(&have, b"delugefs have 2\nwhatever").unwrap();
    let error = ContentStore::open(root.dir.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::NewerFormat { version: 2, .. }),
        "{error}"
    );
}

#[test]
fn sync_makes_groups_durable() {
    let root = Root::new();
    let store = ContentStore::open(root.dir.path()).unwrap();
    for count in [1, 40] {
        let mut infos: Vec<_> = (0..count)
            .map(|seed| {
                root.seal(&store, &bytes_of(50 + count, seed as u8))
                    .info_hash()
            })
            .collect();
        assert!(infos.iter().all(|hash| !store.is_durable(hash)));
        let mut durable = store.sync().durable;
        infos.sort();
        durable.sort();
        assert_eq!(durable, infos);
        assert!(infos.iter().all(|hash| store.is_durable(hash)));
        assert!(store.sync().durable.is_empty());
    }
}

#[test]
fn what_failed_to_sync_is_not_durable_before_it_is_verified() {
    let root = Root::new();
    let disk = Arc::new(FaultyDisk::default());
    let store = ContentStore::open_on(root.dir.path(), disk.clone()).unwrap();
    let info = root.seal(&store, &bytes_of(100, 1));
    disk.fail_at(disk.operations() + 1, 1);
    let synced = store.sync();
    assert_eq!((synced.durable.len(), synced.failed.len()), (0, 1));
    assert!(store.sync().durable.is_empty(), "a second sync lies");
    assert!(!store.is_durable(&info.info_hash()));
    assert_eq!(store.verify(&info).unwrap(), Verdict::Good);
    assert_eq!(store.sync().durable, [info.info_hash()]);
}

#[test]
fn where_the_first_sync_fails_nothing_is_durable_before_it_is_read_again() {
    let root = Root::new();
    let info = root.seal(&root.open(), &bytes_of(100, 1));
    let content = info.info_hash();
    let disk = Arc::new(FaultyDisk::default());
    disk.fail_at(1, 1);
    let store = ContentStore::open_on(root.dir.path(), disk).unwrap();
    assert!(!store.was_synced() && !store.is_durable(&content));
    assert!(store.sync().durable.is_empty(), "a second sync lies");
    assert!(store.is_named_right(&content).unwrap());
    assert_eq!(store.sync().durable, [content]);
    assert!(root.open().was_synced());
}

#[test]
fn verify_finds_damage() {
    let root = Root::new();
    let store = root.open();
    let info = root.seal(&store, &bytes_of(100, 1));
    assert_eq!(store.verify(&info).unwrap(), Verdict::Good);
    fs::remove_file(store.path(&info.info_hash())).unwrap();
    fs::write(store.path(&info.info_hash()), bytes_of(100, 2)).unwrap();
    assert_eq!(store.verify(&info).unwrap(), Verdict::Damaged);
}

#[test]
fn a_file_taken_away_counts_as_absent() {
    let root = Root::new();
    let store = root.open();
    let hash = root.seal(&store, b"some bytes").info_hash();
    fs::remove_file(store.path(&hash)).unwrap();
    assert!(matches!(
        store.open_content(&hash),
        Err(StoreError::NotComplete(_))
    ));
    assert_eq!(store.state(&hash), State::Absent);
}

#[test]
fn many_threads_write_and_read_one_content() {
    let root = Root::new();
    let store = root.open();
    let bytes = bytes_of(40 * PIECE + 3, 1);
    let info = info_of(&bytes);
    let partial = store.begin(&info).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (partial, bytes) = (&partial, &bytes);
            scope.spawn(move || {
                let order = (0..41).map(|i| (i * (thread + 1) + thread * 7) % 41);
                for piece in order {
                    let end = bytes.len().min((piece + 1) * PIECE);
                    let written = partial.write_piece(piece as u32, &bytes[piece * PIECE..end]);
                    assert_eq!(written.unwrap(), Written::Stored);
                    let mut byte = [0];
                    partial.read((piece * PIECE) as u64, &mut byte).unwrap();
                    assert_eq!(byte[0], bytes[piece * PIECE]);
                    partial.flush().unwrap();
                }
            });
        }
    });
    partial.finish().unwrap();
    assert_eq!(content_of(&store, &info), bytes);
}
