//! What a version becomes that lost its name: a file of its own, beside the winner.
//!
//! Name and identity follow from the losing version alone, never from who merges, so that all nodes make the
//! same copy, however often and in whatever order they merge.

use crate::entry::{Content, Entry, Kind, Written};
use crate::ids::EntryId;
use crate::limits::LABEL_BYTES_MAX;
use crate::name::{NAME_BYTES_MAX, Name};
use crate::time::Timestamp;

/// Longest extension, in bytes with its dot, that is kept at the end of a conflict name: what is longer is
/// rather a name with a dot in it, and would leave no room for the stem.
const EXTENSION_BYTES_MAX: usize = 32;

/// What a conflict copy's name has between its stem and the date.
const MARK: &str = " (conflict ";

/// Keeps derived identities apart from every other use of the hash.
const COPY_ID_DOMAIN: &str = "delugefs 2026 conflict copy id v1";

/// `stem (conflict YYYY-MM-DD HH-MM-SS LABEL).ext` for a version that lost `name`: date (UTC) and label are
/// those of the losing version. At most [`NAME_BYTES_MAX`] bytes; the stem is cut for that, between characters.
pub fn conflict_name(name: &Name, written: &Written) -> Name {
    numbered_conflict_name(name, written, 1)
}

/// As [`conflict_name`], for the case that the first `nth - 1` such names are taken.
pub fn numbered_conflict_name(name: &Name, written: &Written, nth: u32) -> Name {
    let (stem, extension) = split_extension(name.as_bytes());
    let mark = mark(written, nth);
    let room = NAME_BYTES_MAX - mark.len() - extension.len();
    let bytes = [cut(stem, room), mark.as_bytes(), extension].concat();
    Name::parse(&bytes).expect("pieces of a name and a cleaned mark are a name")
}

/// Whether a name looks like one of a conflict copy.
pub fn is_conflict_name(name: &Name) -> bool {
    last_mark(name.as_bytes()).is_some()
}

/// The name that a conflict copy has lost, if its own shows it: a long one was cut.
pub fn lost_name(name: &Name) -> Option<Name> {
    let bytes = name.as_bytes();
    let (stem, rest) = bytes.split_at(last_mark(bytes)?);
    let end = rest.iter().rposition(|byte| *byte == b')')?;
    Name::parse(&[stem, &rest[end + 1..]].concat()).ok()
}

/// Where the last mark of a conflict copy begins.
fn last_mark(bytes: &[u8]) -> Option<usize> {
    let starts = bytes.windows(MARK.len()).enumerate();
    let mut starts = starts.filter(|(_, window)| *window == MARK.as_bytes());
    starts
        .rfind(|(at, _)| is_date(&bytes[at + MARK.len()..]))
        .map(|(at, _)| at)
}

