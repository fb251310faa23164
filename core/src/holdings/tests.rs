#![allow(clippy::unwrap_used)]

use super::codec::{
    CodecError, decode, decode_answer, encode, encode_answer, file, file_header, frame, read_file,
};
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

const AUTHOR: PublicKey = PublicKey::new([7; 32]);
const OTHER: PublicKey = PublicKey::new([8; 32]);

/// Who has signed what is the edge's to check; here nobody forges statements.
fn signed(statement: Statement) -> Batch {
    Batch::Signed(Signed {
        statement,
        signature: Signature([5; 64]),
    })
}

/// Says something of the log's own disk, as its author does.
fn push(log: &mut Log, records: &[Record]) -> Vec<Batch> {
    let mut said = Vec::new();
    let mut say = |log: &mut Log, statement: Option<Statement>| {
        if let Some(statement) = statement {
            let batch = signed(statement);
            assert!(log.apply(batch.clone()).unwrap().is_progress());
            said.push(batch);
        }
    };
    for records in records.chunks(BATCH_RECORDS_MAX) {
        let statement = log.records(records);
        say(log, statement);
        let checkpoint = log.due_checkpoint();
        say(log, checkpoint);
    }
    said
}

fn checkpoint(log: &mut Log) {
    let batch = signed(log.checkpoint());
    assert!(log.apply(batch).unwrap().is_progress());
}

/// The author's process begins anew, so many positions further on.
fn begin(log: &mut Log, skipped: u64) {
    let batch = signed(log.begin(skipped).unwrap());
    assert!(log.apply(batch).unwrap().is_progress());
}

fn all(numbers: std::ops::Range<u32>) -> Vec<Record> {
    numbers.map(held).collect()
}

fn new() -> Log {
    Log::new(AUTHOR)
}

/// What `from` sends to who has `to`, taken; whether any of it brought something.
fn ask(to: &mut Log, from: &Log) -> bool {
    let answer = encode_answer(AUTHOR, &from.answer(&to.wanted()));
    let (author, batches) = decode_answer(&answer).unwrap();
    assert_eq!(author, AUTHOR);
    let applied = batches.into_iter().map(|batch| to.apply(batch).unwrap());
    applied
        .map(|applied| applied.is_progress())
        .fold(false, |any, one| any | one)
}

/// Asks `from` until `to` has reached it; returns the number of answers.
fn catch_up(to: &mut Log, from: &Log) -> usize {
    for round in 0..10_000 {
        if to.position() >= from.position() {
            return round;
        }
        // the first may tell of an older checkpoint than that whose pages are being collected
        assert!(ask(to, from) || round == 0, "it has more");
    }
    panic!("never caught up");
}

#[test]
fn repeats_are_not_recorded() {
    let mut log = new();
    assert_eq!(push(&mut log, &[dropped(1)]).len(), 0);
    assert_eq!(push(&mut log, &[held(1)]).len(), 1);
    assert_eq!(push(&mut log, &[held(1)]).len(), 0);
    push(&mut log, &[held(1), dropped(1), dropped(2)]);
    assert_eq!((log.position(), log.held().len()), (2, 0));
}

#[test]
fn statements_follow_each_other_and_gaps_are_told() {
    let mut source = new();
    let early = push(&mut source, &all(0..4)).remove(0);
    let late = push(&mut source, &all(4..10)).remove(0);
    let mut log = new();
    assert_eq!(log.apply(late.clone()), Ok(Applied::Gap));
    assert_eq!(catch_up(&mut log, &source), 1);
    assert_eq!(log, source);
    for replayed in [early, late] {
        assert!(!log.is_news(&replayed));
        assert_eq!(log.apply(replayed), Ok(Applied::Known));
    }
    // begins within what is known
    let overlapping = Statement::Records {
        from: 9,
        records: vec![held(9), dropped(3)],
    };
    let changed = BTreeSet::from([content(3)]);
    assert_eq!(log.apply(signed(overlapping)), Ok(Applied::Moved(changed)));
}

#[test]
fn who_was_away_too_long_gets_a_checkpoint_and_its_pages() {
    let mut source = new();
    let many = 5 * BATCH_RECORDS_MAX as u32;
    push(&mut source, &all(0..many));
    checkpoint(&mut source);
    checkpoint(&mut source);
    let mut log = new();
    assert!(ask(&mut log, &source));
    assert_eq!(log.wanted().page, Some((source.position() - 1, 0)));
    // The source goes on while its pages travel: behind and before the cursor.
    assert!(ask(&mut log, &source));
    push(
        &mut source,
        &[dropped(0), held(u32::MAX), dropped(many - 1)],
    );
    push(&mut source, &[held(0), dropped(1)]);
    catch_up(&mut log, &source);
    assert_eq!(log.held(), source.held());
    assert_eq!(log.position(), source.position());
    let mut further = new();
    catch_up(&mut further, &log);
    assert_eq!(further.held(), source.held());
}

