//! Commits as this program writes them: identity, times, trailers.
//!
//! The author date is the writer's own clock, for people. The committer date is the chain's: never before a
//! parent's and at most [`AHEAD_MAX`] seconds past the newest, so that a clock that runs ahead cannot carry
//! everyone's history with it, and so that walks through history may go by it.

use crate::error::{RepositoryError, Result, git, malformed};
use crate::signature::{self, Signer};
use delugefs_core::ids::IncarnationId;
use delugefs_core::limits::LABEL_BYTES_MAX;
use delugefs_core::time::Timestamp;
use gix::ObjectId;
use gix::objs::{Commit, CommitRef, WriteTo as _};

/// Seconds that a commit may be past its newest parent.
pub const AHEAD_MAX: i64 = 5 * 60;

/// Parents of a commit: one for each node that wrote at the same time.
pub(crate) const PARENTS_MAX: usize = 1024;

/// Version of the commits' form, in the trailer `Format`.
const FORMAT: u32 = 2;

const DOMAIN: &str = "delugefs.invalid";
const INCARNATION: &str = "Incarnation";
const SEQUENCE: &str = "Journal-Sequence";
const GENERATION: &str = "Generation";

/// What the rest of the crate wants to know of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitFacts {
    pub(crate) tree: ObjectId,
    pub(crate) parents: Vec<ObjectId>,
    /// Committer date, seconds since the epoch.
    pub(crate) time: i64,
    /// Whose chain it belongs to; none for merges and the genesis.
    pub(crate) incarnation: Option<IncarnationId>,
    /// Up to which record the author's journal is in it.
    pub(crate) sequence: Option<u64>,
}

/// An authored commit to be written.
pub(crate) struct Authored<'a> {
    pub(crate) tree: ObjectId,
    pub(crate) parents: Vec<ObjectId>,
    /// Signs it; its key is the incarnation.
    pub(crate) signer: &'a dyn Signer,
    pub(crate) label: &'a str,
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) now: Timestamp,
    pub(crate) time: i64,
}

/// The committer date for a commit made at `now` on parents the newest of which has `newest`.
pub(crate) fn chain_time(now: i64, newest: Option<i64>) -> i64 {
    match newest {
        // Git's dates begin with the epoch.
        None => now.max(0),
        Some(newest) => now.clamp(newest, newest.saturating_add(AHEAD_MAX)),
    }
}

/// The bytes of an authored commit, signed.
pub(crate) fn authored(commit: Authored<'_>) -> Result<Vec<u8>> {
    let Authored {
        signer, sequence, ..
    } = commit;
    let incarnation = signer.incarnation();
    let email = format!("{incarnation}@{DOMAIN}");
    let name = git_name(commit.label);
    let message = format!(
        "{}\n\n{INCARNATION}: {incarnation}\n{SEQUENCE}: {sequence}\nFormat: {FORMAT}\n",
        commit.subject
    );
    let author = signature(&name, &email, commit.now.seconds.max(0));
    let committer = signature(&name, &email, commit.time);
    let unsigned = write(commit.tree, commit.parents, [author, committer], &message)?;
    signature::signed(&unsigned, signer)
        .ok_or_else(|| malformed("new", "a commit without a message"))
}

/// The bytes of a commit that is nobody's: the same on every node.
pub(crate) fn nobodys(
    tree: ObjectId,
    parents: Vec<ObjectId>,
    time: i64,
    subject: &str,
) -> Result<Vec<u8>> {
    let message = format!("{subject}\n\nFormat: {FORMAT}\n");
    write(tree, parents, [nobody(time), nobody(time)], &message)
}

/// What an author had when it was left behind by a cut of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) tree: ObjectId,
    /// The newest commit's, as of all commits.
    pub(crate) time: i64,
    /// How deep the history of that was: of two in one history the later one has more.
    pub(crate) generation: u64,
    /// How far the author was with its journal, if it had written any commit.
    pub(crate) sequence: Option<u64>,
}

