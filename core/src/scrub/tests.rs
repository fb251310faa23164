#![allow(clippy::unwrap_used)]

use super::codec::{ScrubTextError, decode, encode};
use super::*;

const DAY: u64 = 86_400;
const START: u64 = 1_700_000_000;

fn hash(byte: u8) -> InfoHash {
    InfoHash::new([byte; 20])
}

/// Takes steps until there is nothing to do, over these contents; what was checked, in order.
fn run(scrub: &mut Scrub, held: &[InfoHash], now: u64, most: usize) -> Vec<InfoHash> {
    let mut checked = Vec::new();
    while checked.len() < most {
        match scrub.next(now) {
            Step::List(after) => {
                let later = held.iter().filter(|content| Some(**content) > after);
                scrub.listed(later.take(2).copied().collect(), now);
            }
            Step::Check { content, .. } => {
                checked.push(content);
                scrub.read(content, 1, 10);
                scrub.checked(content, true);
            }
            Step::Suspect(suspect) => checked.push(suspect.content),
            Step::Rest(_) => break,
        }
    }
    checked
}

#[test]
fn a_pass_sees_each_content_once_and_the_next_one_comes_after_the_interval() {
    let held = [1, 2, 3, 4, 5].map(hash);
    let mut scrub = Scrub::default();
    assert_eq!(run(&mut scrub, &held, START, 99), held);
    assert_eq!((scrub.pass().contents, scrub.pass().bytes), (5, 50));
    assert_eq!(scrub.pass().finished, Some(START));
    let later = START + 27 * DAY;
    assert_eq!(run(&mut scrub, &held, later, 99), []);
    assert_eq!(
        scrub.next(later),
        Step::Rest(Duration::from_hours(24)),
        "counted from the beginning of the last"
    );
    assert_eq!(run(&mut scrub, &held, START + 28 * DAY, 99), held);
    assert_eq!(scrub.pass().number, 2);
}

#[test]
fn a_clock_that_was_set_back_puts_nothing_off() {
    let held = [hash(1)];
    let mut scrub = Scrub::default();
    run(&mut scrub, &held, START + 1000 * DAY, 99);
    assert_eq!(run(&mut scrub, &held, START, 99), held);
}

#[test]
fn goes_on_after_a_restart_where_it_was() {
    let held = [1, 2, 3, 4, 5].map(hash);
    let mut scrub = Scrub::default();
    scrub.ask(START);
    assert_eq!(run(&mut scrub, &held, START, 3), held[..3]);
    scrub.found(hash(2), 7, START);
    scrub.set_repair(&hash(2), Repair::Waiting);
    let mut scrub = decode(&encode(&scrub)).unwrap();
    assert_eq!(scrub.damaged()[&hash(2)].repair, Repair::Due);
    assert!(scrub.pass().asked);
    assert_eq!(run(&mut scrub, &held, START + 5, 99), held[3..]);
    assert_eq!((scrub.pass().contents, scrub.pass().found), (5, 1));
}

#[test]
fn a_large_content_is_not_begun_anew_by_each_process() {
    let mut scrub = Scrub::default();
    scrub.next(START);
    scrub.listed(vec![hash(1), hash(2)], START);
    scrub.next(START);
    scrub.read(hash(1), 40, 400);
    let mut scrub = decode(&encode(&scrub)).unwrap();
    assert_eq!(scrub.next(START), Step::List(None));
    scrub.listed(vec![hash(1), hash(2)], START);
    let check = |content, from| Step::Check { content, from };
    assert_eq!(scrub.next(START), check(hash(1), 40));
    scrub.read(hash(1), 41, 10);
    scrub.checked(hash(1), true);
    assert_eq!(scrub.pass().bytes, 410);
    assert_eq!(scrub.next(START), check(hash(2), 0));
}

#[test]
fn asking_begins_anew_unless_that_is_under_way() {
    let held = [1, 2, 3].map(hash);
    let mut scrub = Scrub::default();
    assert_eq!(run(&mut scrub, &held, START, 2), held[..2]);
    assert_eq!(scrub.ask(START), 2);
    assert_eq!(run(&mut scrub, &held, START, 2), held[..2]);
    assert_eq!(scrub.ask(START), 2, "it joins");
    assert_eq!(run(&mut scrub, &held, START, 99), held[2..]);
    assert_eq!(scrub.ask(START), 3);
}