#[test]
fn a_checkpoint_costs_nothing_who_holds_it_true_and_lets_everyone_forget() {
    let mut source = new();
    let mut log = new();
    for round in 0..3 * TAIL_STATEMENTS_MIN as u32 {
        push(&mut source, &[held(round)]);
        push(&mut source, &[dropped(round)]);
        if round % 100 == 0 {
            catch_up(&mut log, &source);
        }
    }
    catch_up(&mut log, &source);
    assert_eq!(log, source);
    assert!(
        log.tail.len() < 3 * TAIL_STATEMENTS_MIN,
        "{}",
        log.tail.len()
    );
    let mut newcomer = new();
    catch_up(&mut newcomer, &source);
    assert_eq!(newcomer.position(), source.position());
}

#[test]
fn who_is_a_little_behind_gets_what_it_lacks_however_often_the_author_began_anew() {
    let mut source = new();
    push(&mut source, &all(0..20_000));
    let mut log = new();
    catch_up(&mut log, &source);
    for round in 0..10 {
        begin(&mut source, 1000);
        push(&mut source, &[held(20_000 + round)]);
    }
    assert!(ask(&mut log, &source));
    assert_eq!(log, source, "no page was needed");
}

#[test]
fn who_begins_anew_again_and_again_keeps_no_more_than_anyone() {
    let mut source = new();
    for _ in 0..2 * TAIL_STATEMENTS_MIN {
        begin(&mut source, 1000);
    }
    assert_eq!(source.tail.len(), TAIL_STATEMENTS_MIN + 1);
    assert_eq!(source.begin(POSITION_MAX - source.position()), None);
}

#[test]
fn what_was_said_before_a_disk_was_restored_is_not_mixed_with_what_it_says_since() {
    let mut copy = new();
    push(&mut copy, &all(0..3));
    let mut peer = copy.clone();
    let [mut before, mut after] = [(); 2].map(|()| copy.clone());
    begin(&mut before, 1000);
    push(&mut before, &[held(10), dropped(1)]);
    catch_up(&mut peer, &before);
    // more than was said before, and under no number of those
    begin(&mut after, 5000);
    push(&mut after, &[held(20)]);
    push(&mut after, &[held(21), held(22), held(23)]);
    catch_up(&mut peer, &after);
    assert_eq!(peer.held(), after.held());
    let mut relayed = before.clone();
    catch_up(&mut relayed, &peer);
    assert_eq!(relayed.held(), after.held());
}

#[test]
fn a_forged_page_is_refused_and_the_right_one_taken() {
    let mut source = new();
    push(&mut source, &all(0..10_000));
    checkpoint(&mut source);
    let mut log = new();
    let cp = source.tail.back().unwrap().clone();
    assert_eq!(log.apply(Batch::Signed(cp)), Ok(Applied::Collected));
    let right = source.answer(&log.wanted()).remove(0);
    let Batch::Page { at, index, held } = right.clone() else {
        panic!("not a page")
    };
    let lies = [&held[1..], &[content(u32::MAX)], &held[..8191], &[]];
    for lie in lies.map(<[_]>::to_vec) {
        let forged = Batch::Page {
            at,
            index,
            held: lie,
        };
        assert_eq!(log.apply(forged), Err(HoldingsError::ForgedPage));
    }
    let other = Batch::Page { at, index: 1, held };
    assert_eq!(log.apply(other), Ok(Applied::Known), "not asked for");
    assert_eq!(log.apply(right), Ok(Applied::Collected));
    catch_up(&mut log, &source);
    assert_eq!(log.held(), source.held());
}

#[test]
fn an_older_checkpoint_does_when_no_newer_can_be_had_and_is_no_progress() {
    let mut source = new();
    push(&mut source, &all(0..20_000));
    checkpoint(&mut source);
    checkpoint(&mut source);
    let elder = source.clone();
    push(&mut source, &all(20_000..60_000));
    checkpoint(&mut source);
    checkpoint(&mut source);
    let mut log = new();
    assert!(ask(&mut log, &source) && ask(&mut log, &source));
    assert!(
        !ask(&mut log, &elder),
        "else two of them could keep us busy"
    );
    catch_up(&mut log, &elder);
    assert_eq!(log.held(), elder.held());
    catch_up(&mut log, &source);
    assert_eq!(log.held(), source.held());
}