impl Left {
    /// The bytes of a commit, without parents, that says so.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let sequence = self.sequence.map(|it| format!("{SEQUENCE}: {it}\n"));
        let message = format!(
            "What one had whom a cut of history has left behind\n\n{}{GENERATION}: {}\nFormat: {FORMAT}\n",
            sequence.unwrap_or_default(),
            self.generation
        );
        let by = || nobody(self.time);
        write(self.tree, Vec::new(), [by(), by()], &message)
    }

    pub(crate) fn decode(id: ObjectId, data: &[u8]) -> Result<Self> {
        let facts = parse(id, data)?;
        let commit = CommitRef::from_bytes(data, gix::hash::Kind::Sha1);
        let commit = commit.map_err(|error| malformed(id, error.to_string()))?;
        let message = std::str::from_utf8(commit.message).unwrap_or_default();
        let generation = trailer(message, GENERATION).and_then(|text| text.parse().ok());
        Ok(Self {
            tree: facts.tree,
            time: facts.time,
            generation: generation.ok_or_else(|| malformed(id, "no generation"))?,
            sequence: facts.sequence,
        })
    }
}

fn nobody(time: i64) -> gix::actor::Signature {
    signature("DelugeFS", &format!("merge@{DOMAIN}"), time)
}

fn write(
    tree: ObjectId,
    parents: Vec<ObjectId>,
    [author, committer]: [gix::actor::Signature; 2],
    message: &str,
) -> Result<Vec<u8>> {
    let commit = Commit {
        tree,
        parents: parents.into(),
        author,
        committer,
        encoding: None,
        message: message.into(),
        extra_headers: Vec::new(),
    };
    let mut data = Vec::new();
    commit.write_to(&mut data).map_err(git("write a commit"))?;
    Ok(data)
}

fn signature(name: &str, email: &str, seconds: i64) -> gix::actor::Signature {
    gix::actor::Signature {
        name: name.into(),
        email: email.into(),
        time: gix::date::Time::new(seconds, 0),
    }
}

/// A label without what Git does not allow in names.
fn git_name(label: &str) -> String {
    let allowed = |c: &char| !c.is_control() && !matches!(c, '<' | '>');
    let name: String = label
        .chars()
        .filter(allowed)
        .take(LABEL_BYTES_MAX)
        .collect();
    let trimmed = name.trim_matches(|c: char| c.is_ascii_whitespace() || ".,:;\"\\'".contains(c));
    if trimmed.is_empty() {
        "unnamed".to_owned()
    } else {
        trimmed.to_owned()
    }
}

/// Reads a commit of this program.
pub(crate) fn parse(id: ObjectId, data: &[u8]) -> Result<CommitFacts> {
    let bad = |problem: &str| malformed(id, problem);
    let commit = CommitRef::from_bytes(data, gix::hash::Kind::Sha1)
        .map_err(|error| bad(&error.to_string()))?;
    if commit.parents.len() > PARENTS_MAX {
        return Err(bad("too many parents"));
    }
    let committer = commit.committer().map_err(|_| bad("no committer"))?;
    let message = std::str::from_utf8(commit.message).map_err(|_| bad("message not in UTF-8"))?;
    check_format(id, message)?;
    Ok(CommitFacts {
        tree: commit.tree(),
        parents: commit.parents().collect(),
        time: committer.time().map_err(|_| bad("no time"))?.seconds,
        incarnation: trailer(message, INCARNATION).and_then(|text| text.parse().ok()),
        sequence: trailer(message, SEQUENCE).and_then(|text| text.parse().ok()),
    })
}

/// Reads a commit that its author must have signed: whoever the trailers name.
pub(crate) fn parse_signed(id: ObjectId, data: &[u8]) -> Result<CommitFacts> {
    let rule = |problem: String| RepositoryError::Rules {
        commit: id.to_string(),
        problem,
    };
    let facts = parse(id, data)?;
    let (Some(author), Some(_)) = (facts.incarnation, facts.sequence) else {
        return Err(rule("it has no author".to_owned()));
    };
    let key = signature::verify(data).map_err(|error| rule(error.to_string()))?;
    let signer = IncarnationId::of_key(&key);
    if signer == author {
        Ok(facts)
    } else {
        Err(rule(format!("{signer} has signed it, and not {author}")))
    }
}

