//! When the bytes of removed and replaced versions go.
//!
//! A content that no name has any more is kept for the volume's `keep`, counted from when this node saw its last
//! name go. Those times are in the file `expiring`, one line each, so that a restart neither forgets nor restarts
//! the count; a content that lost its name while no node ran starts counting at the next start. What is lost of
//! the file in a crash only keeps bytes longer.
//!
//! A version that was replaced also remembers by what: until that is held durably by some node, the old bytes may
//! be the only ones that a power cut leaves.

use delugefs_core::ids::InfoHash;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// First line of the file.
const HEADER: &str = "delugefs expiring draft-2";

/// Kept so long even when room is short: by then the change that took the last name is durable here, and what
/// replaced the content, too.
const KEEP_MIN: Duration = Duration::from_secs(5);

/// Lines beyond what is alive, after which the file is written anew.
const STALE_LINES_MAX: usize = 10_000;

/// Replacements that are followed from a version on: `prev` of a descriptor is far shorter.
const SUCCESSORS_MAX: usize = 64;

/// How a content lost its last name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Death {
    /// When, in seconds since 1970.
    at: u64,
    /// What replaced it, if it was not removed.
    successor: Option<InfoHash>,
}

/// Contents that have lost their last name.
#[derive(Debug)]
pub struct Retention {
    path: PathBuf,
    file: File,
    lines: usize,
    since: BTreeMap<InfoHash, Death>,
}

