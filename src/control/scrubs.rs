//! What a node tells of its scrub: as a part of `delugefs status`, and by itself for `delugefs scrub`.

use crate::cli::units::{show_size, show_time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// `delugefs scrub`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Number of the pass under way, or of the last one; 0: none yet.
    pub pass: u64,
    /// It is under way.
    pub running: bool,
    /// Somebody has asked for it, so that it runs at full speed.
    pub asked: bool,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// When it ended, likewise.
    pub finished: Option<u64>,
    /// Contents that were read again.
    pub contents: u64,
    /// Bytes that were read again.
    pub bytes: u64,
    /// Contents on this disk.
    pub held: u64,
    /// Bytes on this disk.
    pub held_bytes: u64,
    /// Contents that could not be checked: most have lost their name, and expire.
    pub unchecked: u64,
    /// Contents found damaged since the pass began, in whatever way.
    pub found: u64,
    /// Contents repaired since the pass began.
    pub repaired: u64,
    /// How many contents are damaged now.
    pub damaged_contents: u64,
    /// The first of them.
    pub damaged: Vec<DamageReport>,
}

/// A content that is damaged on this disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DamageReport {
    /// Its info-hash.
    pub info_hash: String,
    /// A file that has it, within the volume.
    pub path: Option<String>,
    /// Pieces that are damaged, as far as is known.
    pub pieces: u32,
    /// When it was found, in seconds since 1970.
    pub found: u64,
    /// What is being done about it.
    pub repair: RepairReport,
}

/// What is being done about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairReport {
    /// It is about to be fetched.
    Due,
    /// It is being fetched.
    UnderWay,
    /// No connected disk has it.
    Waiting,
}

impl ScrubReport {
    /// The pass with this number is over, and what can be repaired now is.
    pub fn is_over(&self, pass: u64) -> bool {
        let settled = |damage: &DamageReport| damage.repair == RepairReport::Waiting;
        let ended = self.pass > pass || (self.pass == pass && !self.running);
        ended && self.damaged.iter().all(settled)
    }

    /// How far it is, in one line.
    pub fn progress(&self) -> String {
        format!(
            "{} of {} ({} of {} contents), {} damaged, {} repaired",
            show_size(self.bytes),
            show_size(self.held_bytes),
            self.contents,
            self.held,
            self.found,
            self.repaired
        )
    }
}

impl fmt::Display for ScrubReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pass, self.finished) {
            (0, _) => writeln!(f, "scrub     none yet")?,
            (_, None) => writeln!(f, "scrub     under way: {}", self.progress())?,
            (_, Some(finished)) => writeln!(
                f,
                "scrub     ended {} ago: {} contents, {} read again, {} damaged, {} repaired",
                age(finished),
                self.contents,
                show_size(self.bytes),
                self.found,
                self.repaired
            )?,
        }
        for damage in &self.damaged {
            let name = damage.path.as_deref().unwrap_or(&damage.info_hash);
            writeln!(f, "damaged   {name}: {damage}")?;
        }
        match self.damaged_contents - self.damaged.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "damaged   {more} more"),
        }
    }
}

/// How long ago a time was, in the largest unit that it has one of.
fn age(time: u64) -> String {
    let seconds = crate::node::unix_time().saturating_sub(time);
    let mut units = [24 * 3600, 3600, 60].into_iter();
    let unit = units.find(|unit| seconds >= *unit).unwrap_or(1);
    show_time(Duration::from_secs(seconds - seconds % unit))
}

impl fmt::Display for DamageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.repair {
            RepairReport::Due | RepairReport::UnderWay => "being fetched again",
            RepairReport::Waiting => "no connected disk has it",
        };
        write!(f, "{} pieces on this disk, {state}", self.pieces)
    }
}
