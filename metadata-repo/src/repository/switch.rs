//! Going over to another history at once: where it is cut, and author references.
//!
//! One file says what is to be, durably, before any of it is done. What a stop has kept from being done is done at the
//! next start, so that nobody ever sees a part of it.

use super::files;
use crate::cut;
use crate::error::{RepositoryError, Result, io};
use delugefs_core::ids::IncarnationId;
use gix::ObjectId;
use gix::refs::transaction::PreviousValue;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const FILE: &str = "delugefs-switch";

/// First word of the file: its format.
const FORMAT: &str = "1";

/// What is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Switch {
    /// Where history is cut, and nowhere else.
    pub(super) cut: HashSet<ObjectId>,
    /// Author references that move, or go; the others stay.
    pub(super) authors: BTreeMap<IncarnationId, Option<ObjectId>>,
}

/// A switch that is written down, but not yet so that it counts.
pub(super) struct Prepared<'a> {
    switch: &'a Switch,
    temporary: PathBuf,
}

impl Switch {
    /// Writes it down. What it names has to be durable. An error changes nothing.
    pub(super) fn prepare(&self, path: &Path) -> Result<Prepared<'_>> {
        let temporary = path.join(format!("{FILE}.lock"));
        fs::write(&temporary, self.encode()).map_err(io("write down a new history"))?;
        files::sync_file(&temporary)?;
        let switch = self;
        Ok(Prepared { switch, temporary })
    }

    fn encode(&self) -> String {
        let mut lines: Vec<String> = self.cut.iter().map(|id| format!("cut {id}\n")).collect();
        lines.sort_unstable();
        let mut text = format!("{FORMAT}\n{}", lines.concat());
        for (author, commit) in &self.authors {
            // writing to a string does not fail
            let _ = match commit {
                Some(commit) => writeln!(text, "move {author} {commit}"),
                None => writeln!(text, "drop {author}"),
            };
        }
        text.push_str("end\n");
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let lines = text.strip_prefix(FORMAT)?.strip_prefix('\n')?;
        let lines = lines.strip_suffix("end\n")?;
        let commit = |hex: &str| ObjectId::from_hex(hex.as_bytes()).ok();
        let mut switch = Self::default();
        for line in lines.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["cut", at] => drop(switch.cut.insert(commit(at)?)),
                ["move", author, to] => {
                    let to = Some(commit(to)?);
                    switch.authors.insert(author.parse().ok()?, to);
                }
                ["drop", author] => drop(switch.authors.insert(author.parse().ok()?, None)),
                _ => return None,
            }
        }
        Some(switch)
    }

    fn carry_out(&self, git: &gix::Repository, path: &Path) -> Result<()> {
        for (author, commit) in &self.authors {
            let name = files::author_name(*author);
            match commit {
                Some(to) => files::set_reference(git, &name, *to, PreviousValue::Any)?,
                None => files::drop_reference(git, &name)?,
            }
        }
        files::sync_authors(git, path)?;
        cut::write(path, &self.cut)?;
        fs::remove_file(path.join(FILE)).map_err(io("end a change of history"))?;
        // or the next start would go back to it
        files::sync_file(path)
    }
}

impl Prepared<'_> {
    /// Does it. After an error it may be done, in part or not at all, until the next start.
    pub(super) fn carry_out(self, git: &gix::Repository, path: &Path) -> Result<()> {
        let named = fs::rename(&self.temporary, path.join(FILE));
        named.map_err(io("write down a new history"))?;
        files::sync_file(path)?;
        self.switch.carry_out(git, path)
    }
}

/// Does what a stop has left undone.
pub(super) fn redo(git: &gix::Repository, path: &Path) -> Result<()> {
    let file = path.join(FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(format!("read {}", file.display()))(error)),
    };
    match Switch::decode(&text) {
        Some(switch) => switch.carry_out(git, path),
        None => Err(RepositoryError::NotOurs(file.display().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let switch = Switch {
            cut: HashSet::from([ObjectId::Sha1([0x11; 20])]),
            authors: BTreeMap::from([
                (IncarnationId::new([0x22; 16]), None),
                (
                    IncarnationId::new([0x33; 16]),
                    Some(ObjectId::Sha1([0x44; 20])),
                ),
            ]),
        };
        let text = format!(
            "1\ncut {}\ndrop {}\nmove {} {}\nend\n",
            "11".repeat(20),
            "22".repeat(16),
            "33".repeat(16),
            "44".repeat(20)
        );
        assert_eq!(switch.encode(), text);
        assert_eq!(Switch::decode(&text), Some(switch));
        assert_eq!(Switch::decode(&text[..text.len() - 4]), None, "cut off");
        assert_eq!(Switch::decode(&text.replacen('1', "2", 1)), None, "newer");
    }
}
