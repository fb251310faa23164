#![allow(clippy::unwrap_used)]

use super::*;
use crate::fuzzing;
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

fn sample(length: u64, seed: u8) -> Info {
    let count = length.div_ceil(piece_length(length).into()) as usize;
    let pieces = (0..count).map(|i| [seed.wrapping_add(i as u8); HASH_LEN]);
    Info::new(length, pieces.collect(), [seed; 32]).unwrap()
}

#[test]
fn piece_length_is_fixed_for_ever() {
    const KIB: u64 = 1024;
    const GIB: u64 = KIB * KIB * KIB;
    for (length, expected) in [
        (1, 64 * KIB),
        (GIB, 64 * KIB),
        (GIB + 1, 128 * KIB),
        (6 * GIB, 512 * KIB),
        (256 * GIB, 16 * KIB * KIB),
        (256 * GIB + 1, 16 * KIB * KIB),
        (2048 * GIB, 16 * KIB * KIB),
        (2048 * GIB + 1, 32 * KIB * KIB),
        (CONTENT_BYTES_MAX, 2 * GIB),
    ] {
        assert_eq!(u64::from(piece_length(length)), expected, "{length}");
        assert!(length.div_ceil(expected) <= PIECES_MAX, "{length}");
    }
}

#[test]
fn golden_encoding_and_info_hash() {
    let info = Info::new(5, vec![[b'p'; 20]], [b'b'; 32]).unwrap();
    let golden = b"d6:blake332:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb6:lengthi5e\
        4:name40:8c570d70ffe67179d632196455c8e7e79b0a98c2\
        12:piece lengthi65536e6:pieces20:ppppppppppppppppppppe";
    assert_eq!(
        String::from_utf8(info.encode()).unwrap(),
        String::from_utf8(golden.to_vec()).unwrap()
    );
    let hash = "b3e0c91a2fc3e352d87a541cc297b7fbd5a941da";
    assert_eq!(info.info_hash().to_string(), hash);
    assert_eq!(Info::parse(golden).unwrap(), info);
}

type Wanted = fn(&InfoError) -> bool;

#[test]
fn refuses_what_is_not_ours() {
    let good = sample(100_000, 7).encode();
    let text = |from: &str, to: &str| {
        let found = good.windows(from.len()).position(|w| w == from.as_bytes());
        let at = found.unwrap_or_else(|| panic!("{from}"));
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    let malformed: Wanted = |e| matches!(e, InfoError::Malformed { .. });
    let cases: [(Vec<u8>, Wanted); 13] = [
        (vec![], malformed),
        (good[..good.len() - 1].to_vec(), malformed),
        ([&good[..], b"e"].concat(), malformed),
        (text("i100000e", "i0100000e"), malformed),
        (text("i100000e", "i-1e"), malformed),
        (text("i100000e", "i99999999999999999999e"), malformed),
        (text("6:blake3", "6:blakeX"), malformed),
        (text("i100000e", "i0e"), |e| *e == InfoError::Length(0)),
        (text("i65536e", "i32768e"), |e| {
            matches!(e, InfoError::PieceLength { .. })
        }),
        (text("pieces40:", "pieces60:"), |e| {
            matches!(e, InfoError::PieceCount { .. })
        }),
        (
            text("name40:", "name40:0")[..good.len()].to_vec(),
            malformed,
        ),
        ([&good[..70], b"x", &good[71..]].concat(), |e| {
            *e == InfoError::Name
        }),
        (vec![b'd'; INFO_BYTES_MAX + 1], |e| {
            matches!(e, InfoError::TooLong(_))
        }),
    ];
    for (bytes, wanted) in cases {
        let error = Info::parse(&bytes).unwrap_err();
        assert!(wanted(&error), "{error}: {}", bytes.escape_ascii());
    }
}

#[test]
fn refuses_wrong_counts_and_lengths() {
    let build = |length, count| Info::new(length, vec![[0; 20]; count], [0; 32]);
    assert_eq!(build(0, 0).unwrap_err(), InfoError::Length(0));
    assert!(matches!(
        build(CONTENT_BYTES_MAX + 1, 131_072).unwrap_err(),
        InfoError::Length(_)
    ));
    assert!(matches!(
        build(65_537, 1).unwrap_err(),
        InfoError::PieceCount { .. }
    ));
    assert!(build(65_537, 2).is_ok());
}

#[test]
fn largest_info_is_within_the_limit() {
    let info = sample(2 << 40, 0);
    assert_eq!(u64::from(info.piece_count()), PIECES_MAX);
    assert_eq!(Info::parse(&info.encode()).unwrap(), info);
    let info = sample(CONTENT_BYTES_MAX, 0);
    assert_eq!(Info::parse(&info.encode()).unwrap(), info);
}

#[test]
fn pieces_cover_the_content() {
    let info = sample(3 * 65_536 + 1, 1);
    assert_eq!(info.piece_count(), 4);
    assert_eq!(info.piece_range(0), Some(0..65_536));
    assert_eq!(info.piece_range(3), Some(3 * 65_536..3 * 65_536 + 1));
    assert_eq!(info.piece_range(4), None);
    assert_eq!(info.pieces_covering(0, 0), 0..0);
    assert_eq!(info.pieces_covering(65_535, 2), 0..2);
    assert_eq!(info.pieces_covering(65_536, u64::MAX), 1..4);
    assert_eq!(info.pieces_covering(3 * 65_536 + 1, 1), 0..0);
}

#[test]
fn random_mutations_never_panic() {
    let mut random = StdRng::seed_from_u64(1);
    let good = sample(300_000, 9).encode();
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.random()),
            }
        }
        fuzzing::info(&bytes);
    }
}

proptest! {
    #[test]
    fn round_trips(length in 1_u64..200_000_000, seed: u8) {
        let info = sample(length, seed);
        let parsed = Info::parse(&info.encode()).unwrap();
        prop_assert_eq!(parsed.info_hash(), info.info_hash());
        prop_assert_eq!(parsed, info);
    }

    #[test]
    fn piece_length_is_a_bounded_power_of_two(length in 1..=CONTENT_BYTES_MAX) {
        let piece = piece_length(length);
        prop_assert!(piece.is_power_of_two() && piece >= PIECE_BYTES_MIN);
        prop_assert!(length.div_ceil(piece.into()) <= PIECES_MAX);
        let comfortable = length <= PIECES_TARGET * u64::from(PIECE_BYTES_COMFORTABLE);
        prop_assert!(!comfortable || length.div_ceil(piece.into()) <= PIECES_TARGET);
    }

    #[test]
    fn each_part_counts(length in 1_u64..1_000_000, seed in 0_u8..200) {
        let info = sample(length, seed);
        let other = Info::new(length, info.pieces().to_vec(), [seed + 1; 32]).unwrap();
        prop_assert_ne!(other.info_hash(), info.info_hash());
        prop_assert_ne!(sample(length + 1, seed).info_hash(), info.info_hash());
    }
}