#[test]
fn an_author_that_makes_no_checkpoint_is_not_followed_for_ever() {
    let mut log = new();
    let statement = |from| {
        signed(Statement::Records {
            from,
            records: vec![if from % 2 == 0 { held(1) } else { dropped(1) }],
        })
    };
    let refused = (0..10_000).find(|from| log.apply(statement(*from)).is_err());
    assert_eq!(refused, Some(2 * TAIL_STATEMENTS_MIN as u64 + 1));
    let again = log.apply(statement(log.position()));
    assert_eq!(again, Err(HoldingsError::TailTooLong));
    let cp = signed(log.checkpoint());
    assert!(log.apply(cp).unwrap().is_progress());
    assert!(log.apply(statement(log.position())).unwrap().is_progress());
}

#[test]
fn an_answer_has_its_limits() {
    let mut source = new();
    for number in 0..200 {
        push(&mut source, &[held(number)]);
    }
    assert_eq!(
        source.answer(&Wanted::default()).len(),
        ANSWER_STATEMENTS_MAX
    );
    let mut source = new();
    push(&mut source, &all(0..40_000));
    checkpoint(&mut source);
    let answer = encode_answer(AUTHOR, &source.answer(&Wanted::default()));
    assert!(
        answer.len() < ANSWER_BYTES + codec::BATCH_BYTES_MAX,
        "{}",
        answer.len()
    );
    let many = vec![signed(source.checkpoint()); ANSWER_STATEMENTS_MAX + 1];
    assert!(decode_answer(&encode_answer(AUTHOR, &many)).is_err());
}

#[test]
fn the_index_follows_every_log() {
    let mut holdings = Holdings::new();
    let ids = [AUTHOR, OTHER].map(|key| key.incarnation());
    let mut holders = [ids[0], ids[1]];
    holders.sort_unstable_by_key(|id| *id != ids[0]);
    let tell = |holdings: &mut Holdings, author, batches: Vec<Batch>| {
        for batch in batches {
            holdings.apply(author, batch).unwrap();
        }
    };
    tell(&mut holdings, AUTHOR, push(&mut new(), &[held(1)]));
    let mut foreign = Log::new(OTHER);
    tell(
        &mut holdings,
        OTHER,
        push(&mut foreign, &[held(1), held(2)]),
    );
    let found = holdings.holders(&content(1)).collect::<Vec<_>>();
    assert_eq!(found, holders);
    tell(&mut holdings, OTHER, push(&mut foreign, &[dropped(1)]));
    let found = holdings.holders(&content(1)).collect::<Vec<_>>();
    assert_eq!(found, [ids[0]]);
    assert!(holdings.holds(ids[1], &content(2)) && !holdings.holds(ids[0], &content(2)));
    let positions = BTreeMap::from([(ids[0], 1), (ids[1], 3)]);
    assert_eq!(holdings.positions(), positions);
    holdings.insert(Log::new(OTHER)).unwrap();
    assert_eq!(holdings.holders(&content(2)).count(), 0);
}