fn is_date(bytes: &[u8]) -> bool {
    const PATTERN: &[u8] = b"0000-00-00 00-00-00";
    let fits = |(byte, pattern): (&u8, &u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    bytes.len() >= PATTERN.len() && bytes.iter().zip(PATTERN).all(fits)
}

/// The identity of the copy that keeps a losing version: the same wherever that version loses.
pub fn copy_id(loser: &Entry) -> EntryId {
    let mut hash = blake3::Hasher::new_derive_key(COPY_ID_DOMAIN);
    hash.update(loser.id.as_bytes());
    hash_kind(&mut hash, &loser.kind);
    let Written { edits, at, by } = &loser.written;
    hash.update(&edits.to_le_bytes());
    hash.update(&at.seconds.to_le_bytes());
    hash.update(&at.nanoseconds.to_le_bytes());
    hash.update(by.as_bytes());
    let mut id = [0; EntryId::LEN];
    id.copy_from_slice(&hash.finalize().as_bytes()[..EntryId::LEN]);
    EntryId::new(id)
}

fn hash_kind(hash: &mut blake3::Hasher, kind: &Kind) {
    let mut field = |tag: u8, bytes: &[u8]| {
        hash.update(&[tag]);
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    match kind {
        Kind::File(file) => match &file.content {
            Content::Inline(bytes) => field(0, bytes),
            Content::Swarm(content) => {
                field(1, content.info_hash.as_bytes());
                field(1, &content.length.to_le_bytes());
            }
        },
        Kind::Directory => field(2, &[]),
        Kind::Symlink(target) => field(3, target),
        Kind::Fifo => field(4, &[]),
        Kind::Socket => field(5, &[]),
        Kind::CharacterDevice(rdev) => field(6, &rdev.to_le_bytes()),
        Kind::BlockDevice(rdev) => field(7, &rdev.to_le_bytes()),
        Kind::Link(shared) => field(8, shared.as_bytes()),
    }
}

fn mark(written: &Written, nth: u32) -> String {
    let date = date_and_time(written.at);
    let label = match label(&written.by) {
        label if label.is_empty() => label,
        label => format!(" {label}"),
    };
    let number = if nth > 1 {
        format!(" {nth}")
    } else {
        String::new()
    };
    format!("{MARK}{date}{label}{number})")
}

/// The label as it can stand in a name: a default label holds a path, a foreign one whatever it likes.
fn label(by: &str) -> String {
    let clean: String = by
        .chars()
        .map(|c| if c == '/' || c.is_control() { '-' } else { c })
        .collect();
    let fits = cut(clean.as_bytes(), LABEL_BYTES_MAX);
    String::from_utf8_lossy(fits).trim().to_owned()
}

/// Stem and extension (with its dot, perhaps empty). A leading dot hides a file, it starts no extension.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    let dot = name.iter().rposition(|byte| *byte == b'.');
    match dot {
        Some(at) if at > 0 && (2..=EXTENSION_BYTES_MAX).contains(&(name.len() - at)) => {
            name.split_at(at)
        }
        _ => (name, &[]),
    }
}

/// The longest start of at most `room` bytes that does not end within a UTF-8 character. Bytes that are not
/// UTF-8 are cut where they are.
fn cut(bytes: &[u8], room: usize) -> &[u8] {
    if bytes.len() <= room {
        return bytes;
    }
    let inside = |at: &usize| bytes[*at] & 0b1100_0000 == 0b1000_0000;
    let start = (room.saturating_sub(3)..=room).rev().find(|at| !inside(at));
    &bytes[..start.unwrap_or(room)]
}

/// Seconds of 0000-01-01 and of the last second of 9999: dates beyond have no four-digit year.
const DATE_SECONDS: (i64, i64) = (-62_167_219_200, 253_402_300_799);

/// `YYYY-MM-DD HH-MM-SS`, in UTC, of the proleptic Gregorian calendar.
fn date_and_time(at: Timestamp) -> String {
    let seconds = at.seconds.clamp(DATE_SECONDS.0, DATE_SECONDS.1);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hours, minutes) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hours:02}-{minutes:02}-{:02}",
        second % 60
    )
}