fn check_format(id: ObjectId, message: &str) -> Result<()> {
    match trailer(message, "Format").and_then(|text| text.parse::<u32>().ok()) {
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => Err(RepositoryError::Codec {
            object: id.to_string(),
            source: crate::codec::CodecError::Newer {
                found,
                known: FORMAT,
            },
        }),
        _ => Err(malformed(id, "not a commit of this program")),
    }
}

/// A trailer's value: from the last paragraph, so that no subject can pretend to be one.
fn trailer<'m>(message: &'m str, key: &str) -> Option<&'m str> {
    let last = message.trim_end().rsplit("\n\n").next()?;
    last.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ed25519_dalek::SigningKey;

    fn id(byte: u8) -> ObjectId {
        ObjectId::Sha1([byte; 20])
    }

    #[test]
    fn golden() {
        let key = SigningKey::from_bytes(&[0xab; 32]);
        let data = authored(Authored {
            tree: id(1),
            parents: vec![id(2)],
            signer: &key,
            label: " host <x>\n:disk1.",
            subject: "2 changes".to_owned(),
            sequence: 7,
            now: Timestamp::from_seconds(2000),
            time: 1000,
        });
        let data = data.unwrap();
        let incarnation = IncarnationId::of_key(key.verifying_key().as_bytes());
        let hex = "2bda24077fd147c0355a0aa3e6787cb2";
        assert_eq!(incarnation.to_string(), hex);
        let signature = [
            "-----BEGIN SSH SIGNATURE-----",
            "U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgJIrL26+eBQGW3nBL6i1odw5RkV",
            "DRA7WH2uLZytU92TAAAAADZ2l0AAAAAAAAAAZzaGE1MTIAAABTAAAAC3NzaC1lZDI1NTE5",
            "AAAAQF7b2XytVEHBfDUH6km8gyqrTIEWClzE0jcYRmbEfDKl33RoRqcKC2O+GW+V4o/GRL",
            "UQLTvBV6kIQ8Qz9tizhgk=",
            "-----END SSH SIGNATURE-----",
        ];
        let signature = format!("gpgsig {}", signature.join("\n "));
        let expected = format!(
            "tree {}\nparent {}\nauthor host x:disk1 <{hex}@delugefs.invalid> 2000 +0000\n\
             committer host x:disk1 <{hex}@delugefs.invalid> 1000 +0000\n{signature}\n\n\
             2 changes\n\nIncarnation: {hex}\nJournal-Sequence: 7\nFormat: 2\n",
            id(1),
            id(2)
        );
        assert_eq!(String::from_utf8_lossy(&data), expected);
        let facts = parse(id(9), &data).unwrap();
        assert_eq!(
            facts,
            CommitFacts {
                tree: id(1),
                parents: vec![id(2)],
                time: 1000,
                incarnation: Some(incarnation),
                sequence: Some(7),
            }
        );
        assert_eq!(parse_signed(id(9), &data).unwrap(), facts);
        let newer = expected.replace("Format: 2", "Format: 3");
        assert!(
            parse(id(9), newer.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("newer")
        );
    }

    #[test]
    fn golden_of_one_left_behind() {
        let by = "DelugeFS <merge@delugefs.invalid> 1000 +0000";
        let start = format!(
            "tree {}\nauthor {by}\ncommitter {by}\n\nWhat one had whom a cut of history has left behind\n\n",
            id(1)
        );
        for (sequence, trailer) in [(Some(7), "Journal-Sequence: 7\n"), (None, "")] {
            let left = Left {
                tree: id(1),
                time: 1000,
                generation: 3,
                sequence,
            };
            let data = left.encode().unwrap();
            let expected = format!("{start}{trailer}Generation: 3\nFormat: 2\n");
            assert_eq!(String::from_utf8_lossy(&data), expected);
            assert_eq!(Left::decode(id(9), &data).unwrap(), left);
            assert_eq!(parse(id(9), &data).unwrap().sequence, sequence);
        }
    }

    #[test]
    fn time_neither_goes_back_nor_runs_away() {
        assert_eq!(chain_time(50, None), 50);
        assert_eq!(chain_time(50, Some(100)), 100);
        assert_eq!(chain_time(150, Some(100)), 150);
        assert_eq!(chain_time(1_000_000, Some(100)), 400);
    }
}
