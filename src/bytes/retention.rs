//! When the bytes of removed and replaced versions go.
//!
//! A content that no name has any more is kept for the volume's `keep`, counted from when this node saw its last
//! name go. Those times are in the file `expiring`, one line each, so that a restart neither forgets nor restarts
//! the count; a content that lost its name while no node ran starts counting at the next start. What is lost of
//! the file in a crash only keeps bytes longer.

use delugefs_core::ids::InfoHash;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// First line of the file.
const HEADER: &str = "delugefs expiring draft-1";

/// Kept so long even when room is short: by then the change that took the last name is durable here, and what
/// replaced the content, too.
const KEEP_MIN: Duration = Duration::from_secs(5);

/// Lines beyond what is alive, after which the file is written anew.
const STALE_LINES_MAX: usize = 10_000;

/// Contents that have lost their last name, each with the time of that, in seconds since 1970.
#[derive(Debug)]
pub struct Retention {
    path: PathBuf,
    file: File,
    lines: usize,
    since: BTreeMap<InfoHash, u64>,
}

impl Retention {
    /// Reads the file of a root, or starts one. Lines that make no sense are passed over.
    pub fn open(root: &Path) -> io::Result<Self> {
        let path = root.join("expiring");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            other => other.unwrap_or_default(),
        };
        let since = text.lines().skip(1).filter_map(parse_line).fold(
            BTreeMap::new(),
            |mut since, (info_hash, time)| {
                match time {
                    Some(time) => since.insert(info_hash, time),
                    None => since.remove(&info_hash),
                };
                since
            },
        );
        let file = write_anew(&path, &since)?;
        let lines = since.len();
        Ok(Self {
            path,
            file,
            lines,
            since,
        })
    }

    /// A content has lost its last name.
    pub fn died(&mut self, info_hash: InfoHash, now: u64) -> io::Result<()> {
        if self.since.contains_key(&info_hash) {
            return Ok(());
        }
        self.since.insert(info_hash, now);
        self.append(&format!("{info_hash} {now}\n"))
    }

    /// A content has a name again, or its bytes are gone.
    pub fn forget(&mut self, info_hash: &InfoHash) -> io::Result<()> {
        match self.since.remove(info_hash) {
            Some(_) => self.append(&format!("{info_hash} -\n")),
            None => Ok(()),
        }
    }

    /// Contents whose time is over; and those that can go before it when room is short, the oldest first.
    pub fn expired(&self, now: u64, keep: Duration) -> (Vec<InfoHash>, Vec<InfoHash>) {
        let age = |since: &u64| Duration::from_secs(now.saturating_sub(*since));
        let mut oldest: Vec<_> = self.since.iter().collect();
        oldest.retain(|(_, since)| age(since) >= keep.min(KEEP_MIN));
        oldest.sort_by_key(|(_, since)| **since);
        let is_over = |(_, since): &(&InfoHash, &u64)| age(since) >= keep;
        let over = oldest.partition_point(is_over);
        let contents: Vec<InfoHash> = oldest.into_iter().map(|(content, _)| *content).collect();
        let (over, early) = contents.split_at(over);
        (over.to_vec(), early.to_vec())
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(line.as_bytes())?;
        self.lines += 1;
        if self.lines > self.since.len() + STALE_LINES_MAX {
            self.file = write_anew(&self.path, &self.since)?;
            self.lines = self.since.len();
        }
        Ok(())
    }
}

fn parse_line(line: &str) -> Option<(InfoHash, Option<u64>)> {
    let (info_hash, time) = line.split_once(' ')?;
    let time = match time {
        "-" => None,
        seconds => Some(seconds.parse().ok()?),
    };
    Some((info_hash.parse().ok()?, time))
}

fn write_anew(path: &Path, since: &BTreeMap<InfoHash, u64>) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut text = format!("{HEADER}\n");
    for (info_hash, time) in since {
        // writing to a String cannot fail
        let _ = writeln!(text, "{info_hash} {time}");
    }
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)?;
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const KEEP: Duration = Duration::from_secs(7 * DAY);

    fn hash(byte: u8) -> InfoHash {
        InfoHash::new([byte; 20])
    }

    #[test]
    fn counts_on_across_restarts() {
        let root = tempfile::tempdir().unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        retention.died(hash(1), 100).unwrap();
        retention.died(hash(2), 100).unwrap();
        retention.died(hash(1), 100 + DAY).unwrap();
        retention.forget(&hash(2)).unwrap();
        let retention = Retention::open(root.path()).unwrap();
        assert!(retention.expired(99 + 7 * DAY, KEEP).0.is_empty());
        assert_eq!(retention.expired(100 + 7 * DAY, KEEP).0, [hash(1)]);
        assert!(
            retention.expired(0, KEEP).0.is_empty(),
            "a clock that was set back reaps nothing"
        );
    }

    #[test]
    fn a_torn_last_line_costs_only_itself() {
        let root = tempfile::tempdir().unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        retention.died(hash(1), 100).unwrap();
        retention.died(hash(2), 100).unwrap();
        let path = root.path().join("expiring");
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 30]).unwrap();
        let retention = Retention::open(root.path()).unwrap();
        assert_eq!(retention.expired(u64::MAX, KEEP).0, [hash(1)]);
    }
}