impl Retention {
    /// Reads the file of a root, or starts one. Lines that make no sense are passed over.
    pub fn open(root: &Path) -> io::Result<Self> {
        let path = root.join("expiring");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            other => other.unwrap_or_default(),
        };
        let text = String::from_utf8_lossy(&bytes);
        // the first digits of a time are an earlier time
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = whole.lines();
        if lines.next().is_some_and(|first| first != HEADER) {
            let text = format!("{} is not in the format {HEADER}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let since =
            lines
                .filter_map(parse_line)
                .fold(BTreeMap::new(), |mut since, (info_hash, death)| {
                    match death {
                        Some(death) => since.insert(info_hash, death),
                        None => since.remove(&info_hash),
                    };
                    since
                });
        let file = write_anew(&path, &since)?;
        let lines = since.len();
        Ok(Self {
            path,
            file,
            lines,
            since,
        })
    }

    /// A content has lost its last name, to another content or to none.
    pub fn died(
        &mut self,
        info_hash: InfoHash,
        now: u64,
        successor: Option<InfoHash>,
    ) -> io::Result<()> {
        if self.since.contains_key(&info_hash) {
            return Ok(());
        }
        let death = Death { at: now, successor };
        self.since.insert(info_hash, death);
        self.append(&line(&info_hash, &death))
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
        let age = |death: &Death| Duration::from_secs(now.saturating_sub(death.at));
        let mut oldest: Vec<_> = self.since.iter().collect();
        oldest.retain(|(_, death)| age(death) >= keep.min(KEEP_MIN));
        oldest.sort_by_key(|(_, death)| death.at);
        let is_over = |(_, death): &(&InfoHash, &Death)| age(death) >= keep;
        let over = oldest.partition_point(is_over);
        let contents: Vec<InfoHash> = oldest.into_iter().map(|(content, _)| *content).collect();
        let (over, early) = contents.split_at(over);
        (over.to_vec(), early.to_vec())
    }

    /// Whether a content is still among those that expire.
    pub fn contains(&self, info_hash: &InfoHash) -> bool {
        self.since.contains_key(info_hash)
    }

    /// What stands in a content's place now: the end of the chain of replacements, which has a name, or none when
    /// the last of them was removed.
    pub fn successor(&self, info_hash: &InfoHash) -> Option<InfoHash> {
        let mut last = self.since.get(info_hash)?.successor?;
        for _ in 0..SUCCESSORS_MAX {
            match self.since.get(&last) {
                Some(death) => last = death.successor?,
                None => break,
            }
        }
        Some(last)
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

fn parse_line(line: &str) -> Option<(InfoHash, Option<Death>)> {
    let mut words = line.split(' ');
    let info_hash = words.next()?.parse().ok()?;
    let at = match words.next()? {
        "-" => return Some((info_hash, None)),
        seconds => seconds.parse().ok()?,
    };
    let successor = words.next().map(str::parse).transpose().ok()?;
    Some((info_hash, Some(Death { at, successor })))
}

fn line(info_hash: &InfoHash, death: &Death) -> String {
    match death.successor {
        Some(successor) => format!("{info_hash} {} {successor}\n", death.at),
        None => format!("{info_hash} {}\n", death.at),
    }
}

fn write_anew(path: &Path, since: &BTreeMap<InfoHash, Death>) -> io::Result<File> {
    let lines = since
        .iter()
        .map(|(info_hash, death)| line(info_hash, death));
    let text: String = std::iter::once(format!("{HEADER}\n"))
        .chain(lines)
        .collect();
    crate::durable::replace(path, text.as_bytes())?;
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
    fn what_a_power_cut_leaves_of_the_file_expires_nothing_early() {
        let root = tempfile::tempdir().unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        retention.died(hash(1), 40 * DAY, None).unwrap();
        let path = root.path().join("expiring");
        let text = std::fs::read(&path).unwrap();
        let cut = [&text[..text.len() - 3], &text[..text.len() - 3]].concat();
        for end in [&b""[..], b"\0\0\0", b"\xff\n", b"\0\n"] {
            std::fs::write(&path, [&cut, end].concat()).unwrap();
            let retention = Retention::open(root.path()).unwrap();
            assert_eq!(retention.expired(41 * DAY, KEEP), (vec![], vec![]));
        }
    }

    #[test]
    fn counts_on_across_restarts() {
        let root = tempfile::tempdir().unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        retention.died(hash(1), 100, None).unwrap();
        retention.died(hash(2), 100, None).unwrap();
        retention.died(hash(1), 100 + DAY, None).unwrap();
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
    fn golden() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("expiring");
        let (one, two, three) = ("01".repeat(20), "02".repeat(20), "03".repeat(20));
        let text = format!(
            "delugefs expiring draft-2\n{two} 5\n{one} 100 {three}\n{two} -\nnonsense\n{three} 7\n"
        );
        std::fs::write(&path, text).unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        assert_eq!(
            retention.expired(u64::MAX, KEEP).0,
            [hash(3), hash(1)],
            "the oldest first"
        );
        assert_eq!(
            retention.successor(&hash(1)),
            None,
            "it was removed in turn"
        );
        retention.died(hash(2), 200, None).unwrap();
        retention.forget(&hash(3)).unwrap();
        let expected = format!(
            "delugefs expiring draft-2\n{one} 100 {three}\n{three} 7\n{two} 200\n{three} -\n"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn another_format_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("expiring"), "delugefs expiring draft-9\n").unwrap();
        let error = Retention::open(root.path()).unwrap_err();
        assert!(
            error.to_string().contains("is not in the format"),
            "{error}"
        );
    }

    #[test]
    fn a_torn_last_line_costs_only_itself() {
        let root = tempfile::tempdir().unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        retention.died(hash(1), 100, None).unwrap();
        retention.died(hash(2), 100, None).unwrap();
        let path = root.path().join("expiring");
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 30]).unwrap();
        let retention = Retention::open(root.path()).unwrap();
        assert_eq!(retention.expired(u64::MAX, KEEP).0, [hash(1)]);
    }

    #[test]
    fn what_was_replaced_knows_by_what_also_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        retention.died(hash(1), 100, Some(hash(2))).unwrap();
        retention.died(hash(2), 101, Some(hash(3))).unwrap();
        retention.died(hash(4), 101, None).unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        assert_eq!(retention.successor(&hash(1)), Some(hash(3)));
        assert_eq!(retention.successor(&hash(4)), None);
        retention.died(hash(3), 102, None).unwrap();
        assert_eq!(retention.successor(&hash(1)), None, "the file was removed");
    }

    #[test]
    fn replacements_in_a_circle_come_to_an_end() {
        let root = tempfile::tempdir().unwrap();
        let mut retention = Retention::open(root.path()).unwrap();
        retention.died(hash(1), 100, Some(hash(2))).unwrap();
        retention.died(hash(2), 101, Some(hash(1))).unwrap();
        assert!(retention.successor(&hash(1)).is_some());
    }
}