#[test]
fn a_file_loses_only_its_torn_tail() {
    let mut log = new();
    let mut bytes = file_header(AUTHOR);
    let mut ends = vec![bytes.len()];
    for number in 0..4 {
        let said = push(&mut log, &[held(number)]);
        bytes.extend(said.iter().flat_map(frame));
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
fn a_rewritten_file_is_compact_and_whole_also_in_the_middle_of_a_checkpoint() {
    let mut log = new();
    push(&mut log, &all(0..20_000));
    checkpoint(&mut log);
    push(&mut log, &[dropped(3), held(30_000)]);
    let bytes = file(&log);
    assert!(bytes.len() < 20_000 * 21, "{}", bytes.len());
    let recovered = read_file(&bytes).unwrap().log;
    assert_eq!(recovered.author(), AUTHOR);
    assert_eq!(
        (recovered.held(), recovered.position()),
        (log.held(), log.position())
    );
    assert_eq!(
        recovered
            .answer(&Wanted {
                from: log.position() - 2,
                page: None
            })
            .len(),
        1
    );
    checkpoint(&mut log);
    let mut follower = new();
    assert!(ask(&mut follower, &recovered) && ask(&mut follower, &recovered));
    assert!(follower.wanted().page.is_some());
    let mut follower = read_file(&file(&follower)).unwrap().log;
    assert_eq!(follower.contents(), BATCH_RECORDS_MAX, "its pages are kept");
    catch_up(&mut follower, &log);
    assert_eq!(follower.held(), log.held());
}

#[test]
fn golden_batches() {
    let seal = Signature([9; 64]);
    let signed = |statement| {
        encode(&Batch::Signed(Signed {
            statement,
            signature: seal,
        }))
    };
    let records = signed(Statement::Records {
        from: 258,
        records: vec![held(1)],
    });
    let from = [2, 0, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let expected = [&from[..], content(1).as_bytes(), &seal.0].concat();
    assert_eq!(records, expected);
    let checkpoint = signed(Statement::Checkpoint {
        at: 3,
        pages: vec![PageMark {
            last: content(1),
            hash: [7; 32],
        }],
    });
    let at = [2, 1, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let expected = [&at[..], content(1).as_bytes(), &[7; 32], &seal.0].concat();
    assert_eq!(checkpoint, expected);
    let page = Batch::Page {
        at: 3,
        index: 4,
        held: vec![content(2)],
    };
    let at = [2, 2, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0];
    let expected = [&at[..], content(2).as_bytes()].concat();
    assert_eq!(encode(&page), expected);
    let answer = encode_answer(AUTHOR, std::slice::from_ref(&page));
    let expected = [&[7; 32][..], &[38, 0, 0, 0], &expected].concat();
    assert_eq!(answer, expected);
    assert_eq!(
        &file_header(AUTHOR),
        &[&b"DFSHOLD\x02"[..], &[7; 32]].concat()
    );
    assert_eq!(decode(&[3, 0]), Err(CodecError::Version(3)));
}

#[test]
fn lies_about_size_are_refused() {
    for kind in [0, 1] {
        let mut huge = vec![2, kind];
        huge.extend(0_u64.to_le_bytes());
        huge.extend(u32::MAX.to_le_bytes());
        assert_eq!(decode(&huge), Err(CodecError::Malformed("count")));
    }
    for far in [POSITION_MAX, u64::MAX] {
        let records = vec![held(1)];
        let pages = Vec::new();
        for statement in [
            Statement::Records { from: far, records },
            Statement::Checkpoint { at: far, pages },
        ] {
            let refused = new().apply(signed(statement));
            assert_eq!(refused, Err(HoldingsError::PositionTooLarge));
        }
    }
}

#[test]
fn more_logs_than_there_may_be_are_refused() {
    let mut holdings = Holdings::new();
    let key = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PublicKey::new(bytes)
    };
    let said = push(&mut new(), &[held(1)]).remove(0);
    for number in 0..LOGS_MAX as u32 {
        holdings.apply(key(number), said.clone()).unwrap();
    }
    let refused = holdings.apply(key(u32::MAX), said.clone());
    assert_eq!(refused, Err(HoldingsError::LogsTooMany));
    // those of nobody make room
    let kept = key(7).incarnation();
    let gone = holdings.retain(|incarnation| *incarnation == kept);
    assert_eq!(gone.len(), LOGS_MAX - 1);
    holdings.apply(key(u32::MAX), said).unwrap();
    let mut holders: Vec<_> = holdings.holders(&content(1)).collect();
    holders.sort_unstable();
    let mut expected = [kept, key(u32::MAX).incarnation()];
    expected.sort_unstable();
    assert_eq!(holders, expected);
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
    let mut own = new();
    push(&mut own, &all(1..6));
    let mut peer = own.clone();
    push(&mut peer, &[held(6), dropped(1)]);
    let leap = own.leap(peer.position(), 3).unwrap();
    own.apply(signed(leap)).unwrap();
    assert_eq!(own.leap(peer.position(), 3), None);
    push(&mut own, &[held(7)]);
    catch_up(&mut peer, &own);
    assert_eq!(peer.held(), own.held());
    assert_eq!(
        (own.leap(u64::MAX, 0), own.leap(POSITION_MAX, 0)),
        (None, None)
    );
    push(&mut peer, &[held(8)]);
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        codec::fuzz(&bytes);
        let mut in_file = file_header(AUTHOR);
        in_file.extend(bytes);
        let _ = read_file(&in_file);
    }

    #[test]
    fn relays_agree_with_the_source(
        history in proptest::collection::vec((record(), 0..7_u8), 1..120),
    ) {
        let mut source = new();
        let mut relay = new();
        let mut far = new();
        for (record, step) in history {
            push(&mut source, &[record]);
            match step {
                0 => { ask(&mut relay, &source); }
                1 => { ask(&mut far, &relay); }
                2 => { ask(&mut far, &source); }
                3 => checkpoint(&mut source),
                4 => far = read_file(&file(&far)).unwrap().log,
                5 => begin(&mut source, 7),
                _ => {}
            }
        }
        catch_up(&mut relay, &source);
        catch_up(&mut far, &relay);
        prop_assert_eq!(far.held(), source.held());
    }
}