#[test]
fn what_was_being_checked_when_a_pass_began_is_checked_again() {
    let mut scrub = Scrub::default();
    scrub.next(START);
    scrub.listed(vec![hash(1), hash(2)], START);
    scrub.next(START);
    scrub.ask(START);
    scrub.read(hash(1), 1, 10);
    scrub.checked(hash(1), true);
    assert_eq!((scrub.pass().contents, scrub.pass().bytes), (0, 0));
    assert_eq!(scrub.next(START), Step::List(None));
}

#[test]
fn suspects_come_first_once_and_within_a_bound() {
    let held = [1, 2, 3].map(hash);
    let mut scrub = Scrub::default();
    assert_eq!(run(&mut scrub, &held, START, 1), held[..1]);
    for _ in 0..2 {
        let content = hash(9);
        assert!(scrub.suspect(Suspect {
            content,
            piece: None
        }));
    }
    assert_eq!(
        run(&mut scrub, &held, START, 99),
        [hash(9), hash(2), hash(3)]
    );
    let one = |piece| Suspect {
        content: hash(1),
        piece: Some(piece),
    };
    let taken = (0..2 * SUSPECTS_MAX as u32).filter(|piece| scrub.suspect(one(*piece)));
    assert_eq!(taken.count(), SUSPECTS_MAX);
}

#[test]
fn slow_by_itself_and_faster_where_a_pass_would_not_end_in_time() {
    let rate = |asked: bool, held| {
        let mut scrub = Scrub::default();
        if asked {
            scrub.ask(START);
        }
        scrub.next(START);
        scrub.rate(held)
    };
    assert_eq!(rate(false, 1 << 40), RATE_MIN);
    let large: u64 = 20 << 40;
    let seconds = large / rate(false, large);
    assert!((13 * DAY..=14 * DAY).contains(&seconds), "{seconds}");
    assert_eq!(rate(true, 1 << 40), RATE_MAX);
}

#[test]
fn damage_is_news_once_and_counted_when_it_is_repaired() {
    let mut scrub = Scrub::default();
    scrub.ask(START);
    assert!(scrub.found(hash(1), 2, START));
    scrub.set_repair(&hash(1), Repair::Waiting);
    assert!(!scrub.found(hash(1), 3, START + 1));
    assert!(scrub.found(hash(2), 1, START));
    assert_eq!(scrub.damaged()[&hash(1)].repair, Repair::Due);
    let damage = scrub.repaired(&hash(1)).unwrap();
    assert_eq!((damage.pieces, damage.found), (3, START));
    assert_eq!(scrub.repaired(&hash(1)), None);
    scrub.forget(&hash(2));
    assert_eq!((scrub.pass().found, scrub.pass().repaired), (2, 1));
    assert!(scrub.damaged().is_empty());
}

const GOLDEN: &str = "\
delugefs scrub draft-1
pass 3 asked
started 1700000000
finished -
after 0404040404040404040404040404040404040404
within 0505050505050505050505050505050505050505 6
checked 17 4096 2
damage 2 1
damaged 0909090909090909090909090909090909090909 3 1700000001
";

#[test]
fn golden() {
    let pass = Pass {
        number: 3,
        asked: true,
        started: START,
        finished: None,
        after: Some(hash(4)),
        within: Some((hash(5), 6)),
        contents: 17,
        bytes: 4096,
        unchecked: 2,
        found: 2,
        repaired: 1,
    };
    let damage = Damage {
        pieces: 3,
        found: START + 1,
        repair: Repair::Waiting,
    };
    let scrub = Scrub::resume(pass, [(hash(9), damage)].into());
    assert_eq!(encode(&scrub), GOLDEN);
    assert_eq!(encode(&decode(GOLDEN).unwrap()), GOLDEN);
    let fresh = encode(&Scrub::default());
    assert_eq!(encode(&decode(&fresh).unwrap()), fresh);
}

#[test]
fn other_versions_and_damage_are_told_apart() {
    let newer = GOLDEN.replace("draft-1", "draft-2");
    let version = ScrubTextError::Version("2".to_owned());
    assert_eq!(decode(&newer).unwrap_err(), version);
    for end in (0..GOLDEN.len()).filter(|end| !GOLDEN[..*end].ends_with("damage 2 1\n")) {
        assert_eq!(
            decode(&GOLDEN[..end]).unwrap_err(),
            ScrubTextError::Damaged,
            "{end}"
        );
    }
    let odd = GOLDEN.replace("asked", "perhaps");
    assert_eq!(decode(&odd).unwrap_err(), ScrubTextError::Damaged);
}
