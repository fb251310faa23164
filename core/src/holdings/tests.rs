#![allow(clippy::unwrap_used)]

use super::codec::{CodecError, decode, encode, file, file_header, frame, read_file};
use super::*;
use proptest::prelude::*;

fn content(number: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    InfoHash::new(bytes)
}

fn held(number: u32) -> Record {
    Record {
        operation: Operation::Held,
        content: content(number),
    }
}

fn dropped(number: u32) -> Record {
    Record {
        operation: Operation::Dropped,
        content: content(number),
    }
}

const AUTHOR: IncarnationId = IncarnationId::new([7; 16]);
const OTHER: IncarnationId = IncarnationId::new([8; 16]);

/// Asks `from` until `to` has reached it; returns the number of batches.
fn catch_up(to: &mut Log, from: &Log) -> usize {
    for round in 0..10_000 {
        if to.position() >= from.position() {
            return round;
        }
        let batch = decode(&encode(&from.batch(&to.wanted()))).unwrap();
        let applied = to.apply(&batch).unwrap();
        assert!(
            !matches!(applied, Applied::Gap | Applied::Known),
            "{applied:?}"
        );
    }
    panic!("never caught up");
}

#[test]
fn repeats_are_not_recorded() {
    let mut log = Log::new();
    assert!(log.push(dropped(1)).is_none());
    assert!(log.push(held(1)).is_some());
    assert!(log.push(held(1)).is_none());
    assert!(log.push(dropped(1)).is_some());
    assert_eq!((log.position(), log.held().len()), (2, 0));
}

#[test]
fn records_follow_each_other_and_gaps_are_told() {
    let mut source = Log::new();
    for number in 0..10 {
        source.push(held(number));
    }
    let mut log = Log::new();
    let late = source.batch(&Wanted {
        from: 4,
        after: None,
    });
    assert_eq!(log.apply(&late), Ok(Applied::Gap));
    assert_eq!(catch_up(&mut log, &source), 1);
    assert_eq!(log.apply(&late), Ok(Applied::Known));
    source.push(dropped(3));
    let overlapping = source.batch(&Wanted {
        from: 4,
        after: None,
    });
    let changed = BTreeSet::from([content(3)]);
    assert_eq!(log.apply(&overlapping), Ok(Applied::Moved(changed)));
    assert_eq!(log, source);
}

#[test]
fn who_was_away_too_long_gets_pages() {
    let mut source = Log::new();
    for number in 0..5 * TAIL_RECORDS_MIN as u32 {
        source.push(held(number));
    }
    assert!(source.first > 0, "the past is kept for ever");
    let mut log = Log::new();
    assert_eq!(
        log.apply(&source.batch(&log.wanted())),
        Ok(Applied::Collected)
    );
    // The source goes on while its pages travel: behind and before the cursor.
    source.push(dropped(0));
    source.push(held(u32::MAX));
    source.push(dropped(4 * TAIL_RECORDS_MIN as u32));
    catch_up(&mut log, &source);
    assert_eq!(log.held(), source.held());
    assert_eq!(log.position(), source.position());
}

#[test]
fn an_emptied_log_is_one_empty_page() {
    let mut source = Log::new();
    for round in 0..3 * TAIL_RECORDS_MIN as u32 {
        source.push(held(round));
        source.push(dropped(round));
    }
    let mut log = Log::new();
    catch_up(&mut log, &source);
    assert!(log.held().is_empty());
    assert_eq!(log.position(), source.position());
}

#[test]
fn the_index_follows_every_log() {
    let mut holdings = Holdings::new();
    holdings.push(AUTHOR, held(1)).unwrap();
    let mut foreign = Log::new();
    foreign.push(held(1));
    foreign.push(held(2));
    holdings
        .apply(OTHER, &foreign.batch(&holdings.wanted(OTHER)))
        .unwrap();
    assert_eq!(
        holdings.holders(&content(1)).collect::<Vec<_>>(),
        [AUTHOR, OTHER]
    );
    foreign.push(dropped(1));
    holdings
        .apply(OTHER, &foreign.batch(&holdings.wanted(OTHER)))
        .unwrap();
    assert_eq!(holdings.holders(&content(1)).collect::<Vec<_>>(), [AUTHOR]);
    assert!(holdings.holds(OTHER, &content(2)) && !holdings.holds(AUTHOR, &content(2)));
    assert_eq!(
        holdings.positions(),
        BTreeMap::from([(AUTHOR, 1), (OTHER, 3)])
    );
    holdings.insert(OTHER, Log::new()).unwrap();
    assert_eq!(holdings.holders(&content(2)).count(), 0);
}