/// Year, month and day of a number of days since 1970-01-01. Years are counted from March, so that the day
/// that leap years add is their last.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_TO_EPOCH: i64 = 719_468;
    const DAYS_OF_400_YEARS: i64 = 146_097;
    let days = days + DAYS_TO_EPOCH;
    let era = days.div_euclid(DAYS_OF_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_OF_400_YEARS);
    let leaps = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::{Attributes, File};
    use proptest::prelude::*;

    fn written(seconds: i64, by: &str) -> Written {
        Written {
            edits: 1,
            at: Timestamp::from_seconds(seconds),
            by: by.to_owned(),
        }
    }

    fn renamed(name: &[u8], seconds: i64, by: &str) -> Vec<u8> {
        conflict_name(&Name::parse(name).unwrap(), &written(seconds, by))
            .as_bytes()
            .to_vec()
    }

    #[test]
    fn names_tell_when_and_where_the_losing_version_was_written() {
        let cases: [(&[u8], i64, &str, &str); 7] = [
            (
                b"a.txt",
                0,
                "desk",
                "a (conflict 1970-01-01 00-00-00 desk).txt",
            ),
            (
                b"a.tar.gz",
                951_827_696,
                "desk",
                "a.tar (conflict 2000-02-29 12-34-56 desk).gz",
            ),
            (
                b".profile",
                -1,
                "desk",
                ".profile (conflict 1969-12-31 23-59-59 desk)",
            ),
            (
                b"end.",
                1_795_194_000,
                "",
                "end. (conflict 2026-11-20 17-00-00)",
            ),
            (
                b"f",
                1,
                "pc:/mnt/d\0",
                "f (conflict 1970-01-01 00-00-01 pc:-mnt-d-)",
            ),
            (b"f", i64::MAX, "x", "f (conflict 9999-12-31 23-59-59 x)"),
            (b"f", i64::MIN, "x", "f (conflict 0000-01-01 00-00-00 x)"),
        ];
        for (name, seconds, by, expected) in cases {
            assert_eq!(renamed(name, seconds, by), expected.as_bytes());
        }
    }

    #[test]
    fn only_dated_names_are_those_of_conflict_copies() {
        for name in [
            "a",
            "a (conflict today)",
            "a (conflict 2026-11-20",
            "(conflict 2026-11-20 17-00-00)",
        ] {
            assert!(
                !is_conflict_name(&Name::parse(name.as_bytes()).unwrap()),
                "{name}"
            );
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = format!("{}.mkv", "é".repeat(125));
        let name = String::from_utf8(renamed(long.as_bytes(), 0, &"ß".repeat(60))).unwrap();
        assert!(name.len() > NAME_BYTES_MAX - 2 && name.len() <= NAME_BYTES_MAX);
        let end = format!(" {}).mkv", "ß".repeat(LABEL_BYTES_MAX / 2));
        assert!(name.starts_with("éé") && name.ends_with(&end), "{name}");
    }

    #[test]
    fn numbers_keep_names_apart() {
        let name = Name::parse(&[b'x'; 255]).unwrap();
        let all: std::collections::BTreeSet<_> = (1..=1000)
            .map(|nth| numbered_conflict_name(&name, &written(0, "n"), nth))
            .collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn a_copy_is_identified_by_its_version() {
        let entry = |id, bytes: &[u8], written| Entry {
            id: EntryId::new([id; 16]),
            kind: Kind::File(File {
                content: Content::Inline(bytes.to_vec()),
                previous: Vec::new(),
            }),
            attributes: Attributes::default(),
            written,
        };
        let one = entry(1, b"x", written(1, "a"));
        let mut same_version = one.clone();
        same_version.attributes.mode = 0o600;
        assert_eq!(copy_id(&one), copy_id(&same_version));
        for other in [
            entry(2, b"x", written(1, "a")),
            entry(1, b"y", written(1, "a")),
            entry(1, b"x", written(2, "a")),
            entry(1, b"x", written(1, "b")),
        ] {
            assert_ne!(copy_id(&one), copy_id(&other));
        }
    }

    proptest! {
        #[test]
        fn every_name_has_a_conflict_name(
            bytes in proptest::collection::vec(1_u8.., 1..=255),
            by in ".{0,80}",
            seconds in any::<i64>(),
            nth in any::<u32>(),
        ) {
            if let Ok(name) = Name::parse(&bytes) {
                let renamed = numbered_conflict_name(&name, &written(seconds, &by), nth);
                prop_assert_ne!(&renamed, &name);
                prop_assert!(is_conflict_name(&renamed));
                let text = String::from_utf8(bytes);
                prop_assert!(text.is_err() || std::str::from_utf8(renamed.as_bytes()).is_ok());
            }
        }

        #[test]
        fn dates_follow_one_another(days in -719_528_i64..2_932_896) {
            let (today, tomorrow) = (civil(days), civil(days + 1));
            prop_assert!(today < tomorrow);
            prop_assert!(tomorrow.2 == today.2 + 1 || tomorrow.2 == 1);
            prop_assert!((1..=12).contains(&today.1) && (1..=31).contains(&today.2));
        }
    }
}
