#![allow(clippy::unwrap_used)]

use super::*;
use std::io::Write;

const COLLISION_A: &[u8] = include_bytes!("../../tests/data/sha1-collision-a.bin");
const COLLISION_B: &[u8] = include_bytes!("../../tests/data/sha1-collision-b.bin");

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| ((i * i) >> 7) as u8).collect()
}

#[test]
fn golden_info_hashes() {
    for (bytes, expected) in [
        (b"a".to_vec(), "a311d0959d96dbee57bc1801f6ecc11ad507973d"),
        (pattern(65_536), "6cfd024843ffcc158e76f1b0990d10ecc60c3126"),
        (
            pattern(5 * 65_536 + 3),
            "c2a3abf77d9c7d24efb7fa076e9c5dbbd7fc7d56",
        ),
    ] {
        let info = hash_file(&file_of(&bytes)).unwrap();
        assert_eq!(info.info_hash().to_string(), expected, "{}", bytes.len());
    }
}

#[test]
fn same_result_on_any_number_of_threads() {
    let bytes = pattern(7 * 1024 * 1024 + 11);
    let file = file_of(&bytes);
    let one = hash_file_on(&file, 1).unwrap();
    for threads in [2, 3, 64] {
        assert_eq!(hash_file_on(&file, threads).unwrap(), one);
    }
    let piece = one.piece_length() as usize;
    let hashes: Vec<_> = bytes.chunks(piece).map(hash_piece).collect();
    let sha1: Vec<_> = hashes.iter().map(|h| h.sha1).collect();
    assert_eq!(one.pieces(), sha1);
    let list: Vec<u8> = hashes.iter().flat_map(|h| h.blake3).collect();
    assert_eq!(*one.blake3(), <[u8; 32]>::from(blake3::hash(&list)));
}

#[test]
fn pieces_larger_than_a_chunk() {
    let bytes = pattern(3 * CHUNK_BYTES + 5);
    let file = file_of(&bytes);
    let mut buffer = vec![0; 1000];
    let whole = hash_range(&file, 0..bytes.len() as u64, &mut buffer).unwrap();
    assert_eq!(whole, hash_piece(&bytes));
}

#[test]
fn two_files_with_one_sha1_are_two_contents() {
    let rest = pattern(1024 * 1024);
    let a = hash_file(&file_of(&[COLLISION_A, &rest].concat())).unwrap();
    let b = hash_file(&file_of(&[COLLISION_B, &rest].concat())).unwrap();
    assert_eq!(a.pieces(), b.pieces(), "the fixture still collides");
    assert_ne!(a.info_hash(), b.info_hash());
}

#[test]
fn refuses_the_empty_file_and_notices_a_cut() {
    let empty = hash_file(&file_of(b"")).unwrap_err();
    assert!(matches!(empty, HashError::Info(InfoError::Length(0))));
    let file = file_of(&pattern(100_000));
    let cut = hash_pieces(&file, 100_001, 1).unwrap_err();
    assert!(matches!(cut, HashError::Changed), "{cut}");
    let cut = hash_pieces(&file, 5_000_000, 4).unwrap_err();
    assert!(matches!(cut, HashError::Changed), "{cut}");
}

#[test]
fn a_write_meanwhile_changes_the_fingerprint() {
    let mut file = file_of(&pattern(1000));
    let before = fingerprint(&file).unwrap();
    file.write_all(b"x").unwrap();
    assert!(fingerprint(&file).unwrap() != before);
}

/// `cargo test -p delugefs-torrent hashing_speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn hashing_speed() {
    let bytes = pattern(512 * 1024 * 1024);
    let file = file_of(&bytes);
    let time = |what: &str, work: &dyn Fn()| {
        let start = std::time::Instant::now();
        work();
        let speed = bytes.len() as u128 / start.elapsed().as_micros();
        println!("{what}: {speed} MB/s");
    };
    time("raw SHA-1, one core, in memory", &|| {
        std::hint::black_box(Sha1::digest(&bytes));
    });
    time("raw BLAKE3, one core, in memory", &|| {
        std::hint::black_box(blake3::hash(&bytes));
    });
    for threads in [1, default_threads()] {
        time(&format!("file, {threads} threads"), &|| {
            hash_file_on(&file, threads).unwrap();
        });
    }
}
