//! How far a scrub is, as the text in `ROOT/scrub`. Draft format 1.
//!
//! ```text
//! delugefs scrub draft-1
//! pass NUMBER asked|due
//! started SECONDS
//! finished SECONDS|-
//! after INFO-HASH|-
//! within INFO-HASH PIECE|-
//! checked CONTENTS BYTES UNCHECKED
//! damage FOUND REPAIRED
//! damaged INFO-HASH PIECES SECONDS      any number of these, ascending
//! ```

use super::{DAMAGED_MAX, Damage, Pass, Repair, Scrub};
use crate::ids::InfoHash;
use std::collections::BTreeMap;
use std::fmt::Write;

const HEADER: &str = "delugefs scrub draft-";
const VERSION: &str = "1";

/// Why a text is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScrubTextError {
    /// Made by another version of this program.
    #[error("it has format {0:?}, and this version knows draft-1 only")]
    Version(String),
    /// It is not such a text: a pass begins anew.
    #[error("it is damaged")]
    Damaged,
}

/// The text.
pub fn encode(scrub: &Scrub) -> String {
    let pass = scrub.pass();
    let kind = if pass.asked { "asked" } else { "due" };
    let mut text = format!(
        "{HEADER}{VERSION}\npass {} {kind}\nstarted {}\nfinished {}\nafter {}\nwithin {}\nchecked {} {} {}\ndamage {} {}\n",
        pass.number,
        pass.started,
        or_dash(pass.finished),
        or_dash(pass.after),
        or_dash(
            pass.within
                .map(|(content, piece)| format!("{content} {piece}"))
        ),
        pass.contents,
        pass.bytes,
        pass.unchecked,
        pass.found,
        pass.repaired,
    );
    for (content, damage) in scrub.damaged() {
        // writing to a String does not fail
        let _ = writeln!(text, "damaged {content} {} {}", damage.pieces, damage.found);
    }
    text
}

/// Reads it again; what was under way is due.
pub fn decode(text: &str) -> Result<Scrub, ScrubTextError> {
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix(HEADER));
    match version {
        Some(VERSION) => {}
        Some(other) if !other.is_empty() => return Err(ScrubTextError::Version(other.to_owned())),
        _ => return Err(ScrubTextError::Damaged),
    }
    if !text.ends_with('\n') {
        return Err(ScrubTextError::Damaged);
    }
    read(&mut lines).ok_or(ScrubTextError::Damaged)
}

fn read<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<Scrub> {
    let mut line = |word: &str| lines.next()?.strip_prefix(word)?.strip_prefix(' ');
    let (number, kind) = line("pass")?.split_once(' ')?;
    let mut pass = Pass {
        number: number.parse().ok()?,
        asked: match kind {
            "asked" => true,
            "due" => false,
            _ => return None,
        },
        started: line("started")?.parse().ok()?,
        finished: unless_dash(line("finished")?)
            .map(str::parse)
            .transpose()
            .ok()?,
        after: unless_dash(line("after")?)
            .map(str::parse)
            .transpose()
            .ok()?,
        within: match unless_dash(line("within")?) {
            None => None,
            Some(text) => Some(read_within(text)?),
        },
        ..Pass::default()
    };
    [pass.contents, pass.bytes, pass.unchecked] = numbers(line("checked")?)?;
    [pass.found, pass.repaired] = numbers(line("damage")?)?;
    let damaged: Option<BTreeMap<_, _>> = lines.map(read_damage).collect();
    let damaged = damaged.filter(|damaged| damaged.len() <= DAMAGED_MAX)?;
    Some(Scrub::resume(pass, damaged))
}

fn read_within(text: &str) -> Option<(InfoHash, u32)> {
    let (content, piece) = text.split_once(' ')?;
    Some((content.parse().ok()?, piece.parse().ok()?))
}

fn read_damage(line: &str) -> Option<(InfoHash, Damage)> {
    let (content, rest) = line.strip_prefix("damaged ")?.split_once(' ')?;
    let [pieces, found] = numbers(rest)?;
    let damage = Damage {
        pieces: u32::try_from(pieces).ok()?,
        found,
        repair: Repair::Due,
    };
    Some((content.parse().ok()?, damage))
}

fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let numbers: Option<Vec<u64>> = text.split(' ').map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn unless_dash(text: &str) -> Option<&str> {
    (text != "-").then_some(text)
}
