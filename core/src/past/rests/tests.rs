#![allow(clippy::unwrap_used)]

use super::codec::{self, Anyone, CodecError};
use super::{HEADS_MAX, Heard, Keys, Rest, Rests, Word};
use crate::ids::{CommitId, IncarnationId, VolumeId};
use crate::limits::INCARNATIONS_MAX;
use std::collections::BTreeSet;

const VOLUME: VolumeId = VolumeId::new([5; 16]);
const RETIRE: i64 = 100;

/// Signs by a hash, which is as good here.
struct Hashed;

impl Keys for Hashed {
    fn verify(&self, key: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> bool {
        sign(key, bytes) == *signature
    }
}

fn sign(key: &[u8; 32], bytes: &[u8]) -> [u8; 64] {
    let hash = *blake3::keyed_hash(key, bytes).as_bytes();
    [hash, hash].concat().try_into().unwrap()
}

fn who(number: u8) -> IncarnationId {
    IncarnationId::of_key(&[number; 32])
}

fn heads(numbers: &[u8]) -> BTreeSet<CommitId> {
    numbers.iter().map(|n| CommitId::new([*n; 20])).collect()
}

fn signed(by: u8, rest: &Rest) -> Word {
    let key = [by; 32];
    Word::sign(rest, VOLUME, (&key, &|bytes| sign(&key, bytes)))
}

fn word(by: u8, number: u64, on: &[u8], met: &[u8]) -> Word {
    let rest = Rest {
        number,
        heads: heads(on),
        met: met.iter().copied().map(who).collect(),
    };
    signed(by, &rest)
}

/// Says that it rests on some heads.
fn rest(rests: &mut Rests, on: &[u8], now: i64) -> Rest {
    let rest = rests.say(&heads(on), now, RETIRE).unwrap();
    rests.said(signed(1, &rest), now);
    rest
}

#[test]
fn everyone_known_is_asked_and_who_is_silent_rests_on_nothing() {
    let mut rests = Rests::new(who(1));
    assert_eq!(rests.asked(0, RETIRE), Some(vec![heads(&[])]));
    rest(&mut rests, &[1], 0);
    assert_eq!(rests.asked(0, RETIRE), Some(vec![heads(&[1])]));
    assert!(rests.note(who(2), 0));
    assert!(rests.asked(0, RETIRE).unwrap().contains(&heads(&[])));
    assert_eq!(rests.hear(word(2, 1, &[2], &[]), 0), Heard::News);
    assert_eq!(rests.asked(0, RETIRE), Some(vec![heads(&[2]), heads(&[1])]));
}

#[test]
fn whom_others_have_met_is_asked_too() {
    let mut rests = Rests::new(who(1));
    rests.hear(word(2, 1, &[2], &[3]), 0);
    let asked = rests.asked(0, RETIRE).unwrap();
    // 3 and this one itself
    assert_eq!(asked.iter().filter(|heads| heads.is_empty()).count(), 2);
    assert_eq!(asked.len(), 3);
}

#[test]
fn whom_others_go_on_naming_gives_no_sign_of_life_by_that() {
    let mut rests = Rests::new(who(1));
    rests.hear(word(2, 1, &[2], &[3]), 0);
    rests.hear(word(2, 2, &[4], &[3]), 100);
    assert_eq!(rests.asked(100, RETIRE).unwrap().len(), 3);
    assert_eq!(rests.asked(101, RETIRE).unwrap().len(), 2);
}

#[test]
fn who_gives_no_sign_of_life_is_retired_until_it_does() {
    let mut rests = Rests::new(who(1));
    rests.hear(word(2, 1, &[2], &[]), 10);
    assert_eq!(rests.asked(110, RETIRE).unwrap().len(), 2);
    assert_eq!(rests.asked(111, RETIRE).unwrap().len(), 1);
    assert!(!rests.note(who(2), 50));
    assert_eq!(rests.asked(111, RETIRE).unwrap().len(), 2);
    rests.note(who(2), 20);
    assert_eq!(rests.asked(150, RETIRE).unwrap().len(), 2, "never less");
}

#[test]
fn the_later_word_counts_whatever_comes_first() {
    let mut rests = Rests::new(who(1));
    assert_eq!(rests.hear(word(2, 2, &[2], &[]), 0), Heard::News);
    assert_eq!(rests.hear(word(2, 1, &[1], &[]), 0), Heard::Known);
    assert_eq!(rests.hear(word(2, 2, &[3], &[]), 0), Heard::Known);
    assert_eq!(rests.word(who(2)).unwrap().rest().heads, heads(&[2]));
    assert_eq!(rests.hear(word(2, 3, &[3], &[]), 0), Heard::News);
    assert_eq!(rests.word(who(2)).unwrap().rest().heads, heads(&[3]));
}

#[test]
fn an_own_word_that_is_not_known_here_tells_of_an_older_copy() {
    let mut rests = Rests::new(who(1));
    let backup = rests.clone();
    let said = rest(&mut rests, &[1], 0);
    assert_eq!(rests.hear(signed(1, &said), 0), Heard::Known);
    let mut restored = backup;
    assert_eq!(restored.hear(signed(1, &said), 0), Heard::OwnNewer);
    assert!(restored.word(who(1)).is_none());
    rest(&mut restored, &[2], 0);
    assert_eq!(
        restored.hear(signed(1, &said), 0),
        Heard::OwnNewer,
        "two first words"
    );
    assert_eq!(rests.hear(word(1, 0, &[], &[]), 0), Heard::Known);
}

#[test]
fn a_word_is_said_once_and_again_with_news() {
    let mut rests = Rests::new(who(1));
    assert!(rests.say(&heads(&[]), 0, RETIRE).is_none());
    assert_eq!(rest(&mut rests, &[1], 0).number, 1);
    assert!(rests.say(&heads(&[1]), 0, RETIRE).is_none());
    assert!(rests.meet(who(2), 0));
    assert!(!rests.meet(who(2), 0), "written down once");
    assert!(!rests.meet(who(1), 0));
    let again = rest(&mut rests, &[1], 0);
    assert_eq!((again.number, again.met), (2, [who(2)].into()));
    let many: Vec<u8> = (0..=HEADS_MAX as u8).collect();
    assert!(rests.say(&heads(&many), 0, RETIRE).is_none());
}

#[test]
fn a_lost_list_says_nothing_until_all_it_may_have_forgotten_are_retired() {
    let mut rests = Rests::lost(who(1), 1000);
    assert!(rests.asked(1000 + RETIRE, RETIRE).is_none());
    assert!(rests.say(&heads(&[1]), 1000 + RETIRE, RETIRE).is_none());
    rests.note(who(2), 1050);
    let asked = rests.asked(1001 + RETIRE, RETIRE).unwrap();
    assert_eq!(asked.len(), 2);
    assert!(rests.say(&heads(&[1]), 1001 + RETIRE, RETIRE).is_some());
}

#[test]
fn a_list_without_room_says_nothing() {
    let mut rests = Rests::new(who(1));
    for number in 0..INCARNATIONS_MAX as u64 {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        assert!(rests.note(IncarnationId::new(id), 0));
    }
    assert!(rests.asked(0, RETIRE).is_some());
    assert!(!rests.note(who(9), 0));
    assert!(rests.asked(0, RETIRE).is_none());
    assert!(rests.asked(i64::MAX, RETIRE).is_none());
    let read = codec::decode(&codec::encode(&rests), VOLUME, &Hashed).unwrap();
    assert!(read.asked(0, RETIRE).is_none(), "nor after a restart");
}

fn sample() -> Rests {
    let mut rests = Rests::new(who(1));
    rests.meet(who(2), 7);
    rests.hear(word(2, 3, &[2, 4], &[3]), 8);
    rest(&mut rests, &[4], 9);
    rests
}

#[test]
fn golden() {
    let word = word(2, 3, &[4], &[3]);
    let expected = [
        &[2; 32][..],
        &3_u64.to_le_bytes(),
        &[1, 0],
        &[4; 20],
        &[1, 0],
        who(3).as_bytes(),
    ]
    .concat();
    let domain = [&b"delugefs rests on v1"[..], &[5; 16], &expected].concat();
    let expected = [expected, sign(&[2; 32], &domain).to_vec()].concat();
    assert_eq!(word.bytes(), expected);

    let mut rests = Rests::lost(who(1), 6);
    rests.meet(who(3), 7);
    rests.hear(word.clone(), 8);
    let mut known = [(who(2), 8_i64, word.bytes()), (who(3), 7, &[])];
    known.sort_unstable();
    let mut expected = b"DFSREST\x01".to_vec();
    expected.extend(who(1).as_bytes());
    expected.extend([6, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    for (incarnation, seen, word) in known {
        expected.extend(incarnation.as_bytes());
        expected.extend(seen.to_le_bytes());
        expected.extend((word.len() as u32).to_le_bytes());
        expected.extend(word);
    }
    expected.extend([1, 0, 0, 0]);
    expected.extend(who(3).as_bytes());
    expected.extend(*blake3::hash(&expected).as_bytes());
    assert_eq!(codec::encode(&rests), expected);
}

#[test]
fn what_is_written_is_read() {
    let rests = sample();
    let bytes = codec::encode(&rests);
    assert_eq!(codec::decode(&bytes, VOLUME, &Hashed), Ok(rests));
}

#[test]
fn any_damage_is_noticed() {
    let bytes = codec::encode(&sample());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(codec::decode(&damaged, VOLUME, &Hashed).is_err(), "{at}");
        assert!(
            codec::decode(&bytes[..at], VOLUME, &Hashed).is_err(),
            "{at}"
        );
    }
    let newer = [&bytes[..7], &[2], &bytes[8..]].concat();
    let read = codec::decode(&newer, VOLUME, &Hashed);
    assert_eq!(read, Err(CodecError::Version(2)));
}

#[test]
fn a_word_is_of_its_incarnation_for_its_volume_and_of_nobody_else() {
    let word = word(2, 3, &[2, 4], &[1, 3]);
    let read = |bytes: &[u8]| Word::read(bytes, VOLUME, &Hashed);
    assert_eq!(read(word.bytes()).as_ref(), Ok(&word));
    let other = Word::read(word.bytes(), VolumeId::new([6; 16]), &Hashed);
    assert_eq!(other, Err(CodecError::Signature));
    for at in 0..word.bytes().len() {
        let mut damaged = word.bytes().to_vec();
        damaged[at] ^= 1;
        assert!(read(&damaged).is_err(), "{at}");
        assert!(read(&word.bytes()[..at]).is_err(), "{at}");
    }
    let longer = [word.bytes(), &[0]].concat();
    assert!(read(&longer).is_err());
}

/// Seeds made by a program of its own, and what is near them.
#[test]
fn golden_seeds_and_their_neighbours() {
    let word = include_bytes!("../../../../fuzz/seeds/rests/word");
    let list = include_bytes!("../../../../fuzz/seeds/rests/list");
    assert!(Word::read(word, VOLUME, &Anyone).is_ok());
    let checked = [&list[..], blake3::hash(list).as_bytes()].concat();
    assert!(codec::decode(&checked, VOLUME, &Anyone).is_ok());
    for seed in [&word[..], &list[..]] {
        codec::fuzz(seed);
        for at in 0..seed.len() {
            codec::fuzz(&seed[..at]);
            for changed in 0..=u8::MAX {
                let mut bytes = seed.to_vec();
                bytes[at] = changed;
                codec::fuzz(&bytes);
            }
        }
    }
}