#[test]
fn a_file_loses_only_its_torn_tail() {
    let mut log = Log::new();
    let mut bytes = file_header(AUTHOR);
    let mut ends = vec![bytes.len()];
    for number in 0..4 {
        bytes.extend(frame(&log.push(held(number)).unwrap()));
        ends.push(bytes.len());
    }
    assert_eq!(read_file(&bytes).unwrap().log, log);
    for cut in ends[0]..bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let recovered = read_file(&bytes[..cut]).unwrap();
        assert_eq!(recovered.valid, ends[whole]);
        assert_eq!(recovered.log.position(), whole as u64);
    }
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(read_file(&flipped).unwrap().log.position(), 3);
}

#[test]
fn a_rewritten_file_is_compact_and_whole() {
    let mut log = Log::new();
    for number in 0..20_000 {
        log.push(held(number));
    }
    let bytes = file(AUTHOR, &log);
    assert!(bytes.len() < 20_000 * 21, "{}", bytes.len());
    let recovered = read_file(&bytes).unwrap();
    assert_eq!(recovered.incarnation, AUTHOR);
    assert_eq!(
        (recovered.log.held(), recovered.log.position()),
        (log.held(), 20_000)
    );
}

#[test]
fn golden_batches() {
    let records = encode(&Batch::Records {
        from: 258,
        records: vec![held(1)],
    });
    assert_eq!(
        records,
        [
            &[1, 0, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1][..],
            content(1).as_bytes()
        ]
        .concat()
    );
    let page = encode(&Batch::Page {
        at: 3,
        after: Some(content(1)),
        held: vec![content(2)],
        last: true,
    });
    let head = [1, 1, 3, 0, 0, 0, 0, 0, 0, 0, 3];
    let count = [1, 0, 0, 0];
    assert_eq!(
        page,
        [
            &head[..],
            content(1).as_bytes(),
            &count,
            content(2).as_bytes()
        ]
        .concat()
    );
    assert_eq!(decode(&[2, 0]), Err(CodecError::Version(2)));
}

#[test]
fn lies_about_size_are_refused() {
    let mut huge = vec![1, 0];
    huge.extend(0_u64.to_le_bytes());
    huge.extend(u32::MAX.to_le_bytes());
    assert_eq!(decode(&huge), Err(CodecError::Malformed("count")));
    let far = Batch::Records {
        from: u64::MAX,
        records: vec![held(1)],
    };
    assert_eq!(Log::new().apply(&far), Err(HoldingsError::PositionTooLarge));
}

fn record() -> impl Strategy<Value = Record> {
    (any::<bool>(), 0..20_u32).prop_map(|(is_held, number)| {
        if is_held {
            held(number)
        } else {
            dropped(number)
        }
    })
}

#[test]
fn who_heard_more_than_there_is_gets_what_is_true() {
    let mut own = Log::new();
    (1..=5).for_each(|number| drop(own.push(held(number))));
    let mut peer = own.clone();
    peer.apply(&Batch::Records {
        from: 5,
        records: vec![held(6), dropped(1)],
    })
    .unwrap();
    assert!(own.leap(peer.position()));
    assert!(!own.leap(peer.position()));
    own.push(held(7));
    catch_up(&mut peer, &own);
    assert_eq!(peer.held(), own.held());
    assert!(!own.leap(u64::MAX) && !own.leap(POSITION_MAX));
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(batch) = decode(&bytes) {
            prop_assert_eq!(encode(&batch), bytes.clone());
        }
        let mut in_file = file_header(AUTHOR);
        in_file.extend(bytes);
        let _ = read_file(&in_file);
    }

    #[test]
    fn relays_agree_with_the_source(
        history in proptest::collection::vec((record(), 0..4_u8), 1..120),
    ) {
        let mut source = Log::new();
        let mut relay = Log::new();
        let mut far = Log::new();
        for (record, step) in history {
            source.push(record);
            match step {
                0 => { relay.apply(&source.batch(&relay.wanted())).unwrap(); }
                1 => { far.apply(&relay.batch(&far.wanted())).unwrap(); }
                2 => { far.apply(&source.batch(&relay.wanted())).unwrap(); }
                _ => {}
            }
        }
        catch_up(&mut relay, &source);
        catch_up(&mut far, &relay);
        prop_assert_eq!(far.held(), source.held());
    }
}
